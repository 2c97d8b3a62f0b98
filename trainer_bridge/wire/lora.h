/* lora.h - a low-rank change of a matrix, merged ("LoRA: Low-Rank Adaptation of Large Language Models", Hu et al.
 * 2021): W = base + alpha / rank * B A, as PROTOCOL.md defines it to the bit.  Pure. */
#ifndef TRAINER_BRIDGE_WIRE_LORA_H
#define TRAINER_BRIDGE_WIRE_LORA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum lora_side { LORA_A, LORA_B };

/* Is this the name of one of a pair?  Then its side, and the checkpoint's name of the matrix into matrix [room]. */
bool lora_name(const char *name, enum lora_side *side, char *matrix, size_t room);

struct lora {
	int rows, cols, rank;
	float scale;        /* fp32(alpha / rank) */
	const float *a;     /* [rank][cols] f32 */
	const float *b;     /* [rows][rank] f32 */
};

/* Rows [row, row + n_rows) of new [rows][cols] from base [rows][cols], both bf16; cost: 2 rank per element. */
void lora_merge(const struct lora *lora, const uint16_t *base, uint16_t *new, int row, int n_rows);

#endif

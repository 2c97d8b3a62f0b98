/* lora.c - the merge, row by row: lanes run over columns, each element is one chain over the rank in ascending
 * order, products and sums rounded one by one, so that every CPU and numpy agree. */
#include "trainer_bridge/wire/lora.h"

#include <stdio.h>
#include <string.h>

#include "quant/bf16.h"

enum { COLUMNS = 1024 }; /* of d at a time: they stay in the first cache */

bool lora_name(const char *name, enum lora_side *side, char *matrix, size_t room)
{
	static const char prefix[] = "base_model.model.", *const ends[] = {".lora_A.weight", ".lora_B.weight"};

	if (strncmp(name, prefix, sizeof prefix - 1) == 0)
		name += sizeof prefix - 1;
	size_t length = strlen(name), end = strlen(ends[0]);
	if (length <= end)
		return false;
	for (int i = 0; i < 2; i++)
		if (strcmp(name + length - end, ends[i]) == 0) {
			*side = (enum lora_side)i;
			snprintf(matrix, room, "%.*s.weight", (int)(length - end), name);
			return true;
		}
	return false;
}

static void merge_row(const struct lora *lora, const float *b, const uint16_t *base, uint16_t *new)
{
	float d[COLUMNS];

	for (int begin = 0; begin < lora->cols; begin += COLUMNS) {
		int n = lora->cols - begin < COLUMNS ? lora->cols - begin : COLUMNS;
		const float *a = lora->a + begin;
		for (int j = 0; j < n; j++)
			d[j] = b[0] * a[j];
		for (int r = 1; r < lora->rank; r++) {
			a += lora->cols;
			for (int j = 0; j < n; j++)
				d[j] = d[j] + b[r] * a[j];
		}
		for (int j = 0; j < n; j++)
			new[begin + j] = bf16_from_f32(bf16_to_f32(base[begin + j]) + lora->scale * d[j]);
	}
}

void lora_merge(const struct lora *lora, const uint16_t *base, uint16_t *new, int row, int n_rows)
{
	for (int i = row; i < row + n_rows; i++) {
		size_t at = (size_t)i * (size_t)lora->cols;
		merge_row(lora, lora->b + (size_t)i * (size_t)lora->rank, base + at, new + at);
	}
}

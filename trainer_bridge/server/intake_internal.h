/* intake_internal.h - the intake's parts among themselves: intake.c (life, chunks, checksums, commit),
 * intake_base.c (what is stated against a base: deltas and LoRA pairs). */
#ifndef TRAINER_BRIDGE_SERVER_INTAKE_INTERNAL_H
#define TRAINER_BRIDGE_SERVER_INTAKE_INTERNAL_H

#include "trainer_bridge/server/intake.h"
#include "trainer_bridge/wire/checksum.h"
#include "trainer_bridge/wire/delta.h"
#include "trainer_bridge/wire/lora.h"

struct progress {
	size_t arrived;      /* bytes */
	bool bad;            /* holds NaN or infinity */
	bool closed;         /* its checksum held */
};

/* One of a LoRA pair, or with bytes NULL the next tensor of the version. */
struct side {
	float *values;       /* owned; NULL: none has come */
	size_t n_bytes, arrived;
	bool closed;
};

struct intake {
	struct weights layout;   /* names and offsets; no data */
	struct weights incoming; /* the same with data; tensors are the layout's */
	uint16_t *buffers[2];    /* [n_elements] bf16, owned; NULL until needed */
	int base;                /* which of them is the base; -1: none is in memory */
	int64_t base_version;    /* -1: none */
	char *model_dir;         /* of version 0, or NULL */
	struct progress *progress; /* [n_tensors] */
	struct intake_push push;
	bool open;
	int last;                /* tensor of the last chunk: most chunks follow their like */
	struct intake_observer observer;

	struct {
		uint8_t *at;
		size_t left;
		int tensor;
		struct side *side;   /* NULL: bytes of the tensor itself */
	} place;                 /* of an open chunk; at NULL: none */

	struct checksum *sum;    /* of the bytes that come one behind the other: */
	const void *summed;      /* whose: a struct progress or a struct side; NULL: nobody's */
	size_t n_summed;

	struct delta *delta;     /* NULL until needed */
	int pair;                /* tensor that an open LoRA pair changes, or -1 */
	struct side sides[2];
};

static inline size_t intake_tensor_bytes(const struct weight_tensor *tensor)
{
	return (size_t)tensor->rows * (size_t)tensor->cols * sizeof(uint16_t);
}

static inline const uint16_t *intake_base_data(const struct intake *intake, int tensor)
{
	return intake->buffers[intake->base] + intake->layout.tensors[tensor].offset;
}

int intake_find_tensor(struct intake *intake, const char *name, int *index, struct err *err);
/* n more bytes of the tensor lie in their place: examine them while they are in the cache. */
void intake_arrived(struct intake *intake, int tensor, size_t n);
void intake_sum(struct intake *intake, const void *whose, const uint8_t *begin, size_t at, size_t n);
/* The tensor is whole and right. */
int intake_close_tensor(struct intake *intake, int tensor, uint64_t xxh3, struct err *err);

/* intake_base.c */
int intake_check_base(struct intake *intake, const struct intake_push *push, struct err *err);
bool intake_is_side(const struct intake *intake, const char *name);
int intake_place_side(struct intake *intake, const char *name, uint64_t offset, size_t n_bytes, struct err *err);
/* The side is there in full, with its bytes. */
int intake_find_side(struct intake *intake, const char *name, struct side **side, struct err *err);
/* Its checksum held: with the second of a pair the matrix is made. */
int intake_close_side(struct intake *intake, struct side *side, struct err *err);
void intake_drop_pair(struct intake *intake);
/* The tensor's bytes are the base's. */
void intake_take_base(struct intake *intake, int tensor);
int intake_finish_base(struct intake *intake, struct err *err); /* at the commit */

#endif

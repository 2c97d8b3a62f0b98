/* intake_base.c - what a push states against a base: unchanged tensors and LoRA pairs (deltas: delta.c). */
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer_bridge/server/intake_internal.h"
#include "trainer_bridge/wire/protocol.h"

enum { PIECE_BYTES = 1 << 18, NAME_MAX_BYTES = 128 };

/* Version 0 comes from its files when it is first asked for. */
static int load_base(struct intake *intake, struct err *err)
{
	struct weights weights;

	if (intake->base >= 0)
		return 0;
	if (weights_load(&weights, intake->model_dir, err))
		return err->code;
	bool same = weights.n_tensors == intake->layout.n_tensors && weights.n_elements == intake->layout.n_elements;
	if (same) {
		free(intake->buffers[0]);
		intake->buffers[0] = weights.data;
		weights.data = NULL;
		intake->base = 0;
	}
	weights_free(&weights);
	return same ? 0 : err_set(err, ERR_INVALID, "%s is not the model any more that the run began with",
	                          intake->model_dir);
}

int intake_check_base(struct intake *intake, const struct intake_push *push, struct err *err)
{
	if (intake->base_version < 0)
		return err_set(err, ERR_BASE, "the run holds no base yet, and version %" PRId64 " was stated: push in full",
		               push->base);
	if (push->base != intake->base_version)
		return err_set(err, ERR_BASE, "the base that the run holds is version %" PRId64 ", and %" PRId64
		               " was stated: push in full", intake->base_version, push->base);
	if (push->encoding == INTAKE_LORA && (push->rank < 1 || push->rank > LORA_RANK_MAX))
		return err_set(err, ERR_INVALID, "field 'rank': expected 1 to %d, found %" PRId64, LORA_RANK_MAX, push->rank);
	if (push->encoding == INTAKE_LORA && !isfinite(push->alpha))
		return err_set(err, ERR_INVALID, "field 'alpha': expected a finite number");
	return load_base(intake, err);
}

void intake_take_base(struct intake *intake, int tensor)
{
	const uint8_t *base = (const uint8_t *)intake_base_data(intake, tensor);
	uint8_t *new = (uint8_t *)(intake->incoming.data + intake->layout.tensors[tensor].offset);
	size_t n_bytes = intake_tensor_bytes(&intake->layout.tensors[tensor]);

	for (size_t at = 0; at < n_bytes; at += PIECE_BYTES) {
		size_t n = n_bytes - at < PIECE_BYTES ? n_bytes - at : PIECE_BYTES;
		memcpy(new + at, base + at, n);
		intake_arrived(intake, tensor, n);
	}
}

/* ---- LoRA ---- */

bool intake_is_side(const struct intake *intake, const char *name)
{
	char matrix[NAME_MAX_BYTES];
	enum lora_side side;
	return intake->push.encoding == INTAKE_LORA && lora_name(name, &side, matrix, sizeof matrix);
}

void intake_drop_pair(struct intake *intake)
{
	for (int i = 0; i < 2; i++) {
		if (intake->summed == &intake->sides[i])
			intake->summed = NULL;
		free(intake->sides[i].values);
		intake->sides[i] = (struct side){0};
	}
	intake->pair = -1;
}

/* The matrix that the named side changes, of which no other pair is open. */
static int find_matrix(struct intake *intake, const char *name, enum lora_side *side, int *tensor, struct err *err)
{
	char matrix[NAME_MAX_BYTES];

	lora_name(name, side, matrix, sizeof matrix);
	if (intake_find_tensor(intake, matrix, tensor, err))
		return err->code;
	const struct weight_tensor *t = &intake->layout.tensors[*tensor];
	int64_t rank = intake->push.rank;
	if (t->n_dims != 2 || rank > t->rows || rank > t->cols)
		return err_set(err, ERR_INVALID, "'%s': a LoRA pair of rank %" PRId64 " for %d x %d numbers", name, rank,
		               t->rows, t->cols);
	if (intake->pair >= 0 && intake->pair != *tensor)
		return err_set(err, ERR_STATE, "'%s': the pair of '%s' is not complete yet", name,
		               intake->layout.tensors[intake->pair].name);
	if (intake->progress[*tensor].arrived > 0)
		return err_set(err, ERR_STATE, "'%s': tensor '%s' has come already", name, t->name);
	return 0;
}

static int place_in(struct intake *intake, const char *name, int tensor, enum lora_side which, uint64_t offset,
                    size_t n_bytes, struct err *err)
{
	const struct weight_tensor *t = &intake->layout.tensors[tensor];
	struct side *side = &intake->sides[which];
	size_t rank = (size_t)intake->push.rank;
	size_t whole = rank * (size_t)(which == LORA_A ? t->cols : t->rows) * sizeof(float);

	if (side->closed)
		return err_set(err, ERR_STATE, "tensor '%s': a chunk behind its checksum", name);
	if (offset != side->arrived)
		return err_set(err, ERR_INVALID, "tensor '%s': expected the chunk at byte %zu, found byte %" PRIu64, name,
		               side->arrived, offset);
	if (n_bytes > whole - side->arrived)
		return err_set(err, ERR_TOO_BIG, "tensor '%s': expected %zu bytes (%zu x %d f32), found %zu or more", name,
		               whole, rank, which == LORA_A ? t->cols : t->rows, side->arrived + n_bytes);
	if (!side->values) {
		side->values = xmalloc(whole);
		side->n_bytes = whole;
	}
	intake->pair = tensor;
	intake->place.at = (uint8_t *)side->values + offset;
	intake->place.left = n_bytes;
	intake->place.tensor = tensor;
	intake->place.side = side;
	return 0;
}

int intake_place_side(struct intake *intake, const char *name, uint64_t offset, size_t n_bytes, struct err *err)
{
	enum lora_side which;
	int tensor = 0;

	if (find_matrix(intake, name, &which, &tensor, err))
		return err->code;
	return place_in(intake, name, tensor, which, offset, n_bytes, err);
}

int intake_find_side(struct intake *intake, const char *name, struct side **side, struct err *err)
{
	enum lora_side which;
	int tensor = 0;

	if (find_matrix(intake, name, &which, &tensor, err))
		return err->code;
	*side = &intake->sides[which];
	if ((*side)->closed)
		return err_set(err, ERR_STATE, "tensor '%s' came twice", name);
	if (!(*side)->values || (*side)->arrived != (*side)->n_bytes)
		return err_set(err, ERR_INCOMPLETE, "tensor '%s': expected %zu bytes, found %zu", name, (*side)->n_bytes,
		               (*side)->arrived);
	return 0;
}

static void merge(struct intake *intake)
{
	int i = intake->pair;
	const struct weight_tensor *t = &intake->layout.tensors[i];
	struct lora lora = {.rows = t->rows, .cols = t->cols, .rank = (int)intake->push.rank,
	                    .scale = (float)(intake->push.alpha / (double)intake->push.rank),
	                    .a = intake->sides[LORA_A].values, .b = intake->sides[LORA_B].values};
	int n_rows = PIECE_BYTES / (2 * t->cols) + 1;

	for (int row = 0; row < t->rows; row += n_rows) {
		int n = t->rows - row < n_rows ? t->rows - row : n_rows;
		lora_merge(&lora, intake_base_data(intake, i), intake->incoming.data + t->offset, row, n);
		intake_arrived(intake, i, (size_t)n * (size_t)t->cols * sizeof(uint16_t));
	}
}

int intake_close_side(struct intake *intake, struct side *side, struct err *err)
{
	int tensor = intake->pair;

	side->closed = true;
	if (!intake->sides[LORA_A].closed || !intake->sides[LORA_B].closed)
		return 0;
	merge(intake);
	intake_drop_pair(intake);
	return intake_close_tensor(intake, tensor, checksum_end(intake->sum), err);
}

int intake_finish_base(struct intake *intake, struct err *err)
{
	if (intake->pair >= 0)
		return err_set(err, ERR_INCOMPLETE, "version %" PRId64 ": one of the LoRA pair of '%s' is missing",
		               intake->push.version, intake->layout.tensors[intake->pair].name);
	for (int i = 0; i < intake->layout.n_tensors; i++) {
		const struct weight_tensor *t = &intake->layout.tensors[i];
		if (intake->progress[i].closed || intake->progress[i].arrived > 0)
			continue; /* what was begun and not closed is missing */
		intake_take_base(intake, i);
		assert(intake->n_summed == intake_tensor_bytes(t));
		if (intake_close_tensor(intake, i, checksum_end(intake->sum), err))
			return err->code;
	}
	return 0;
}

/* export_npz.c - a NumPy archive: `d = numpy.load("run.npz")`.
 *
 * Ragged things are flat arrays with offsets, as in Arrow: what trajectory i has is [offsets[i], offsets[i + 1]).
 *
 *   one item a trajectory     the columns of export_columns.h (seed as u64, texts as U, numbers that are not there NaN)
 *   offsets                   i64 [n + 1] into tokens i32, logprobs f32, versions i32, loss_mask u8; and target_logprobs f32
 *                             where any trajectory has them, NaN for those that have none
 *   segment_offsets           i64 [n + 1] into segment_start, segment_length, segment_version, segment_rank, segment_mode
 *                             (16: drawn over keys and values of older versions)
 *   error_offsets, answer_offsets, meta_offsets
 *                             i64 [n + 1] into error, answer, meta: UTF-8 as u8; what is not there is empty
 *
 *   reward = d["reward"]; i = reward.argmax(); d["tokens"][d["offsets"][i]:d["offsets"][i + 1]]
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/export/export_columns.h"
#include "scheduler/export/npz_file.h"

/* X(name, descr, bytes): beside the columns. */
#define RAGGED_LIST(X) \
	X(offsets, "<i8", 8) X(tokens, "<i4", 4) X(logprobs, "<f4", 4) X(versions, "<i4", 4) X(loss_mask, "|u1", 1) \
	X(target_logprobs, "<f4", 4) \
	X(segment_offsets, "<i8", 8) X(segment_start, "<i4", 4) X(segment_length, "<i4", 4) X(segment_version, "<i4", 4) \
	X(segment_rank, "<i4", 4) X(segment_mode, "<i4", 4) \
	X(error_offsets, "<i8", 8) X(answer_offsets, "<i8", 8) X(meta_offsets, "<i8", 8)

enum ragged {
#define X(name, descr, bytes) RAGGED_##name,
	RAGGED_LIST(X)
#undef X
	RAGGED_COUNT
};

struct export_npz {
	bool stable;
	bool has_targets;     /* of some trajectory; not written if of none */
	struct npz_array *columns[EXPORT_COLUMNS]; /* NULL: left out */
	struct npz_array *ragged[RAGGED_COUNT];
};

static int open_column(struct export_npz *z, int c, struct err *err)
{
	static const struct { const char *descr; size_t bytes; } types[] = {
		[COLUMN_U64] = { "<u8", 8 }, [COLUMN_I64] = { "<i8", 8 }, [COLUMN_I32] = { "<i4", 4 }, [COLUMN_BOOL] = { "|b1", 1 },
		[COLUMN_F32] = { "<f4", 4 }, [COLUMN_F64] = { "<f8", 8 }, [COLUMN_WORD] = { "<U", 4 }, [COLUMN_TEXT] = { "|u1", 1 } };
	const struct column *column = &export_columns[c];

	if (z->stable && !column->stable) return 0;
	return npz_array_open(&z->columns[c], column->name, types[column->kind].descr, types[column->kind].bytes, err);
}

int export_npz_open(struct export_npz **out, bool stable, struct err *err)
{
	static const struct { const char *name, *descr; size_t bytes; } ragged[] = {
#define X(name, descr, bytes) { #name, descr, bytes },
		RAGGED_LIST(X)
#undef X
	};
	static const enum ragged offsets[] = { RAGGED_offsets, RAGGED_segment_offsets, RAGGED_error_offsets, RAGGED_answer_offsets,
	                                       RAGGED_meta_offsets };
	struct export_npz *z = xcalloc(1, sizeof *z);
	int64_t none = 0;
	int rc = 0;

	z->stable = stable;
	for (int c = 0; c < EXPORT_COLUMNS && !rc; c++) rc = open_column(z, c, err);
	for (int a = 0; a < RAGGED_COUNT && !rc; a++)
		rc = npz_array_open(&z->ragged[a], ragged[a].name, ragged[a].descr, ragged[a].bytes, err);
	for (size_t i = 0; i < sizeof offsets / sizeof *offsets && !rc; i++) npz_array_put(z->ragged[offsets[i]], &none, 1);
	if (rc) export_npz_close(z);
	*out = rc ? NULL : z;
	return rc;
}

void export_npz_close(struct export_npz *z)
{
	if (!z) return;
	for (int c = 0; c < EXPORT_COLUMNS; c++) npz_array_close(z->columns[c]);
	for (int a = 0; a < RAGGED_COUNT; a++) npz_array_close(z->ragged[a]);
	free(z);
}

static void put_offset(struct npz_array *offsets, const struct npz_array *of)
{
	int64_t at = (int64_t)npz_array_count(of);
	npz_array_put(offsets, &at, 1);
}

static void put_column(struct npz_array *array, enum export_column c, const struct export_row *row)
{
	struct column_value v = export_column_value(c, row);
	int32_t small = (int32_t)v.i;
	uint8_t flag = v.i != 0;
	float real = (float)v.r;

	switch (export_columns[c].kind) {
	case COLUMN_U64: npz_array_put(array, &v.u, 1); break;
	case COLUMN_I64: npz_array_put(array, &v.i, 1); break;
	case COLUMN_I32: npz_array_put(array, &small, 1); break;
	case COLUMN_BOOL: npz_array_put(array, &flag, 1); break;
	case COLUMN_F32: npz_array_put(array, &real, 1); break;
	case COLUMN_F64: npz_array_put(array, &v.r, 1); break;
	case COLUMN_WORD: npz_array_put_text(array, v.text); break;
	case COLUMN_TEXT: npz_array_put(array, v.text, v.text ? strlen(v.text) : 0); break;
	}
}

static void put_tokens(struct export_npz *z, const struct trajectory *t)
{
	size_t n = (size_t)t->n_tokens;

	npz_array_put(z->ragged[RAGGED_tokens], t->tokens, n);
	npz_array_put(z->ragged[RAGGED_logprobs], t->logprobs, n);
	npz_array_put(z->ragged[RAGGED_versions], t->versions, n);
	npz_array_put(z->ragged[RAGGED_loss_mask], t->loss_mask, n);
	put_offset(z->ragged[RAGGED_offsets], z->ragged[RAGGED_tokens]);
	z->has_targets |= t->target_logprobs != NULL;
	const float none = NAN;
	if (t->target_logprobs) npz_array_put(z->ragged[RAGGED_target_logprobs], t->target_logprobs, n);
	else for (size_t i = 0; i < n; i++) npz_array_put(z->ragged[RAGGED_target_logprobs], &none, 1);
}

static void put_segments(struct export_npz *z, const struct export_row *row)
{
	for (int i = 0; i < row->t->n_segments;) {
		struct segment s = export_segment(row, &i);
		npz_array_put(z->ragged[RAGGED_segment_start], &s.start, 1);
		npz_array_put(z->ragged[RAGGED_segment_length], &s.length, 1);
		npz_array_put(z->ragged[RAGGED_segment_version], &s.version, 1);
		npz_array_put(z->ragged[RAGGED_segment_rank], &s.rank, 1);
		npz_array_put(z->ragged[RAGGED_segment_mode], &s.mode, 1);
	}
	put_offset(z->ragged[RAGGED_segment_offsets], z->ragged[RAGGED_segment_start]);
}

void export_npz_row(struct export_npz *z, const struct export_row *row)
{
	for (int c = 0; c < EXPORT_COLUMNS; c++)
		if (z->columns[c]) put_column(z->columns[c], (enum export_column)c, row);
	put_tokens(z, row->t);
	put_segments(z, row);
	put_offset(z->ragged[RAGGED_error_offsets], z->columns[EXPORT_COLUMN_error]);
	put_offset(z->ragged[RAGGED_answer_offsets], z->columns[EXPORT_COLUMN_answer]);
	put_offset(z->ragged[RAGGED_meta_offsets], z->columns[EXPORT_COLUMN_meta]);
}

int export_npz_end(struct export_npz *z, FILE *out, struct err *err)
{
	struct npz_array *arrays[EXPORT_COLUMNS + RAGGED_COUNT];
	int n = 0;

	for (int c = 0; c < EXPORT_COLUMNS; c++)
		if (z->columns[c]) arrays[n++] = z->columns[c];
	for (int a = 0; a < RAGGED_COUNT; a++) {
		if (a == RAGGED_target_logprobs && !z->has_targets) continue;
		if (a == RAGGED_segment_rank && z->stable) continue;
		arrays[n++] = z->ragged[a];
	}
	return npz_write(arrays, n, out, err);
}

/* export_columns.c - the table of export_columns.h, as data. */
#include "scheduler/export/export_columns.h"

#include <math.h>

const struct column export_columns[EXPORT_COLUMNS] = {
#define X(kind, name, stable, value) { #name, COLUMN_##kind, stable },
	EXPORT_COLUMN_LIST(X)
#undef X
};

static double column_logprob_sum(const struct trajectory *t)
{
	double sum = 0;
	for (int32_t i = t->n_prompt; i < t->n_tokens; i++) sum += (double)t->logprobs[i];
	return sum;
}

static bool column_kv_kept(const struct trajectory *t)
{
	for (int i = 0; i < t->n_segments; i++)
		if (t->segments[i].mode & SEGMENT_KV_KEPT) return true;
	return false;
}

#define VALUE_U64(value) .u = (value)
#define VALUE_I64(value) .i = (value)
#define VALUE_I32(value) .i = (value)
#define VALUE_BOOL(value) .i = (value)
#define VALUE_F32(value) .r = (double)(value)
#define VALUE_F64(value) .r = (value)
#define VALUE_WORD(value) .text = (value)
#define VALUE_TEXT(value) .text = (value)

struct column_value export_column_value(enum export_column column, const struct export_row *row)
{
	const struct trajectory *t = row->t;

	switch (column) {
#define X(kind, name, stable, value) case EXPORT_COLUMN_##name: return (struct column_value){ VALUE_##kind(value) };
	EXPORT_COLUMN_LIST(X)
#undef X
	case EXPORT_COLUMNS: break;
	}
	return (struct column_value){ 0 };
}

/* export_csv.c - one line per trajectory (RFC 4180, lines end with LF), under a line with the names of its columns.
 *
 * The columns are those of export_columns.h, in that order; --stable leaves out those that may differ between runs.  A
 * number that is not there is an empty field, an infinite one inf or -inf; floats have the digits that give them back
 * exactly; seed is 16 hexadecimal digits; eval, pivot and kv_kept are 0 or 1; logprob_sum is that of the response,
 * version_first and version_last those of its tokens, -1 without any.  A text that is not there is an empty field, an
 * empty one "".
 */
#include "scheduler/export/export_columns.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static void write_text(FILE *out, const char *text)
{
	if (!text) return;
	if (*text && !text[strcspn(text, ",\"\r\n")]) {
		fputs(text, out);
		return;
	}
	fputc('"', out);
	for (; *text; text++) {
		if (*text == '"') fputc('"', out);
		fputc(*text, out);
	}
	fputc('"', out);
}

static void write_real(FILE *out, double value, int digits)
{
	if (isinf(value)) fputs(value > 0 ? "inf" : "-inf", out);
	else if (!isnan(value)) fprintf(out, "%.*g", digits, value);
}

static void write_value(FILE *out, enum export_column column, const struct export_row *row)
{
	struct column_value v = export_column_value(column, row);

	switch (export_columns[column].kind) {
	case COLUMN_U64: fprintf(out, column == EXPORT_COLUMN_seed ? "%016" PRIx64 : "%" PRIu64, v.u); break;
	case COLUMN_I64:
	case COLUMN_I32:
	case COLUMN_BOOL: fprintf(out, "%" PRId64, v.i); break;
	case COLUMN_F32: write_real(out, v.r, 9); break;
	case COLUMN_F64: write_real(out, v.r, 17); break;
	case COLUMN_WORD:
	case COLUMN_TEXT: write_text(out, v.text); break;
	}
}

void export_csv_head(FILE *out, bool stable)
{
	const char *before = "";

	for (int c = 0; c < EXPORT_COLUMNS; c++) {
		if (stable && !export_columns[c].stable) continue;
		fprintf(out, "%s%s", before, export_columns[c].name);
		before = ",";
	}
	fputc('\n', out);
}

void export_csv_row(FILE *out, const struct export_row *row)
{
	const char *before = "";

	for (int c = 0; c < EXPORT_COLUMNS; c++) {
		if (row->stable && !export_columns[c].stable) continue;
		fputs(before, out);
		write_value(out, (enum export_column)c, row);
		before = ",";
	}
	fputc('\n', out);
}

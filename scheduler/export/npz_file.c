/* npz_file.c - see npz_file.h; the format of a member is NEP 1, version 1.0. */
#include "scheduler/export/npz_file.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "policy/utf8.h"
#include "scheduler/export/zip_file.h"

enum { HEADER_ALIGN = 64, HEADER_BYTES_MAX = 256, COPY_BYTES = 1 << 16 };

struct npz_array {
	const char *name, *descr;
	size_t item_bytes;   /* of texts: 4 for each code point of the widest */
	bool texts;          /* in the file: u32 bytes, then UTF-8 */
	uint64_t n;
	FILE *file;
};

int npz_array_open(struct npz_array **out, const char *name, const char *descr, size_t item_bytes, struct err *err)
{
	const char *dir = getenv("TMPDIR");
	char path[4096];
	int descriptor = -1;

	snprintf(path, sizeof path, "%s/drumroll-npz-XXXXXX", dir && *dir ? dir : "/tmp");
	descriptor = mkstemp(path);
	if (descriptor >= 0) unlink(path);
	FILE *file = descriptor >= 0 ? fdopen(descriptor, "w+") : NULL;
	if (!file) return err_set_errno(err, ERR_IO, "cannot make a temporary file %s (TMPDIR)", path);
	struct npz_array *a = xcalloc(1, sizeof *a);
	*a = (struct npz_array){ .name = name, .descr = descr, .item_bytes = item_bytes, .file = file,
	                         .texts = strcmp(descr, "<U") == 0 };
	if (a->texts) a->item_bytes = 4; /* NumPy has no texts of no width */
	*out = a;
	return 0;
}

void npz_array_close(struct npz_array *a)
{
	if (!a) return;
	fclose(a->file);
	free(a);
}

uint64_t npz_array_count(const struct npz_array *a) { return a->n; }

void npz_array_put(struct npz_array *a, const void *items, size_t n)
{
	if (n == 0) return;
	fwrite(items, a->item_bytes, n, a->file);
	a->n += n;
}

void npz_array_put_text(struct npz_array *a, const char *text)
{
	uint32_t n_bytes = text ? (uint32_t)strlen(text) : 0;
	size_t width = 0;
	int32_t code;

	for (size_t at = 0; at < n_bytes; width++) at += utf8_step(text + at, n_bytes - at, &code);
	if (4 * width > a->item_bytes) a->item_bytes = 4 * width;
	fwrite(&n_bytes, sizeof n_bytes, 1, a->file);
	if (n_bytes) fwrite(text, 1, n_bytes, a->file);
	a->n++;
}

/* Magic, version, length, a Python dictionary, spaces up to a multiple of HEADER_ALIGN. */
static size_t make_header(const struct npz_array *a, char header[HEADER_BYTES_MAX])
{
	char descr[32];

	if (a->texts) snprintf(descr, sizeof descr, "<U%zu", a->item_bytes / 4);
	else snprintf(descr, sizeof descr, "%s", a->descr);
	memcpy(header, "\x93NUMPY\x01\x00", 8);
	size_t n = 10 + (size_t)snprintf(header + 10, HEADER_BYTES_MAX - 10,
	                                 "{'descr': '%s', 'fortran_order': False, 'shape': (%" PRIu64 ",), }", descr, a->n);
	while ((n + 1) % HEADER_ALIGN) header[n++] = ' ';
	header[n++] = '\n';
	header[8] = (char)((n - 10) & 0xff);
	header[9] = (char)((n - 10) >> 8);
	return n;
}

/* ---- the bytes of an array, once for the checksum and once for the archive ---- */

struct sink {
	FILE *out;     /* NULL: only summed */
	uint32_t crc;
};

static void pour(struct sink *sink, const void *bytes, size_t n_bytes)
{
	if (sink->out) fwrite(bytes, 1, n_bytes, sink->out);
	else sink->crc = zip_crc(sink->crc, bytes, n_bytes);
}

/* UTF-32 of one text, zeros up to the width. */
static void pour_text(struct sink *sink, const struct npz_array *a, const char *text, size_t n_bytes, uint32_t *wide)
{
	size_t n = 0;
	int32_t code;

	memset(wide, 0, a->item_bytes);
	for (size_t at = 0; at < n_bytes; n++) {
		at += utf8_step(text + at, n_bytes - at, &code);
		wide[n] = code < 0 ? 0xfffd : (uint32_t)code;
	}
	pour(sink, wide, a->item_bytes);
}

static void pour_texts(struct sink *sink, const struct npz_array *a)
{
	char *text = xmalloc(4 * a->item_bytes + 1);
	uint32_t *wide = xmalloc(a->item_bytes), n_bytes;

	/* A code point has at most 4 bytes of UTF-8, so that no text is longer than the width. */
	while (fread(&n_bytes, sizeof n_bytes, 1, a->file) == 1 && n_bytes <= a->item_bytes &&
	       fread(text, 1, n_bytes, a->file) == n_bytes)
		pour_text(sink, a, text, n_bytes, wide);
	free(text);
	free(wide);
}

static void pour_array(struct sink *sink, const struct npz_array *a)
{
	char header[HEADER_BYTES_MAX], *piece = xmalloc(COPY_BYTES);
	size_t n = make_header(a, header);

	pour(sink, header, n);
	rewind(a->file);
	if (a->texts) pour_texts(sink, a);
	else while ((n = fread(piece, 1, COPY_BYTES, a->file)) > 0) pour(sink, piece, n);
	free(piece);
}

static int write_array(struct zip_file *zip, struct npz_array *a, FILE *out, struct err *err)
{
	struct sink sum = { 0 }, body = { .out = out };
	char header[HEADER_BYTES_MAX], name[128];

	if (fflush(a->file) || ferror(a->file)) return err_set_errno(err, ERR_IO, "cannot write a temporary file (TMPDIR)");
	pour_array(&sum, a);
	snprintf(name, sizeof name, "%s.npy", a->name);
	zip_file_member(zip, name, make_header(a, header) + a->n * a->item_bytes, sum.crc);
	pour_array(&body, a);
	return ferror(a->file) ? err_set_errno(err, ERR_IO, "cannot read a temporary file (TMPDIR)") : 0;
}

int npz_write(struct npz_array *const *arrays, int n, FILE *out, struct err *err)
{
	struct zip_file *zip = zip_file_open(out, 0);
	int rc = 0;

	for (int i = 0; i < n && !rc; i++) rc = write_array(zip, arrays[i], out, err);
	if (rc) zip_file_abandon(zip);
	else zip_file_end(zip);
	return rc;
}

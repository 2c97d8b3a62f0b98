/* zip_file.c - see zip_file.h. */
#include "scheduler/export/zip_file.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "configs/err.h"

enum {
	SIGNATURE_LOCAL = 0x04034b50, SIGNATURE_CENTRAL = 0x02014b50, SIGNATURE_END = 0x06054b50,
	SIGNATURE_END64 = 0x06064b50, SIGNATURE_LOCATOR64 = 0x07064b50,
	VERSION_STORED = 20, VERSION_ZIP64 = 45,
	EXTRA_ZIP64 = 1, DATE_1980 = 1 << 5 | 1, /* January 1st: equal contents give equal bytes */
	END64_BYTES_AFTER = 44, MEMBERS_MAX = 65535
};

static const uint32_t BEYOND_32 = UINT32_MAX; /* "look in the Zip64 field" */

struct member {
	char *name;
	uint64_t n_bytes, offset;
	uint32_t crc;
};

struct zip_file {
	FILE *out;
	uint64_t at, zip64_from;
	struct member *members;
	size_t n;
};

uint32_t zip_crc(uint32_t crc, const void *bytes, size_t n_bytes)
{
	static uint32_t table[256];
	const unsigned char *at = bytes;

	if (!table[1])
		for (uint32_t i = 0; i < 256; i++) {
			uint32_t value = i;
			for (int bit = 0; bit < 8; bit++) value = value & 1 ? value >> 1 ^ 0xedb88320u : value >> 1;
			table[i] = value;
		}
	crc = ~crc;
	for (size_t i = 0; i < n_bytes; i++) crc = table[(crc ^ at[i]) & 0xff] ^ crc >> 8;
	return ~crc;
}

/* Little-endian, n_bytes of value. */
static void put(struct zip_file *z, uint64_t value, int n_bytes)
{
	for (int i = 0; i < n_bytes; i++) fputc((int)(value >> 8 * i & 0xff), z->out);
	z->at += (uint64_t)n_bytes;
}

static void put_text(struct zip_file *z, const char *text)
{
	fputs(text, z->out);
	z->at += strlen(text);
}

struct zip_file *zip_file_open(FILE *out, uint64_t zip64_from)
{
	struct zip_file *z = xcalloc(1, sizeof *z);

	z->out = out;
	z->zip64_from = zip64_from ? zip64_from : BEYOND_32;
	return z;
}

static bool is_large(const struct zip_file *z, uint64_t value) { return value >= z->zip64_from; }

static uint64_t narrow(const struct zip_file *z, uint64_t value) { return is_large(z, value) ? BEYOND_32 : value; }

/* Version, flags, method, time, date, CRC: the same in both headers. */
static void put_common(struct zip_file *z, const struct member *m, bool large)
{
	put(z, large ? VERSION_ZIP64 : VERSION_STORED, 2);
	put(z, 0, 2);
	put(z, 0, 2);
	put(z, 0, 2);
	put(z, DATE_1980, 2);
	put(z, m->crc, 4);
}

void zip_file_member(struct zip_file *z, const char *name, uint64_t n_bytes, uint32_t crc)
{
	bool large = is_large(z, n_bytes);

	z->members = xrealloc(z->members, (z->n + 1) * sizeof *z->members);
	struct member *m = &z->members[z->n++];
	*m = (struct member){ .name = xstrdup(name), .n_bytes = n_bytes, .offset = z->at, .crc = crc };
	put(z, SIGNATURE_LOCAL, 4);
	put_common(z, m, large);
	put(z, narrow(z, n_bytes), 4);
	put(z, narrow(z, n_bytes), 4);
	put(z, strlen(name), 2);
	put(z, large ? 20 : 0, 2);
	put_text(z, name);
	if (large) {
		put(z, EXTRA_ZIP64, 2);
		put(z, 16, 2);
		put(z, n_bytes, 8);
		put(z, n_bytes, 8);
	}
	z->at += n_bytes; /* the caller's */
}

static void put_central(struct zip_file *z, const struct member *m)
{
	bool large = is_large(z, m->n_bytes), far = is_large(z, m->offset);
	uint64_t extra = (large ? 16u : 0u) + (far ? 8u : 0u);

	put(z, SIGNATURE_CENTRAL, 4);
	put(z, VERSION_ZIP64, 2); /* made by */
	put_common(z, m, extra > 0);
	put(z, narrow(z, m->n_bytes), 4);
	put(z, narrow(z, m->n_bytes), 4);
	put(z, strlen(m->name), 2);
	put(z, extra ? extra + 4 : 0, 2);
	put(z, 0, 2); /* comment */
	put(z, 0, 2); /* disk */
	put(z, 0, 2); /* attributes */
	put(z, 0, 4);
	put(z, narrow(z, m->offset), 4);
	put_text(z, m->name);
	if (!extra) return;
	put(z, EXTRA_ZIP64, 2);
	put(z, extra, 2);
	if (large) put(z, m->n_bytes, 8);
	if (large) put(z, m->n_bytes, 8);
	if (far) put(z, m->offset, 8);
}

static void put_end64(struct zip_file *z, uint64_t begin, uint64_t n_bytes)
{
	uint64_t here = z->at;

	put(z, SIGNATURE_END64, 4);
	put(z, END64_BYTES_AFTER, 8);
	put(z, VERSION_ZIP64, 2);
	put(z, VERSION_ZIP64, 2);
	put(z, 0, 4);
	put(z, 0, 4);
	put(z, z->n, 8);
	put(z, z->n, 8);
	put(z, n_bytes, 8);
	put(z, begin, 8);
	put(z, SIGNATURE_LOCATOR64, 4);
	put(z, 0, 4);
	put(z, here, 8);
	put(z, 1, 4);
}

void zip_file_end(struct zip_file *z)
{
	uint64_t begin = z->at;
	uint64_t n = z->n < MEMBERS_MAX ? z->n : MEMBERS_MAX;

	for (size_t i = 0; i < z->n; i++) put_central(z, &z->members[i]);
	uint64_t n_bytes = z->at - begin;
	if (is_large(z, begin) || is_large(z, n_bytes)) put_end64(z, begin, n_bytes);
	put(z, SIGNATURE_END, 4);
	put(z, 0, 2);
	put(z, 0, 2);
	put(z, n, 2);
	put(z, n, 2);
	put(z, narrow(z, n_bytes), 4);
	put(z, narrow(z, begin), 4);
	put(z, 0, 2);
	zip_file_abandon(z);
}

void zip_file_abandon(struct zip_file *z)
{
	if (!z) return;
	for (size_t i = 0; i < z->n; i++) free(z->members[i].name);
	free(z->members);
	free(z);
}

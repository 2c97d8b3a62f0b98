/* err.c - error texts for people, and memory at start.
 *
 * Texts longer than ERR_TEXT_MAX are cut at the end: what comes first (where, what) matters most.
 */
#define _DEFAULT_SOURCE /* madvise */

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "configs/err.h"

enum { LINE_BYTES = 64, HUGE_BYTES = 2 << 20 };

/* What was found may come from anywhere: keep it to one line and away from terminal controls. */
static void put_text(struct err *err, const char *text)
{
	size_t i = 0;
	for (; text[i] && i < ERR_TEXT_MAX - 1; i++) {
		unsigned char byte = (unsigned char)text[i];
		err->text[i] = byte < 0x20 || byte == 0x7f ? '?' : text[i];
	}
	err->text[i] = '\0';
}

int err_set(struct err *err, int code, const char *format, ...)
{
	char text[ERR_TEXT_MAX]; /* arguments may point into err->text */
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	put_text(err, text);
	err->code = code;
	return code;
}

int err_context(struct err *err, const char *format, ...)
{
	char context[ERR_TEXT_MAX];
	va_list args;
	va_start(args, format);
	vsnprintf(context, sizeof context, format, args);
	va_end(args);
	char joined[2 * ERR_TEXT_MAX + 2];
	snprintf(joined, sizeof joined, "%s: %s", context, err->text);
	put_text(err, joined);
	return err->code;
}

int err_set_errno(struct err *err, int code, const char *format, ...)
{
	int number = errno;
	char text[ERR_TEXT_MAX];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	return err_set(err, code, "%s: %s", text, strerror(number));
}

const char *err_name(int code)
{
	switch (code) {
#define X(name, value, text) case name: return text;
	ERR_LIST(X)
#undef X
	default: return "unknown";
	}
}

static void (*on_no_memory)(void);

void err_on_no_memory(void (*clean_up)(void))
{
	on_no_memory = clean_up;
}

static void *taken(void *memory, unsigned long size)
{
	if (!memory && size) {
		fprintf(stderr, "drumroll: out of memory: the system refused %lu bytes\n", size);
		if (on_no_memory) on_no_memory();
		abort();
	}
	return memory;
}

void *xmalloc(unsigned long size)
{
	return taken(malloc(size ? size : 1), size);
}

void *xcalloc(unsigned long count, unsigned long size)
{
	return taken(calloc(count ? count : 1, size ? size : 1), size);
}

void *xrealloc(void *old, unsigned long size)
{
	return taken(realloc(old, size ? size : 1), size);
}

char *xstrdup(const char *text)
{
	unsigned long size = strlen(text) + 1;
	return memcpy(xmalloc(size), text, size);
}

/* What is read over and over in order (weights, activations) costs a page-table walk per page: large
 * blocks ask for huge ones, which is 4 to 10 % of read bandwidth where the system gives them. */
void *xaligned(unsigned long size)
{
	void *memory = NULL;
	bool huge = size >= 2 * HUGE_BYTES;
	if (posix_memalign(&memory, huge ? HUGE_BYTES : LINE_BYTES, size ? size : LINE_BYTES)) memory = NULL;
	taken(memory, size ? size : LINE_BYTES);
#ifdef MADV_HUGEPAGE
	if (huge) madvise(memory, size, MADV_HUGEPAGE); /* a wish: refusal costs nothing but speed */
#endif
	return memory;
}

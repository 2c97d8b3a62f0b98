/* err.c - error texts for people, and memory at start.
 *
 * Texts longer than ERR_TEXT_MAX are cut at the end: what comes first (where, what) matters most.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/err.h"

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

static void *taken(void *memory, unsigned long size)
{
	if (!memory && size) {
		fprintf(stderr, "drumroll: out of memory: the system refused %lu bytes\n", size);
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

void *xaligned(unsigned long size)
{
	void *memory = NULL;
	if (posix_memalign(&memory, 64, size ? size : 64)) memory = NULL;
	return taken(memory, size ? size : 64);
}

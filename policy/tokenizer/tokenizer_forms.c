/* tokenizer_forms.c - the four Unicode normal forms (Unicode Standard Annex 15), in linear time.
 *
 * utf8proc decomposes single characters and composes; the ordering of marks in between is ours, since
 * utf8proc's takes quadratic time in the length of a run of marks.  Text is taken in stretches that end
 * before an ASCII character, which never joins what is before it, and around characters that Hugging Face's
 * normalizer does not know (unicode_is_inert).
 */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "policy/tokenizer/tokenizer_internal.h"
#include "policy/utf8.h"

enum { DECOMPOSED_MAX = 32, /* code points that one decomposes to (18 in Unicode 16) */ SHORT_RUN = 16 };

struct stretch {
	int32_t *codes, *sorted; /* [capacity] */
	size_t n, capacity;
};

static int class_of(int32_t code)
{
	return utf8proc_get_property(code)->combining_class;
}

static void sort_short(int32_t *codes, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		int32_t code = codes[i];
		int class = class_of(code);
		size_t at = i;
		for (; at > 0 && class_of(codes[at - 1]) > class; at--)
			codes[at] = codes[at - 1];
		codes[at] = code;
	}
}

/* By combining class, in order of appearance where equal; a counting sort. */
static void sort_long(int32_t *codes, int32_t *sorted, size_t n)
{
	size_t starts[257] = {0};

	for (size_t i = 0; i < n; i++)
		starts[class_of(codes[i]) + 1]++;
	for (int class = 0; class < 256; class++)
		starts[class + 1] += starts[class];
	for (size_t i = 0; i < n; i++)
		sorted[starts[class_of(codes[i])]++] = codes[i];
	memcpy(codes, sorted, n * sizeof *codes);
}

static void order_marks(struct stretch *stretch)
{
	for (size_t at = 0, end; at < stretch->n; at = end + 1) {
		for (end = at; end < stretch->n && class_of(stretch->codes[end]) > 0; end++)
			;
		if (end - at > SHORT_RUN)
			sort_long(stretch->codes + at, stretch->sorted + at, end - at);
		else
			sort_short(stretch->codes + at, end - at);
	}
}

/* Order, compose if asked to, and write what has been gathered. */
static void flush(struct stretch *stretch, int options, struct pieces *out)
{
	utf8proc_ssize_t n = (utf8proc_ssize_t)stretch->n;

	order_marks(stretch);
	if (options & UTF8PROC_COMPOSE)
		n = utf8proc_normalize_utf32(stretch->codes, n,
		                             (utf8proc_option_t)(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
	for (utf8proc_ssize_t i = 0; i < n; i++) {
		char text[4];
		pieces_write(out, text, utf8_write(text, stretch->codes[i]));
	}
	stretch->n = 0;
}

static int gather(struct stretch *stretch, int32_t code, int options, struct err *err)
{
	int how = UTF8PROC_DECOMPOSE | (options & UTF8PROC_COMPAT), class = 0;

	if (stretch->n + DECOMPOSED_MAX > stretch->capacity) {
		stretch->capacity = 2 * stretch->capacity + DECOMPOSED_MAX;
		stretch->codes = xrealloc(stretch->codes, stretch->capacity * sizeof *stretch->codes);
		stretch->sorted = xrealloc(stretch->sorted, stretch->capacity * sizeof *stretch->sorted);
	}
	utf8proc_ssize_t n = utf8proc_decompose_char(code, stretch->codes + stretch->n, DECOMPOSED_MAX,
	                                             (utf8proc_option_t)how, &class);
	if (n < 0 || n > DECOMPOSED_MAX)
		return err_set(err, ERR_INVALID, "tokenizer: Unicode normalization of U+%04X failed: %s",
		               (unsigned)code, utf8proc_errmsg(n));
	stretch->n += (size_t)n;
	return 0;
}

int form_write(int options, const char *text, size_t n, struct pieces *out, struct err *err)
{
	struct stretch stretch = {0};
	int code = 0;

	for (size_t at = 0, step; at < n && code == 0; at += step) {
		int32_t next;
		step = utf8_step(text + at, n - at, &next);
		bool inert = unicode_is_inert(next);
		if (next < 0x80 || inert)
			flush(&stretch, options, out);
		if (inert || (next < 0x80 && (at + 1 == n || (unsigned char)text[at + 1] < 0x80)))
			pieces_write(out, text + at, step);
		else
			code = gather(&stretch, next, options, err);
	}
	flush(&stretch, options, out);
	free(stretch.codes);
	free(stretch.sorted);
	return code;
}

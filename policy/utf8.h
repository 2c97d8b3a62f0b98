/* utf8.h - UTF-8 that may be ill-formed: step over it, split it, make it printable.
 *
 * Ill-formed bytes are taken in maximal subparts (Unicode 15, section 3.9): the longest prefix of a
 * well-formed sequence, at least one byte, counts as one unit, and is shown as one U+FFFD.
 */
#ifndef POLICY_UTF8_H
#define POLICY_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the next unit of text[0, n), n > 0: 1 to 4.  *code: its code point, or -1 if ill-formed. */
size_t utf8_step(const char *text, size_t n, int32_t *code);

/* Bytes of the longest prefix of text[0, n), n > 0, of well-formed units (*valid) or of ill-formed ones. */
size_t utf8_run(const char *text, size_t n, bool *valid);

/* Write a code point; returns its length, 1 to 4. */
size_t utf8_write(char out[4], int32_t code);

/* Unicode White_Space; false for -1. */
bool utf8_is_space(int32_t code);

/* End of the white space that begins at text[at], and start of that which ends there, not before `from`. */
size_t utf8_space_after(const char *text, size_t n, size_t at);
size_t utf8_space_before(const char *text, size_t from, size_t at);

/* Start of the unit that ends at text[at], at > 0; *code: its code point, or -1 if ill-formed. */
size_t utf8_step_back(const char *text, size_t at, int32_t *code);

/* A NUL-terminated copy with every ill-formed unit replaced by U+FFFD; *n_out may be NULL.  Returns owned. */
char *utf8_lossy(const char *text, size_t n, size_t *n_out);

#endif

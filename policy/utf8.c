/* utf8.c - one state-free decoder of UTF-8, table 3-7 of the Unicode standard as comparisons; linear time. */
#include "policy/utf8.h"

#include <string.h>

#include "configs/err.h"

/* Length promised by a lead byte and the bounds of the byte after it; 0 if it leads nothing. */
static size_t lead_length(unsigned char lead, unsigned char *second_min, unsigned char *second_max)
{
	*second_min = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
	*second_max = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
	if (lead < 0x80)
		return 1;
	if (lead < 0xC2 || lead > 0xF4)
		return 0;
	return lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

size_t utf8_step(const char *text, size_t n, int32_t *code)
{
	const unsigned char *bytes = (const unsigned char *)text;
	unsigned char min, max;
	size_t length = lead_length(bytes[0], &min, &max), i;

	*code = -1;
	if (length < 2) {
		if (length == 1)
			*code = bytes[0];
		return 1;
	}
	int32_t value = bytes[0] & (0xFF >> (length + 1));
	for (i = 1; i < length; i++) {
		if (i == n || bytes[i] < min || bytes[i] > max)
			return i;
		value = value << 6 | (bytes[i] & 0x3F);
		min = 0x80;
		max = 0xBF;
	}
	*code = value;
	return length;
}

size_t utf8_run(const char *text, size_t n, bool *valid)
{
	int32_t code;
	size_t at = utf8_step(text, n, &code);

	*valid = code >= 0;
	while (at < n) {
		size_t step = utf8_step(text + at, n - at, &code);
		if ((code >= 0) != *valid)
			break;
		at += step;
	}
	return at;
}

size_t utf8_write(char out[4], int32_t code)
{
	if (code < 0x80) {
		out[0] = (char)code;
		return 1;
	}
	size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
	for (size_t i = length - 1; i > 0; i--, code >>= 6)
		out[i] = (char)(0x80 | (code & 0x3F));
	out[0] = (char)((0xF00 >> length & 0xFF) | code);
	return length;
}

bool utf8_is_space(int32_t code)
{
	switch (code) {
	case ' ':
	case 0x85:
	case 0xA0:
	case 0x1680:
	case 0x2028:
	case 0x2029:
	case 0x202F:
	case 0x205F:
	case 0x3000: return true;
	default:
		return (code >= 0x09 && code <= 0x0D) || (code >= 0x2000 && code <= 0x200A);
	}
}

size_t utf8_step_back(const char *text, size_t at, int32_t *code)
{
	size_t start = at - 1;

	while (start > 0 && at - start < 4 && ((unsigned char)text[start] & 0xC0) == 0x80)
		start--;
	if (utf8_step(text + start, at - start, code) != at - start) {
		*code = -1;
		return at - 1;
	}
	return start;
}

size_t utf8_space_after(const char *text, size_t n, size_t at)
{
	while (at < n) {
		int32_t code;
		size_t step = utf8_step(text + at, n - at, &code);
		if (!utf8_is_space(code))
			break;
		at += step;
	}
	return at;
}

size_t utf8_space_before(const char *text, size_t from, size_t at)
{
	while (at > from) {
		int32_t code;
		size_t start = utf8_step_back(text, at, &code);
		if (!utf8_is_space(code))
			break;
		at = start;
	}
	return at;
}

char *utf8_lossy(const char *text, size_t n, size_t *n_out)
{
	char *out = xmalloc(3 * n + 1);
	size_t length = 0, at = 0;

	while (at < n) {
		int32_t code;
		size_t step = utf8_step(text + at, n - at, &code);
		if (code >= 0) {
			memcpy(out + length, text + at, step);
			length += step;
		} else {
			length += utf8_write(out + length, 0xFFFD);
		}
		at += step;
	}
	out[length] = '\0';
	if (n_out)
		*n_out = length;
	return out;
}

/* report_html.c - see report_html.h. */
#include "scheduler/report/report_html.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "configs/err.h"

enum { LONG_WORD = 16 };

/* Bytes of the valid UTF-8 character at c, 0 if there is none: RFC 3629, without U+FFFE and U+FFFF. */
static int character_bytes(const unsigned char *c)
{
	int n = *c < 0x80 ? 1 : *c < 0xc2 ? 0 : *c < 0xe0 ? 2 : *c < 0xf0 ? 3 : *c < 0xf5 ? 4 : 0;
	unsigned code = n < 2 ? *c : *c & (0x7fu >> n);

	for (int i = 1; i < n; i++) {
		if ((c[i] & 0xc0) != 0x80) return 0;
		code = code << 6 | (c[i] & 0x3fu);
	}
	if (n == 3 && (code < 0x800 || (code >= 0xd800 && code < 0xe000) || code >= 0xfffe)) return 0;
	if (n == 4 && (code < 0x10000 || code > 0x10ffff)) return 0;
	if (code < 0x20 && code != '\n' && code != '\t') return 0;
	return code == 0x7f ? 0 : n;
}

static void write_character(FILE *out, const unsigned char *c, int n)
{
	switch (*c) {
	case '&': fputs("&amp;", out); break;
	case '<': fputs("&lt;", out); break;
	case '>': fputs("&gt;", out); break;
	case '"': fputs("&quot;", out); break;
	case '\'': fputs("&#39;", out); break;
	default: fwrite(c, 1, (size_t)n, out);
	}
}

void html_text(FILE *out, const char *text)
{
	for (const unsigned char *c = (const unsigned char *)text; *c;) {
		int n = character_bytes(c);
		if (n) write_character(out, c, n);
		else fputs("\xef\xbf\xbd", out);
		c += n ? n : 1;
	}
}

char *format_text(const char *format, va_list args)
{
	char *text = NULL;
	size_t n = 0;
	FILE *memory = open_memstream(&text, &n);

	if (!memory) abort();
	vfprintf(memory, format, args);
	fclose(memory);
	return text;
}

void html_format_list(FILE *out, const char *format, va_list args)
{
	char *text = format_text(format, args);

	html_text(out, text);
	free(text);
}

#define FORMAT_ARGUMENTS(out, format) \
	do { \
		va_list args_; \
		va_start(args_, format); \
		html_format_list(out, format, args_); \
		va_end(args_); \
	} while (0)

void html_format(FILE *out, const char *format, ...)
{
	FORMAT_ARGUMENTS(out, format);
}

void html_element(FILE *out, const char *tag, const char *css, const char *format, ...)
{
	if (css) fprintf(out, "<%s class=\"%s\">", tag, css);
	else fprintf(out, "<%s>", tag);
	FORMAT_ARGUMENTS(out, format);
	fprintf(out, "</%s>\n", tag);
}

void html_table_open(struct html_table *t, FILE *out, const char *caption, ...)
{
	*t = (struct html_table){.out = out};
	fputs("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"", out);
	FORMAT_ARGUMENTS(out, caption);
	fputs("\"><table><caption><span>", out);
	FORMAT_ARGUMENTS(out, caption);
	fputs("</span></caption>\n<thead><tr>", out);
}

/* Only words that are too long for a column are broken. */
static bool has_long_word(const char *text)
{
	size_t n = 0;
	for (; *text && n <= LONG_WORD; text++) n = *text == ' ' ? 0 : n + 1;
	return n > LONG_WORD;
}

void html_column(struct html_table *t, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	fprintf(t->out, "<th scope=\"col\"%s>", has_long_word(text) ? " class=\"long\"" : "");
	html_text(t->out, text);
	fputs("</th>", t->out);
}

void html_row(struct html_table *t, const char *format, ...)
{
	fputs(t->in_body ? "</tr>\n<tr><th scope=\"row\">" : "</tr></thead>\n<tbody>\n<tr><th scope=\"row\">", t->out);
	t->in_body = true;
	FORMAT_ARGUMENTS(t->out, format);
	fputs("</th>", t->out);
}

void html_cell(struct html_table *t, const char *format, ...)
{
	fputs("<td>", t->out);
	FORMAT_ARGUMENTS(t->out, format);
	fputs("</td>", t->out);
}

void html_number(struct html_table *t, double value, const char *unit)
{
	char text[NUMBER_TEXT_MAX];
	if (isfinite(value)) html_cell(t, "%s%s", number_text(text, value), unit);
	else html_cell(t, "\xe2\x80\x93");
}

void html_table_close(struct html_table *t)
{
	fputs(t->in_body ? "</tr>\n</tbody></table></div>\n" : "</tr></thead></table></div>\n", t->out);
}

static void group_thousands(char text[NUMBER_TEXT_MAX], double value)
{
	char digits[NUMBER_TEXT_MAX];
	int n = snprintf(digits, sizeof digits, "%.0f", fabs(value)), to = 0;

	if (value < 0) text[to++] = '-';
	for (int i = 0; i < n; i++) {
		if (i && (n - i) % 3 == 0) text[to++] = ',';
		text[to++] = digits[i];
	}
	text[to] = '\0';
}

const char *number_text(char text[NUMBER_TEXT_MAX], double value)
{
	double size = fabs(value);

	if (!isfinite(value)) snprintf(text, NUMBER_TEXT_MAX, "-");
	else if (size > 1e15 || (size != 0 && size < 1e-4)) snprintf(text, NUMBER_TEXT_MAX, "%.3g", value);
	else if (size >= 999.95 || value == (double)(long long)value) group_thousands(text, value);
	else snprintf(text, NUMBER_TEXT_MAX, "%.4g", value);
	return text;
}

const char *number_short(char text[NUMBER_TEXT_MAX], double value)
{
	double size = fabs(value);

	if (isfinite(value) && size >= 1e-4 && size < 999.5) snprintf(text, NUMBER_TEXT_MAX, "%.3g", value);
	else if (size >= 999.5 && size < 1e15) {
		double unit = pow(10, floor(log10(size)) - 2);
		group_thousands(text, round(value / unit) * unit);
	} else number_text(text, value);
	return text;
}

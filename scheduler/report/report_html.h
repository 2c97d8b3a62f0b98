/* report_html.h - HTML that is well-formed XML too: text is escaped here and nowhere else.
 *
 * Whatever comes from a file (names, values, messages) goes through html_text or html_format; bytes that are no
 * UTF-8, and control characters, become U+FFFD.
 */
#ifndef SCHEDULER_REPORT_REPORT_HTML_H
#define SCHEDULER_REPORT_REPORT_HTML_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

char *format_text(const char *format, va_list args) __attribute__((format(printf, 1, 0))); /* owned by the caller */

void html_text(FILE *out, const char *text);
void html_format(FILE *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
void html_format_list(FILE *out, const char *format, va_list args) __attribute__((format(printf, 2, 0)));

/* <tag>text</tag> and a line end; class NULL: none. */
void html_element(FILE *out, const char *tag, const char *css, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* A table in a box that scrolls sideways where it is too wide: open, a column for each header, the first over the
 * row headers; then rows with their cells; close. */
struct html_table {
	FILE *out;
	bool in_body;
};

void html_table_open(struct html_table *t, FILE *out, const char *caption, ...) __attribute__((format(printf, 3, 4)));
void html_column(struct html_table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void html_row(struct html_table *t, const char *format, ...) __attribute__((format(printf, 2, 3))); /* with its header */
void html_cell(struct html_table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void html_number(struct html_table *t, double value, const char *unit); /* a cell; NAN: a dash; unit "", " %", " s" */
void html_table_close(struct html_table *t);

enum { NUMBER_TEXT_MAX = 48 };
/* For people: 4 significant digits, whole numbers with commas; "-" for what is not finite.  Returns text. */
const char *number_text(char text[NUMBER_TEXT_MAX], double value);
const char *number_short(char text[NUMBER_TEXT_MAX], double value); /* the same with 3 digits, for titles */

#endif

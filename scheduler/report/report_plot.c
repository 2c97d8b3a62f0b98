/* report_plot.c - figures: gnuplot's script, and its SVG made fit for the page. */
#include "scheduler/report/report_plot.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/report/report_html.h"

enum { FEW_STEPS = 8, HALF_WIDTH = 560, FULL_WIDTH = 1136, NARROW_WIDTH = 340, USUAL_HEIGHT = 264, POINTS_MAX = 400 };
enum { CODE_CURVE = 2, CODE_KIND, CODE_TEXT, CODE_AXIS, CODE_GRID }; /* green of colours that stand for variables */

int curve_color(int i)
{
	return i % COLOR_CURVES;
}

enum plot_mark curve_mark(int i)
{
	return (enum plot_mark)(i / COLOR_CURVES % 3);
}

void plot_open(struct plot *p, FILE *page, const char *x_label, const char *y_label)
{
	*p = (struct plot){ .page = page, .x_label = x_label, .y_label = y_label, .x_low = HUGE_VAL, .x_high = -HUGE_VAL };
	p->blocks = open_memstream(&p->block_text, &p->block_n);
	p->settings = open_memstream(&p->setting_text, &p->setting_n);
	p->clauses = open_memstream(&p->clause_text, &p->clause_n);
	if (!p->blocks || !p->settings || !p->clauses) abort();
}

void plot_title(struct plot *p, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	free(p->title);
	p->title = format_text(format, args);
	va_end(args);
}

void plot_alt(struct plot *p, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	free(p->alt);
	p->alt = format_text(format, args);
	va_end(args);
}

void plot_set(struct plot *p, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vfprintf(p->settings, format, args);
	va_end(args);
	fputc('\n', p->settings);
}

/* Cut after n_max characters of UTF-8, with an ellipsis. */
static char *cut_text(const char *text, int n_max)
{
	size_t n = strlen(text), end = 0;
	int count = 0;
	while (end < n && (count < n_max - 1 || n - end <= 1)) {
		do end++;
		while (end < n && ((unsigned char)text[end] & 0xc0) == 0x80);
		count++;
	}
	char *cut = xmalloc(end + 4);
	memcpy(cut, text, end);
	strcpy(cut + end, end < n ? "\xe2\x80\xa6" : "");
	return cut;
}

const char *plot_word(struct plot *p, const char *text, int n_max, const char *narrow, char word[16])
{
	p->words = xrealloc(p->words, (size_t)(p->n_words + 1) * sizeof *p->words);
	p->short_words = xrealloc(p->short_words, (size_t)(p->n_words + 1) * sizeof *p->short_words);
	p->words[p->n_words] = cut_text(text, n_max);
	p->short_words[p->n_words] = xstrdup(narrow);
	snprintf(word, 16, "@%d@", p->n_words++);
	return word;
}

void plot_legend(struct plot *p, int color, enum plot_mark mark, const char *text)
{
	p->entries = xrealloc(p->entries, (size_t)(p->n_entries + 1) * sizeof *p->entries);
	p->entries[p->n_entries++] = (struct plot_entry){ .text = xstrdup(text), .color = color, .mark = mark };
}

/* ---- what is drawn ---- */

static const char *color_code(int color, char code[16])
{
	int kind = color >= COLOR_TEXT ? CODE_TEXT : color >= COLOR_KIND ? CODE_KIND : CODE_CURVE;
	snprintf(code, 16, "#00%02x%02x", kind, color % COLOR_KIND);
	return code;
}

static void clause_begin(struct plot *p)
{
	if (p->n_drawn++) fputs(", ", p->clauses);
}

static void draw_line(struct plot *p, const struct series *s, int color, enum plot_mark mark, const char *legend,
                      const char *with)
{
	static const char *const dashes[] = { [MARK_DASHED] = " dt (9,5)", [MARK_DOTTED] = " dt (2,4)", [MARK_AREA] = "" };
	struct series thin = {0};
	char code[16];

	if (s->n == 0) return;
	for (int i = 0; i < s->n; i++) {
		series_add(&thin, s->x[i], s->y[i]);
		p->x_low = fmin(p->x_low, s->x[i]);
		p->x_high = fmax(p->x_high, s->x[i]);
	}
	if (mark != MARK_POINT) series_thin(&thin, POINTS_MAX);
	fprintf(p->blocks, "$d%d << EOD\n", p->n_blocks);
	for (int i = 0; i < thin.n; i++) fprintf(p->blocks, "%.9g %.6g\n", thin.x[i], thin.y[i]);
	fputs("EOD\n", p->blocks);
	clause_begin(p);
	if (mark == MARK_POINT)
		fprintf(p->clauses, "$d%d with points pt 7 ps 0.7 lc rgb '%s'", p->n_blocks, color_code(color, code));
	else if (thin.n == 1) /* a line of one point is not seen */
		fprintf(p->clauses, "$d%d with points pt 5 ps 0.6 lc rgb '%s'", p->n_blocks, color_code(color, code));
	else
		fprintf(p->clauses, "$d%d with %s lw 2 lc rgb '%s'%s", p->n_blocks, with, color_code(color, code),
		        dashes[mark] ? dashes[mark] : "");
	p->n_blocks++;
	series_free(&thin);
	if (legend) plot_legend(p, color, mark, legend);
}

void plot_curve(struct plot *p, const struct series *s, int color, enum plot_mark mark, const char *legend)
{
	draw_line(p, s, color, mark, legend, "lines");
}

void plot_steps(struct plot *p, const struct series *s, int color, enum plot_mark mark, const char *legend)
{
	draw_line(p, s, color, mark, legend, "steps");
}

void plot_band(struct plot *p, const struct series *low, const struct series *high, int color)
{
	char code[16];

	if (low->n < 2 || low->n != high->n) return;
	fprintf(p->blocks, "$d%d << EOD\n", p->n_blocks);
	for (int i = 0; i < low->n; i++) fprintf(p->blocks, "%.9g %.6g %.6g\n", low->x[i], low->y[i], high->y[i]);
	fputs("EOD\n", p->blocks);
	clause_begin(p);
	fprintf(p->clauses, "$d%d using 1:2:3 with filledcurves fs transparent solid 0.18 noborder lc rgb '%s'", p->n_blocks++,
	        color_code(color, code));
}

void plot_boxes(struct plot *p, const double (*box)[4], int n, int color, const char *legend)
{
	char code[16];

	if (n == 0) return;
	fprintf(p->blocks, "$d%d << EOD\n", p->n_blocks);
	for (int i = 0; i < n; i++) {
		p->x_low = fmin(p->x_low, box[i][0]);
		p->x_high = fmax(p->x_high, box[i][1]);
		fprintf(p->blocks, "%.9g %.7g %.9g %.9g %.7g %.7g\n", (box[i][0] + box[i][1]) / 2, (box[i][2] + box[i][3]) / 2,
		        box[i][0], box[i][1], box[i][2], box[i][3]);
	}
	fputs("EOD\n", p->blocks);
	clause_begin(p);
	fprintf(p->clauses, "$d%d using 1:2:3:4:5:6 with boxxyerror fs solid 1 noborder lc rgb '%s'", p->n_blocks++,
	        color_code(color, code));
	if (legend) plot_legend(p, color, MARK_AREA, legend);
}

/* ---- the script ---- */

static void write_form(struct plot *p, FILE *script, int width, int height)
{
	int margin = width <= NARROW_WIDTH ? p->narrow_margin : p->margin;
	double tics = width <= NARROW_WIDTH ? p->x_tics_narrow : p->x_tics;

	fprintf(script, "set terminal svg size %d,%d dynamic noenhanced butt font 'sans-serif,12'\n", width, height);
	if (margin) fprintf(script, "set lmargin %d\n", margin);
	if (tics > 0) fprintf(script, "set xtics %.9g\n", tics);
	fprintf(script, "set xlabel \"%s\" offset 0,0.3\n", p->x_label);
	fprintf(script, "plot %s\n", p->clause_text);
}

static char *write_script(struct plot *p, int width, int height, int narrow_height, size_t *n)
{
	char *text = NULL;
	FILE *script = open_memstream(&text, n);

	if (!script) abort();
	fputs(p->block_text, script);
	fprintf(script, "set datafile missing 'nan'\nunset key\nset border 3 lc rgb '#00%02x00'\n", CODE_AXIS);
	fprintf(script, "set grid ytics lc rgb '#00%02x00' lw 1 lt 1\nset tics nomirror out scale 0.4 tc rgb '#00%02x00'\n",
	        CODE_GRID, CODE_TEXT);
	fprintf(script, "set xlabel tc rgb '#00%02x00'\nset tmargin 0.8\nset rmargin 2.5\n", CODE_TEXT);
	bool steps = strcmp(p->x_label, "step") == 0 && p->x_low <= p->x_high;
	if (steps && p->x_high - p->x_low <= FEW_STEPS) fputs("set xtics 1\n", script);
	if (steps && p->x_low == p->x_high)
		fprintf(script, "set xrange [%g:%g]\n", p->x_low - 0.5, p->x_low + 0.5);
	fputs(p->setting_text, script);
	write_form(p, script, width, height);
	write_form(p, script, NARROW_WIDTH, narrow_height);
	fclose(script);
	return text;
}

/* ---- the drawing ---- */

static bool begins(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

static const char *after(const char *text, const char *what)
{
	const char *at = strstr(text, what);
	return at ? at + strlen(what) : text + strlen(text);
}

/* rgb( 0, code, i) as a variable of the style sheet; returns what follows it. */
static const char *write_color(FILE *page, const char *rgb)
{
	static const char *const words[] = { [CODE_TEXT] = "muted", [CODE_AXIS] = "axis", [CODE_GRID] = "grid" };
	int red = 0, code = 0, index = 0, n = 0;

	if (sscanf(rgb, "rgb(%d,%d,%d)%n", &red, &code, &index, &n) != 3 || n == 0 || red != 0 || code < CODE_CURVE || code > CODE_GRID) {
		fputs("rgb(", page);
		return rgb + 4;
	}
	if (code == CODE_CURVE) fprintf(page, "var(--s%d)", index);
	else if (code == CODE_KIND) fprintf(page, "var(--k%d)", index);
	else fprintf(page, "var(--%s)", words[code]);
	return rgb + n;
}

static const char *write_word(const struct plot *p, const char *at, char *const *words)
{
	char *end;
	long i = strtol(at + 1, &end, 10);
	if (end == at + 1 || *end != '@' || i < 0 || i >= p->n_words) {
		fputc('@', p->page);
		return at + 1;
	}
	html_text(p->page, words[i]);
	return end + 1;
}

/* Things gnuplot writes that would be wrong or useless in a page: replaced or left out up to the end that is named. */
static const struct { const char *from, *until, *instead; } rewrites[] = {
	{ "<title>", "</title>", "" }, { "<desc>", "</desc>", "" }, { "<defs>", "</defs>", "" },
	{ "<g id=\"gnuplot_", ">", "<g>" }, { " font-family=\"", "\"", "" }, { " color=\"black\"", "", "" },
	{ " color=\"white\"", "", "" }, { " color=\"gray\"", "", "" }, { " stroke-linecap=\"butt\" stroke-linejoin=\"miter\"", "", "" },
	{ " stroke-width=\"1.00\"", "", "" }, { "xlink:href", "", "href" }, { "fill=\"rgb(0,", "\"", "class=\"t\"" },
	{ " stroke=\"none\" fill=\"black\"", "", " class=\"t\"" }, { " font-size=\"12.00\"", "", "" },
};

static void write_svg_body(const struct plot *p, const char *c, const char *end, char *const *words)
{
	while (c < end) {
		size_t i = 0, n = sizeof rewrites / sizeof *rewrites;
		while (i < n && !begins(c, rewrites[i].from)) i++;
		if (i < n) {
			c = after(c + strlen(rewrites[i].from), rewrites[i].until);
			fputs(rewrites[i].instead, p->page);
		} else if (begins(c, "rgb(")) {
			c = write_color(p->page, c);
		} else if (*c == '@') {
			c = write_word(p, c, words);
		} else if (isspace((unsigned char)*c)) {
			while (isspace((unsigned char)*c)) c++;
			fputc(' ', p->page);
		} else {
			fputc(*c++, p->page);
		}
	}
}

/* One of the two drawings; returns what follows it, NULL if there is none. */
static const char *write_svg(const struct plot *p, const char *output, const char *css, int width, int height)
{
	const char *from = strstr(output, "<svg"), *body = from ? strchr(from, '>') : NULL;
	const char *end = body ? strstr(body, "</svg>") : NULL;

	if (!end) return NULL;
	fprintf(p->page, "<svg class=\"%s\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", css, width, height);
	html_text(p->page, p->alt ? p->alt : p->title);
	fputs("\">", p->page);
	write_svg_body(p, body + 1, end, width <= NARROW_WIDTH ? p->short_words : p->words);
	fputs("</svg>\n", p->page);
	return end;
}

static void write_legend(const struct plot *p)
{
	static const char *const dashes[] = { [MARK_DASHED] = "6 3", [MARK_DOTTED] = "2 3", [MARK_AREA] = NULL };

	if (p->n_entries == 0) return;
	fputs("<ul class=\"legend\">", p->page);
	for (int i = 0; i < p->n_entries; i++) {
		const struct plot_entry *e = &p->entries[i];
		fputs("<li><svg viewBox=\"0 0 22 10\" aria-hidden=\"true\">", p->page);
		char color[16];
		snprintf(color, sizeof color, "--%c%d", e->color >= COLOR_KIND ? 'k' : 's', e->color % COLOR_KIND);
		if (e->mark == MARK_AREA) fprintf(p->page, "<rect x=\"5\" width=\"12\" height=\"10\" fill=\"var(%s)\"/>", color);
		else if (e->mark == MARK_POINT) fprintf(p->page, "<circle cx=\"11\" cy=\"5\" r=\"4\" fill=\"var(%s)\"/>", color);
		else {
			fprintf(p->page, "<path d=\"M0 5h22\" stroke-width=\"2.5\" stroke=\"var(%s)\"", color);
			if (dashes[e->mark]) fprintf(p->page, " stroke-dasharray=\"%s\"", dashes[e->mark]);
			fputs("/>", p->page);
		}
		fputs("</svg>", p->page);
		html_text(p->page, e->text);
		fputs("</li>", p->page);
	}
	fputs("</ul>\n", p->page);
}

static int draw(struct plot *p, struct err *err)
{
	int width = p->full ? FULL_WIDTH : HALF_WIDTH, height = p->height ? p->height : USUAL_HEIGHT;
	int narrow_height = p->height ? p->height : 230;
	size_t n;
	char *script = write_script(p, width, height, narrow_height, &n), *output = NULL;
	int code = gnuplot_run(script, n, &output, err);

	if (!code) {
		const char *rest = write_svg(p, output, "wide", width, height);
		if (!rest || !write_svg(p, rest, "narrow", NARROW_WIDTH, narrow_height))
			code = err_set(err, ERR_UNSUPPORTED, "gnuplot drew nothing for '%s': expected two SVG documents", p->title);
	}
	free(script);
	free(output);
	return code;
}

static void plot_free(struct plot *p)
{
	for (int i = 0; i < p->n_entries; i++) free(p->entries[i].text);
	for (int i = 0; i < p->n_words; i++) {
		free(p->words[i]);
		free(p->short_words[i]);
	}
	free(p->entries);
	free(p->words);
	free(p->short_words);
	free(p->title);
	free(p->alt);
	free(p->block_text);
	free(p->setting_text);
	free(p->clause_text);
}

int plot_close(struct plot *p, const char *note, struct err *err)
{
	int code = 0;

	fclose(p->blocks);
	fclose(p->settings);
	fclose(p->clauses);
	fprintf(p->page, "<figure%s>\n<figcaption>", p->full ? " class=\"full\"" : "");
	html_element(p->page, "h3", NULL, "%s", p->title ? p->title : "");
	if (p->n_drawn) {
		if (p->y_label && *p->y_label) html_element(p->page, "p", "unit", "%s", p->y_label);
		write_legend(p);
		fputs("</figcaption>\n", p->page);
		code = draw(p, err);
		if (code == ERR_UNSUPPORTED) { /* one plot less is no reason to have no report */
			html_element(p->page, "p", "absent", "Not drawn: %s", err->text);
			code = 0;
		}
	} else {
		fputs("</figcaption>\n", p->page);
		html_element(p->page, "p", "absent", "Nothing to draw: no finite value was found.");
	}
	if (note) html_element(p->page, "p", "note", "%s", note);
	if (p->narrow_note) html_element(p->page, "p", "note narrow", "%s", p->narrow_note);
	fputs("</figure>\n", p->page);
	plot_free(p);
	return code;
}

/* report.c - which directories hold what, and the page around the parts. */
#include "scheduler/report/report.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "scheduler/commands/output_file.h"
#include "scheduler/report/report_page.h"

/* What gnuplot's points refer to, once for all plots. */
static const char marks[] =
"<svg class=\"marks\" width=\"0\" height=\"0\" aria-hidden=\"true\" style=\"position:absolute\"><defs>\n"
"<path id=\"gpPt4\" fill=\"currentColor\" d=\"M-1,-1 h2 v2 h-2 z\"/><circle id=\"gpPt6\" fill=\"currentColor\" r=\"1\"/>\n"
"</defs></svg>\n";

static const struct { const char *id, *title; int (*write)(struct page *page); } parts[] = {
	{ "summary", "Key figures", part_summary }, { "reward", "Reward", part_reward }, { "speed", "Speed", part_speed },
	{ "lengths", "Lengths", part_lengths }, { "speculation", "Speculation", part_acceptance },
	{ "partials", "Partials and staleness", part_partials }, { "ranks", "Ranks", part_ranks }, { "time", "Time", part_time },
	{ "advantages", "Advantages", part_advantages }, { "trainer", "Training", part_trainer }, { "config", "Config", part_config },
};
enum { N_PARTS = sizeof parts / sizeof *parts };

static void write_title(struct page *page)
{
	if (page->n_runs + page->n_sweeps == 1) html_text(page->out, page->n_runs ? page->runs[0].label : page->sweeps[0].name);
	else html_format(page->out, "%d runs%s compared", page->n_runs ? page->n_runs : page->n_sweeps, page->n_runs ? "" : " of sweeps");
}

static void write_head(struct page *page)
{
	fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
	      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>drumroll: ", page->out);
	write_title(page);
	fputs("</title>\n<style>\n", page->out);
	for (const char *const *line = report_style; *line; line++) fputs(*line, page->out);
	fprintf(page->out, "</style>\n</head>\n<body>\n%s<header>\n<h1>", marks);
	write_title(page);
	fputs("</h1>\n", page->out);
	if (page->n_runs == 0 && page->n_sweeps == 1) { /* one part: nowhere to go */
		fputs("</header>\n<main>\n", page->out);
		return;
	}
	fputs("<nav aria-label=\"Parts of this report\"><ul>\n", page->out);
	for (int i = 0; i < page->n_sweeps; i++) {
		fprintf(page->out, "<li><a href=\"#sweep-%d\">", i + 1);
		html_text(page->out, page->sweeps[i].name);
		fputs("</a></li>\n", page->out);
	}
	for (int i = 0; i < N_PARTS && page->n_runs; i++)
		fprintf(page->out, "<li><a href=\"#%s\">%s</a></li>\n", parts[i].id, parts[i].title);
	fputs("</ul></nav>\n</header>\n<main>\n", page->out);
}

static void write_foot(struct page *page)
{
	char text[64];
	time_t now = time(NULL);
	struct tm when;

	strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", gmtime_r(&now, &when));
	fputs("</main>\n", page->out);
	fprintf(page->out, "<footer><p>Made by drumroll report on %s. Curves of more than 400 points are means of neighbours.</p></footer>\n"
	        "</body>\n</html>\n", text);
}

static int write_page(struct page *page)
{
	int code = 0;

	write_head(page);
	code = part_sweeps(page);
	for (int i = 0; i < N_PARTS && page->n_runs && !code; i++) code = parts[i].write(page);
	write_foot(page);
	return code;
}

/* ---- directories ---- */

static int check_directory(const char *dir, struct err *err)
{
	struct stat status;

	if (stat(dir, &status)) return err_set_errno(err, ERR_MISSING, "%s", dir);
	if (!S_ISDIR(status.st_mode)) return err_set(err, ERR_INVALID, "%s: expected the directory of a run or of a sweep, found a file", dir);
	if (!sweep_is_here(dir) && !run_is_here(dir))
		return err_set(err, ERR_INVALID, "%s: expected the directory of a run (with config.yaml and metrics.jsonl) or of a sweep (with "
		               "results.jsonl), found neither in it", dir);
	return 0;
}

/* Runs of one name are told apart by their paths. */
static void make_labels_unique(struct report_run *runs, int n)
{
	for (int i = 0; i < n; i++) {
		bool twice = false;
		for (int k = 0; k < n; k++) {
			const char *slash = strrchr(runs[k].dir, '/');
			twice = twice || (k != i && strcmp(slash && slash[1] ? slash + 1 : runs[k].dir, runs[i].label) == 0);
		}
		if (!twice) continue;
		free(runs[i].label);
		runs[i].label = xstrdup(runs[i].dir);
	}
}

static int write_file(struct page *page, const char *out)
{
	struct output_file file;

	if (output_file_open(&file, out, page->err)) return page->err->code;
	page->out = file.stream;
	int code = write_page(page);
	if (code) output_file_abandon(&file);
	else code = output_file_commit(&file, page->err);
	return code;
}

int report_write(const char *const *dirs, int n, const char *out, struct err *err)
{
	struct report_run *runs = xcalloc((size_t)n, sizeof *runs);
	struct report_sweep *sweeps = xcalloc((size_t)n, sizeof *sweeps);
	struct page page = { .runs = runs, .sweeps = sweeps, .err = err };
	int code = gnuplot_find(err);

	for (int i = 0; i < n && !code; i++) code = check_directory(dirs[i], err);
	for (int i = 0; i < n && !code; i++) {
		if (sweep_is_here(dirs[i])) report_sweep_load(&sweeps[page.n_sweeps++], dirs[i]);
		else run_load(&runs[page.n_runs++], dirs[i]);
	}
	make_labels_unique(runs, page.n_runs);
	if (!code) code = write_file(&page, out);
	for (int i = 0; i < page.n_runs; i++) run_free(&runs[i]);
	for (int i = 0; i < page.n_sweeps; i++) report_sweep_free(&sweeps[i]);
	free(runs);
	free(sweeps);
	return code;
}

/* part_config.c - the effective config: what differs between the runs, what differs from the defaults, and all of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/config.h"
#include "scheduler/report/report_page.h"

static struct report_setting *default_settings(int *n)
{
	struct config config;
	char *text = NULL;
	size_t bytes = 0;
	FILE *memory = open_memstream(&text, &bytes);

	if (!memory) abort();
	config_defaults(&config);
	config_print(&config, memory, false);
	config_free(&config);
	fclose(memory);
	struct report_setting *settings = settings_read(text, n);
	free(text);
	return settings;
}

static const char *find(const struct report_setting *settings, int n, const char *key)
{
	for (int i = 0; i < n; i++)
		if (strcmp(settings[i].key, key) == 0) return settings[i].value;
	return NULL;
}

static bool same(const char *a, const char *b)
{
	return (!a && !b) || (a && b && strcmp(a, b) == 0);
}

static void setting_cell(struct html_table *t, const char *value)
{
	html_cell(t, "%s", !value ? "not there" : *value ? value : "(empty)");
}

/* Does any run that has a config differ from the first that has one? */
static bool differs(const struct page *page, const char *key)
{
	const struct report_run *first = NULL;

	for (int i = 0; i < page->n_runs; i++) {
		const struct report_run *run = &page->runs[i];
		if (!run->n_settings) continue;
		if (!first) first = run;
		else if (!same(run_setting(first, key), run_setting(run, key))) return true;
	}
	return false;
}

static bool known_before(const struct page *page, int i, const char *key)
{
	for (int k = 0; k < i; k++)
		if (run_setting(&page->runs[k], key)) return true;
	return false;
}

static void table_differences(struct page *page)
{
	struct html_table t;
	int n = 0;

	html_table_open(&t, page->out, "Options that differ between the runs");
	html_column(&t, "option");
	for (int i = 0; i < page->n_runs; i++) html_column(&t, "%s", page->runs[i].label);
	for (int i = 0; i < page->n_runs; i++)
		for (int k = 0; k < page->runs[i].n_settings; k++) {
			const char *key = page->runs[i].settings[k].key;
			if (known_before(page, i, key) || !differs(page, key)) continue;
			html_row(&t, "%s", key);
			for (int j = 0; j < page->n_runs; j++) setting_cell(&t, page->runs[j].n_settings ? run_setting(&page->runs[j], key) : "unknown");
			n++;
		}
	if (n == 0) html_row(&t, "none: the configs are equal");
	html_table_close(&t);
}

static void table_settings(struct page *page, const struct report_run *run, const struct report_setting *defaults, int n_defaults,
                           bool all)
{
	struct html_table t;

	html_table_open(&t, page->out, all ? "%s: every option" : "%s: options that are not at their default", run->label);
	html_column(&t, "option");
	html_column(&t, "value");
	html_column(&t, "default");
	for (int k = 0; k < run->n_settings; k++) {
		const char *fallback = find(defaults, n_defaults, run->settings[k].key);
		if (!all && same(run->settings[k].value, fallback)) continue;
		html_row(&t, "%s", run->settings[k].key);
		setting_cell(&t, run->settings[k].value);
		setting_cell(&t, fallback);
	}
	html_table_close(&t);
}

int part_config(struct page *page)
{
	int n_defaults;
	struct report_setting *defaults = default_settings(&n_defaults);

	section_open(page, "config", "Config", "The effective config of each run, as it stands in its config.yaml; defaults are those of the "
	             "program that made this page.");
	if (page->n_runs > 1) table_differences(page);
	for (int i = 0; i < page->n_runs; i++) {
		const struct report_run *run = &page->runs[i];
		if (run->settings_absent[0]) {
			page_lack(page, run, "%s", run->settings_absent);
			continue;
		}
		for (int all = 0; all < 2; all++) {
			fprintf(page->out, "<details%s><summary>", page->n_runs == 1 && !all ? " open=\"open\"" : "");
			html_format(page->out, all ? "%s: every option" : "%s: options that are not at their default", run->label);
			fputs("</summary>\n", page->out);
			table_settings(page, run, defaults, n_defaults, all);
			fputs("</details>\n", page->out);
		}
	}
	settings_free(defaults, n_defaults);
	section_close(page);
	return 0;
}

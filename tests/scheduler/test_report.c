/* test_report.c - `drumroll report`: known numbers, HTML that is well-formed and needs nothing else, hostile names,
 * directories in which things are absent. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "scheduler/report/report.h"
#include "scheduler/report/report_page.h"
#include "tests/scheduler/report_fixture.h"

static char top[] = "/tmp/drumroll_test_report_XXXXXX";
static char out[128];

static int make_top(void **state)
{
	(void)state;
	if (!mkdtemp(top)) return -1;
	snprintf(out, sizeof out, "%s/out.html", top);
	return 0;
}

static int remove_top(void **state)
{
	char command[128];
	(void)state;
	snprintf(command, sizeof command, "rm -rf %s", top);
	return system(command);
}

static const char *below(char path[256], const char *name)
{
	snprintf(path, 256, "%s/%s", top, name);
	return path;
}

/* The report of these; checked as any must be; owned by the caller. */
static char *report_of(const char *const *dirs, int n)
{
	struct err err;
	if (report_write(dirs, n, out, &err)) fail_msg("%s", err.text);
	char *html = read_text_file(out);
	check_well_formed(html);
	static const char *const forbidden[] = { "http:", "https:", "//www", "<script", "src=", "url(", "@import", "xlink", "gnuplot_plot",
	                                         "rgb(", "nan", "NaN", "inf<" };
	for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++)
		if (strstr(html, forbidden[i])) fail_msg("%s: %.80s", forbidden[i], strstr(html, forbidden[i]));
	return html;
}

static void has(const char *html, const char *text)
{
	if (!strstr(html, text)) fail_msg("not in the report: %s", text);
}

static void has_not(const char *html, const char *text)
{
	if (strstr(html, text)) fail_msg("in the report: %.100s", strstr(html, text));
}

static int count(const char *html, const char *text)
{
	int n = 0;
	for (const char *c = html; (c = strstr(c, text)); c += strlen(text)) n++;
	return n;
}

static void has_figures(const char *html, const char *section)
{
	char open[64];
	snprintf(open, sizeof open, "<section id=\"%s\"", section);
	const char *begin = strstr(html, open), *end = begin ? strstr(begin, "</section>") : NULL, *figure = begin ? strstr(begin, "<figure") : NULL;
	if (!end || !figure || figure > end) fail_msg("section %s has no figure", section);
}

static void a_run_has_every_part_and_its_numbers(void **state)
{
	static const char *const sections[] = { "reward", "speed", "lengths", "speculation", "partials", "ranks", "time", "advantages", "trainer" };
	char path[256];
	const char *dir = below(path, "whole");
	(void)state;
	make_run(dir, 10, "whole");
	char *html = report_of(&dir, 1);
	for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) has_figures(html, sections[i]);
	has(html, "Held-out pass rate: 12.5 % at the start, 62.5 % at the end");
	has(html, "Mean reward: 0.1 at the start, 1 at the end");
	has(html, "<td>6.5 to 22.8 %</td>"); /* Wilson's interval of 8 in 64 */
	has(html, "1 % of the responses have 32 tokens or more, the longest 32");
	has(html, "By position: 90.0 % of first drafted tokens stand, 60.0 % of those at place 2");
	has(html, "Within a step: 12 active sessions as it begins, 12 as it ends");
	has(html, "Within a step: 200 tokens/s as it begins, 200 as it ends");
	has(html, "Ranks: at work 75 % of the time");
	has(html, "<th scope=\"row\">2</th><td>2,000</td><td>100</td><td>50.0 %</td><td>0.0 %</td><td>50.0 %</td><td>0.0 %</td><td>4</td>");
	has(html, "Ranks spend 75 % of their time in the target&#39;s calls, 0 % drafting, 25 % waiting");
	has(html, "<th scope=\"row\">whole</th><td>32</td><td>0</td><td>1</td><td>-1</td><td>1</td><td>50 %</td><td>50 %</td><td>0 %</td>");
	has(html, "<th scope=\"row\">rollout.group_size</th><td>4</td><td>8</td>");
	assert_true(count(html, "class=\"wide\"") > 15 && count(html, "class=\"wide\"") == count(html, "class=\"narrow\""));
	assert_int_equal(count(html, "role=\"img\""), count(html, "class=\"wide\"") + count(html, "class=\"narrow\""));
	free(html);
}

static void runs_are_compared(void **state)
{
	char a[256], b[256];
	const char *dirs[] = { below(a, "first"), below(b, "second") };
	(void)state;
	make_run(dirs[0], 10, "one");
	make_run(dirs[1], 5, "other");
	char *html = report_of(dirs, 2);
	has(html, "<h1>2 runs compared</h1>");
	has(html, "<th scope=\"row\">Steps</th><td>10</td><td>5</td><td>-50.0 %</td>");
	has(html, "<th scope=\"row\">Held-out pass rate at the end</th><td>62.5 %</td><td>62.5 %</td><td>+0.0 points</td>");
	has(html, "<th scope=\"row\">run.name</th><td>one</td><td>other</td>");
	has_not(html, "<th scope=\"row\">run.seed</th><td>7</td><td>7</td><td>"); /* equal: no difference */
	has(html, "first: at work 75 %");
	has(html, "second: at work 75 %");
	free(html);
}

static void names_are_no_markup_and_no_commands(void **state)
{
	static const char name[] = "<b>`touch pwned`&\"'@0@\xff $(touch pwned)";
	char path[256], line[1024];
	const char *dirs[2];
	(void)state;
	dirs[0] = below(path, name);
	make_run(dirs[0], 3, "</style><script>alert(1)</script>");
	char sweep[256];
	dirs[1] = below(sweep, "`touch pwned`<i>");
	assert_int_equal(mkdir(dirs[1], 0755), 0);
	write_text_file(dirs[1], "sweep.json", "{\"name\":\"<s>\",\"metric\":\"`touch pwned`' \\\"<u>\",\"command\":\"a && b\"}");
	snprintf(line, sizeof line, "{\"variant\":\"`touch pwned`<i>'\\\"@1@\",\"set\":{\"a.b`touch pwned`\":1},\"repetition\":0,\"exit\":0,"
	         "\"metrics\":{\"`touch pwned`' \\\"<u>\":3}}\n");
	write_text_file(dirs[1], "results.jsonl", line);
	char *html = report_of(dirs, 2);
	has_not(html, "<b>");
	has_not(html, "<i>");
	has_not(html, "<u>");
	has_not(html, "<s>");
	has(html, "&lt;b&gt;`touch pwned`&amp;&quot;&#39;@0@\xef\xbf\xbd");
	has(html, "&lt;/style&gt;&lt;script&gt;");
	assert_int_not_equal(access("pwned", F_OK), 0);
	free(html);
}

static void what_is_absent_is_said(void **state)
{
	char path[256];
	const char *dir = below(path, "bare");
	(void)state;
	assert_int_equal(mkdir(dir, 0755), 0);
	write_text_file(dir, "metrics.jsonl", "{\"step\":1,\"reward/mean\":null,\"perf/tokens_per_sec\":1e999,\"rollout/response_len/mean\":3}\n"
	                "{\"reward/mean\":1}\n[]\n{\"step\":2,\"reward/mean\":0.5,\"rollout/response_len/mean\":4}\n{\"step\":3,\"rewa");
	char *html = report_of(&dir, 1);
	has(html, "no summary.json: it was killed");
	has(html, "unreadable lines of metrics.jsonl were left out");
	has(html, "no held-out pass rate: no evaluation was made");
	has(html, "no timeline.jsonl");
	has(html, "no histogram: ");
	has(html, "nothing was drafted");
	has(html, "config.yaml cannot be read: No such file or directory");
	has(html, "no split of the ranks&#39; time");
	has(html, "no trainer reported anything");
	free(html);
}

static void a_run_without_a_step_is_said(void **state)
{
	char path[256];
	const char *dir = below(path, "begun");
	(void)state;
	assert_int_equal(mkdir(dir, 0755), 0);
	write_text_file(dir, "config.yaml", "run:\n  name: \"begun\"\n");
	write_text_file(dir, "metrics.jsonl", "");
	write_text_file(dir, "timeline.jsonl", "{\"t\":0,\"step\":0,\"event\":\"run_begin\"}\n");
	char *html = report_of(&dir, 1);
	has(html, "metrics.jsonl has no step yet");
	has(html, "timeline.jsonl has no line of a rank");
	free(html);
}

static void wild_numbers_end_nothing(void **state)
{
	char path[256];
	const char *dir = below(path, "wild");
	(void)state;
	assert_int_equal(mkdir(dir, 0755), 0);
	write_text_file(dir, "metrics.jsonl", "{\"step\":1,\"reward/mean\":1e308,\"perf/tokens_per_sec\":-1e308,\"rollout/response_len/mean\":1e-308}\n"
	                "{\"step\":1e18,\"reward/mean\":-1e308,\"perf/tokens_per_sec\":1e308,\"rollout/response_len/mean\":5}\n");
	write_text_file(dir, "timeline.jsonl",
	                "{\"t\":0,\"step\":2e9,\"event\":\"step_begin\"}\n"
	                "{\"t\":1,\"step\":1e300,\"rank\":1048575,\"state\":7,\"active\":-1e300,\"tokens\":1e300,\"seconds\":[]}\n"
	                "{\"t\":1e300,\"step\":-5,\"rank\":0,\"state\":\"generating\",\"active\":1e9,\"tokens\":5,\"seconds\":{\"total\":-1}}\n");
	free(report_of(&dir, 1));
}

static void bad_requests_are_refused(void **state)
{
	char path[256], saved[4096];
	struct err err;
	const char *dir = below(path, "nothing");
	(void)state;
	assert_int_equal(report_write(&dir, 1, out, &err), ERR_MISSING);
	assert_int_equal(mkdir(dir, 0755), 0);
	assert_int_equal(report_write(&dir, 1, out, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, "found neither"));
	snprintf(saved, sizeof saved, "%s", getenv("PATH"));
	setenv("PATH", "/nonexistent", 1);
	assert_int_equal(report_write(&dir, 1, out, &err), ERR_MISSING);
	setenv("PATH", saved, 1);
	assert_non_null(strstr(err.text, "apt-get install gnuplot-nox"));
}

/* ---- sweeps ---- */

static void make_sweep(const char *dir)
{
	static const double base[3] = { 100, 110, 90 }, fast[3] = { 200, 220, 180 };
	char text[4096] = "";
	size_t n = 0;

	assert_int_equal(mkdir(dir, 0755), 0);
	write_text_file(dir, "sweep.json", "{\"name\":\"drafts\",\"metric\":\"tokens_per_sec\",\"higher_is_better\":true,\"baseline\":\"k=0\","
	                "\"command\":\"drumroll throughput x.yaml\",\"machine\":\"here\"}");
	for (int r = 0; r < 3; r++) {
		n += (size_t)snprintf(text + n, sizeof text - n, "{\"variant\":\"k=10\",\"set\":{\"speculation.draft_length\":\"10\"},\"repetition\":%d,"
		                      "\"exit\":%d,\"seconds\":1,\"metrics\":{\"tokens_per_sec\":%d}}\n", r, r == 2, 50);
		n += (size_t)snprintf(text + n, sizeof text - n, "{\"variant\":\"k=2\",\"set\":{\"speculation.draft_length\":\"2\"},\"repetition\":%d,"
		                      "\"exit\":0,\"seconds\":1,\"metrics\":{\"tokens_per_sec\":%g}}\n", r, fast[r]);
		n += (size_t)snprintf(text + n, sizeof text - n, "{\"variant\":\"k=0\",\"set\":{\"speculation.draft_length\":\"0\"},\"repetition\":%d,"
		                      "\"exit\":0,\"seconds\":1,\"metrics\":{\"tokens_per_sec\":%g}}\n", r, base[r]);
	}
	write_text_file(dir, "results.jsonl", text);
}

static void a_sweep_has_medians_and_ratios(void **state)
{
	char path[256];
	const char *dir = below(path, "sweep");
	struct report_sweep sweep;
	struct sweep_statistics s;
	(void)state;
	make_sweep(dir);
	report_sweep_load(&sweep, dir);
	assert_int_equal(sweep.n, 3);
	assert_string_equal(sweep.variants[0].name, "k=0"); /* 10 comes after 2 */
	assert_string_equal(sweep.variants[2].name, "k=10");
	sweep_statistics(&s, &sweep, 1);
	assert_true(s.median == 200 && s.min == 180 && s.max == 220 && s.pairs == 3);
	assert_true(fabs(s.ratio - 2) < 1e-12 && fabs(s.ratio_high - 2) < 1e-9);
	assert_true(fabs(s.difference - 100) < 1e-9 && fabs(s.difference_half - 4.303 * 10 / sqrt(3)) < 1e-6);
	sweep_statistics(&s, &sweep, 2);
	assert_true(s.n == 2 && s.failed == 1 && s.pairs == 2);
	report_sweep_free(&sweep);
	char *html = report_of(&dir, 1);
	has(html, "<th scope=\"row\">2. k=2</th><td>200</td><td>180 to 220</td><td>3</td><td>1</td><td>2.000</td><td>2.000 to 2.000</td>"
	          "<td>2.000 to 2.000</td><td>100 \xc2\xb1 24.8</td>");
	has(html, "<td>2, 1 failed</td>");
	has(html, "Tokens/s while rolling out: k=2 has the best median, 200; 2 times k=0 (95 % interval 2 to 2)");
	has(html, "generated tokens per second of rollouts"); /* the axis */
	has(html, "Tokens/s while rolling out over speculation.draft_length");
	has_not(html, "<nav"); /* one part alone */
	free(html);
}

/* Order and head comment are those of the file that was run; other numbers of the runs stand beside the metric. */
static void a_sweep_shows_its_claim_in_the_order_of_its_file(void **state)
{
	char path[256], text[2048] = "";
	const char *dir = below(path, "claimed");
	size_t n = 0;
	(void)state;
	assert_int_equal(mkdir(dir, 0755), 0);
	write_text_file(dir, "sweep.json", "{\"name\":\"claimed\",\"metric\":\"pass_rate_end\",\"baseline\":\"full\",\"variants\":[\"zero\",\"full\",\"half\"]}");
	write_text_file(dir, "sweep.yaml", "# Claim: half is <as good>\n# (mostly) as full.\n# Paper: none\n# Command: drumroll throughput x\n"
	                "# Takes 5 minutes.\nrun: {name: claimed}\n# not of the head\n");
	for (int r = 0; r < 2; r++)
		for (int v = 0; v < 3; v++)
			n += (size_t)snprintf(text + n, sizeof text - n, "{\"variant\":\"%s\",\"set\":{},\"repetition\":%d,\"exit\":0,"
			                      "\"metrics\":{\"pass_rate_end\":%g,\"tokens\":%d,\"train_seconds\":0}}\n",
			                      v == 0 ? "full" : v == 1 ? "half" : "zero", r, 0.5 + 0.1 * r, v == 1 ? 500 : 1000);
	write_text_file(dir, "results.jsonl", text);
	char *html = report_of(&dir, 1);
	has(html, "<p class=\"about\">Claim: half is &lt;as good&gt; (mostly) as full.</p>\n<p class=\"about\">Paper: none</p>\n<");
	has_not(html, "Takes 5 minutes");
	has_not(html, "not of the head");
	has(html, "generated tokens</th>");
	has(html, "<th scope=\"row\">1. zero</th>");
	has(html, "<th scope=\"row\">2. full</th>");
	has(html, "<th scope=\"row\">3. half</th><td>500 (0.50)</td>");
	has_not(html, "training\xc2\xa0s</th>"); /* nobody trained */
	free(html);
}

/* A step whose batch had all been made before has no rate and no reward of its own. */
static void a_step_that_generated_nothing_is_no_point(void **state)
{
	char path[256];
	const char *dir = below(path, "pool");
	(void)state;
	assert_int_equal(mkdir(dir, 0755), 0);
	write_text_file(dir, "config.yaml", "run: {name: pool}\n");
	write_text_file(dir, "metrics.jsonl", "{\"step\":1,\"reward/mean\":0.5,\"rollout/tokens\":10,\"perf/tokens_per_sec\":100}\n"
	                "{\"step\":2,\"reward/mean\":0,\"rollout/tokens\":0,\"perf/tokens_per_sec\":0}\n");
	char *html = report_of(&dir, 1);
	has(html, "Mean reward: 0.5 in the only step");
	has(html, "Tokens/s while rolling out: 100 in the only step");
	free(html);
}

/* ---- numbers ---- */

static void statistics_are_right(void **state)
{
	const double values[] = { 1, 2, 3, 4, 10 };
	const float bins[] = { 0, 0.5f, 1, 2, 3, NAN };
	double mean, low, high;
	struct series s = {0};
	(void)state;
	assert_true(quantile(values, 5, 0.5) == 3 && quantile(values, 5, 1) == 10 && quantile(values, 5, 0.125) == 1.5);
	assert_true(fabs(mean_interval(values, 5, &mean) - 2.776 * sqrt(12.5 / 5)) < 1e-9 && mean == 4);
	assert_true(isnan(mean_interval(values, 1, &mean)));
	assert_true(fabs(tic_step(1, 4) - 0.5) < 1e-12 && fabs(tic_step(0.008, 10) - 0.001) < 1e-12 && fabs(tic_step(900, 4) - 500) < 1e-9);
	share_interval(0.5, 100, &low, &high);
	assert_true(fabs(low - 0.4038) < 1e-4 && fabs(high - 0.5962) < 1e-4);
	share_interval(0, 10, &low, &high);
	assert_true(fabs(low) < 1e-12 && fabs(high - 0.2775) < 1e-4);
	for (int i = 0; i < 1000; i++) series_add(&s, i, i % 7);
	series_add(&s, NAN, 1);
	series_add(&s, 1, INFINITY);
	assert_int_equal(s.n, 1000);
	series_thin(&s, 100);
	assert_true(s.n == 100 && fabs(s.x[0] - 4.5) < 1e-12 && fabs(s.y[0] - 2.4) < 1e-12);
	series_free(&s);
	const float *sets[] = { bins };
	int n = 6;
	struct histogram h = histogram_of(sets, &n, 1, true);
	assert_true(h.width == 1 && h.n_bins == 4);
	s = histogram_outline(&h, bins, n);
	assert_true(s.y[1] == 40 && s.y[3] == 20); /* 0 and 0.5 of 5 finite values */
	series_free(&s);
}

static void numbers_are_written_for_people(void **state)
{
	static const struct { double value; const char *text, *brief; } cases[] = {
		{ 0, "0", "0" }, { 1234567, "1,234,567", "1,230,000" }, { -1000, "-1,000", "-1,000" }, { 0.123456, "0.1235", "0.123" },
		{ 999.96, "1,000", "1,000" }, { 12, "12", "12" }, { 1e-7, "1e-07", "1e-07" }, { 2e18, "2e+18", "2e+18" }, { -0.5, "-0.5", "-0.5" } };
	char text[NUMBER_TEXT_MAX];
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_string_equal(number_text(text, cases[i].value), cases[i].text);
		assert_string_equal(number_short(text, cases[i].value), cases[i].brief);
	}
	assert_string_equal(number_text(text, NAN), "-");
}

static void counters_of_a_rank_that_came_back_begin_anew(void **state)
{
	static const char *const lines[] = {
		"{\"t\":1,\"step\":1,\"rank\":3,\"state\":\"generating\",\"tokens\":100,\"drafted_by_position\":[10],\"accepted_by_position\":[5]}",
		"{\"t\":2,\"step\":1,\"rank\":3,\"state\":\"lost\",\"tokens\":100,\"drafted_by_position\":[10],\"accepted_by_position\":[5]}",
		"{\"t\":4,\"step\":2,\"rank\":3,\"state\":\"idle\",\"tokens\":30,\"drafted_by_position\":[4],\"accepted_by_position\":[4]}",
		"{\"t\":3,\"step\":2,\"rank\":3,\"state\":\"idle\"}", "{\"t\":-1,\"rank\":3}", "{\"t\":5}", "{\"t\":6,\"rank\":-4}" };
	struct report_timeline t = {0};
	struct position_counts total;
	(void)state;
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
		json_t *line = json_loads(lines[i], 0, NULL);
		report_timeline_add(&t, line);
		json_decref(line);
	}
	assert_true(t.n_ranks == 1 && t.ranks[0].n == 3 && t.bad_lines == 4);
	assert_true(t.ranks[0].tokens == 130 && t.ranks[0].lost == 1);
	assert_int_equal(report_timeline_positions(&t, &total), 1);
	assert_true(total.drafted[0] == 14 && total.accepted[0] == 9);
	assert_true(t.ranks[0].points[0].work == 1 && t.ranks[0].points[2].work == 0);
	report_timeline_free(&t);
}

/* REPORT_TRAJECTORIES=100000 for the long version; the bound is for 100,000 on a slow machine under a sanitizer. */
static void many_trajectories_take_seconds(void **state)
{
	const char *wanted = getenv("REPORT_TRAJECTORIES");
	int n = wanted ? atoi(wanted) : 8000;
	char path[256];
	const char *dir = below(path, "many");
	(void)state;
	assert_int_equal(mkdir(dir, 0755), 0);
	write_metrics(dir, 2000);
	write_store(dir, n / 4);
	clock_t begin = clock();
	char *html = report_of(&dir, 1);
	double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
	print_message("report of %d trajectories and 2,000 steps: %.2f s of CPU, %zu bytes\n", n, seconds, strlen(html));
	assert_true(seconds < 30);
	assert_true(strlen(html) < 4000000);
	free(html);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_run_has_every_part_and_its_numbers),
		cmocka_unit_test(runs_are_compared),
		cmocka_unit_test(names_are_no_markup_and_no_commands),
		cmocka_unit_test(what_is_absent_is_said),
		cmocka_unit_test(a_run_without_a_step_is_said),
		cmocka_unit_test(wild_numbers_end_nothing),
		cmocka_unit_test(bad_requests_are_refused),
		cmocka_unit_test(a_sweep_has_medians_and_ratios),
		cmocka_unit_test(a_sweep_shows_its_claim_in_the_order_of_its_file),
		cmocka_unit_test(a_step_that_generated_nothing_is_no_point),
		cmocka_unit_test(statistics_are_right),
		cmocka_unit_test(numbers_are_written_for_people),
		cmocka_unit_test(counters_of_a_rank_that_came_back_begin_anew),
		cmocka_unit_test(many_trajectories_take_seconds),
	};
	return cmocka_run_group_tests(tests, make_top, remove_top);
}

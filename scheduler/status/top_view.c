/* top_view.c - see top_view.h. */
#include "scheduler/status/top_view.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double STALE_SECONDS = 10; /* and five intervals: a run that says nothing for longer may be dead */

enum style { PLAIN, BOLD, FAINT, GREEN, YELLOW, RED };

struct canvas {
	FILE *f;
	int width, left; /* lines left */
	bool colour, begun;
};

/* One line, cut to the width. */
static void put_line(struct canvas *c, enum style style, const char *format, ...)
{
	static const char *const codes[] = { "", "\033[1m", "\033[2m", "\033[32m", "\033[33m", "\033[1;31m" };
	char text[512];
	va_list args;

	if (c->left == 0) return;
	va_start(args, format);
	int n = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	if (n > c->width) n = c->width;
	while (n > 0 && text[n - 1] == ' ') n--;
	for (int i = 0; i < n; i++)
		if (text[i] < 0x20 || text[i] == 0x7f) text[i] = '?'; /* not ASCII, or a control character */
	if (c->begun) fputc('\n', c->f);
	c->begun = true;
	if (c->colour && style != PLAIN && n > 0) fprintf(c->f, "%s%.*s\033[0m", codes[style], n, text);
	else fprintf(c->f, "%.*s", n, text);
	c->left--;
}

/* ---- values ---- */

static double number(const json_t *o, const char *key, double otherwise)
{
	const json_t *value = json_object_get(o, key);
	return json_is_number(value) ? json_number_value(value) : otherwise;
}

static int whole(const json_t *o, const char *key) { return (int)number(o, key, 0); }

static const char *word(const json_t *o, const char *key, const char *otherwise)
{
	const char *text = json_string_value(json_object_get(o, key));
	return text ? text : otherwise;
}

struct text {
	char text[32];
};

/* A number as %.*f, or "-" where there is none. */
static struct text fixed(const json_t *o, const char *key, int digits, double factor)
{
	struct text t = { "-" };
	const json_t *value = json_object_get(o, key);
	if (json_is_number(value)) snprintf(t.text, sizeof t.text, "%.*f", digits, factor * json_number_value(value));
	return t;
}

static struct text count(double n)
{
	struct text t;
	if (n >= 1e9) snprintf(t.text, sizeof t.text, "%.2f G", n / 1e9);
	else if (n >= 1e6) snprintf(t.text, sizeof t.text, "%.2f M", n / 1e6);
	else if (n >= 1e4) snprintf(t.text, sizeof t.text, "%.1f k", n / 1e3);
	else snprintf(t.text, sizeof t.text, "%.0f", n);
	return t;
}

static struct text duration(double seconds)
{
	struct text t = { "-" };
	long long s = seconds >= 0 && seconds < 1e15 ? (long long)(seconds + 0.5) : -1;
	if (s >= 86400) snprintf(t.text, sizeof t.text, "%lldd%02lldh", s / 86400, s / 3600 % 24);
	else if (s >= 3600) snprintf(t.text, sizeof t.text, "%lldh%02lldm", s / 3600, s / 60 % 60);
	else if (s >= 0) snprintf(t.text, sizeof t.text, "%lldm%02llds", s / 60, s % 60);
	return t;
}

/* ---- parts ---- */

static void put_run(struct canvas *c, const json_t *o)
{
	const char *state = word(o, "state", "?");
	bool running = strcmp(state, "running") == 0;
	double step = number(o, "step", 0), steps = number(o, "steps", 0), done = number(json_object_get(o, "last_step"), "step", 0);
	char bar[21];

	put_line(c, BOLD, "drumroll %s   %s   %s %s", word(o, "run", word(o, "run_dir", "?")), word(o, "mode", ""), running ? word(o, "phase", "running") : state,
	         duration(number(o, "seconds", -1)).text);
	double share = steps > 0 ? done / steps : 0;
	for (int i = 0; i < 20; i++) bar[i] = i < (int)(20 * share + 0.5) ? '#' : '.';
	bar[20] = '\0';
	if (steps > 0)
		put_line(c, running ? PLAIN : strcmp(state, "finished") == 0 ? GREEN : RED, "step %.0f/%.0f [%s] %s%s   version %.0f", step, steps, bar,
		         running ? "ETA " : state, running ? duration(number(o, "eta_seconds", -1)).text : "", number(o, "version", 0));
	else put_line(c, PLAIN, "step %.0f   %s", step, state);
}

static void put_last_step(struct canvas *c, const json_t *o)
{
	const json_t *last = json_object_get(o, "last_step");

	put_line(c, PLAIN, "reward %s   pass %s %%   held out %s %%   response %s mean %s max", fixed(last, "reward/mean", 3, 1).text,
	         fixed(last, "reward/pass_rate", 1, 100).text, fixed(o, "eval_pass_rate", 1, 100).text,
	         fixed(last, "rollout/response_len/mean", 0, 1).text, fixed(last, "rollout/response_len/max", 0, 1).text);
	put_line(c, PLAIN, "tokens/s %s now, %s last step   accepted %s   drafts %s   made %s", count(number(o, "tokens_per_sec", 0)).text,
	         count(number(last, "perf/tokens_per_sec", 0)).text, fixed(last, "rollout/sd/acceptance_rate", 3, 1).text,
	         fixed(last, "rollout/sd/draft_length/mean", 2, 1).text, count(number(o, "tokens", 0)).text);
}

static void put_work(struct canvas *c, const json_t *o)
{
	const json_t *last = json_object_get(o, "last_step"), *groups = json_object_get(o, "groups"), *samples = json_object_get(o, "samples"),
	             *trainer = json_object_get(o, "trainer");
	int out = whole(trainer, "batches_out");
	double waits = number(trainer, "waiting_seconds", 0);

	put_line(c, PLAIN, "groups %d in flight, %d complete of %d   samples %d leased, %d waiting, %d done", whole(groups, "open"),
	         whole(groups, "complete"), whole(groups, "wanted"), whole(samples, "leased"), whole(samples, "waiting"), whole(samples, "done"));
	put_line(c, PLAIN, "partials %d aside, %d resumed   staleness %s mean %s max", whole(samples, "aside"), whole(samples, "resumed"),
	         fixed(last, "staleness/mean", 2, 1).text, fixed(last, "staleness/max", 0, 1).text);
	const char *kind = word(trainer, "kind", "none");
	bool none = strcmp(kind, "none") == 0, connected = json_is_true(json_object_get(trainer, "connected"));
	put_line(c, none || connected ? PLAIN : YELLOW, "trainer %s%s   lag %d batch%s   waited for %s", kind, none || connected ? "" : " (not connected)",
	         out, out == 1 ? "" : "es", duration(waits).text);
}

static void put_rank(struct canvas *c, const json_t *r)
{
	const char *state = word(r, "state", "?");
	const json_t *seconds = json_object_get(r, "seconds");
	double total = number(seconds, "total", 0);
	enum style style = strcmp(state, "generating") == 0 ? GREEN : strcmp(state, "lost") == 0 ? RED : strcmp(state, "weights") == 0 ? YELLOW : FAINT;

	put_line(c, style, "%5d  %-10.10s %6d %6d %9s %8s %6s %7.0f %5.1f%% %5.0f%%", whole(r, "rank"), state, whole(r, "active"), whole(r, "queued"),
	         count(number(r, "tokens_per_sec", 0)).text, fixed(r, "acceptance", 3, 1).text, fixed(r, "draft_length", 2, 1).text,
	         number(r, "version", 0), 100 * number(r, "kv_used", 0), total > 0 ? 100 * (1 - number(seconds, "wait", 0) / total) : 0);
}

/* As many as fit, and how many there are of each kind beyond. */
static void put_ranks(struct canvas *c, const json_t *ranks, int *first)
{
	int n = (int)json_array_size(ranks), room = c->left - 2; /* header, last line */
	int kinds[3] = { 0 };

	if (n == 0 || room < 1) return;
	put_line(c, BOLD, " rank  state      active queued  tokens/s accepted drafts version     KV  busy");
	int rows = n <= room ? n : room - 1;
	if (*first > n - rows) *first = n - rows;
	if (*first < 0) *first = 0;
	for (int i = *first; i < *first + rows; i++) put_rank(c, json_array_get(ranks, (size_t)i));
	if (rows == n || rows < 0) return;
	for (int i = 0; i < n; i++) {
		const char *state = word(json_array_get(ranks, (size_t)i), "state", "");
		kinds[0] += strcmp(state, "generating") == 0;
		kinds[1] += strcmp(state, "lost") == 0;
	}
	put_line(c, FAINT, "ranks %d to %d of %d: %d generate, %d lost; arrows for others", *first + 1, *first + rows, n, kinds[0], kinds[1]);
}

static void put_foot(struct canvas *c, const json_t *o, const struct top_screen *screen)
{
	double age = screen->time - number(o, "time", screen->time), interval = number(o, "interval", 1);
	bool running = strcmp(word(o, "state", ""), "running") == 0;

	while (c->left > 1) put_line(c, PLAIN, "%s", "");
	if (screen->note) put_line(c, RED, "%s", screen->note);
	else if (running && age > STALE_SECONDS && age > 5 * interval) put_line(c, RED, "no news for %s: is the run alive?   q quit", duration(age).text);
	else put_line(c, FAINT, "q quit   busy: share of its time that a rank does not wait");
}

int top_view_draw(const char *json, struct top_screen *screen, char **text, struct err *err)
{
	json_t *o = json_loads(json, 0, NULL);
	size_t n;

	if (!json_is_object(o)) {
		json_decref(o);
		return err_set(err, ERR_INVALID, "expected the state of a run as a JSON object, found '%.40s'", json);
	}
	struct canvas c = { .width = screen->width, .left = screen->height, .colour = screen->colour };
	if (c.width < TOP_WIDTH_MIN) c.width = TOP_WIDTH_MIN;
	if (c.width > TOP_WIDTH_MAX) c.width = TOP_WIDTH_MAX;
	if (c.left > TOP_HEIGHT_MAX) c.left = TOP_HEIGHT_MAX;
	c.f = open_memstream(text, &n);
	if (!c.f) abort(); /* no memory */
	put_run(&c, o);
	put_last_step(&c, o);
	put_work(&c, o);
	if (c.left > 4) put_line(&c, PLAIN, "%s", "");
	put_ranks(&c, json_object_get(o, "ranks"), &screen->first_rank);
	if (c.left > 0) put_foot(&c, o, screen);
	fclose(c.f);
	json_decref(o);
	return 0;
}

bool top_view_is_over(const char *json)
{
	json_t *o = json_loads(json, 0, NULL);
	const char *state = json_string_value(json_object_get(o, "state"));
	bool over = state && strcmp(state, "running") != 0;

	json_decref(o);
	return over;
}

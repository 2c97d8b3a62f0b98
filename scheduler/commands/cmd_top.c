/* cmd_top.c - `drumroll top RUN_DIR|HOST:PORT`: a run as it goes, on a terminal, as text or as JSON lines. */
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "configs/config.h"
#include "scheduler/clock.h"
#include "scheduler/commands/arguments.h"
#include "scheduler/commands/commands.h"
#include "scheduler/status/status_source.h"
#include "scheduler/status/terminal.h"
#include "scheduler/status/top_view.h"

struct top_options {
	bool json, once;
	double seconds; /* between two looks */
};

static double time_of_day(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* ---- JSON lines and text ---- */

/* One line, whatever the source's layout. */
static int print_json(const char *json, struct err *err)
{
	json_t *o = json_loads(json, 0, NULL);
	char *line = json_is_object(o) ? json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(12)) : NULL;

	json_decref(o);
	if (!line) return err_set(err, ERR_INVALID, "expected the state of a run as a JSON object, found '%.40s'", json);
	int rc = printf("%s\n", line) < 0 || fflush(stdout) ? err_set_errno(err, ERR_IO, "cannot write") : 0;
	free(line);
	return rc;
}

static int print_json_lines(const struct status_source *source, const struct top_options *options, struct err *err)
{
	for (;;) {
		char *json;
		int rc = status_source_read(source, &json, err);
		if (rc) return rc;
		rc = print_json(json, err);
		bool over = options->once || top_view_is_over(json);
		free(json);
		if (rc || over) return rc;
		clock_sleep_ms(1000 * options->seconds);
	}
}

/* All of it: as many lines as it takes. */
static int print_text(const struct status_source *source, struct err *err)
{
	struct top_screen screen = { .width = 80, .height = TOP_HEIGHT_MAX, .time = time_of_day() };
	char *json, *text;

	int rc = status_source_read(source, &json, err);
	if (rc) return rc;
	rc = top_view_draw(json, &screen, &text, err);
	free(json);
	if (rc) return rc;
	size_t n = strlen(text); /* without the foot and what fills the screen before it */
	while (n > 0 && text[n - 1] != '\n') n--;
	while (n > 0 && text[n - 1] == '\n') n--;
	printf("%.*s\n", (int)n, text);
	free(text);
	return 0;
}

/* ---- the screen ---- */

static int draw(const char *json, struct top_screen *screen, struct err *err)
{
	char *text;

	terminal_size(&screen->width, &screen->height);
	screen->time = time_of_day();
	int rc = top_view_draw(json, screen, &text, err);
	if (rc) return rc;
	terminal_draw(text);
	free(text);
	return 0;
}

static void scroll(struct top_screen *screen, enum terminal_key key)
{
	int page = screen->height > 14 ? screen->height - 12 : 2;

	if (key == TERMINAL_UP) screen->first_rank--;
	if (key == TERMINAL_DOWN) screen->first_rank++;
	if (key == TERMINAL_PAGE_UP) screen->first_rank -= page;
	if (key == TERMINAL_PAGE_DOWN) screen->first_rank += page;
}

/* What was read last stays on the screen when the run answers no more, with the reason below it. */
static int watch(const struct status_source *source, const struct top_options *options, char **json, struct err *err)
{
	struct top_screen screen = { .colour = getenv("NO_COLOR") == NULL };
	char note[ERR_TEXT_MAX];
	struct err why;

	for (;;) {
		int rc = draw(*json, &screen, err);
		if (rc) return rc;
		double start = clock_seconds(), left = options->seconds;
		while (left > 0) {
			enum terminal_key key = terminal_wait(left);
			if (key == TERMINAL_QUIT) return 0;
			left = options->seconds - (clock_seconds() - start);
			if (key == TERMINAL_NOTHING) continue;
			scroll(&screen, key);
			rc = draw(*json, &screen, err);
			if (rc) return rc;
		}
		char *next;
		if (top_view_is_over(*json)) continue;
		screen.note = NULL;
		if (status_source_read(source, &next, &why)) {
			snprintf(note, sizeof note, "%s", why.text);
			screen.note = note;
			continue;
		}
		free(*json);
		*json = next;
	}
}

static int show(const struct status_source *source, const struct top_options *options, struct err *err)
{
	char *json;

	int rc = status_source_read(source, &json, err);
	if (rc) return rc;
	terminal_open();
	rc = watch(source, options, &json, err);
	terminal_close();
	free(json);
	return rc ? rc : terminal_signal() ? 128 + terminal_signal() : 0;
}

int top_command(int argc, char **argv)
{
	struct top_options options = { .seconds = 1 };
	struct argument table[] = {
		{ .name = "--json", .type = ARGUMENT_FLAG, .value = &options.json, .help = "the state as a JSON line, again and again until the run is over" },
		{ .name = "--once", .type = ARGUMENT_FLAG, .value = &options.once, .help = "once, then end" },
		{ .name = "--seconds", .type = ARGUMENT_REAL, .value = &options.seconds, .help = "between two looks", .min = 0.1, .max = 3600 },
	};
	const int n_table = sizeof table / sizeof *table;
	struct status_source source;
	struct err err;

	if (arguments_want_help(argc, argv) || argc < 2) {
		arguments_print_help(table, n_table, "top RUN_DIR|HOST:PORT", "A run as it goes: from its directory, or from its metrics.listen.\n"
		                     "On a terminal a screen (q ends it, arrows show other ranks), else one of text.", argc < 2 ? stderr : stdout);
		return argc < 2 ? EXIT_USAGE : 0;
	}
	const char *where = argv[1];
	argv[1] = argv[0];
	int rc = arguments_parse(table, n_table, argc - 1, argv + 1, &err);
	if (!rc) rc = status_source_find(&source, where, &err);
	if (!rc && options.json) rc = print_json_lines(&source, &options, &err);
	else if (!rc && (options.once || !terminal_is_there())) rc = print_text(&source, &err);
	else if (!rc) rc = show(&source, &options, &err);
	if (rc >= 0) return rc;
	fprintf(stderr, "drumroll: %s\n", err.text);
	return rc == ERR_USAGE ? EXIT_USAGE : EXIT_FAILURE;
}

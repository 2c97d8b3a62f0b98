/* cmd_export.c - `drumroll export RUN_DIR`: a run's stored trajectories in order of trajectory id, as JSON lines
 * (export_jsonl.c), CSV (export_csv.c) or a NumPy archive (export_npz.c).
 *
 * --stable leaves out what may differ between two runs of the same config (ranks, modes, timings, counters, how often a
 * sample was put aside), so that equal runs give equal bytes.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scheduler/commands/arguments.h"
#include "scheduler/commands/commands.h"
#include "scheduler/commands/output_file.h"
#include "scheduler/export/export.h"
#include "scheduler/store/step_range.h"

#define FORMATS "jsonl|csv|npz"

struct export_options {
	const char *run_dir, *out, *steps;
	int format;
	int64_t limit;
	bool stable, delivered;
	struct step_range range;
};

struct export_walk {
	const struct export_options *options;
	struct stored_sample *samples; /* [n] that are wanted, in order of id */
	size_t n, capacity, next;
	FILE *out;
	struct export_npz *npz;
	struct err *err;
};

static int choose(void *context, const struct stored_sample *sample, struct err *err)
{
	struct export_walk *w = context;
	const struct export_options *o = w->options;

	(void)err;
	if (o->limit > 0 && (int64_t)w->n >= o->limit) return 0;
	if (!step_range_has(&o->range, sample->step) || (o->delivered && sample->state != STORE_DELIVERED)) return 0;
	if (w->n == w->capacity) {
		w->capacity = w->capacity ? 2 * w->capacity : 256;
		w->samples = xrealloc(w->samples, w->capacity * sizeof *w->samples);
	}
	w->samples[w->n++] = *sample;
	return 0;
}

static int export_row(void *context, const struct trajectory *t, enum store_state state)
{
	struct export_walk *w = context;

	/* A run that goes on may have put others meanwhile. */
	while (w->next < w->n && w->samples[w->next].id < t->id) w->next++;
	if (w->next == w->n || w->samples[w->next].id != t->id) return 0;
	struct export_row row = { .t = t, .state = state, .step = w->samples[w->next].step, .stable = w->options->stable };
	switch ((enum export_format)w->options->format) {
	case EXPORT_CSV: export_csv_row(w->out, &row); break;
	case EXPORT_NPZ: export_npz_row(w->npz, &row); break;
	default: export_jsonl_row(w->out, &row); break;
	}
	return ferror(w->out) ? err_set_errno(w->err, ERR_IO, "cannot write") : 0;
}

static int read_options(struct export_options *o, int argc, char **argv, struct err *err)
{
	enum { N = 6 };
	struct argument table[N] = {
		{"--format", ARGUMENT_CHOICE, &o->format, "JSON lines with everything, a table of one row per trajectory, or NumPy arrays",
		 .choices = FORMATS},
		{"--out", ARGUMENT_TEXT, &o->out, "replaced as a whole; - or none: standard output"},
		{"--stable", ARGUMENT_FLAG, &o->stable, "without what may differ between two runs of one config"},
		{"--steps", ARGUMENT_TEXT, &o->steps, "A-B, A-, -B or A: what was delivered, evaluated or dropped in these steps"},
		{"--delivered", ARGUMENT_FLAG, &o->delivered, "only what was delivered or evaluated"},
		{"--limit", ARGUMENT_INT, &o->limit, "the first so many; 0: all", .max = INT64_MAX / 2},
	};
	char **rest = xcalloc((size_t)argc + 1, sizeof *rest);

	*o = (struct export_options){ 0 };
	if (arguments_want_help(argc, argv)) {
		arguments_print_help(table, N, "export RUN_DIR", "a run's trajectories, in order of trajectory id", stdout);
		exit(EXIT_SUCCESS);
	}
	int rc = arguments_take_word(table, N, &argc, argv, rest, &o->run_dir, "run directory", err);
	if (!rc) rc = arguments_parse(table, N, argc, rest, err);
	free(rest);
	if (!rc) rc = step_range_parse(&o->range, o->steps, err);
	if (!rc && o->format == EXPORT_NPZ && (!o->out || strcmp(o->out, "-") == 0) && isatty(STDOUT_FILENO))
		rc = err_set(err, ERR_USAGE, "--format npz is not for a terminal: name a file with --out");
	return rc;
}

static int export_all(struct export_walk *w, struct store *store, struct err *err)
{
	const struct export_options *o = w->options;

	int rc = store_each_sample(store, choose, w, err);
	if (!rc && o->format == EXPORT_NPZ) rc = export_npz_open(&w->npz, o->stable, err);
	if (!rc && o->format == EXPORT_CSV) export_csv_head(w->out, o->stable);
	if (!rc) rc = store_each_trajectory(store, export_row, w, err);
	if (!rc && w->npz) rc = export_npz_end(w->npz, w->out, err);
	export_npz_close(w->npz);
	free(w->samples);
	return rc;
}

static int export_run(const struct export_options *options, struct err *err)
{
	struct output_file file;
	struct store *store;
	struct err ignored;

	if (store_open_existing(&store, options->run_dir, err)) return err->code;
	int rc = output_file_open(&file, options->out, err);
	if (!rc) {
		struct export_walk walk = { .options = options, .out = file.stream, .err = err };
		rc = export_all(&walk, store, err);
		if (rc) output_file_abandon(&file);
		else rc = output_file_commit(&file, err); /* a full disk may show itself only now */
	}
	store_close(store, &ignored);
	return rc;
}

int export_command(int argc, char **argv)
{
	struct export_options options;
	struct err err;

	int rc = read_options(&options, argc, argv, &err);
	if (!rc) rc = export_run(&options, &err);
	if (!rc) return EXIT_SUCCESS;
	fprintf(stderr, "drumroll export: %s\n", err.text);
	return rc == ERR_USAGE ? EXIT_USAGE : EXIT_FAILURE;
}

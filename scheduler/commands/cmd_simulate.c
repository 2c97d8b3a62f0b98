/* cmd_simulate.c - `drumroll simulate CONFIG [--set section.key=value ...] [options]`: the modes of the scheduler side
 * by side on one simulated cluster, for the same samples.
 *
 * The config is that of a run: batch size, over-sampling, slots and bounds are taken from it; what a cluster must be
 * told beside it is in the section `simulate`.  No model, prompts or MPI are needed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/config_arguments.h"
#include "rollout/advantage/advantage.h"
#include "rollout/speculation/cost_file.h"
#include "scheduler/bench/bench_report.h"
#include "scheduler/commands/arguments.h"
#include "scheduler/commands/commands.h"
#include "scheduler/ranks/transport.h"
#include "scheduler/simulate/simulate.h"

enum { WORDS_MAX = 2 * CONFIG_SETS_MAX + 16, SAMPLES_MAX = 1000000000 };

struct simulate_command {
	const char *costs, *setup, *modes; /* NULL: not given */
	bool json, check;
	struct config config;
	struct speculation_costs calls;
	char setup_found[COST_SETUP_MAX];
	struct simulate_lengths *lengths;
};

/* ---- the command line ---- */

static int own_options(struct simulate_command *o, int argc, char **argv, struct err *err)
{
	struct argument table[] = {
		{"--set", ARGUMENT_TEXT, NULL, "section.key=value over the config, as for `drumroll run`; may be repeated"},
		{"--costs", ARGUMENT_FILE, &o->costs, "file of `drumroll calibrate`, in place of speculation.costs and simulate.read_seconds and so on"},
		{"--setup", ARGUMENT_TEXT, &o->setup, "of that file, the first line whose setup holds this text; else the first"},
		{"--modes", ARGUMENT_TEXT, &o->modes, "only these, as in sync,april"},
		{"--json", ARGUMENT_FLAG, &o->json, "a line of JSON for each mode, with the names of the table"},
		{"--check", ARGUMENT_FLAG, &o->check, "check the scheduler's invariants after every event: slow"},
	};
	int n = sizeof table / sizeof *table;

	if (argc > 0) return arguments_parse(table, n, argc, argv, err);
	arguments_print_help(table, n, "simulate CONFIG", "a cluster in virtual time, mode by mode", stdout);
	printf("\nReported (steps after simulate.warmup):\n\n");
#define X(name, decimals, help) printf("  %-26s %s\n", #name, help);
	SIMULATE_METRICS(X)
#undef X
	printf("\nModes:");
	for (int i = 0; i < simulate_modes_n; i++) printf(" %s", simulate_modes[i].name);
	printf("\nThe keys of the cluster, with their bounds: drumroll config --default, section simulate\n");
	return 0;
}

/* What is ours to one side, CONFIG and --set to the other. */
static int arguments_read(struct simulate_command *o, struct config_arguments *config, int argc, char **argv, struct err *err)
{
	char *own[WORDS_MAX], *rest[WORDS_MAX];
	int n_own = 1, n_rest = 1;

	if (argc > WORDS_MAX) return err_set(err, ERR_USAGE, "more than %d words: put what --set says into the config file", WORDS_MAX);
	own[0] = rest[0] = argv[0];
	for (int i = 1; i < argc; i++) {
		bool set = strcmp(argv[i], "--set") == 0, flag = strcmp(argv[i], "--json") == 0 || strcmp(argv[i], "--check") == 0;
		if (set || argv[i][0] != '-') rest[n_rest++] = argv[i];
		else own[n_own++] = argv[i];
		if (argv[i][0] != '-' || flag || i + 1 == argc) continue;
		i++;
		if (set) rest[n_rest++] = argv[i];
		else own[n_own++] = argv[i];
	}
	int rc = own_options(o, n_own, own, err);
	return rc ? rc : config_arguments_read(config, n_rest, rest, NULL, NULL, err);
}

static bool mode_is_wanted(const struct simulate_command *o, const char *name)
{
	size_t length = strlen(name);

	for (const char *at = o->modes; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
		if (strncmp(at, name, length) == 0 && (at[length] == ',' || at[length] == '\0')) return true;
	return o->modes == NULL;
}

static int check_modes(const struct simulate_command *o, struct err *err)
{
	char known[256] = "";

	for (int i = 0; i < simulate_modes_n; i++)
		snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", simulate_modes[i].name);
	for (const char *at = o->modes, *end; at; at = *end ? end + 1 : NULL) {
		bool found = false;
		end = at + strcspn(at, ",");
		for (int i = 0; i < simulate_modes_n; i++)
			found |= strlen(simulate_modes[i].name) == (size_t)(end - at) && strncmp(at, simulate_modes[i].name, (size_t)(end - at)) == 0;
		if (!found) return err_set(err, ERR_USAGE, "--modes: expected names of %s, found '%.*s'", known, (int)(end - at), at);
	}
	return 0;
}

/* ---- what contradicts itself ---- */

static int check_config(const struct config *c, struct err *err)
{
	const struct config_simulate *o = &c->simulate;
	double samples = (double)c->scheduler.groups_per_step * c->scheduler.over_sampling *
	                 advantage_samples_to_draw(&c->advantage, (int)c->rollout.group_size);

	if (c->rollout.mode == ROLLOUT_EXPLORE)
		return err_set(err, ERR_CONFIG, "rollout.mode is explore, which is not simulated: what is drawn again depends on rewards; set it to speculative");
	if (o->warmup >= o->steps)
		return err_set(err, ERR_CONFIG, "simulate.warmup is %lld of %lld steps, which leaves none to report: set simulate.steps to more",
		               (long long)o->warmup, (long long)o->steps);
	if (o->read_seconds + o->row_seconds <= 0)
		return err_set(err, ERR_CONFIG, "simulate.read_seconds and simulate.row_seconds are both 0: a round must take some time, set one of them");
	if (c->allocation.kind != ALLOCATION_UNIFORM)
		return err_set(err, ERR_CONFIG, "allocation.kind goes by rewards, which simulated samples do not have: set it to uniform");
	if (samples > SAMPLES_MAX)
		return err_set(err, ERR_TOO_BIG, "scheduler.groups_per_step, over_sampling and rollout.group_size ask for %.0f samples in flight: expected at most %d",
		               samples, SAMPLES_MAX);
	return 0;
}

static int read_costs(struct simulate_command *o, struct err *err)
{
	const char *path = o->costs ? o->costs : o->config.speculation.costs;

	if (path[0]) return cost_file_find(path, o->setup ? o->setup : "", o->setup_found, &o->calls, err);
	if (o->setup) return err_set(err, ERR_USAGE, "--setup chooses a line of a cost file: name the file with --costs");
	simulate_costs_invent(&o->calls, &o->config.simulate);
	return 0;
}

/* ---- the report ---- */

static void print_head(const struct simulate_command *o)
{
	const struct config *c = &o->config;
	char lengths[256];

	simulate_lengths_describe(o->lengths, lengths, sizeof lengths);
	printf("%lld workers of %lld slots, %lld more queued on each; %lld groups of %d samples a step, over-sampling %g\n",
	       (long long)c->simulate.workers, (long long)c->worker.max_active, (long long)c->scheduler.rank_backlog,
	       (long long)c->scheduler.groups_per_step, advantage_samples_to_draw(&c->advantage, (int)c->rollout.group_size),
	       c->scheduler.over_sampling);
	printf("lengths: %s\n", lengths);
	if (o->setup_found[0]) printf("costs: %s\n", o->setup_found);
	else printf("costs: %g s to read the weights, %g s a row, %g s a position\n", c->simulate.read_seconds,
	            c->simulate.row_seconds, c->simulate.position_seconds);
	printf("%lld steps after %lld of warm-up, seed %lld\n\n", (long long)(c->simulate.steps - c->simulate.warmup),
	       (long long)c->simulate.warmup, (long long)c->simulate.seed);
}

static void print_json(const struct simulate_command *o, const struct simulate_mode *mode, const struct simulate_metrics *m)
{
	const struct config *c = &o->config;
	json_t *record = json_pack("{s:s, s:I, s:I, s:I, s:I}", "mode", mode->name, "workers", (json_int_t)c->simulate.workers,
	                           "max_active", (json_int_t)c->worker.max_active, "steps",
	                           (json_int_t)(c->simulate.steps - c->simulate.warmup), "seed", (json_int_t)c->simulate.seed);

#define X(name, decimals, help) json_object_set_new(record, #name, json_real(m->name));
	SIMULATE_METRICS(X)
#undef X
	bench_json(record);
}

static void print_table(const struct simulate_mode *const *modes, const struct simulate_metrics *m, int n)
{
	struct bench_table *table = bench_table_open(1 + n, 1);

	bench_cell(table, "%s", "");
	for (int i = 0; i < n; i++) bench_cell(table, "%s", modes[i]->name);
#define X(name, decimals, help) \
	bench_cell(table, "%s", #name); \
	for (int i = 0; i < n; i++) bench_cell(table, "%.*f", decimals, m[i].name);
	SIMULATE_METRICS(X)
#undef X
	bench_table_close(table, stdout);
}

static int simulate_modes_all(struct simulate_command *o, struct err *err)
{
	struct simulate_inputs in = {.config = &o->config, .lengths = o->lengths, .costs = &o->calls, .check = o->check};
	const struct simulate_mode **modes = xcalloc((size_t)simulate_modes_n, sizeof *modes);
	struct simulate_metrics *metrics = xcalloc((size_t)simulate_modes_n, sizeof *metrics);
	int n = 0, rc = 0;

	if (!o->json) print_head(o);
	for (int i = 0; i < simulate_modes_n && !rc; i++) {
		if (!mode_is_wanted(o, simulate_modes[i].name)) continue;
		rc = simulate_run(&metrics[n], &in, &simulate_modes[i], err);
		if (!rc && o->json) print_json(o, &simulate_modes[i], &metrics[n]);
		modes[n++] = &simulate_modes[i];
	}
	if (!rc && !o->json) print_table(modes, metrics, n);
	free(modes);
	free(metrics);
	return rc;
}

static int simulate(struct simulate_command *o, int argc, char **argv, struct err *err)
{
	struct config_arguments arguments;

	int rc = arguments_read(o, &arguments, argc, argv, err);
	if (!rc) rc = check_modes(o, err);
	if (!rc) rc = config_load(&o->config, arguments.path, arguments.sets, arguments.n_sets, err);
	if (rc) return rc;
	rc = check_config(&o->config, err);
	if (!rc) rc = read_costs(o, err);
	if (!rc) rc = simulate_lengths_open(&o->lengths, &o->config, err);
	if (!rc) rc = simulate_modes_all(o, err);
	simulate_lengths_close(o->lengths);
	config_free(&o->config);
	return rc;
}

int simulate_command(int argc, char **argv)
{
	struct simulate_command *o = xcalloc(1, sizeof *o);
	struct err err;
	int rc = 0;

	if (transport_is_follower()) { /* under mpirun one rank is enough */
		free(o);
		return EXIT_SUCCESS;
	}
	if (arguments_want_help(argc, argv)) own_options(o, 0, NULL, &err);
	else rc = simulate(o, argc, argv, &err);
	free(o);
	if (rc) fprintf(stderr, "drumroll simulate: %s\n", err.text);
	return rc == ERR_USAGE || rc == ERR_CONFIG ? EXIT_USAGE : rc ? EXIT_FAILURE : EXIT_SUCCESS;
}

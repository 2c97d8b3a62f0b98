/* cmd_calibrate.c - `drumroll calibrate`: what forward calls of a model and its drafter cost on this machine,
 * measured once and kept (rollout/speculation/cost_file.h), so that a run plans well from its first round on.
 *
 * Calls of every number of rows are made in turns, so what disturbs the machine for a second spoils one
 * measurement of each, and medians are taken.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "configs/config.h"
#include "rollout/speculation/cost_file.h"
#include "scheduler/bench/bench_model.h"
#include "scheduler/commands/arguments.h"
#include "scheduler/commands/commands.h"
#include "scheduler/commands/output_file.h"

enum { TURNS = 7, CONTEXT_SHORT = 32, CONTEXT_LONG = 512, ROWS_LONG = 4, PARTS = PART_DRAFT_INT4 + 1 };

struct calibrate_options {
	const char *model, *out;
	int64_t threads, rows;
	int format, head, activations, kv;
	double grow;
};

struct calibration {
	const struct calibrate_options *options;
	struct policy *policy;
	double seconds[PARTS][COST_KNOTS][TURNS]; /* short contexts */
	double longer[TURNS], shorter[TURNS];     /* ROWS_LONG rows of the target in a long context and a short one */
	int context_long;
};

static int options_read(struct calibrate_options *o, int argc, char **argv, struct err *err)
{
	struct argument table[] = {
		{"--model", ARGUMENT_FILE, &o->model, "Hugging Face model directory", true},
		{"--out", ARGUMENT_TEXT, &o->out, "file that gets, or keeps, a line for each setup (costs.jsonl)"},
		{"--format", ARGUMENT_CHOICE, &o->format, "as speculation.format",
		 .choices = "int4|int4_g64|int4_g128|int4m|int4m_g64|int4m_g128|int5|int6|int8|mxfp4|nvfp4|auto"},
		{"--head-format", ARGUMENT_CHOICE, &o->head, "as speculation.head_format",
		 .choices = "same|bf16|int4|int4_g64|int4_g128|int4m|int4m_g64|int4m_g128|int5|int6|int8|mxfp4|nvfp4"},
		{"--activations", ARGUMENT_CHOICE, &o->activations, "as speculation.activations", .choices = "int8|fp32"},
		{"--kv-format", ARGUMENT_CHOICE, &o->kv, "as worker.kv_format", .choices = "bf16|f32"},
		{"--rows", ARGUMENT_INT, &o->rows, "most rows of a call: active sessions and their drafts", .min = 1, .max = 256},
		{"--grow", ARGUMENT_REAL, &o->grow, "measure the model grown to so many weights, such as 0.5e9; 0: as it is",
		 .min = 0, .max = 1e12},
		{"--threads", ARGUMENT_INT, &o->threads, "as worker.threads", .min = 1, .max = 1024},
	};
	int n = sizeof table / sizeof *table;
	struct config config;

	config_defaults(&config);
	*o = (struct calibrate_options){
		.out = "costs.jsonl", .threads = bench_threads_default(), .rows = 128, .format = config.speculation.format,
		.head = config.speculation.head_format, .kv = config.worker.kv_format,
	};
	config_free(&config);
	if (!arguments_want_help(argc, argv)) return arguments_parse(table, n, argc, argv, err);
	arguments_print_help(table, n, "calibrate", "what forward calls cost on this machine, for speculation.costs", stdout);
	exit(EXIT_SUCCESS);
}

static int load(struct calibration *c, struct err *err)
{
	const struct calibrate_options *o = c->options;
	struct config_speculation speculation = {
		.format = o->format, .head_format = o->head, .activations = o->activations, .quantizer = DRAFT_RTN,
	};
	struct draft_options draft = draft_options_of(&speculation, ROLLOUT_SPECULATIVE);
	struct weights weights;
	int rc = bench_weights_load(&weights, o->model, o->grow, err);

	if (rc) return rc;
	rc = policy_create(&c->policy, &weights, 0, &draft, (int)o->threads, err);
	weights_free(&weights);
	return rc;
}

static int parts_of(const struct policy *policy) { return policy->draft_choose ? PARTS : PARTS - 1; }

/* Target and drafters take turns, as in a round of speculation: each finds the caches full of the others. */
static int measure_rows(struct calibration *c, struct err *err)
{
	const struct calibrate_options *o = c->options;
	struct bench_sequences sequences;
	int context = CONTEXT_SHORT, most = c->policy->config.max_context;

	if (context > most - 1) context = most - 1;
	int rc = bench_sequences_open(&sequences, c->policy, (enum kv_type)o->kv, (int)o->rows, context + 1,
	                              (int)o->threads, err);
	if (rc) return rc;
	bench_sequences_prefill(&sequences, context);
	for (int turn = -1; turn < TURNS; turn++) {
		for (int i = 0; i < COST_KNOTS && cost_knot_rows[i] <= o->rows; i++) {
			for (int part = parts_of(c->policy) - 1; part >= 0; part--) {
				double seconds = bench_sequences_step(&sequences, cost_knot_rows[i], context, (enum policy_part)part);
				if (turn >= 0) c->seconds[part][i][turn] = seconds;
			}
		}
		bench_progress("turn", turn, TURNS);
	}
	bench_progress("turn", TURNS, TURNS);
	bench_sequences_close(&sequences);
	return 0;
}

/* What attention adds per position: the same rows in a long context and in a short one. */
static int measure_context(struct calibration *c, struct err *err)
{
	const struct calibrate_options *o = c->options;
	struct bench_sequences sequences;
	int most = c->policy->config.max_context;

	c->context_long = CONTEXT_LONG < most - 1 ? CONTEXT_LONG : most - 1;
	int rc = bench_sequences_open(&sequences, c->policy, (enum kv_type)o->kv, ROWS_LONG, c->context_long + 1,
	                              (int)o->threads, err);
	if (rc) return rc;
	bench_sequences_prefill(&sequences, c->context_long);
	for (int turn = -1; turn < TURNS; turn++) {
		double shorter = bench_sequences_step(&sequences, ROWS_LONG, 0, PART_TARGET);
		double longer = bench_sequences_step(&sequences, ROWS_LONG, c->context_long, PART_TARGET);
		if (turn < 0) continue;
		c->shorter[turn] = shorter;
		c->longer[turn] = longer;
	}
	bench_sequences_close(&sequences);
	return 0;
}

/* The file that is going to be added to is one of ours. */
static int check_out(const struct calibrate_options *o, struct err *err)
{
	struct speculation_costs costs;

	if (strcmp(o->out, "-") == 0) return err_set(err, ERR_USAGE, "--out: expected a file, found '-'");
	if (access(o->out, F_OK) != 0) return 0;
	int rc = cost_file_read(o->out, "", &costs, err);
	return rc < 0 ? rc : 0;
}

static struct cost_table table_of(struct calibration *c, int part)
{
	struct cost_table table = {0};
	double more = bench_median(c->longer, TURNS) - bench_median(c->shorter, TURNS);
	int context = CONTEXT_SHORT < c->policy->config.max_context ? CONTEXT_SHORT : c->policy->config.max_context - 1;

	table.per_position = more > 0 ? more / ((double)ROWS_LONG * c->context_long) : 0;
	for (int i = 0; i < COST_KNOTS && cost_knot_rows[i] <= c->options->rows; i++) {
		double median = bench_median(c->seconds[part][i], TURNS), rows = cost_knot_rows[i];
		double alone = median - table.per_position * rows * (context + 1);
		table.seconds[i] = alone > median / 8 ? alone : median / 8;
		table.weight[i] = 1;
	}
	return table;
}

static void print_table(const struct speculation_costs *costs, int n_drafters)
{
	struct bench_table *table = bench_table_open(2 + n_drafters, 0);

	bench_cell(table, "rows");
	bench_cell(table, "target ms");
	for (int d = 0; d < n_drafters; d++) bench_cell(table, d == 0 ? "drafter ms" : "its int4 part ms");
	for (int i = 0; i < COST_KNOTS; i++) {
		if (costs->target.weight[i] <= 0) continue;
		bench_cell(table, "%d", cost_knot_rows[i]);
		bench_cell(table, "%.3f", 1e3 * costs->target.seconds[i]);
		for (int d = 0; d < n_drafters; d++) bench_cell(table, "%.3f", 1e3 * costs->drafters[d].seconds[i]);
	}
	bench_table_close(table, stdout);
	printf("and %.3f us per row and attended position\n", 1e6 * costs->target.per_position);
}

static int keep(struct calibration *c, const struct speculation_costs *costs, struct err *err)
{
	char setup[COST_SETUP_MAX];
	struct output_file out;

	cost_setup_describe(setup, bench_cpu_name(), (int)c->options->threads, c->policy, (enum kv_type)c->options->kv);
	int rc = output_file_open(&out, c->options->out, err);
	if (rc) return rc;
	rc = cost_file_write(out.stream, c->options->out, setup, costs, err);
	if (rc) output_file_abandon(&out);
	else rc = output_file_commit(&out, err);
	if (!rc) printf("\n%s\nkept in %s: a run takes it by speculation.costs\n", setup, c->options->out);
	return rc;
}

int calibrate_command(int argc, char **argv)
{
	struct calibrate_options options;
	struct calibration *c = xcalloc(1, sizeof *c);
	struct speculation_costs costs = {0};
	struct err err;

	c->options = &options;
	int rc = options_read(&options, argc, argv, &err);
	if (!rc) rc = check_out(&options, &err);
	if (!rc) rc = load(c, &err);
	if (!rc) rc = measure_rows(c, &err);
	if (!rc) rc = measure_context(c, &err);
	if (!rc) {
		int n_drafters = parts_of(c->policy) - 1;
		costs.target = table_of(c, PART_TARGET);
		for (int d = 0; d < n_drafters; d++) costs.drafters[d] = table_of(c, PART_DRAFT + d);
		print_table(&costs, n_drafters);
		rc = keep(c, &costs, &err);
	}
	policy_free(c->policy);
	free(c);
	if (rc) fprintf(stderr, "drumroll calibrate: %s\n", err.text);
	return rc == ERR_USAGE ? EXIT_USAGE : rc ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* bench_formats.c - `drumroll bench formats`: what each weight format costs in error, acceptance and time.
 *
 * All formats see the same tokens and the same noise, so their acceptances differ by less than the
 * standard error of each.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "policy/team.h"
#include "quant/bf16.h"
#include "quant/format_error.h"
#include "scheduler/bench/bench.h"
#include "scheduler/bench/bench_acceptance.h"
#include "scheduler/bench/bench_model.h"
#include "scheduler/commands/arguments.h"

enum { CASES_MAX = 64, TIMED_CALLS = 31, TIMED_CONTEXT = 64 };

struct formats_options {
	const char *model, *prompts, *formats;
	int64_t tokens, limit, seed, threads;
	double temperature;
	int kv;
	bool json;
};

struct format_case {
	struct draft_options draft;
	double error;
	struct acceptance acceptance;
	double draft_ms, target_ms;
};

struct comparison {
	const struct formats_options *options;
	struct acceptance_options acceptance;
	struct prompts prompts;
	struct weights weights;
	struct acceptance_samples samples;
	struct format_case cases[CASES_MAX];
	int n_cases;
};

static int options_read(struct formats_options *o, int argc, char **argv, struct err *err)
{
	struct argument table[] = {
		{"--model", ARGUMENT_FILE, &o->model, "Hugging Face model directory", true},
		{"--prompts", ARGUMENT_FILE, &o->prompts, "JSON lines with prompt or messages, from the model's own domain", true},
		{"--formats", ARGUMENT_TEXT, &o->formats, "as in int4,int8,bf16; none: all"},
		{"--tokens", ARGUMENT_INT, &o->tokens, "longest response", .min = 1, .max = 1 << 20},
		{"--limit", ARGUMENT_INT, &o->limit, "use only the first N prompts; 0: all", .min = 0, .max = 1000000},
		{"--temperature", ARGUMENT_REAL, &o->temperature, "of target and drafter", .min = 0.01, .max = 100},
		{"--kv", ARGUMENT_CHOICE, &o->kv, "numbers in the KV cache", .choices = "bf16|f32"},
		{"--seed", ARGUMENT_INT, &o->seed, "key of all sampling noise", .min = 0, .max = 9007199254740991},
		{"--threads", ARGUMENT_INT, &o->threads, "threads", .min = 1, .max = 1024},
		{"--json", ARGUMENT_FLAG, &o->json, "a JSON line for each case"},
	};
	int n = sizeof table / sizeof *table;

	*o = (struct formats_options){.tokens = 96, .temperature = 1.0, .seed = 1, .threads = bench_threads_default()};
	if (!arguments_want_help(argc, argv)) return arguments_parse(table, n, argc, argv, err);
	arguments_print_help(table, n, "bench formats", "error, acceptance and time of each format's drafter", stdout);
	exit(EXIT_SUCCESS);
}

/* ---- cases ---- */

static void add_case(struct comparison *c, enum format format, enum format head, enum quantizer quantizer, bool fp32)
{
	if (c->n_cases == CASES_MAX) return;
	c->cases[c->n_cases++].draft = (struct draft_options){format, head, quantizer, fp32};
}

static void add_cases(struct comparison *c, enum format format)
{
	add_case(c, format, format, QUANTIZE_SEARCH, false);
	if (format == FORMAT_BF16) return; /* the target itself: everything is accepted */
	add_case(c, format, format, QUANTIZE_RTN, false);
	add_case(c, format, FORMAT_BF16, QUANTIZE_SEARCH, false);
	if (format == FORMAT_INT4 || format == FORMAT_INT6 || format == FORMAT_INT8 || format == FORMAT_NVFP4)
		add_case(c, format, format, QUANTIZE_SEARCH, true);
}

static int read_formats(struct comparison *c, struct err *err)
{
	const char *at = c->options->formats;
	for (enum format format = 0; !at && format <= FORMAT_BF16; format++) add_cases(c, format);
	while (at) {
		char name[32];
		const char *end = strchr(at, ',');
		snprintf(name, sizeof name, "%.*s", end ? (int)(end - at) : (int)strlen(at), at);
		enum format format = format_by_name(name);
		if (format == FORMAT_UNKNOWN)
			return err_set(err, ERR_USAGE, "--formats: expected names out of %s, with commas between, found '%s'",
			               bench_format_choices, name);
		add_cases(c, format);
		at = end ? end + 1 : NULL;
	}
	return 0;
}

/* ---- error ---- */

struct error_sums {
	const struct policy *policy;
	double *error, *power; /* [n_layers + 1], squared; the last is the head's */
};

static void add_error(struct error_sums *sums, int i, const struct linear *linear)
{
	size_t n = packed_bf16_elements(linear->n, linear->k);
	double power = 0, relative;
	if (!linear->draft.q) return;
	for (size_t e = 0; e < n; e++) power += (double)bf16_to_f32(linear->target[e]) * (double)bf16_to_f32(linear->target[e]);
	relative = format_relative_error(&linear->draft, linear->target);
	sums->power[i] += power;
	if (power > 0) sums->error[i] += relative * relative * power;
}

static void error_share(const struct team *team, void *arg)
{
	struct error_sums *sums = arg;
	int n = sums->policy->config.n_layers;
	for (int i = team->thread; i <= n; i += team->n_threads) {
		const struct layer *layer = &sums->policy->layers[i];
		if (i == n) {
			add_error(sums, i, &sums->policy->head);
			continue;
		}
		add_error(sums, i, &layer->qkv);
		add_error(sums, i, &layer->o);
		add_error(sums, i, &layer->gate_up);
		add_error(sums, i, &layer->down);
	}
}

/* Root of the squared error of all weights that are quantized, over their squares. */
static double relative_error(const struct policy *policy, int n_threads)
{
	size_t n = (size_t)policy->config.n_layers + 1;
	struct error_sums sums = {policy, xcalloc(n, sizeof(double)), xcalloc(n, sizeof(double))};
	double error = 0, power = 0;
	team_run(n_threads, error_share, &sums);
	for (size_t i = 0; i < n; i++) {
		error += sums.error[i];
		power += sums.power[i];
	}
	free(sums.error);
	free(sums.power);
	return power > 0 ? sqrt(error / power) : 0;
}

/* ---- measuring ---- */

/* Medians of calls of one row by drafter and target in turn. */
static int measure_time(const struct comparison *c, const struct policy *policy, struct format_case *result,
                        struct err *err)
{
	int most = policy->config.max_context, n_calls = TIMED_CALLS, context = TIMED_CONTEXT;
	double samples[2][TIMED_CALLS];
	struct bench_sequences sequences;
	if (n_calls > most / 2) n_calls = most > 3 ? most / 2 : 1;
	if (context > most - n_calls - 1) context = most - n_calls - 1;
	if (context < 1) return err_set(err, ERR_UNSUPPORTED, "a context of %d is too short to measure", most);
	int rc = bench_sequences_open(&sequences, policy, (enum kv_type)c->options->kv, 1, context + n_calls + 1,
	                              (int)c->options->threads, err);
	if (rc) return rc;
	bench_sequences_prefill(&sequences, context);
	for (int step = -1; step < n_calls; step++)
		for (int draft = 1; draft >= 0; draft--) {
			double seconds = bench_sequences_step(&sequences, 1, context + 1 + step, draft ? PART_DRAFT : PART_TARGET);
			if (step >= 0) samples[draft][step] = seconds;
		}
	bench_sequences_close(&sequences);
	result->target_ms = 1e3 * bench_median(samples[0], n_calls);
	result->draft_ms = 1e3 * bench_median(samples[1], n_calls);
	return 0;
}

static int measure_case(struct comparison *c, struct format_case *result, struct err *err)
{
	struct policy *policy;
	int rc = policy_create(&policy, &c->weights, 0, &result->draft, (int)c->options->threads, err);
	if (rc) return rc;
	result->error = relative_error(policy, (int)c->options->threads);
	rc = acceptance_measure(&result->acceptance, policy, &c->samples, &c->acceptance, err);
	if (!rc) rc = measure_time(c, policy, result, err);
	policy_free(policy);
	return rc;
}

static int load(struct comparison *c, struct err *err)
{
	const struct formats_options *o = c->options;
	int rc = weights_load(&c->weights, o->model, err);

	return rc ? rc : bench_prompts_load(&c->prompts, o->model, o->prompts, (size_t)o->limit, err);
}

static int draw_samples(struct comparison *c, struct err *err)
{
	struct policy *policy;
	int rc = policy_create(&policy, &c->weights, 0, NULL, (int)c->options->threads, err);
	if (rc) return rc;
	rc = acceptance_samples_draw(&c->samples, policy, &c->prompts, &c->acceptance, err);
	policy_free(policy);
	if (!rc && c->samples.positions == 0)
		rc = err_set(err, ERR_INVALID, "%s: no prompt led to a single token", c->options->prompts);
	return rc;
}

/* ---- results ---- */

static double case_bits(const struct format_case *f)
{
	return f->draft.format == FORMAT_BF16 ? 16 : format_bits(f->draft.format);
}

static const char *quantizer_name(const struct format_case *f)
{
	return f->draft.format == FORMAT_BF16 ? "none" : f->draft.quantizer == QUANTIZE_RTN ? "rtn" : "search";
}

static const char *activations_name(const struct format_case *f)
{
	return f->draft.fp32_activations || f->draft.format == FORMAT_BF16 ? "fp32" : "int8";
}

static void print_json(const struct comparison *c, const struct format_case *f)
{
	bench_json(json_pack("{s:s, s:s, s:s, s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:i, s:f, s:s, s:i}",
		"model", c->options->model, "format", bench_format_name(f->draft.format),
		"head", bench_format_name(f->draft.head_format), "quantizer", quantizer_name(f),
		"activations", activations_name(f), "bits", case_bits(f), "error", f->error,
		"maximal", f->acceptance.maximal, "coupled", f->acceptance.coupled,
		"draft_ms", f->draft_ms, "target_ms", f->target_ms, "entropy", c->samples.entropy,
		"positions", c->samples.positions, "temperature", c->options->temperature,
		"isa", kernels_best()->name, "threads", (int)c->options->threads));
}

static void print_human(const struct comparison *c)
{
	static const char *const columns[] = {"weights", "head", "quantizer", "activations", "bits", "error", "maximal",
	                                      "coupled", "draft ms", "of target"};
	struct bench_table *table = bench_table_open(sizeof columns / sizeof *columns, 4);
	printf("%s, %d thread(s), kernels %s\n", bench_cpu_name(), (int)c->options->threads, kernels_best()->name);
	printf("%s: %zu prompts of %s, %d positions, temperature %g, target's entropy %.2f nat, KV %s\n", c->options->model,
	       c->prompts.n, c->options->prompts, c->samples.positions, c->options->temperature, c->samples.entropy,
	       c->options->kv ? "f32" : "bf16");
	printf("bits per weight of the format; relative error of all weights that are quantized; acceptance of the first\n"
	       "drafted token: 1 - total variation, and under the same noise (%d draws a position)\n\n", ACCEPTANCE_DRAWS);
	for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) bench_cell(table, "%s", columns[i]);
	for (int i = 0; i < c->n_cases; i++) {
		const struct format_case *f = &c->cases[i];
		bench_cell(table, "%s", bench_format_name(f->draft.format));
		bench_cell(table, "%s", f->draft.head_format == f->draft.format ? "same" : bench_format_name(f->draft.head_format));
		bench_cell(table, "%s", quantizer_name(f));
		bench_cell(table, "%s", activations_name(f));
		bench_cell(table, "%.2f", case_bits(f));
		bench_cell(table, "%.4f", f->error);
		bench_cell(table, "%.3f", f->acceptance.maximal);
		bench_cell(table, "%.3f", f->acceptance.coupled);
		bench_cell(table, "%.3f", f->draft_ms);
		bench_cell(table, "%.2f", f->draft_ms / f->target_ms);
	}
	bench_table_close(table, stdout);
}

int bench_formats(int argc, char **argv, struct err *err)
{
	struct formats_options options;
	struct comparison c = {.options = &options};

	int rc = options_read(&options, argc, argv, err);
	if (!rc) rc = read_formats(&c, err);
	if (rc) return rc;
	c.acceptance = (struct acceptance_options){
		.kv_type = (enum kv_type)options.kv, .temperature = options.temperature, .tokens = (int)options.tokens,
		.n_threads = (int)options.threads, .seed = (uint64_t)options.seed,
	};
	rc = load(&c, err);
	if (!rc) rc = draw_samples(&c, err);
	for (int i = 0; !rc && i < c.n_cases; i++) {
		bench_progress("case", i, c.n_cases);
		rc = measure_case(&c, &c.cases[i], err);
		if (!rc && options.json) print_json(&c, &c.cases[i]);
	}
	bench_progress("case", c.n_cases, c.n_cases);
	if (!rc && !options.json) print_human(&c);
	acceptance_samples_free(&c.samples);
	prompts_free(&c.prompts);
	weights_free(&c.weights);
	return rc;
}

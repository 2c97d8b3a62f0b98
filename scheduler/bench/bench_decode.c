/* bench_decode.c - `drumroll bench decode`: forward calls of a whole model, without sampling.
 *
 * Tokens are made up: speed does not depend on them.  Drafter and target take turns at each position, as
 * in a round of speculation, so neither finds its weights in a cache that is smaller than both.  The bound of a call is
 * reading its weights, keys and values once, at the speed at which this machine reads as many bytes over
 * and over, or its arithmetic, whichever takes longer.
 */
#include <stdlib.h>

#include "scheduler/bench/bench.h"
#include "scheduler/bench/bench_model.h"
#include "scheduler/commands/arguments.h"

enum { BATCHES_MAX = 16, NEW_MAX = 4096, PREFILL_POSITIONS = 512, PREFILL_RUNS = 3, READ_MIB_MIN = 16 };
#define PEAK_SECONDS 0.1

struct decode_options {
	const char *model, *batch;
	int64_t context, new, threads;
	double grow;
	int format, head, kv, quantizer, activations;
	bool json;
};

struct decode {
	const struct decode_options *options;
	struct policy *policy;
	int batches[BATCHES_MAX], n_batches;
	struct bench_peaks peaks[2]; /* of target and drafter: each reads as much as it does at one row */
};

/* One line of the result. */
struct decode_result {
	const char *phase;
	bool draft;
	int batch, context, rows;
	double seconds;
	struct bench_work work;
};

static int options_read(struct decode_options *o, int argc, char **argv, struct err *err)
{
	struct argument table[] = {
		{"--model", ARGUMENT_FILE, &o->model, "Hugging Face model directory", true},
		{"--batch", ARGUMENT_TEXT, &o->batch, "sequences decoded together, as in 1,8,32 (which is the default)"},
		{"--context", ARGUMENT_INT, &o->context, "tokens before the first that is timed", .min = 1, .max = MODEL_CONTEXT_MAX},
		{"--new", ARGUMENT_INT, &o->new, "tokens that are timed, one after the other", .min = 1, .max = NEW_MAX},
		{"--format", ARGUMENT_CHOICE, &o->format, "weights of the drafter", .choices = bench_format_choices},
		{"--head", ARGUMENT_CHOICE, &o->head, "its vocabulary head", .choices = "same|bf16"},
		{"--activations", ARGUMENT_CHOICE, &o->activations, "its activations", .choices = "int8|fp32"},
		{"--kv", ARGUMENT_CHOICE, &o->kv, "numbers in the KV cache", .choices = "bf16|f32"},
		{"--grow", ARGUMENT_REAL, &o->grow, "measure the model grown to so many weights, such as 0.5e9; 0: as it is",
		 .min = 0, .max = 1e12},
		{"--threads", ARGUMENT_INT, &o->threads, "threads", .min = 1, .max = 1024},
		{"--json", ARGUMENT_FLAG, &o->json, "a JSON line for each measurement"},
	};
	int n = sizeof table / sizeof *table;

	*o = (struct decode_options){.batch = "1,8,32", .context = 128, .new = 16, .threads = bench_threads_default()};
	if (!arguments_want_help(argc, argv)) return arguments_parse(table, n, argc, argv, err);
	arguments_print_help(table, n, "bench decode", "forward calls of target and drafter beside their bound", stdout);
	exit(EXIT_SUCCESS);
}

static int load(struct decode *d, struct err *err)
{
	const struct decode_options *o = d->options;
	struct weights weights;
	struct draft_options draft = {
		.format = (enum format)o->format, .head_format = o->head == 0 ? (enum format)o->format : FORMAT_BF16,
		.quantizer = QUANTIZE_SEARCH, .fp32_activations = o->activations == 1,
	};
	int rc = bench_weights_load(&weights, o->model, o->grow, err);
	if (rc) return rc;
	rc = policy_create(&d->policy, &weights, 0, &draft, (int)o->threads, err);
	weights_free(&weights);
	return rc;
}

static void peaks_prepare(struct decode *d)
{
	for (int draft = 0; draft <= 1; draft++) {
		struct bench_call call = {.policy = d->policy, .draft = draft, .rows = 1, .logits_rows = 1};
		double bytes = bench_call_work(&call).bytes, least = (double)READ_MIB_MIN * 1048576;
		d->peaks[draft] = (struct bench_peaks){
			.kernels = kernels_best(), .n_threads = (int)d->options->threads, .seconds_each = PEAK_SECONDS,
			.buffer_bytes = (size_t)(bytes > least ? bytes : least),
		};
	}
}

static int peaks_measure(struct decode *d, struct err *err)
{
	int rc = bench_peaks_measure(&d->peaks[0], err);
	return rc ? rc : bench_peaks_measure(&d->peaks[1], err);
}

/* ---- what is timed ---- */

static int measure_prefill(const struct decode *d, struct decode_result *result, struct err *err)
{
	double samples[PREFILL_RUNS];
	struct bench_sequences sequences;
	int most = d->policy->config.max_context, n = most < PREFILL_POSITIONS ? most : PREFILL_POSITIONS;
	int rc = bench_sequences_open(&sequences, d->policy, (enum kv_type)d->options->kv, 1, n, (int)d->options->threads, err);
	if (rc) return rc;
	for (int i = 0; i < PREFILL_RUNS; i++) samples[i] = bench_sequences_prefill(&sequences, n);
	bench_sequences_close(&sequences);
	*result = (struct decode_result){
		.phase = "prefill", .batch = 1, .context = n, .rows = n, .seconds = bench_median(samples, PREFILL_RUNS),
		.work = bench_call_work(&(struct bench_call){
			.policy = d->policy, .kv_type = (enum kv_type)d->options->kv, .rows = n, .logits_rows = 1,
			.positions_read = n, .positions_attended = 0.5 * n * (n + 1.0)}),
	};
	return 0;
}

/* results: of target and drafter. */
static int measure_batch(const struct decode *d, int batch, struct decode_result results[2], struct err *err)
{
	const struct decode_options *o = d->options;
	int context = (int)o->context, n_new = (int)o->new;
	struct bench_sequences sequences;
	int rc = bench_sequences_open(&sequences, d->policy, (enum kv_type)o->kv, batch, context + n_new + 1, (int)o->threads,
	                              err);
	if (rc) return rc;
	double *samples[2] = {xcalloc((size_t)n_new, sizeof(double)), xcalloc((size_t)n_new, sizeof(double))};
	bench_sequences_prefill(&sequences, context);
	for (int step = -1; step < n_new; step++) { /* the first is not counted */
		for (int draft = 1; draft >= 0; draft--) {
			double seconds = bench_sequences_step(&sequences, batch, context + 1 + step, draft ? PART_DRAFT : PART_TARGET);
			if (step >= 0) samples[draft][step] = seconds;
		}
	}
	bench_sequences_close(&sequences);
	double attended = batch * (context + 1.5 + 0.5 * n_new);
	for (int draft = 0; draft <= 1; draft++) {
		struct bench_call call = {d->policy, draft, (enum kv_type)o->kv, batch, batch, attended, attended};
		results[draft] = (struct decode_result){
			.phase = "decode", .draft = draft, .batch = batch, .context = context, .rows = batch,
			.seconds = bench_median(samples[draft], n_new), .work = bench_call_work(&call),
		};
		free(samples[draft]);
	}
	return 0;
}

static int measure(struct decode *d, struct decode_result *results, int *n, struct err *err)
{
	int rc = peaks_measure(d, err);
	for (int i = 0; !rc && i < d->n_batches; i++, *n += 2) {
		bench_progress("batch", i, d->n_batches);
		rc = measure_batch(d, d->batches[i], results + *n, err);
		if (!rc) rc = peaks_measure(d, err);
	}
	if (!rc) rc = measure_prefill(d, results + *n, err);
	bench_progress("batch", d->n_batches, d->n_batches);
	*n += 1;
	return rc ? rc : peaks_measure(d, err);
}

/* ---- results ---- */

static void print_json(struct decode *d, const struct decode_result *results, int n)
{
	const struct decode_options *o = d->options;
	for (int i = 0; i < n; i++) {
		const struct decode_result *r = &results[i];
		struct machine_peaks peaks = bench_peaks_median(&d->peaks[r->draft]);
		enum bench_bound bound;
		double bound_seconds = bench_bound_seconds(&peaks, &r->work, &bound);
		bench_json(json_pack("{s:s, s:s, s:s, s:i, s:i, s:f, s:f, s:s, s:f, s:s, s:s, s:s, s:i, s:f}",
			"model", o->model, "part", r->draft ? "draft" : "target", "phase", r->phase, "batch", r->batch,
			"context", r->context, "tokens_per_sec", r->rows / r->seconds, "ms_per_call", 1e3 * r->seconds,
			"bound", bench_bound_names[bound], "fraction", bound_seconds / r->seconds,
			"format", r->draft ? bench_format_name((enum format)o->format) : "bf16",
			"kv", o->kv ? "f32" : "bf16", "isa", kernels_best()->name, "threads", (int)o->threads,
			"read_gb", 1e-9 * r->work.bytes));
	}
}

static void print_human(struct decode *d, const struct decode_result *results, int n)
{
	static const char *const columns[] = {"", "weights", "batch", "context", "tokens/s", "ms/call", "reads MB", "bound",
	                                      "%", "of target"};
	const struct decode_options *o = d->options;
	const struct model_config *c = &d->policy->config;
	struct bench_table *table = bench_table_open(sizeof columns / sizeof *columns, 2);
	printf("%s, %d thread(s), kernels %s\n", bench_cpu_name(), (int)o->threads, kernels_best()->name);
	printf("%s%s: %d layers of %d, feed-forward %d, vocabulary %d; KV %s; medians of %d calls\n", o->model,
	       o->grow > 0 ? " (grown)" : "", c->n_layers, c->dim, c->ffn_dim, c->vocab_size, o->kv ? "f32" : "bf16",
	       (int)o->new);
	for (int draft = 0; draft <= 1; draft++) {
		printf("%s: ", draft ? "drafter" : "target ");
		bench_peaks_print(&d->peaks[draft], stdout);
	}
	printf("\n");
	for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) bench_cell(table, "%s", columns[i]);
	for (int i = 0; i < n; i++) {
		const struct decode_result *r = &results[i];
		struct machine_peaks peaks = bench_peaks_median(&d->peaks[r->draft]);
		enum bench_bound bound;
		double bound_seconds = bench_bound_seconds(&peaks, &r->work, &bound);
		bench_cell(table, "%s %s", r->phase, r->draft ? "drafter" : "target");
		bench_cell(table, "%s", r->draft ? bench_format_name((enum format)o->format) : "bf16");
		bench_cell(table, "%d", r->batch);
		bench_cell(table, "%d", r->context);
		bench_cell(table, "%.1f", r->rows / r->seconds);
		bench_cell(table, "%.3f", 1e3 * r->seconds);
		bench_cell(table, "%.1f", 1e-6 * r->work.bytes);
		bench_cell(table, "%s", bench_bound_names[bound]);
		bench_cell(table, "%.0f", 100 * bound_seconds / r->seconds);
		if (r->draft) bench_cell(table, "%.2f", r->seconds / results[i - 1].seconds);
		else bench_cell(table, "%s", "");
	}
	bench_table_close(table, stdout);
}

int bench_decode(int argc, char **argv, struct err *err)
{
	struct decode_options options;
	struct decode d = {.options = &options};
	struct decode_result results[2 * BATCHES_MAX + 1];
	int n = 0;

	int rc = options_read(&options, argc, argv, err);
	if (rc) return rc;
	d.n_batches = bench_list(d.batches, BATCHES_MAX, "--batch", options.batch, 1, 4096, err);
	if (d.n_batches < 0) return d.n_batches;
	rc = load(&d, err);
	if (!rc) {
		peaks_prepare(&d);
		rc = measure(&d, results, &n, err);
	}
	if (!rc && options.json) print_json(&d, results, n);
	else if (!rc) print_human(&d, results, n);
	policy_free(d.policy);
	return rc;
}

/* bench_speculation.c - `drumroll bench speculation`: whole generation with drafts against without.
 *
 * The engine decodes the same samples, prompts and seeds in every variant (the tokens are the same by
 * construction).  In a turn all variants do so by slices of SLICE_SECONDS, one after the other and every second time
 * backwards, so that what disturbs the machine disturbs all: a shared machine is faster for a second and slower for the
 * next, and variants one after the other differed by 5 % of nothing.  What calls cost is learned in a turn
 * that does not count, as by the first seconds of a run, and goes on from turn to turn; acceptance is learned anew
 * in each.  Two phases:
 *
 *     steady  as many sessions as asked for are active all the time: measured until the queue is empty and
 *             the first of the last ones ends
 *     step    one batch from its first round to the end of its longest sample: the batch drains, and the
 *             seconds of the long tail count in full.  Lengths are the model's own, or drawn (--length-mean)
 *
 * A sweep puts beside the variants asked for every fixed length of each drafter that makes to order, and exact once
 * more (what is left between the two is noise), and says how the others do against the best of these.
 */
#include <stdlib.h>
#include <string.h>

#include "configs/config.h"
#include "rollout/engine.h"
#include "rollout/prompts.h"
#include "rollout/speculation/speculation.h"
#include "scheduler/bench/bench.h"
#include "scheduler/bench/bench_model.h"
#include "scheduler/clock.h"
#include "scheduler/commands/arguments.h"
#include "scheduler/simulate/simulate_lengths.h"

enum { ACTIVE_MAX = 16, LENGTHS_MAX = 16, FORMATS_MAX = 16, VARIANTS_MAX = 128, REPEAT_MAX = 64, PREFILL_CHUNK = 64 };
static const double SLICE_SECONDS = 0.03;

struct speculation_bench_options {
	const char *model, *prompts, *active, *formats, *lengths;
	int64_t samples, step, max_tokens, seed, threads, limit, repeat;
	double temperature, top_p, grow, length_mean, length_sigma;
	int drafter, kv, head, quantizer;
	bool json, sweep;
};

/* A way to generate; the first is exact. */
struct variant {
	int policy;  /* index of policies */
	int mode, length, drafter;
	int made;    /* >= 0: one of the sweep's: which copy drafts, always so many */
	bool again;  /* the sweep's exact */
	double rate[REPEAT_MAX], ratio[REPEAT_MAX]; /* tokens per second; to that of exact in the same turn */
	double seconds[REPEAT_MAX];
	struct engine_stats stats; /* of the last run */
	struct speculation_costs costs; /* as learned so far */
	struct engine *engine; /* of the turn at hand */
	double worked;         /* seconds in it so far */
};

struct speculation_bench {
	const struct speculation_bench_options *options;
	struct weights weights;
	struct prompts prompts;
	struct policy *policies[FORMATS_MAX];
	int formats[FORMATS_MAX], n_formats; /* enum format, or DRAFT_FORMAT_AUTO */
	int lengths[LENGTHS_MAX], n_lengths;
	int active[ACTIVE_MAX], n_active;
	struct variant variants[VARIANTS_MAX];
	int n_variants;
	struct simulate_lengths *drawn; /* NULL: samples end where the model ends them */
	struct config drawn_as;
};

static int options_read(struct speculation_bench_options *o, int argc, char **argv, struct err *err)
{
	struct argument table[] = {
		{"--model", ARGUMENT_FILE, &o->model, "Hugging Face model directory", true},
		{"--prompts", ARGUMENT_FILE, &o->prompts, "JSON lines with prompt or messages, from the model's own domain", true},
		{"--active", ARGUMENT_TEXT, &o->active, "sessions decoded together, as in 1,2,4,8,16 (which is the default)"},
		{"--formats", ARGUMENT_TEXT, &o->formats, "drafters, as in int4,int8,auto (none: auto)"},
		{"--lengths", ARGUMENT_TEXT, &o->lengths, "draft lengths, 0: chosen every round (which is the default), as in 0,2,4,8"},
		{"--drafter", ARGUMENT_CHOICE, &o->drafter, "who drafts", .choices = "quant|suffix|combined"},
		{"--head", ARGUMENT_CHOICE, &o->head, "vocabulary head of the drafter", .choices = "same|bf16"},
		{"--quantizer", ARGUMENT_CHOICE, &o->quantizer, "how the drafter is made", .choices = "rtn|search"},
		{"--samples", ARGUMENT_INT, &o->samples, "samples in all per active session", .min = 1, .max = 100000},
		{"--step", ARGUMENT_INT, &o->step, "measure whole steps of so many samples instead; 0: steady decoding", .min = 0, .max = 65536},
		{"--max-tokens", ARGUMENT_INT, &o->max_tokens, "longest response", .min = 1, .max = 1 << 20},
		{"--temperature", ARGUMENT_REAL, &o->temperature, "0: greedy", .min = 0, .max = 100},
		{"--top-p", ARGUMENT_REAL, &o->top_p, "nucleus mass; 1: off", .min = 1e-6, .max = 1},
		{"--limit", ARGUMENT_INT, &o->limit, "use only the first N prompts; 0: all", .min = 0, .max = 1000000},
		{"--kv", ARGUMENT_CHOICE, &o->kv, "numbers in the KV cache", .choices = "bf16|f32"},
		{"--grow", ARGUMENT_REAL, &o->grow, "measure the model grown to so many weights, such as 0.5e9; 0: as it is",
		 .min = 0, .max = 1e12},
		{"--repeat", ARGUMENT_INT, &o->repeat, "turns, of which medians are taken", .min = 1, .max = REPEAT_MAX},
		{"--seed", ARGUMENT_INT, &o->seed, "key of all sampling noise", .min = 0, .max = 9007199254740991},
		{"--length-mean", ARGUMENT_REAL, &o->length_mean, "responses of lengths drawn from a log-normal distribution of "
		 "this mean, whatever the model ends with (cut at --max-tokens); 0: the model's own", .min = 0, .max = 1e6},
		{"--length-sigma", ARGUMENT_REAL, &o->length_sigma, "its sigma: 1 has a maximum of 16 samples some 6 times the median",
		 .min = 0, .max = 4},
		{"--sweep", ARGUMENT_FLAG, &o->sweep, "also 1, 2, 3, 4, 6, 8 drafts always, with either part of the copy"},
		{"--threads", ARGUMENT_INT, &o->threads, "threads", .min = 1, .max = 1024},
		{"--json", ARGUMENT_FLAG, &o->json, "a JSON line for each variant"},
	};
	int n = sizeof table / sizeof *table;

	*o = (struct speculation_bench_options){
		.active = "1,2,4,8,16", .formats = "auto", .lengths = "0", .samples = 3, .max_tokens = 128, .seed = 1, .repeat = 3,
		.temperature = 1.0, .top_p = 1.0, .drafter = DRAFTER_KIND_COMBINED, .kv = KV_F32, .quantizer = DRAFT_SEARCH,
		.threads = bench_threads_default(), .length_sigma = 1,
	};
	if (!arguments_want_help(argc, argv)) return arguments_parse(table, n, argc, argv, err);
	arguments_print_help(table, n, "bench speculation", "generation with drafts against without, on the same samples", stdout);
	exit(EXIT_SUCCESS);
}

/* ---- variants ---- */

static const char *format_label(int format)
{
	return format == DRAFT_FORMAT_AUTO ? "auto" : bench_format_name((enum format)format);
}

static int read_formats(struct speculation_bench *b, struct err *err)
{
	const char *at = b->options->formats;

	while (at && b->n_formats < FORMATS_MAX) {
		char name[32];
		const char *end = strchr(at, ',');
		snprintf(name, sizeof name, "%.*s", end ? (int)(end - at) : (int)strlen(at), at);
		enum format format = strcmp(name, "auto") == 0 ? (enum format)DRAFT_FORMAT_AUTO : format_by_name(name);
		if (format == FORMAT_UNKNOWN || strcmp(name, "bf16") == 0)
			return err_set(err, ERR_USAGE, "--formats: expected auto or names of quantized formats out of %s, with commas "
			               "between, found '%s'", bench_format_choices, name);
		b->formats[b->n_formats++] = (int)format;
		at = end ? end + 1 : NULL;
	}
	return 0;
}

/* What the first format's controller chooses from. */
static int make_sweep(struct speculation_bench *b, struct err *err)
{
	static const int lengths[] = {1, 2, 3, 4, 6, 8};
	int n_made = b->formats[0] == DRAFT_FORMAT_AUTO ? 2 : 1, n = sizeof lengths / sizeof *lengths;

	if (b->n_variants + 1 + n_made * n > VARIANTS_MAX)
		return err_set(err, ERR_USAGE, "--sweep: more than %d combinations of formats and lengths", VARIANTS_MAX);
	b->variants[b->n_variants++] = (struct variant){.mode = ROLLOUT_EXACT, .made = -1, .again = true};
	for (int made = 0; made < n_made; made++)
		for (int l = 0; l < n; l++)
			b->variants[b->n_variants++] = (struct variant){
				.mode = ROLLOUT_SPECULATIVE, .length = lengths[l], .drafter = DRAFTER_KIND_QUANT, .made = made};
	return 0;
}

static int make_variants(struct speculation_bench *b, struct err *err)
{
	b->variants[b->n_variants++] = (struct variant){.mode = ROLLOUT_EXACT, .made = -1};
	for (int f = 0; f < b->n_formats; f++) {
		for (int l = 0; l < b->n_lengths; l++) {
			if (b->n_variants == VARIANTS_MAX)
				return err_set(err, ERR_USAGE, "more than %d combinations of formats and lengths", VARIANTS_MAX);
			b->variants[b->n_variants++] =
				(struct variant){.policy = f, .mode = ROLLOUT_SPECULATIVE, .length = b->lengths[l],
			                  .drafter = b->options->drafter, .made = -1};
		}
	}
	return b->options->sweep ? make_sweep(b, err) : 0;
}

static int load(struct speculation_bench *b, struct err *err)
{
	const struct speculation_bench_options *o = b->options;
	int rc = bench_weights_load(&b->weights, o->model, o->grow, err);

	if (!rc && o->length_mean > 0) {
		b->drawn_as.simulate = (struct config_simulate){
			.length_mean = o->length_mean, .length_sigma = o->length_sigma, .seed = o->seed, .run = ""};
		b->drawn_as.rollout.max_tokens = o->max_tokens;
		rc = simulate_lengths_open(&b->drawn, &b->drawn_as, err);
	}
	if (!rc) rc = bench_prompts_load(&b->prompts, o->model, o->prompts, (size_t)o->limit, err);
	for (int f = 0; !rc && f < b->n_formats; f++) {
		struct config_speculation speculation = {
			.format = b->formats[f], .head_format = o->head ? DRAFT_HEAD_BF16 : DRAFT_HEAD_SAME, .quantizer = o->quantizer,
		};
		struct draft_options draft = draft_options_of(&speculation, ROLLOUT_SPECULATIVE);
		rc = policy_create(&b->policies[f], &b->weights, 0, &draft, (int)o->threads, err);
	}
	return rc;
}

/* ---- a run ---- */

static int longest_sequence(const struct speculation_bench *b)
{
	int longest = 0, context = b->weights.config.max_context;

	for (size_t i = 0; i < b->prompts.n; i++)
		if (b->prompts.items[i].n_tokens > longest) longest = b->prompts.items[i].n_tokens;
	return longest + b->options->max_tokens < context ? longest + (int)b->options->max_tokens : context;
}

static int open_engine(struct engine **engine, const struct speculation_bench *b, const struct variant *v, int active,
                       struct err *err)
{
	const struct speculation_bench_options *o = b->options;
	int longest = longest_sequence(b);
	struct engine_options options = {
		.mode = v->mode, .drafter = v->drafter, .draft_length = v->length, .draft_made = v->made < 0 ? 0 : v->made,
		.draft_length_max = 16, .suffix_tokens = 1 << 20, .ignore_end = b->drawn != NULL,
		.max_active = active, .prefill_chunk = PREFILL_CHUNK, .n_threads = (int)o->threads, .kv_type = (enum kv_type)o->kv,
		.kv_bytes = (size_t)(active + 1) * kv_bytes(&b->weights.config, (enum kv_type)o->kv, longest + 2 * KV_TILE),
		.stop_token = -1, .clock = clock_seconds, .costs = &v->costs,
	};
	return engine_open(engine, b->policies[v->policy], &options, longest, err);
}

static void add_samples(struct engine *engine, const struct speculation_bench *b, int n)
{
	const struct speculation_bench_options *o = b->options;
	struct sampling_options sampling = {.temperature = (float)o->temperature, .top_p = (float)o->top_p};

	for (int i = 0; i < n; i++) {
		size_t prompt = (size_t)i % b->prompts.n;
		int32_t sample = i / (int)b->prompts.n;
		int32_t most = b->drawn ? simulate_lengths_response(b->drawn, prompt + 1, sample) : (int32_t)o->max_tokens;
		engine_add(engine, prompts_open_sample(&b->prompts.items[prompt], prompt + 1, sample, sample + 1, 0,
		                                       (uint64_t)o->seed, &sampling, most));
	}
}

static void keep_turn(const struct speculation_bench *b, struct variant *v, int turn, double seconds)
{
	v->seconds[turn] = seconds;
	v->rate[turn] = (double)v->stats.tokens / seconds;
	v->ratio[turn] = v->rate[turn] / b->variants[0].rate[turn];
}

/* Rounds for SLICE_SECONDS, one at least.  False if the phase that counts was over already. */
static bool run_slice(const struct speculation_bench *b, struct variant *v, int active)
{
	double start = clock_seconds(), seconds = 0;
	int least = b->options->step > 0 ? 1 : active;
	struct trajectory *t;

	if (engine_pending(v->engine) < least) return false;
	while (seconds < SLICE_SECONDS && engine_pending(v->engine) >= least) {
		engine_round(v->engine);
		while ((t = engine_take_finished(v->engine))) trajectory_free(t);
		seconds = clock_seconds() - start;
	}
	v->worked += seconds;
	return true;
}

/* A turn that does not count is of use to whoever learns in it. */
static bool learns(const struct variant *v)
{
	return v->mode != ROLLOUT_EXACT && v->length == 0;
}

/* All variants in slices; turn -1 does not count. */
static int run_turn(struct speculation_bench *b, int active, int turn, struct err *err)
{
	const struct speculation_bench_options *o = b->options;
	int n_samples = o->step > 0 ? (int)o->step : active * (int)o->samples, rc = 0, n = 0;
	struct variant *running[VARIANTS_MAX];

	for (int i = 0; i < b->n_variants && !rc; i++) {
		struct variant *v = &b->variants[i];
		if (turn < 0 && !learns(v)) continue;
		v->worked = 0;
		rc = open_engine(&v->engine, b, v, active, err);
		if (rc) break;
		running[n++] = v;
		add_samples(v->engine, b, n_samples);
	}
	bool any = !rc;
	for (int pass = 0; any; pass++) {
		any = false;
		for (int i = 0; i < n; i++) any |= run_slice(b, running[pass % 2 ? n - 1 - i : i], active);
	}
	for (int i = 0; i < n; i++) {
		struct variant *v = running[i];
		engine_costs_read(v->engine, &v->costs);
		engine_stats_read(v->engine, &v->stats);
		engine_close(v->engine);
		if (!rc && turn >= 0) keep_turn(b, v, turn, v->worked);
	}
	return rc;
}

static int measure(struct speculation_bench *b, int active, struct err *err)
{
	int rc = 0, turns = (int)b->options->repeat;

	for (int i = 0; i < b->n_variants; i++) b->variants[i].costs = (struct speculation_costs){0};
	for (int turn = -1; !rc && turn < turns; turn++) {
		bench_progress("turn", turn + 1, turns + 1);
		rc = run_turn(b, active, turn, err);
	}
	bench_progress("turn", 1, 1);
	return rc;
}

/* ---- results ---- */

/* What a variant came to; medians over turns. */
struct result {
	double rate, ratio, seconds, acceptance, length, predicted; /* predicted: the controller's tokens per second */
	double planning, probing; /* shares of the time of the last turn; probing: what it lost */
};

static struct result result_of(const struct speculation_bench *b, struct variant *v)
{
	const struct engine_stats *s = &v->stats;
	int n = (int)b->options->repeat;
	double turns = (double)(s->decode_rows + s->verify_rows - s->drafted); /* of single sessions: one row each, and its drafts */
	double worked = s->prefill_seconds + s->draft_seconds + s->verify_seconds + s->sample_seconds;

	return (struct result){
		.rate = bench_median(v->rate, n), .ratio = bench_median(v->ratio, n), .seconds = bench_median(v->seconds, n),
		.acceptance = s->drafted ? (double)s->accepted / (double)s->drafted : 0,
		.length = turns > 0 ? (double)s->drafted / turns : 0,
		.predicted = s->planned_seconds > 0 ? s->planned_tokens / s->planned_seconds : 0,
		.planning = worked > 0 ? s->plan_seconds / worked : 0, .probing = worked > 0 ? s->probe_seconds / worked : 0,
	};
}

/* The fastest of those that a controller is measured against; NULL without a sweep. */
static struct variant *best_fixed(struct speculation_bench *b)
{
	struct variant *best = NULL;
	double most = 0;

	for (int i = 0; i < b->n_variants; i++) {
		struct variant *v = &b->variants[i];
		double ratio = bench_median(v->ratio, (int)b->options->repeat);
		if ((v->made < 0 && !v->again) || ratio <= most) continue;
		best = v;
		most = ratio;
	}
	return best;
}

static const char *length_label(const struct variant *v, char text[16])
{
	if (v->mode == ROLLOUT_EXACT) return v->again ? "again" : "";
	if (v->length == 0) return "chosen";
	snprintf(text, 16, "%d", v->length);
	return text;
}

static const char *drafter_label(const struct speculation_bench *b, const struct variant *v)
{
	if (v->mode == ROLLOUT_EXACT) return "exact";
	if (b->formats[v->policy] != DRAFT_FORMAT_AUTO || v->made < 0) return format_label(b->formats[v->policy]);
	return v->made ? "int4 part" : "int8";
}

static void print_json(struct speculation_bench *b, int active)
{
	const struct speculation_bench_options *o = b->options;
	static const char *const drafters[] = {"quant", "suffix", "combined"};
	struct variant *best = best_fixed(b);

	for (int i = 0; i < b->n_variants; i++) {
		struct variant *v = &b->variants[i];
		bool exact = v->mode == ROLLOUT_EXACT;
		struct result r = result_of(b, v);
		json_t *line = json_pack("{s:s, s:f, s:s, s:i, s:s, s:s, s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:f, s:s, "
		                         "s:s, s:i}",
			"model", o->model, "grow", o->grow, "phase", o->step > 0 ? "step" : "steady", "active", active,
			"mode", exact ? "exact" : "speculative", "format", exact ? "bf16" : drafter_label(b, v),
			"drafter", exact ? "none" : drafters[v->drafter], "draft_length", v->length,
			"tokens_per_sec", r.rate, "ratio_to_exact", r.ratio, "seconds", r.seconds, "acceptance", r.acceptance,
			"draft_length_mean", r.length, "predicted_tokens_per_sec", r.predicted, "planning", r.planning, "probing", r.probing,
			"tokens", (json_int_t)v->stats.tokens,
			"temperature", o->temperature, "kv", o->kv ? "f32" : "bf16", "isa", kernels_best()->name,
			"threads", (int)o->threads);
		if (best && v->made < 0 && !v->again)
			json_object_set_new(line, "ratio_to_best_fixed", json_real(r.ratio / result_of(b, best).ratio));
		bench_json(line);
	}
}

static int int_compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

/* How long the responses of a step are (steady: of the first prompts' first samples). */
static void print_drawn(const struct speculation_bench *b)
{
	char text[160];
	int n = b->options->step > 0 ? (int)b->options->step : (int)b->prompts.n;
	int *lengths = xmalloc((size_t)n * sizeof *lengths);

	for (int i = 0; i < n; i++)
		lengths[i] = simulate_lengths_response(b->drawn, (uint64_t)i % b->prompts.n + 1, i / (int)b->prompts.n);
	qsort(lengths, (size_t)n, sizeof *lengths, int_compare);
	simulate_lengths_describe(b->drawn, text, sizeof text);
	printf("response lengths drawn, end tokens ignored (%s): p50 %d, p90 %d, p99 %d, max %d tokens\n", text, lengths[n / 2],
	       lengths[(n - 1) * 9 / 10], lengths[(n - 1) * 99 / 100], lengths[n - 1]);
	free(lengths);
}

static void print_head(const struct speculation_bench *b)
{
	const struct speculation_bench_options *o = b->options;
	const struct model_config *c = &b->weights.config;

	printf("%s, %d thread(s), kernels %s\n", bench_cpu_name(), (int)o->threads, kernels_best()->name);
	printf("%s%s: %.2f billion weights, %d layers of %d, vocabulary %d; KV %s\n", o->model, o->grow > 0 ? " (grown)" : "",
	       1e-9 * (double)b->weights.n_elements, c->n_layers, c->dim, c->vocab_size, o->kv ? "f32" : "bf16");
	printf("%zu prompts of %s, up to %lld tokens, temperature %g, top-p %g; medians of %lld turns\n", b->prompts.n,
	       o->prompts, (long long)o->max_tokens, o->temperature, o->top_p, (long long)o->repeat);
	if (o->step > 0) printf("whole steps of %lld samples, to the end of the last\n", (long long)o->step);
	if (b->drawn) print_drawn(b);
	printf("\n");
}

static void table_rows(struct speculation_bench *b, struct bench_table *table, int active)
{
	struct variant *best = best_fixed(b);

	for (int i = 0; i < b->n_variants; i++) {
		struct variant *v = &b->variants[i];
		struct result r = result_of(b, v);
		char text[16];
		bench_cell(table, "%s", drafter_label(b, v));
		bench_cell(table, "%s", length_label(v, text));
		bench_cell(table, "%d", active);
		bench_cell(table, "%.2f", r.seconds);
		bench_cell(table, "%.2f", r.ratio);
		bench_cell(table, "%.1f", r.rate);
		if (v->mode == ROLLOUT_EXACT) {
			bench_row_end(table);
			continue;
		}
		bench_cell(table, "%.3f", r.acceptance);
		bench_cell(table, "%.2f", r.length);
		if (v->made >= 0) {
			bench_row_end(table);
			continue;
		}
		bench_cell(table, "%.1f", r.predicted);
		bench_cell(table, "%.1f", 100 * r.planning);
		bench_cell(table, "%.1f", 100 * r.probing);
		if (best) bench_cell(table, "%.2f", r.ratio / result_of(b, best).ratio);
		bench_row_end(table);
	}
}

int bench_speculation(int argc, char **argv, struct err *err)
{
	static const char *const columns[] = {"drafter", "length", "active", "seconds", "of exact", "tokens/s", "acceptance",
	                                      "drafted", "predicted", "planning %", "probing %", "of best"};
	struct speculation_bench_options options;
	struct speculation_bench b = {.options = &options};

	int rc = options_read(&options, argc, argv, err);
	if (rc) return rc;
	b.n_active = bench_list(b.active, ACTIVE_MAX, "--active", options.active, 1, 4096, err);
	if (b.n_active < 0) return b.n_active;
	b.n_lengths = bench_list(b.lengths, LENGTHS_MAX, "--lengths", options.lengths, 0, 32, err);
	if (b.n_lengths < 0) return b.n_lengths;
	rc = read_formats(&b, err);
	if (!rc) rc = make_variants(&b, err);
	if (!rc) rc = load(&b, err);
	struct bench_table *table = bench_table_open(sizeof columns / sizeof *columns, 2);
	for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) bench_cell(table, "%s", columns[i]);
	for (int i = 0; !rc && i < b.n_active; i++) {
		rc = measure(&b, b.active[i], err);
		if (!rc && options.json) print_json(&b, b.active[i]);
		else if (!rc) table_rows(&b, table, b.active[i]);
	}
	bool shown = !rc && !options.json;
	if (shown) print_head(&b);
	bench_table_close(table, shown ? stdout : NULL);
	for (int f = 0; f < b.n_formats; f++) policy_free(b.policies[f]);
	if (b.drawn) simulate_lengths_close(b.drawn);
	prompts_free(&b.prompts);
	weights_free(&b.weights);
	return rc;
}

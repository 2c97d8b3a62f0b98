/* bench_explore.c - `drumroll bench explore`: seconds per trained sample of explore mode against a pool that the target
 * draws itself, on the same prompts, seeds and choice of K out of N.
 *
 *     explore      the quantized copy draws N, the chosen K are drawn again by the target
 *     speculative  the target draws N with drafts
 *     exact        the target draws N
 *
 * In turns, so that what disturbs the machine disturbs all.  All three end with K samples of the target per prompt.
 * Since pools share their noise, the target's pool also says how well the copy's rewards predict: Spearman's rank
 * correlation of both rewards of the same seed, over whole pools and over what was chosen.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "configs/config.h"
#include "rollout/speculation/speculation.h"
#include "scheduler/bench/bench.h"
#include "scheduler/bench/bench_model.h"
#include "scheduler/clock.h"
#include "scheduler/commands/arguments.h"
#include "scheduler/commands/explore_run.h"

enum { REPEAT_MAX = 64, ACTIVE_MAX = 16, PREFILL_CHUNK = 64, VARIANTS = 3 };

static const char *const variant_names[VARIANTS] = {"explore", "speculative", "exact"};
static const int variant_modes[VARIANTS] = {ROLLOUT_EXPLORE, ROLLOUT_SPECULATIVE, ROLLOUT_EXACT};

struct explore_bench_options {
	const char *model, *prompts, *pattern, *active;
	int64_t pool, keep, chunk, max_tokens, seed, threads, limit, repeat;
	double temperature, grow;
	int reward, format, kv;
	bool json;
};

/* Pairs of rewards of one seed: the copy's and the target's. */
struct pairs {
	double *explored, *exact;
	int n;
	double group_sum; /* of correlations within one prompt, where they are defined */
	int groups;
};

struct explore_bench {
	const struct explore_bench_options *options;
	struct weights weights;
	struct tokenizer *tokenizer;
	struct prompts prompts;
	struct reward *reward;
	struct policy *policies[2]; /* what explores; what speculation drafts with */
	struct speculation_costs costs[VARIANTS];
	double seconds[VARIANTS][REPEAT_MAX], ratio[VARIANTS][REPEAT_MAX];
	struct engine_stats stats[VARIANTS];
	double *pool_rewards[2];    /* [prompts][pool]: the copy's, the target's; NaN: none */
	int variant;                /* at hand */
	struct pairs all, chosen;
	int64_t n_again, n_same;    /* samples drawn again; that are the copy's token by token */
	double agreed_tokens, again_tokens;
};

static int options_read(struct explore_bench_options *o, int argc, char **argv, struct err *err)
{
	struct argument table[] = {
		{"--model", ARGUMENT_FILE, &o->model, "Hugging Face model directory", true},
		{"--prompts", ARGUMENT_FILE, &o->prompts, "JSON lines with prompt and answer", true},
		{"--pool", ARGUMENT_INT, &o->pool, "samples drawn per prompt", .min = 2, .max = TRAJECTORY_SAMPLES_MAX / 2},
		{"--keep", ARGUMENT_INT, &o->keep, "samples trained on per prompt", .min = 1, .max = TRAJECTORY_SAMPLES_MAX / 2},
		{"--chunk", ARGUMENT_INT, &o->chunk, "tokens of the copy's text verified per round", .min = 1, .max = 32},
		{"--active", ARGUMENT_TEXT, &o->active, "samples decoded together, as in 8,64 (which is the default)"},
		{"--reward", ARGUMENT_CHOICE, &o->reward, "verifier",
		 .choices = "exact|numeric|math|countdown|regex|contains|length|steps"},
		{"--pattern", ARGUMENT_TEXT, &o->pattern, "its regex (reward.pattern)"},
		{"--format", ARGUMENT_CHOICE, &o->format, "weights of the copy that explores",
		 .choices = "int4|int4_g64|int4_g128|int4m|int4m_g64|int4m_g128|int5|int6|int8|mxfp4|nvfp4"},
		{"--max-tokens", ARGUMENT_INT, &o->max_tokens, "longest response", .min = 1, .max = 1 << 20},
		{"--temperature", ARGUMENT_REAL, &o->temperature, "0: greedy", .min = 0, .max = 100},
		{"--limit", ARGUMENT_INT, &o->limit, "use only the first N prompts; 0: all", .min = 0, .max = 1000000},
		{"--kv", ARGUMENT_CHOICE, &o->kv, "numbers in the KV cache", .choices = "bf16|f32"},
		{"--grow", ARGUMENT_REAL, &o->grow, "measure the model grown to so many weights, such as 0.5e9; 0: as it is",
		 .min = 0, .max = 1e12},
		{"--repeat", ARGUMENT_INT, &o->repeat, "turns, of which medians are taken", .min = 1, .max = REPEAT_MAX},
		{"--seed", ARGUMENT_INT, &o->seed, "key of all sampling noise", .min = 0, .max = 9007199254740991},
		{"--threads", ARGUMENT_INT, &o->threads, "threads", .min = 1, .max = 1024},
		{"--json", ARGUMENT_FLAG, &o->json, "a JSON line for each variant"},
	};
	int n = sizeof table / sizeof *table;

	*o = (struct explore_bench_options){
		.active = "8,64", .pattern = "", .pool = 64, .keep = 16, .chunk = 32, .max_tokens = 128, .seed = 1, .limit = 4, .repeat = 3,
		.temperature = 1.0, .kv = KV_F32, .threads = bench_threads_default(),
	};
	if (arguments_want_help(argc, argv)) {
		arguments_print_help(table, n, "bench explore", "seconds per trained sample of explore mode against the target's own pool", stdout);
		exit(EXIT_SUCCESS);
	}
	int rc = arguments_parse(table, n, argc, argv, err);
	if (!rc && o->keep > o->pool) rc = err_set(err, ERR_USAGE, "--keep: %lld samples cannot be chosen from a --pool of %lld",
	                                           (long long)o->keep, (long long)o->pool);
	return rc;
}

static int load(struct explore_bench *b, struct err *err)
{
	const struct explore_bench_options *o = b->options;
	struct config_reward reward = {
		.kind = o->reward, .pattern = (char *)(uintptr_t)o->pattern, .program = "", .tolerance = 1e-6, .answer_weight = 0.5, .length_slack = 64,
	};
	int rc = reward_open(&b->reward, &reward, err);

	if (!rc) rc = bench_weights_load(&b->weights, o->model, o->grow, err);
	if (!rc) rc = tokenizer_open(&b->tokenizer, o->model, err);
	if (!rc) rc = bench_prompts_load(&b->prompts, o->model, o->prompts, (size_t)o->limit, err);
	for (int i = 0; !rc && i < 2; i++) {
		struct config_speculation speculation = {
			.format = i == 0 ? o->format : DRAFT_FORMAT_AUTO, .head_format = DRAFT_HEAD_SAME, .quantizer = DRAFT_SEARCH,
		};
		struct draft_options draft = draft_options_of(&speculation, i == 0 ? ROLLOUT_EXPLORE : ROLLOUT_SPECULATIVE);
		rc = policy_create(&b->policies[i], &b->weights, 0, &draft, (int)o->threads, err);
	}
	if (rc) return rc;
	size_t n = b->prompts.n * (size_t)o->pool;
	for (int i = 0; i < 2; i++) b->pool_rewards[i] = xcalloc(n, sizeof *b->pool_rewards[i]);
	b->all.explored = xcalloc(n, sizeof *b->all.explored);
	b->all.exact = xcalloc(n, sizeof *b->all.exact);
	b->chosen.explored = xcalloc(n, sizeof *b->chosen.explored);
	b->chosen.exact = xcalloc(n, sizeof *b->chosen.exact);
	return 0;
}

/* ---- a turn ---- */

static int open_engine(struct engine **engine, const struct explore_bench *b, int variant, int active, struct err *err)
{
	const struct explore_bench_options *o = b->options;
	int longest = 0, context = b->weights.config.max_context;

	for (size_t i = 0; i < b->prompts.n; i++)
		if (b->prompts.items[i].n_tokens > longest) longest = b->prompts.items[i].n_tokens;
	longest = longest + o->max_tokens < context ? longest + (int)o->max_tokens : context;
	struct engine_options options = {
		.mode = variant_modes[variant], .drafter = DRAFTER_KIND_COMBINED, .draft_length_max = 16, .suffix_tokens = 1 << 20,
		.explore_chunk = (int)o->chunk, .max_active = active, .prefill_chunk = PREFILL_CHUNK, .n_threads = (int)o->threads,
		.kv_type = (enum kv_type)o->kv,
		.kv_bytes = (size_t)(active + 2 + 2 * (int)b->prompts.n) * kv_bytes(&b->weights.config, (enum kv_type)o->kv, longest + 2 * KV_TILE),
		.stop_token = -1, .clock = clock_seconds, .costs = &b->costs[variant],
	};
	return engine_open(engine, b->policies[variant == 0 ? 0 : 1], &options, longest, err);
}

static void pair_add(struct pairs *p, double explored, double exact)
{
	if (!isfinite(explored) || !isfinite(exact)) return;
	p->explored[p->n] = explored;
	p->exact[p->n++] = exact;
}

static void keep_group(void *context, size_t prompt, const struct explore_group *g)
{
	struct explore_bench *b = context;
	int side = b->variant > 0;
	double *rewards = b->pool_rewards[side] + prompt * (size_t)b->options->pool;

	for (int i = 0; i < g->n_pool; i++) rewards[i] = g->pool[i]->has_reward ? g->pool[i]->reward : NAN;
	int begin = b->chosen.n;
	for (int i = 0; side == 0 && i < g->n_chosen; i++) {
		const struct trajectory *explored = g->pool[g->chosen[i].index], *again = g->again[i];
		b->n_again++;
		b->n_same += explore_divergence(explored, again) < 0;
		b->agreed_tokens += explore_agreed(explored, again);
		b->again_tokens += trajectory_response_length(again);
		pair_add(&b->chosen, explored->has_reward ? explored->reward : NAN, again->has_reward ? again->reward : NAN);
	}
	double within = explore_spearman(b->chosen.explored + begin, b->chosen.exact + begin, b->chosen.n - begin);
	if (side > 0 || isnan(within)) return;
	b->chosen.group_sum += within;
	b->chosen.groups++;
}

static int run_turn(struct explore_bench *b, int variant, int active, int turn, struct err *err)
{
	const struct explore_bench_options *o = b->options;
	struct engine *engine;
	const struct explore_run_options options = {
		.pool = (int)o->pool, .keep = (int)o->keep, .by_target = variant > 0, .seed = (uint64_t)o->seed,
		.sampling = {.temperature = (float)o->temperature, .top_p = 1}, .max_tokens = (int32_t)o->max_tokens,
		.pending_max = 2 * active,
	};
	int rc = open_engine(&engine, b, variant, active, err);

	if (rc) return rc;
	b->variant = variant;
	b->chosen.n = b->chosen.groups = 0;
	if (variant == 0) b->chosen.group_sum = b->agreed_tokens = b->again_tokens = 0, b->n_again = b->n_same = 0;
	double start = clock_seconds();
	explore_run(engine, &b->prompts, b->reward, b->tokenizer, &options, keep_group, b);
	double seconds = clock_seconds() - start;
	if (variant < 2) engine_costs_read(engine, &b->costs[variant]);
	engine_stats_read(engine, &b->stats[variant]);
	engine_close(engine);
	if (turn >= 0) b->seconds[variant][turn] = seconds;
	return 0;
}

/* Turns in which costs are learned do not count. */
static int measure(struct explore_bench *b, int active, struct err *err)
{
	int rc = 0, turns = (int)b->options->repeat;

	memset(b->costs, 0, sizeof b->costs);
	for (int turn = -1; !rc && turn < turns; turn++) {
		for (int v = VARIANTS - 1; !rc && v >= 0; v--) {
			if (turn < 0 && variant_modes[v] == ROLLOUT_EXACT) continue;
			bench_progress("variant", (turn + 1) * VARIANTS + v, (turns + 1) * VARIANTS);
			rc = run_turn(b, v, active, turn, err);
		}
		for (int v = 0; turn >= 0 && v < VARIANTS; v++) b->ratio[v][turn] = b->seconds[v][turn] / b->seconds[0][turn];
	}
	bench_progress("variant", 1, 1);
	return rc;
}

/* Both pools of every prompt: how well the copy's rewards tell the target's. */
static void compare_pools(struct explore_bench *b)
{
	size_t pool = (size_t)b->options->pool;

	b->all.n = b->all.groups = 0;
	b->all.group_sum = 0;
	for (size_t p = 0; p < b->prompts.n; p++) {
		int begin = b->all.n;
		for (size_t i = p * pool; i < (p + 1) * pool; i++) pair_add(&b->all, b->pool_rewards[0][i], b->pool_rewards[1][i]);
		double within = explore_spearman(b->all.explored + begin, b->all.exact + begin, b->all.n - begin);
		if (isnan(within)) continue;
		b->all.group_sum += within;
		b->all.groups++;
	}
}

/* ---- results ---- */

static double mean_within(const struct pairs *p)
{
	return p->groups ? p->group_sum / p->groups : NAN;
}

static json_t *real_or_null(double value)
{
	return isfinite(value) ? json_real(value) : json_null();
}

static void print_json(struct explore_bench *b, int active)
{
	const struct explore_bench_options *o = b->options;

	for (int v = 0; v < VARIANTS; v++) {
		const struct engine_stats *s = &b->stats[v];
		double seconds = bench_median(b->seconds[v], (int)o->repeat);
		json_t *line = json_pack("{s:s, s:f, s:i, s:s, s:i, s:i, s:i, s:f, s:f, s:f, s:I, s:f, s:I, s:s, s:i}", "model", o->model, "grow",
			o->grow, "active", active, "mode", variant_names[v], "prompts", (int)b->prompts.n, "pool", (int)o->pool, "keep",
			(int)o->keep, "seconds", seconds, "seconds_per_trained_sample", seconds / (double)(b->prompts.n * (size_t)o->keep),
			"times_explore", bench_median(b->ratio[v], (int)o->repeat), "tokens", (json_int_t)s->tokens, "explored_seconds", s->explored_seconds, "explored_tokens",
			(json_int_t)s->explored_tokens, "isa", kernels_best()->name, "threads", (int)o->threads);
		if (v == 0) {
			json_object_set_new(line, "spearman_pool", real_or_null(mean_within(&b->all)));
			json_object_set_new(line, "spearman_pool_all", real_or_null(explore_spearman(b->all.explored, b->all.exact, b->all.n)));
			json_object_set_new(line, "same_share", json_real((double)b->n_same / (double)b->n_again));
			json_object_set_new(line, "agreed_share", json_real(b->agreed_tokens / b->again_tokens));
		}
		bench_json(line);
	}
}

static void table_rows(struct explore_bench *b, struct bench_table *table, int active)
{
	const struct explore_bench_options *o = b->options;

	for (int v = 0; v < VARIANTS; v++) {
		const struct engine_stats *s = &b->stats[v];
		double seconds = bench_median(b->seconds[v], (int)o->repeat);
		bench_cell(table, "%s", variant_names[v]);
		bench_cell(table, "%d", active);
		bench_cell(table, "%.2f", seconds);
		bench_cell(table, "%.2f", s->explored_seconds);
		bench_cell(table, "%.2f", 1e3 * seconds / (double)(b->prompts.n * (size_t)o->keep));
		bench_cell(table, "%.2f", bench_median(b->ratio[v], (int)o->repeat));
		bench_cell(table, "%llu", (unsigned long long)s->tokens);
		if (v == 0) {
			bench_cell(table, "%.3f", (double)b->n_same / (double)b->n_again);
			bench_cell(table, "%.3f", b->agreed_tokens / b->again_tokens);
			bench_cell(table, "%.3f", mean_within(&b->all));
			bench_cell(table, "%.3f", explore_spearman(b->all.explored, b->all.exact, b->all.n));
		}
		bench_row_end(table);
	}
}

static void print_head(const struct explore_bench *b)
{
	const struct explore_bench_options *o = b->options;
	const struct model_config *c = &b->weights.config;

	printf("%s, %d thread(s), kernels %s\n", bench_cpu_name(), (int)o->threads, kernels_best()->name);
	printf("%s%s: %.2f billion weights, %d layers of %d, vocabulary %d\n", o->model, o->grow > 0 ? " (grown)" : "",
	       1e-9 * (double)b->weights.n_elements, c->n_layers, c->dim, c->vocab_size);
	printf("%zu prompts of %s, pools of %lld, %lld trained on; medians of %lld turns; times: seconds against explore;\n"
	       "same, agreed: samples, tokens drawn again that are the copy's; spearman of pools: mean within prompts, over all\n\n",
	       b->prompts.n, o->prompts, (long long)o->pool, (long long)o->keep, (long long)o->repeat);
}

static void bench_close(struct explore_bench *b)
{
	for (int i = 0; i < 2; i++) {
		policy_free(b->policies[i]);
		free(b->pool_rewards[i]);
	}
	free(b->all.explored);
	free(b->all.exact);
	free(b->chosen.explored);
	free(b->chosen.exact);
	if (b->tokenizer) tokenizer_close(b->tokenizer);
	reward_close(b->reward);
	prompts_free(&b->prompts);
	weights_free(&b->weights);
}

int bench_explore(int argc, char **argv, struct err *err)
{
	static const char *const columns[] = {"pool by", "active", "seconds", "explored s", "ms/trained", "times", "tokens", "same", "agreed",
	                                      "spearman", "of all"};
	struct explore_bench_options options;
	struct explore_bench b = {.options = &options};
	int active[ACTIVE_MAX];

	int rc = options_read(&options, argc, argv, err);
	if (rc) return rc;
	int n_active = bench_list(active, ACTIVE_MAX, "--active", options.active, 1, 4096, err);
	if (n_active < 0) return n_active;
	rc = load(&b, err);
	struct bench_table *table = bench_table_open(sizeof columns / sizeof *columns, 1);
	for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) bench_cell(table, "%s", columns[i]);
	for (int i = 0; !rc && i < n_active; i++) {
		rc = measure(&b, active[i], err);
		if (!rc) compare_pools(&b);
		if (!rc && options.json) print_json(&b, active[i]);
		else if (!rc) table_rows(&b, table, active[i]);
	}
	bool shown = !rc && !options.json;
	if (shown) print_head(&b);
	bench_table_close(table, shown ? stdout : NULL);
	bench_close(&b);
	return rc;
}

/* cmd_generate.c - `drumroll generate`: samples from prompts in one process, without MPI.
 *
 * One JSON line per sample, in order of prompt, then sample, whatever order they end in.  Samples
 * are keyed by (seed, prompt id, epoch 0, sample), as in a run.  In quantized mode `logprobs` are the
 * quantized copy's, which drew, and `target_logprobs` what `drumroll score` gives for the same tokens.  In explore
 * mode the lines are those of exact mode for the chosen samples, each with `reward` and `explore` (explore_note).
 */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "configs/config.h"
#include "policy/utf8.h"
#include "rollout/engine.h"
#include "rollout/prompts.h"
#include "rollout/session.h"
#include "scheduler/clock.h"
#include "scheduler/commands/arguments.h"
#include "scheduler/commands/commands.h"
#include "scheduler/commands/explore_run.h"
#include "scheduler/commands/output_file.h"
#include "scheduler/controller/sample_context.h"

struct generate_options {
	const char *model, *prompts, *out, *template_kwargs, *pattern;
	int64_t pool, keep, chunk, samples, seed, max_tokens, top_k, draft_length, threads, max_active, kv_memory_mb;
	double temperature, top_p, min_p;
	int mode, drafter, coupling, draft_format, kv_format, reward;
};

struct generation {
	const struct generate_options *options;
	struct tokenizer *tokenizer;
	struct chat *chat;
	struct prompts prompts;
	struct reward *reward;     /* explore mode */
	struct policy *policy;
	struct engine *engine;
	struct output_file out;
	struct trajectory **ended; /* [n_samples], by place in the output; NULL: not yet, or written */
	size_t n_samples, n_added, n_written;
	size_t n_failed;           /* with FINISH_ERROR */
};

static void options_default(struct generate_options *o)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	*o = (struct generate_options){
		.template_kwargs = "", .pattern = "", .pool = 64, .keep = 16, .chunk = 32, .samples = 1, .seed = 1, .max_tokens = 128, .drafter = DRAFTER_KIND_COMBINED, .draft_format = DRAFT_FORMAT_AUTO, .kv_format = KV_FORMAT_F32, .threads = cores > 0 ? cores : 1,
		.max_active = 32, .kv_memory_mb = 256, .temperature = 1.0, .top_p = 1.0, .mode = ROLLOUT_SPECULATIVE,
	};
}

static int options_check(const struct generate_options *o, struct err *err)
{
	if (o->mode != ROLLOUT_EXPLORE) return 0;
	if (o->keep > o->pool)
		return err_set(err, ERR_USAGE, "--keep: %lld samples cannot be chosen from a --pool of %lld", (long long)o->keep,
		               (long long)o->pool);
	if (o->coupling == COUPLING_MAXIMAL)
		return err_set(err, ERR_USAGE, "--coupling maximal: what explore mode draws again is the copy's text as far as the "
		               "target draws the same with the same noise, which only coupled verification says");
	if (o->samples != 1)
		return err_set(err, ERR_USAGE, "--samples: in explore mode --pool says how many are drawn and --keep how many are kept");
	return 0;
}

static int options_read(struct generate_options *o, int argc, char **argv, struct err *err)
{
	struct argument table[] = {
		{"--model", ARGUMENT_FILE, &o->model, "Hugging Face model directory", true},
		{"--prompts", ARGUMENT_FILE, &o->prompts, "JSON lines with prompt or messages, optionally id", true},
		{"--out", ARGUMENT_TEXT, &o->out, "JSON lines, replaced as a whole; - or none: standard output"},
		{"--template-kwargs", ARGUMENT_TEXT, &o->template_kwargs, "JSON object: variables for the chat template of messages"},
		{"--samples", ARGUMENT_INT, &o->samples, "samples per prompt", .min = 1,
		 .max = TRAJECTORY_SAMPLES_MAX},
		{"--mode", ARGUMENT_CHOICE, &o->mode, "the first two: same samples, the second is faster; the third: the quantized copy's own; explore: of a --pool that the copy draws, the --keep that differ most in reward, drawn by the target",
		 .choices = "exact|speculative|quantized|explore"},
		{"--pool", ARGUMENT_INT, &o->pool, "explore: samples per prompt that the quantized copy draws", .min = 2,
		 .max = TRAJECTORY_SAMPLES_MAX / 2},
		{"--keep", ARGUMENT_INT, &o->keep, "explore: samples of them that the target draws again", .min = 1,
		 .max = TRAJECTORY_SAMPLES_MAX / 2},
		{"--chunk", ARGUMENT_INT, &o->chunk, "explore: tokens of the copy's text verified per round", .min = 1, .max = DRAFT_LENGTH_MAX},
		{"--reward", ARGUMENT_CHOICE, &o->reward, "explore: verifier",
		 .choices = "exact|numeric|math|countdown|regex|contains|length|steps"},
		{"--pattern", ARGUMENT_TEXT, &o->pattern, "explore: its regex (reward.pattern)"},
		{"--drafter", ARGUMENT_CHOICE, &o->drafter, "who drafts", .choices = "quant|suffix|combined"},
		{"--coupling", ARGUMENT_CHOICE, &o->coupling, "maximal: more drafts stand, same distribution, other samples",
		 .choices = "coupled|maximal"},
		{"--draft-format", ARGUMENT_CHOICE, &o->draft_format, "weights of the drafter",
		 .choices = "int4|int4_g64|int4_g128|int4m|int4m_g64|int4m_g128|int5|int6|int8|mxfp4|nvfp4|auto"},
		{"--kv-format", ARGUMENT_CHOICE, &o->kv_format, "numbers in the KV cache", .choices = "bf16|f32"},
		{"--seed", ARGUMENT_INT, &o->seed, "key of all sampling noise", .min = 0, .max = 9007199254740991},
		{"--max-tokens", ARGUMENT_INT, &o->max_tokens, "longest response", .min = 1, .max = 1 << 20},
		{"--temperature", ARGUMENT_REAL, &o->temperature, "0: greedy", .min = 0, .max = 100},
		{"--top-p", ARGUMENT_REAL, &o->top_p, "nucleus mass; 1: off", .min = 1e-6, .max = 1},
		{"--top-k", ARGUMENT_INT, &o->top_k, "keep the k likeliest; 0: off", .min = 0, .max = 1000000},
		{"--min-p", ARGUMENT_REAL, &o->min_p, "keep what is so likely, as a share of the likeliest; 0: off", .min = 0, .max = 1},
		{"--draft-length", ARGUMENT_INT, &o->draft_length, "tokens drafted per round; 0: chosen every round", .min = 0, .max = 32},
		{"--threads", ARGUMENT_INT, &o->threads, "threads", .min = 1, .max = 1024},
		{"--max-active", ARGUMENT_INT, &o->max_active, "samples decoded together", .min = 1, .max = 65536},
		{"--kv-memory-mb", ARGUMENT_INT, &o->kv_memory_mb, "budget of the KV cache", .min = 1,
		 .max = 16777216},
	};
	int n = sizeof table / sizeof *table;

	options_default(o);
	if (!arguments_want_help(argc, argv)) {
		int rc = arguments_parse(table, n, argc, argv, err);
		return rc ? rc : options_check(o, err);
	}
	arguments_print_help(table, n, "generate", "samples from prompts, as JSON lines", stdout);
	exit(EXIT_SUCCESS);
}

/* ---- output ---- */

static json_t *json_tokens(const int32_t *tokens, int32_t n)
{
	json_t *list = json_array();
	for (int32_t i = 0; i < n; i++) json_array_append_new(list, json_integer(tokens[i]));
	return list;
}

/* Nine digits give a float back exactly; null: the target would not draw it. */
static json_t *json_logprobs(const float *logprobs, int32_t n)
{
	json_t *list = json_array();
	for (int32_t i = 0; i < n; i++)
		json_array_append_new(list, isfinite(logprobs[i]) ? json_real((double)logprobs[i]) : json_null());
	return list;
}

/* JSON has only Unicode: a token may end within a character, which then shows as U+FFFD. */
static json_t *json_response_text(const struct tokenizer *tokenizer, const struct trajectory *t)
{
	struct err err;
	char *text;
	size_t n_bytes;

	if (tokenizer_decode(tokenizer, t->tokens + t->n_prompt, (size_t)trajectory_response_length(t), true,
	                     &text, &n_bytes, &err))
		return json_null();
	char *shown = utf8_lossy(text, n_bytes, &n_bytes);
	json_t *json = json_stringn(shown, n_bytes);
	free(shown);
	free(text);
	return json;
}

static void write_explored(json_t *line, const struct trajectory *t)
{
	json_t *meta = t->meta ? json_loads(t->meta, 0, NULL) : NULL;

	json_object_set_new(line, "reward", t->has_reward ? json_real(t->reward) : json_null());
	json_object_set(line, "explore", json_object_get(meta, "explore"));
	json_decref(meta);
}

static void write_sample(const struct generation *g, const struct prompt *prompt, const struct trajectory *t)
{
	const struct generate_options *o = g->options;
	json_t *line = json_object();
	int32_t n = trajectory_response_length(t);

	json_object_set_new(line, "prompt_id", json_string(t->prompt_id));
	json_object_set_new(line, "sample", json_integer(t->sample));
	json_object_set_new(line, "prompt", json_string(prompt->text));
	json_object_set_new(line, "prompt_tokens", json_tokens(t->tokens, t->n_prompt));
	json_object_set_new(line, "tokens", json_tokens(t->tokens + t->n_prompt, n));
	json_object_set_new(line, "logprobs", json_logprobs(t->logprobs + t->n_prompt, n));
	if (t->target_logprobs)
		json_object_set_new(line, "target_logprobs", json_logprobs(t->target_logprobs + t->n_prompt, n));
	json_object_set_new(line, "text", json_response_text(g->tokenizer, t));
	json_object_set_new(line, "finish_reason", json_string(finish_name(t->finish)));
	if (t->error) json_object_set_new(line, "error", json_string(t->error));
	json_object_set_new(line, "temperature", json_real(o->temperature));
	json_object_set_new(line, "top_p", json_real(o->top_p));
	json_object_set_new(line, "top_k", json_integer(o->top_k));
	json_object_set_new(line, "min_p", json_real(o->min_p));
	json_object_set_new(line, "seed", json_integer(o->seed));
	json_object_set_new(line, "drafted", json_integer(t->drafted));
	json_object_set_new(line, "accepted", json_integer(t->accepted));
	json_object_set_new(line, "verify_calls", json_integer(t->verify_calls));
	if (g->reward) write_explored(line, t);
	json_dumpf(line, g->out.stream, JSON_COMPACT | JSON_REAL_PRECISION(9));
	fputc('\n', g->out.stream);
	json_decref(line);
}

/* Everything that can be written in order. */
static void write_ended(struct generation *g)
{
	size_t samples = (size_t)g->options->samples;

	for (; g->n_written < g->n_samples && g->ended[g->n_written]; g->n_written++) {
		struct trajectory *t = g->ended[g->n_written];
		write_sample(g, &g->prompts.items[g->n_written / samples], t);
		trajectory_free(t);
		g->ended[g->n_written] = NULL;
	}
}

/* ---- generation ---- */

static int load(struct generation *g, struct err *err)
{
	const struct generate_options *o = g->options;
	struct model_config config;

	int rc = model_config_read(&config, o->model, err);
	if (!rc) rc = tokenizer_open(&g->tokenizer, o->model, err);
	if (!rc) rc = chat_open(&g->chat, o->model, err);
	if (!rc && chat_variables_set(g->chat, o->template_kwargs, err)) rc = err_context(err, "--template-kwargs");
	if (rc) return rc;
	struct prompts_options options = {.max_context = config.max_context};
	rc = prompts_load(&g->prompts, o->prompts, g->tokenizer, g->chat, &options, err);
	if (rc) return rc;
	struct config_reward reward = {
		.kind = o->reward, .pattern = (char *)(uintptr_t)o->pattern, .program = "", .tolerance = 1e-6, .answer_weight = 0.5,
		.length_slack = 64,
	};
	if (o->mode == ROLLOUT_EXPLORE && reward_open(&g->reward, &reward, err)) return err_context(err, "--reward");
	struct config_speculation speculation = {.format = o->draft_format, .quantizer = DRAFT_SEARCH};
	struct draft_options draft = draft_options_of(&speculation, o->mode);
	return policy_load(&g->policy, o->model, o->mode != ROLLOUT_EXACT ? &draft : NULL, (int)o->threads, err);
}

static int open_engine(struct generation *g, struct err *err)
{
	const struct generate_options *o = g->options;
	const struct prompts *set = &g->prompts;
	struct sample_context context;
	struct engine_options options = {
		.mode = o->mode, .drafter = o->drafter, .coupling = o->coupling, .draft_length = (int)o->draft_length,
		.draft_length_max = 16, .suffix_tokens = 1 << 20, .explore_chunk = (int)o->chunk,
		.max_active = (int)o->max_active, .prefill_chunk = 64, .n_threads = (int)o->threads,
		.kv_type = (enum kv_type)o->kv_format, .kv_bytes = (size_t)o->kv_memory_mb << 20, .stop_token = -1, .clock = clock_seconds,
	};

	sample_context_find(&context, &g->policy->config, &set, 1, o->max_tokens, "--max-tokens");
	if (context.note[0]) fprintf(stderr, "drumroll generate: %s\n", context.note);
	if ((size_t)options.max_active > g->n_samples) options.max_active = (int)g->n_samples;
	int rc = engine_open(&g->engine, g->policy, &options, context.positions, err);
	return rc ? err_context(err, "--kv-memory-mb") : 0;
}

/* Keep the engine supplied, but not with everything at once. */
static void add_samples(struct generation *g)
{
	const struct generate_options *o = g->options;
	struct sampling_options sampling = {(float)o->temperature, (float)o->top_p, (int32_t)o->top_k, (float)o->min_p};

	while (g->n_added < g->n_samples && engine_pending(g->engine) < 2 * o->max_active) {
		size_t prompt = g->n_added / (size_t)o->samples;
		int32_t sample = (int32_t)(g->n_added % (size_t)o->samples);
		engine_add(g->engine,
		           prompts_open_sample(&g->prompts.items[prompt], prompt + 1, sample, (int32_t)o->samples, 0,
		                               (uint64_t)o->seed, &sampling, (int32_t)o->max_tokens));
		g->n_added++;
	}
}

static void take_ended(struct generation *g)
{
	struct trajectory *t;

	while ((t = engine_take_finished(g->engine))) {
		g->n_failed += t->finish == FINISH_ERROR;
		g->ended[(t->group_id - 1) * (size_t)g->options->samples + (size_t)t->sample] = t;
	}
}

static void print_summary(const struct generation *g, double seconds)
{
	struct engine_stats stats;

	engine_stats_read(g->engine, &stats);
	fprintf(stderr, "drumroll generate: %zu samples, %llu tokens in %.2f s, %.1f tokens/s", g->n_samples,
	        (unsigned long long)stats.tokens, seconds, (double)stats.tokens / fmax(seconds, 1e-9));
	if (stats.drafted > 0)
		fprintf(stderr, ", acceptance %.3f (%llu of %llu)", (double)stats.accepted / (double)stats.drafted,
		        (unsigned long long)stats.accepted, (unsigned long long)stats.drafted);
	if (stats.explored_tokens > 0)
		fprintf(stderr, ", %llu explored; %llu of %llu proposed again accepted", (unsigned long long)stats.explored_tokens,
		        (unsigned long long)stats.proposals_accepted, (unsigned long long)stats.proposed);
	if (stats.rescored_tokens > 0)
		fprintf(stderr, ", %llu rescored by the target in %.2f s", (unsigned long long)stats.rescored_tokens,
		        stats.rescore_seconds);
	if (stats.preemptions > 0)
		fprintf(stderr, ", %llu put back for memory", (unsigned long long)stats.preemptions);
	fprintf(stderr, "\n");
}

static int sample_compare(const void *a, const void *b)
{
	const struct trajectory *x = *(struct trajectory *const *)a, *y = *(struct trajectory *const *)b;
	return (x->sample > y->sample) - (x->sample < y->sample);
}

static void write_group(void *context, size_t prompt, const struct explore_group *group)
{
	struct generation *g = context;
	struct trajectory **order = xmalloc((size_t)group->n_chosen * sizeof *order + 1);

	for (int i = 0; i < group->n_chosen; i++) order[i] = group->again[i];
	qsort(order, (size_t)group->n_chosen, sizeof *order, sample_compare);
	for (int i = 0; i < group->n_chosen; i++) {
		g->n_failed += order[i]->finish == FINISH_ERROR;
		write_sample(g, &g->prompts.items[prompt], order[i]);
	}
	/* A sample of the pool that nobody could judge is one fewer to choose from. */
	if (group->n_chosen < g->options->keep)
		fprintf(stderr, "drumroll generate: prompt %s: %d samples of the pool have a reward, %lld were to be kept\n",
		        g->prompts.items[prompt].id, group->n_chosen, (long long)g->options->keep);
	g->n_failed += group->n_chosen < g->options->keep;
	free(order);
}

static void explore(struct generation *g)
{
	const struct generate_options *o = g->options;
	struct explore_run_options options = {
		.pool = (int)o->pool, .keep = (int)o->keep, .seed = (uint64_t)o->seed,
		.sampling = {(float)o->temperature, (float)o->top_p, (int32_t)o->top_k, (float)o->min_p},
		.max_tokens = (int32_t)o->max_tokens, .pending_max = 2 * (int)o->max_active,
	};
	explore_run(g->engine, &g->prompts, g->reward, g->tokenizer, &options, write_group, g);
}

static int generate(struct generation *g, struct err *err)
{
	bool explores = g->options->mode == ROLLOUT_EXPLORE;

	g->n_samples = g->prompts.n * (size_t)(explores ? g->options->pool : g->options->samples);
	int rc = open_engine(g, err);
	if (!rc) rc = output_file_open(&g->out, g->options->out, err);
	if (rc) return rc;
	g->ended = xcalloc(g->n_samples, sizeof *g->ended);

	double start = clock_seconds();
	if (explores) explore(g);
	while (!explores && g->n_written < g->n_samples && !ferror(g->out.stream)) {
		add_samples(g);
		engine_round(g->engine);
		take_ended(g);
		write_ended(g);
	}
	print_summary(g, clock_seconds() - start);
	for (size_t i = g->n_written; i < g->n_samples; i++) trajectory_free(g->ended[i]); /* NULLs where it explores */
	free(g->ended);
	rc = output_file_commit(&g->out, err);
	if (!rc && g->n_failed > 0)
		rc = err_set(err, ERR_STATE, "%zu of %zu samples failed: their `error` says why", g->n_failed,
		             g->n_samples);
	return rc;
}

int generate_command(int argc, char **argv)
{
	struct generate_options options;
	struct generation g = {.options = &options};
	struct err err;

	int rc = options_read(&options, argc, argv, &err);
	if (!rc) rc = load(&g, &err);
	if (!rc) rc = generate(&g, &err);
	engine_close(g.engine);
	policy_free(g.policy);
	reward_close(g.reward);
	prompts_free(&g.prompts);
	if (g.chat) chat_close(g.chat);
	if (g.tokenizer) tokenizer_close(g.tokenizer);
	if (rc) fprintf(stderr, "drumroll generate: %s\n", err.text);
	return rc == ERR_USAGE || rc == ERR_CONFIG ? EXIT_USAGE : rc ? EXIT_FAILURE : EXIT_SUCCESS;
}

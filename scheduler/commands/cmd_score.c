/* cmd_score.c - `drumroll score`: the target's log-probabilities of given tokens.
 *
 * Each line of the input has `tokens` and what stands before them: `prompt_tokens` (ids), `prompt`
 * (text) or `messages`; with none of these the first token stands before the others and its own
 * log-probability is null, as is that of a token outside the kept set.  The output of `drumroll
 * generate` is such an input, and gives the log-probabilities that it records (in quantized mode its
 * target_logprobs).
 */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "configs/config.h"
#include "policy/chat/chat.h"
#include "policy/tokenizer/tokenizer.h"
#include "rollout/score.h"
#include "scheduler/commands/arguments.h"
#include "scheduler/commands/commands.h"
#include "scheduler/commands/output_file.h"
#include "scheduler/store/weight_history.h"

struct score_options {
	const char *model, *in, *out, *template_kwargs, *run;
	int64_t top_k, threads, version;
	struct config config; /* of the run, with --run */
	int kv_format;
	double temperature, top_p, min_p;
	bool temperature_given, top_p_given, top_k_given, min_p_given, version_given, kv_format_given;
};

struct scoring {
	const struct score_options *options;
	struct policy *policy;
	struct scorer *scorer;
	struct tokenizer *tokenizer; /* opened when a line needs it */
	struct chat *chat;
	struct output_file out;
};

/* One line: the prompt's tokens, then those to score. */
struct sequence {
	int32_t *tokens;
	size_t n_given, n;
	bool nothing_before; /* the first token counts as given but is listed */
	struct sampling_options sampling;
};

/* Model and KV format are those of the run. */
static int run_read(struct score_options *o, struct err *err)
{
	char path[4096];

	snprintf(path, sizeof path, "%.4000s/config.yaml", o->run);
	int rc = config_load(&o->config, path, NULL, 0, err);
	if (rc) return err_context(err, "--run");
	o->model = o->config.model.path;
	if (!o->kv_format_given) o->kv_format = (int)o->config.worker.kv_format;
	return 0;
}

static int options_read(struct score_options *o, int argc, char **argv, struct err *err)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	enum { TEMPERATURE = 3, TOP_P, TOP_K, MIN_P, KV_FORMAT, VERSION = 10, N = 12 };
	struct argument table[N] = {
		{"--model", ARGUMENT_FILE, &o->model, "Hugging Face model directory, unless --run"},
		{"--in", ARGUMENT_FILE, &o->in,
		 "JSON lines with tokens and prompt_tokens, prompt or messages; - is standard input", true},
		{"--out", ARGUMENT_TEXT, &o->out, "JSON lines, replaced as a whole; - or none: standard output"},
		[TEMPERATURE] = {"--temperature", ARGUMENT_REAL, &o->temperature, "instead of the lines' own",
		                 .max = 100},
		[TOP_P] = {"--top-p", ARGUMENT_REAL, &o->top_p, "instead of the lines' own", .min = 1e-6, .max = 1},
		[TOP_K] = {"--top-k", ARGUMENT_INT, &o->top_k, "instead of the lines' own", .max = 1000000},
		[MIN_P] = {"--min-p", ARGUMENT_REAL, &o->min_p, "instead of the lines' own", .max = 1},
		[KV_FORMAT] = {"--kv-format", ARGUMENT_CHOICE, &o->kv_format, "numbers in the KV cache, as where the tokens were drawn",
		 .choices = "bf16|f32"},
		{"--template-kwargs", ARGUMENT_TEXT, &o->template_kwargs, "JSON object: variables for the chat template of messages"},
		{"--threads", ARGUMENT_INT, &o->threads, "threads", .min = 1, .max = 1024},
		[VERSION] = {"--version", ARGUMENT_INT, &o->version, "with --run: which version (none: the newest)", .max = INT32_MAX},
		{"--run", ARGUMENT_TEXT, &o->run, "run directory: score under a version that it kept (weights.keep_versions)"},
	};

	*o = (struct score_options){
		.template_kwargs = "", .kv_format = KV_FORMAT_F32, .temperature = 1.0, .top_p = 1.0, .threads = cores > 0 ? cores : 1,
	};
	if (arguments_want_help(argc, argv)) {
		arguments_print_help(table, N, "score", "log-probabilities of given tokens, as JSON lines", stdout);
		exit(EXIT_SUCCESS);
	}
	int rc = arguments_parse(table, N, argc, argv, err);
	o->temperature_given = table[TEMPERATURE].given;
	o->top_p_given = table[TOP_P].given;
	o->top_k_given = table[TOP_K].given;
	o->min_p_given = table[MIN_P].given;
	o->version_given = table[VERSION].given;
	o->kv_format_given = table[KV_FORMAT].given;
	if (rc) return rc;
	if (!o->model == !o->run)
		return err_set(err, ERR_USAGE, "expected --model or --run, found %s", o->run ? "both" : "neither");
	if (o->version_given && !o->run) return err_set(err, ERR_USAGE, "--version needs --run: a model directory has one version");
	return o->run ? run_read(o, err) : 0;
}

/* ---- one line in ---- */

static int append_tokens(struct sequence *s, const json_t *list, const char *key, struct err *err)
{
	const json_t *item;
	size_t i, n = json_array_size(list);

	if (!json_is_array(list)) return err_set(err, ERR_INVALID, "%s must be a list of token ids", key);
	s->tokens = xrealloc(s->tokens, (s->n + n + 1) * sizeof *s->tokens);
	json_array_foreach(list, i, item) {
		json_int_t id = json_integer_value(item);
		if (!json_is_integer(item) || id < 0 || id > INT32_MAX)
			return err_set(err, ERR_INVALID, "%s[%zu] is not a token id", key, i);
		s->tokens[s->n++] = (int32_t)id;
	}
	return 0;
}

static int tokenizer_needed(struct scoring *scoring, struct err *err)
{
	if (scoring->tokenizer) return 0;
	const struct score_options *o = scoring->options;
	int rc = tokenizer_open(&scoring->tokenizer, o->model, err);
	if (!rc) rc = chat_open(&scoring->chat, o->model, err);
	if (!rc && chat_variables_set(scoring->chat, o->template_kwargs, err)) rc = err_context(err, "--template-kwargs");
	return rc;
}

/* A text gets the tokenizer's special tokens; a chat template writes its own. */
static int append_text(struct scoring *scoring, struct sequence *s, const char *text, bool add_special,
                       struct err *err)
{
	int rc = tokenizer_encode(scoring->tokenizer, text, strlen(text), add_special, &s->tokens, &s->n, err);
	if (rc) s->tokens = NULL;
	return rc;
}

static int append_prompt(struct scoring *scoring, struct sequence *s, const json_t *line, struct err *err)
{
	const json_t *ids = json_object_get(line, "prompt_tokens"), *prompt = json_object_get(line, "prompt");
	const json_t *messages = json_object_get(line, "messages");

	if (ids) return append_tokens(s, ids, "prompt_tokens", err);
	if (!prompt && !messages) return 0;
	if (prompt && messages)
		return err_set(err, ERR_INVALID, "has both prompt and messages; expected one of them");
	if (prompt && !json_is_string(prompt)) return err_set(err, ERR_INVALID, "prompt must be a string");
	int rc = tokenizer_needed(scoring, err);
	if (rc) return rc;
	if (prompt) return append_text(scoring, s, json_string_value(prompt), true, err);
	char *json = json_dumps(messages, JSON_ENCODE_ANY), *text;
	rc = chat_render(scoring->chat, json, &text, err);
	free(json);
	if (rc) return rc;
	rc = append_text(scoring, s, text, false, err);
	free(text);
	return rc;
}

/* The flag, else the line's field, else the default. */
static int setting(const json_t *line, const char *key, bool given, double flag, double min, double max,
                   double *value, struct err *err)
{
	const json_t *field = json_object_get(line, key);

	*value = flag;
	if (given || !field) return 0;
	*value = json_number_value(field);
	if (!json_is_number(field) || !(*value >= min && *value <= max))
		return err_set(err, ERR_INVALID, "%s must be a number from %g to %g", key, min, max);
	return 0;
}

static int read_sampling(const struct score_options *o, struct sequence *s, const json_t *line,
                         struct err *err)
{
	double temperature, top_p, top_k, min_p;

	int rc = setting(line, "temperature", o->temperature_given, o->temperature, 0, 100, &temperature, err);
	if (!rc) rc = setting(line, "top_p", o->top_p_given, o->top_p, 1e-6, 1, &top_p, err);
	if (!rc) rc = setting(line, "top_k", o->top_k_given, (double)o->top_k, 0, 1000000, &top_k, err);
	if (!rc && top_k != floor(top_k)) rc = err_set(err, ERR_INVALID, "top_k must be a whole number");
	if (!rc) rc = setting(line, "min_p", o->min_p_given, o->min_p, 0, 1, &min_p, err);
	if (!rc) s->sampling = (struct sampling_options){(float)temperature, (float)top_p, (int32_t)top_k, (float)min_p};
	return rc;
}

static int read_sequence(struct scoring *scoring, struct sequence *s, const json_t *line, struct err *err)
{
	if (!json_is_object(line)) return err_set(err, ERR_INVALID, "expected a JSON object");
	int rc = read_sampling(scoring->options, s, line, err);
	if (!rc) rc = append_prompt(scoring, s, line, err);
	if (rc) return rc;
	s->n_given = s->n;
	rc = append_tokens(s, json_object_get(line, "tokens"), "tokens", err);
	if (rc || s->n_given > 0) return rc;
	s->nothing_before = true;
	s->n_given = 1;
	return s->n > 0 ? 0 : err_set(err, ERR_INVALID, "neither tokens nor anything before them");
}

/* ---- one line out ---- */

static void copy_field(json_t *to, const json_t *from, const char *key)
{
	json_t *value = json_object_get(from, key);
	if (value) json_object_set(to, key, value);
}

static void write_scores(const struct scoring *scoring, const struct sequence *s, const json_t *line,
                         const float *logprobs)
{
	json_t *out = json_object(), *list = json_array();

	if (s->nothing_before) json_array_append_new(list, json_null());
	for (size_t i = s->n_given; i < s->n; i++)
		json_array_append_new(list, isfinite(logprobs[i]) ? json_real((double)logprobs[i]) : json_null());
	copy_field(out, line, "id");
	copy_field(out, line, "prompt_id");
	copy_field(out, line, "sample");
	json_object_set_new(out, "logprobs", list);
	json_dumpf(out, scoring->out.stream, JSON_COMPACT | JSON_REAL_PRECISION(9));
	fputc('\n', scoring->out.stream);
	json_decref(out);
}

static int score_line(struct scoring *scoring, const char *text, size_t n_bytes, struct err *err)
{
	struct sequence s = {0};
	float *logprobs = NULL;
	json_error_t error;
	json_t *line = json_loadb(text, n_bytes, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &error);

	if (!line) return err_set(err, ERR_INVALID, "expected a JSON object: %s", error.text);
	int rc = read_sequence(scoring, &s, line, err);
	if (!rc && s.n > (size_t)scoring->policy->config.max_context)
		rc = err_set(err, ERR_TOO_BIG, "%zu tokens are longer than the model's context of %d", s.n,
		             scoring->policy->config.max_context);
	if (!rc) {
		logprobs = xcalloc(s.n, sizeof *logprobs);
		rc = score_tokens(scoring->scorer, s.tokens, (int)s.n_given, (int)s.n, &s.sampling, logprobs, err);
	}
	if (!rc) write_scores(scoring, &s, line, logprobs);
	free(logprobs);
	free(s.tokens);
	json_decref(line);
	return rc;
}

static int score_lines(struct scoring *scoring, FILE *in, struct err *err)
{
	const char *name = strcmp(scoring->options->in, "-") == 0 ? "standard input" : scoring->options->in;
	char *line = NULL;
	size_t capacity = 0;
	ssize_t n;
	int rc = 0;

	for (size_t number = 1; !rc && (n = getline(&line, &capacity, in)) >= 0; number++) {
		if (strspn(line, " \t\r\n") == (size_t)n) continue;
		rc = score_line(scoring, line, (size_t)n, err);
		if (rc) err_context(err, "%s:%zu", name, number);
	}
	if (!rc && ferror(in)) rc = err_set_errno(err, ERR_IO, "cannot read %s", name);
	free(line);
	return rc;
}

/* A version that the run kept. */
static int version_load(struct scoring *scoring, struct err *err)
{
	const struct score_options *o = scoring->options;
	struct weight_history *history = NULL;
	struct model_config model;
	struct weights weights;

	int rc = model_config_read(&model, o->model, err);
	if (!rc) rc = weight_history_open(&history, o->run, &model, err);
	if (rc) return rc;
	int64_t version = o->version_given ? o->version : weight_history_newest(history);
	rc = weight_history_load(history, version, &weights, err);
	weight_history_close(history);
	if (rc) return rc;
	rc = policy_create(&scoring->policy, &weights, version, NULL, (int)o->threads, err);
	weights_free(&weights);
	return rc;
}

static int score(struct scoring *scoring, struct err *err)
{
	const struct score_options *o = scoring->options;

	int rc = o->template_kwargs[0] ? tokenizer_needed(scoring, err) : 0; /* a bad one is refused before any work */
	if (!rc) rc = o->run ? version_load(scoring, err) : policy_load(&scoring->policy, o->model, NULL, (int)o->threads, err);
	if (rc) return rc;
	scoring->scorer = scorer_open(scoring->policy, (enum kv_type)o->kv_format, (int)o->threads);
	FILE *in = strcmp(o->in, "-") == 0 ? stdin : fopen(o->in, "r");
	if (!in) return err_set_errno(err, ERR_IO, "cannot read %s", o->in);
	rc = output_file_open(&scoring->out, o->out, err);
	if (!rc) {
		rc = score_lines(scoring, in, err);
		if (rc) output_file_abandon(&scoring->out);
		else rc = output_file_commit(&scoring->out, err);
	}
	if (in != stdin) fclose(in);
	return rc;
}

int score_command(int argc, char **argv)
{
	struct score_options options;
	struct scoring scoring = {.options = &options};
	struct err err;

	int rc = options_read(&options, argc, argv, &err);
	if (!rc) rc = score(&scoring, &err);
	scorer_close(scoring.scorer);
	policy_free(scoring.policy);
	if (options.run && options.model) config_free(&options.config);
	if (scoring.chat) chat_close(scoring.chat);
	if (scoring.tokenizer) tokenizer_close(scoring.tokenizer);
	if (rc) fprintf(stderr, "drumroll score: %s\n", err.text);
	return rc == ERR_USAGE || rc == ERR_CONFIG ? EXIT_USAGE : rc ? EXIT_FAILURE : EXIT_SUCCESS;
}

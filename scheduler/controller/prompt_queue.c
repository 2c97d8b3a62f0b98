/* prompt_queue.c - see prompt_queue.h. */
#include "scheduler/controller/prompt_queue.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "rollout/advantage/advantage.h"

static int check_tokens(const struct prompt_maker *maker, const int32_t *tokens, size_t n, struct err *err)
{
	if (n == 0) return err_set(err, ERR_INVALID, "the prompt is empty; at least one token is needed to continue from");
	if (n > (size_t)maker->tokens_max)
		return err_set(err, ERR_TOO_BIG, "the prompt has %zu tokens, expected at most %d (data.prompt_tokens_max)", n,
		               maker->tokens_max);
	for (size_t i = 0; i < n; i++)
		if (tokens[i] < 0 || tokens[i] >= maker->vocab_size)
			return err_set(err, ERR_INVALID, "token %zu is %d, expected 0 to %d", i, tokens[i], maker->vocab_size - 1);
	return 0;
}

/* Token ids of whatever it came as; owned by the caller. */
static int tokens_of(const struct prompt_maker *maker, const struct request_prompt *request, int32_t **tokens, size_t *n,
                     struct err *err)
{
	char *text;

	if (request->tokens) {
		*n = request->n_tokens;
		*tokens = xmalloc(*n * sizeof **tokens);
		memcpy(*tokens, request->tokens, *n * sizeof **tokens);
		return 0;
	}
	if (request->text) return tokenizer_encode(maker->tokenizer, request->text, strlen(request->text), true, tokens, n, err);
	int rc = chat_render(maker->chat, request->messages, &text, err);
	if (rc) return rc;
	rc = tokenizer_encode(maker->tokenizer, text, strlen(text), false, tokens, n, err);
	free(text);
	return rc;
}

static int check_meta(const char *meta, struct err *err)
{
	json_error_t error;

	if (!meta) return 0;
	json_t *json = json_loads(meta, JSON_REJECT_DUPLICATES, &error);
	bool object = json_is_object(json);
	json_decref(json);
	return object ? 0 : err_set(err, ERR_INVALID, "meta must be a JSON object: %s", json ? "it is something else" : error.text);
}

/* How many are drawn for what the trainer wants. */
static int samples_of(const struct prompt_maker *maker, const struct request_prompt *request, int *n, struct err *err)
{
	const struct config *config = maker->config;
	int wanted = request->settings.has_samples ? request->settings.samples : (int)config->rollout.group_size;
	bool compared = !request->unscored && config->reward.kind != REWARD_NONE;

	if (compared && wanted < 2 && config->advantage.estimator != ADVANTAGE_MC_GRPO)
		return err_set(err, ERR_INVALID, "samples is 1, but the estimator compares samples of a group: ask for at least 2, or "
		               "for reward 'none'");
	*n = compared ? advantage_samples_to_draw(&config->advantage, wanted) : wanted;
	return 0;
}

static struct sampling_options sampling_for(const struct config_rollout *r, const struct request_settings *s)
{
	return (struct sampling_options){
		.temperature = s->has_temperature ? s->sampling.temperature : (float)r->temperature,
		.top_p = s->has_top_p ? s->sampling.top_p : (float)r->top_p,
		.top_k = s->has_top_k ? s->sampling.top_k : (int32_t)r->top_k,
		.min_p = s->has_min_p ? s->sampling.min_p : (float)r->min_p };
}

static size_t text_bytes(const char *text) { return text ? strlen(text) + 1 : 0; }

int submitted_prompt_make(struct submitted_prompt **out, const struct prompt_maker *maker,
                          const struct request_prompt *request, struct err *err)
{
	const struct request_settings *s = &request->settings;
	int32_t *tokens = NULL;
	size_t n_tokens = 0;
	int n_samples = 0;

	*out = NULL;
	int rc = check_meta(request->meta, err);
	if (!rc) rc = samples_of(maker, request, &n_samples, err);
	if (!rc) rc = tokens_of(maker, request, &tokens, &n_tokens, err);
	if (!rc && (rc = check_tokens(maker, tokens, n_tokens, err))) free(tokens);
	if (rc) return err_context(err, "prompt '%.64s'", request->prompt_id);
	struct submitted_prompt *p = xcalloc(1, sizeof *p);
	p->prompt = (struct prompt){ .id = xstrdup(request->prompt_id), .tokens = tokens, .n_tokens = (int32_t)n_tokens,
		.answer = request->answer ? xstrdup(request->answer) : NULL, .meta = request->meta ? xstrdup(request->meta) : NULL };
	p->epoch = (int32_t)request->epoch;
	p->unscored = request->unscored;
	p->n_samples = n_samples;
	p->max_tokens = s->has_max_tokens ? s->max_tokens : (int32_t)maker->config->rollout.max_tokens;
	p->sampling = sampling_for(&maker->config->rollout, s);
	p->bytes = sizeof *p + n_tokens * sizeof *tokens + text_bytes(p->prompt.id) + text_bytes(p->prompt.answer) +
	           text_bytes(p->prompt.meta);
	*out = p;
	return 0;
}

void submitted_prompt_free(struct submitted_prompt *p)
{
	if (!p) return;
	free(p->prompt.id);
	free(p->prompt.answer);
	free(p->prompt.meta);
	free(p->prompt.tokens);
	free(p);
}

void prompt_queue_append(struct prompt_queue *queue, struct submitted_prompt *prompt)
{
	prompt->next = NULL;
	*(queue->last ? &queue->last->next : &queue->first) = prompt;
	queue->last = prompt;
	queue->n++;
	queue->bytes += prompt->bytes;
}

struct submitted_prompt *prompt_queue_take(struct prompt_queue *queue)
{
	struct submitted_prompt *prompt = queue->first;

	if (!prompt) return NULL;
	queue->first = prompt->next;
	if (!queue->first) queue->last = NULL;
	queue->n--;
	queue->bytes -= prompt->bytes;
	return prompt;
}

bool prompt_queue_has(const struct prompt_queue *queue, const char *prompt_id, int64_t epoch)
{
	for (const struct submitted_prompt *p = queue->first; p; p = p->next)
		if (p->epoch == epoch && strcmp(p->prompt.id, prompt_id) == 0) return true;
	return false;
}

void prompt_queue_clear(struct prompt_queue *queue)
{
	struct submitted_prompt *prompt;
	while ((prompt = prompt_queue_take(queue))) submitted_prompt_free(prompt);
}

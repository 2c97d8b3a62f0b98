/* client_requests.c - a trainer's requests: prompts to sample, evaluations, log-probabilities. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "trainer_bridge/client/client_internal.h"

/* ---- writing ---- */

static uint32_t count_settings(const struct request_settings *s)
{
	return (uint32_t)s->has_samples + s->has_max_tokens + s->has_temperature + s->has_top_p + s->has_top_k + s->has_min_p;
}

static void put_int_if(struct message_writer *w, bool has, const char *key, int64_t value)
{
	if (!has)
		return;
	message_key(w, key);
	message_put_int(w, value);
}

static void put_real_if(struct message_writer *w, bool has, const char *key, float value)
{
	if (!has)
		return;
	message_key(w, key);
	message_put_real(w, (double)value);
}

static void put_text_if(struct message_writer *w, const char *key, const char *text)
{
	if (!text)
		return;
	message_key(w, key);
	message_put_text(w, text);
}

static void put_settings(struct message_writer *w, const struct request_settings *s)
{
	put_int_if(w, s->has_samples, "samples", s->samples);
	put_int_if(w, s->has_max_tokens, "max_tokens", s->max_tokens);
	put_real_if(w, s->has_temperature, "temperature", s->sampling.temperature);
	put_real_if(w, s->has_top_p, "top_p", s->sampling.top_p);
	put_int_if(w, s->has_top_k, "top_k", s->sampling.top_k);
	put_real_if(w, s->has_min_p, "min_p", s->sampling.min_p);
}

static void put_prompt(struct message_writer *w, const struct request_prompt *p)
{
	uint32_t n = 1u + (p->text != NULL) + (p->messages != NULL) + (p->tokens != NULL) + (p->answer != NULL) +
	             (p->meta != NULL) + (p->epoch >= 0) + p->unscored + count_settings(&p->settings);

	message_begin_map(w, n);
	put_text_if(w, "prompt_id", p->prompt_id ? p->prompt_id : "");
	put_text_if(w, "text", p->text);
	put_text_if(w, "messages", p->messages);
	if (p->tokens) {
		message_key(w, "tokens");
		message_put_bin(w, p->tokens, p->n_tokens * sizeof *p->tokens);
	}
	put_text_if(w, "answer", p->answer);
	put_text_if(w, "meta", p->meta);
	put_int_if(w, p->epoch >= 0, "epoch", p->epoch);
	put_text_if(w, "reward", p->unscored ? "none" : NULL);
	put_settings(w, &p->settings);
}

static void put_prompts(struct message_writer *w, const struct request_prompt *prompts, int n)
{
	message_key(w, "prompts");
	message_begin_array(w, (uint32_t)n);
	for (int i = 0; i < n; i++)
		put_prompt(w, &prompts[i]);
}

static struct message_writer *begin(struct client *client, enum frame_type type, uint32_t n_fields)
{
	struct message_writer *w = client_begin(client, type, n_fields + 1);

	message_key(w, "id");
	message_put_int(w, client->next_request);
	return w;
}

/* ---- waiting ---- */

static bool is_accepted(const struct client *client)
{
	return client->accepted.id == client->next_request;
}

static bool has_evaluation(const struct client *client)
{
	return client->evaluations != NULL;
}

static bool has_scores(const struct client *client)
{
	return client->scores.id == client->next_request;
}

/* The request in the writer; its number is used up whatever comes of it. */
static int send_and_await(struct client *client, bool (*enough)(const struct client *), double seconds, struct err *err)
{
	int rc = client_send(client, NULL, 0, err);

	if (!rc)
		rc = client_wait(client, enough, seconds, err);
	client->next_request++;
	return rc;
}

/* ---- what a trainer calls ---- */

int client_submit(struct client *client, const struct request_prompt *prompts, int n, int *room, struct err *err)
{
	put_prompts(begin(client, FRAME_SUBMIT, 1), prompts, n);
	int rc = send_and_await(client, is_accepted, client->timeout_seconds, err);
	if (!rc)
		*room = client->accepted.room;
	return rc;
}

int client_evaluate_begin(struct client *client, const struct request_prompt *prompts, int n,
                          const struct request_settings *settings, int64_t *id, struct err *err)
{
	struct message_writer *w = begin(client, FRAME_EVALUATE, 1 + count_settings(settings));

	*id = client->next_request;
	if (n > 0) {
		put_prompts(w, prompts, n);
	} else {
		message_key(w, "held_out");
		message_put_bool(w, true);
	}
	put_settings(w, settings);
	return send_and_await(client, is_accepted, client->timeout_seconds, err);
}

int client_evaluate_end(struct client *client, int64_t id, struct client_batch *result, double timeout_seconds,
                        struct err *err)
{
	*result = (struct client_batch){.micro = -1};
	if (client_wait(client, has_evaluation, timeout_seconds, err))
		return err->code;
	struct arrival *arrival = client_arrival_take(&client->evaluations);
	int rc = arrival->of.id == (uint64_t)id ? client_decode(&arrival->of, result, err)
	                                        : err_set(err, ERR_STATE, "evaluation %" PRIu64 " came before %" PRId64
	                                                  ": take them in the order in which they were asked for",
	                                                  arrival->of.id, id);
	client_arrival_free(client, arrival);
	return rc;
}

int client_evaluate(struct client *client, const struct request_prompt *prompts, int n,
                    const struct request_settings *settings, struct client_batch *result, double timeout_seconds,
                    struct err *err)
{
	int64_t id;
	int rc = client_evaluate_begin(client, prompts, n, settings, &id, err);

	return rc ? rc : client_evaluate_end(client, id, result, timeout_seconds, err);
}

/* An array of bins has no keys: each is looked at through a field reader's eyes. */
static int copy_scores(const struct message_node *frame, const struct request_sequence *sequences, int n,
                       float *const *logprobs, struct err *err)
{
	const struct message_node *list = message_field(frame, "logprobs");

	if (!list || message_count(list) != n)
		return err_set(err, ERR_PEER, "the run answered with %" PRId64 " sequences, expected %d",
		               list ? message_count(list) : 0, n);
	for (int i = 0; i < n; i++) {
		size_t n_bytes, expected = (size_t)sequences[i].n_tokens * sizeof(float);
		const void *bytes = message_bin(message_item(list, (uint32_t)i), &n_bytes);
		if (!bytes || n_bytes != expected)
			return err_set(err, ERR_PEER, "log-probabilities of sequence %d have %zu bytes, expected %zu", i,
			               bytes ? n_bytes : 0, expected);
		memcpy(logprobs[i], bytes, n_bytes);
	}
	return 0;
}

int client_score(struct client *client, int64_t version, const struct request_sequence *sequences, int n,
                 const struct request_settings *settings, float *const *logprobs, double timeout_seconds,
                 struct err *err)
{
	struct message_writer *w = begin(client, FRAME_SCORE, 2 + count_settings(settings));

	message_key(w, "version");
	message_put_int(w, version);
	message_key(w, "sequences");
	message_begin_array(w, (uint32_t)n);
	for (int i = 0; i < n; i++) {
		message_begin_map(w, 2);
		message_key(w, "tokens");
		message_put_bin(w, sequences[i].tokens, (size_t)sequences[i].n_tokens * sizeof *sequences[i].tokens);
		message_key(w, "n_prompt");
		message_put_int(w, sequences[i].n_prompt);
	}
	put_settings(w, settings);
	int rc = send_and_await(client, has_scores, timeout_seconds, err);
	if (!rc)
		rc = copy_scores(message_root(client->scores.message), sequences, n, logprobs, err);
	message_close(client->scores.message);
	client->scores.message = NULL;
	client->scores.id = -1;
	return rc;
}

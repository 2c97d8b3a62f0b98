/* peer_requests.c - SUBMIT, EVALUATE and SCORE: read, checked against the limits, handed to the run (requests.h).
 *
 * What breaks the form is fatal as in every frame; what is refused is answered with the request's id.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "trainer_bridge/server/peer_internal.h"

/* ---- answers ---- */

static void refuse(struct peer *peer, enum frame_type about, int64_t id, enum wire_error error, const char *text)
{
	peer->refused_id = id;
	peer_answer_error(peer, error, false, frame_name(about), text);
	peer->refused_id = -1;
}

static void refuse_by(struct peer *peer, enum frame_type about, int64_t id, const struct request_answer *answer,
                      const struct err *err)
{
	refuse(peer, about, id, answer->busy ? WIRE_BUSY : wire_error_of(err->code), err->text);
}

static void accept(struct peer *peer, int64_t id, const struct request_answer *answer)
{
	struct message_writer *w = peer_answer_begin(peer, FRAME_ACCEPTED, 3);

	message_key(w, "id");
	message_put_int(w, id);
	message_key(w, "prompts");
	message_put_int(w, answer->n_prompts);
	message_key(w, "room");
	message_put_int(w, answer->room);
	peer_answer_end(peer);
}

/* ---- requests under way ---- */

static struct request *add_request(struct peer *peer, int64_t id)
{
	struct request *request = xcalloc(1, sizeof *request);

	*request = (struct request){.ticket = ++peer->exchange->last_ticket, .id = id, .next = peer->requests};
	peer->requests = request;
	peer->n_requests++;
	return request;
}

static struct request *take_request(struct peer *peer, uint64_t ticket)
{
	struct request **at = &peer->requests;

	while (*at && (*at)->ticket != ticket)
		at = &(*at)->next;
	struct request *request = *at;
	if (request) {
		*at = request->next;
		peer->n_requests--;
	}
	return request;
}

static struct request *find_request(const struct peer *peer, uint64_t ticket)
{
	struct request *request = peer->requests;

	while (request && request->ticket != ticket)
		request = request->next;
	return request;
}

static void tell_forgotten(struct peer *peer, uint64_t ticket)
{
	const struct request_handlers *handlers = peer->exchange->handlers;

	handlers->forget(handlers->context, ticket);
}

void peer_forget_requests(struct peer *peer)
{
	while (peer->requests) {
		struct request *request = take_request(peer, peer->requests->ticket);
		tell_forgotten(peer, request->ticket);
		if (request->result)
			batch_release(request->result);
		free(request);
	}
}

bool peer_answer_evaluation(struct peer *peer, uint64_t ticket, struct batch *result)
{
	struct request *request = find_request(peer, ticket);

	if (!request)
		return false;
	request->result = result;
	return true;
}

bool peer_answer_refusal(struct peer *peer, uint64_t ticket, const struct err *err)
{
	struct request *request = take_request(peer, ticket);

	if (!request)
		return false;
	refuse(peer, FRAME_SCORE, request->id, wire_error_of(err->code), err->text);
	free(request);
	return true;
}

bool peer_answer_scores(struct peer *peer, uint64_t ticket, int64_t version, const float *logprobs,
                        const int *lengths, int n)
{
	struct request *request = take_request(peer, ticket);

	if (!request)
		return false;
	struct message_writer *w = peer_answer_begin(peer, FRAME_SCORES, 3);
	message_key(w, "id");
	message_put_int(w, request->id);
	message_key(w, "version");
	message_put_int(w, version);
	message_key(w, "logprobs");
	message_begin_array(w, (uint32_t)n);
	for (int i = 0; i < n; logprobs += lengths[i], i++)
		message_put_bin(w, logprobs, (size_t)lengths[i] * sizeof *logprobs);
	peer_answer_end(peer);
	free(request);
	return true;
}

/* The oldest that is ready: requests are linked newest first. */
bool peer_begin_evaluation(struct peer *peer)
{
	struct request *ready = NULL;

	for (struct request *request = peer->requests; request; request = request->next)
		ready = request->result ? request : ready;
	if (!ready)
		return false;
	take_request(peer, ready->ticket);
	peer_section_begin(peer, &(struct section){.batch = ready->result, .type = FRAME_EVALUATION,
		.id = (uint64_t)ready->id, .micro = -1, .end = ready->result->n_groups});
	batch_release(ready->result);
	tell_forgotten(peer, ready->ticket);
	free(ready);
	return true;
}

/* ---- reading ---- */

static int optional_text(const struct message_node *map, const char *key, const char **text, struct err *err)
{
	*text = NULL;
	return message_field(map, key) ? message_get_text(map, key, text, err) : 0;
}

static int optional_int(const struct message_node *map, const char *key, int64_t min, int64_t max, bool *has,
                        int *value, struct err *err)
{
	int64_t wide;

	*has = message_field(map, key) != NULL;
	if (!*has)
		return 0;
	if (message_get_int(map, key, min, max, &wide, err))
		return err->code;
	*value = (int)wide;
	return 0;
}

static int optional_real(const struct message_node *map, const char *key, double min, double max, bool *has,
                         float *value, struct err *err)
{
	double wide;

	*has = message_field(map, key) != NULL;
	if (!*has)
		return 0;
	if (message_get_real(map, key, &wide, err))
		return err->code;
	if (!(wide >= min && wide <= max))
		return err_set(err, ERR_INVALID, "field '%s': expected %g to %g, found %g", key, min, max, wide);
	*value = (float)wide;
	return 0;
}

static int get_settings(const struct peer *peer, const struct message_node *map, struct request_settings *s,
                        struct err *err)
{
	struct sampling_options *sampling = &s->sampling;

	*s = (struct request_settings){.samples = 1, .sampling = {.temperature = 1, .top_p = 1}};
	s->max_tokens = peer->exchange->handlers->max_tokens;
	if (optional_int(map, "samples", 1, REQUEST_SAMPLES_MAX, &s->has_samples, &s->samples, err) ||
	    optional_int(map, "max_tokens", 1, s->max_tokens, &s->has_max_tokens, &s->max_tokens, err) ||
	    optional_real(map, "temperature", 0, 100, &s->has_temperature, &sampling->temperature, err) ||
	    optional_real(map, "top_p", 1e-6, 1, &s->has_top_p, &sampling->top_p, err) ||
	    optional_int(map, "top_k", 0, 1000000, &s->has_top_k, &sampling->top_k, err) ||
	    optional_real(map, "min_p", 0, 1, &s->has_min_p, &sampling->min_p, err))
		return err->code;
	return 0;
}

static int get_tokens(const struct message_node *map, const int32_t **tokens, size_t *n, struct err *err)
{
	const void *bytes;
	size_t n_bytes;

	if (message_get_bin(map, "tokens", &bytes, &n_bytes, err))
		return err->code;
	if (n_bytes == 0 || n_bytes % sizeof **tokens)
		return err_set(err, ERR_INVALID, "field 'tokens': %zu bytes are not one or more items of 4 bytes", n_bytes);
	*n = n_bytes / sizeof **tokens;
	int32_t *aligned = xmalloc(n_bytes); /* what is borrowed from a message may lie at any byte */
	memcpy(aligned, bytes, n_bytes);
	*tokens = aligned;
	return 0;
}

static void free_prompts(struct request_prompt *prompts, int n)
{
	for (int i = 0; i < n; i++) {
		union { const void *from; void *to; } tokens = {.from = prompts[i].tokens};
		free(tokens.to);
	}
	free(prompts);
}

static int get_prompt(const struct peer *peer, const struct message_node *map, struct request_prompt *p,
                      struct err *err)
{
	const char *reward;

	*p = (struct request_prompt){.epoch = -1};
	if (message_get_text(map, "prompt_id", &p->prompt_id, err) || optional_text(map, "text", &p->text, err) ||
	    optional_text(map, "answer", &p->answer, err) || optional_text(map, "meta", &p->meta, err) ||
	    optional_text(map, "reward", &reward, err) || optional_text(map, "messages", &p->messages, err) ||
	    get_settings(peer, map, &p->settings, err))
		return err->code;
	if (message_field(map, "epoch") && message_get_int(map, "epoch", 0, INT32_MAX, &p->epoch, err))
		return err->code;
	if (message_field(map, "tokens") && get_tokens(map, &p->tokens, &p->n_tokens, err))
		return err->code;
	if (!p->prompt_id || !*p->prompt_id || strlen(p->prompt_id) > PROMPT_ID_BYTES_MAX)
		return err_set(err, ERR_INVALID, "field 'prompt_id': expected 1 to %d bytes", PROMPT_ID_BYTES_MAX);
	if ((p->text != NULL) + (p->messages != NULL) + (p->tokens != NULL) != 1)
		return err_set(err, ERR_INVALID, "expected exactly one of 'text', 'messages' and 'tokens'");
	if ((p->answer ? strlen(p->answer) : 0) + (p->meta ? strlen(p->meta) : 0) > PROMPT_META_BYTES_MAX)
		return err_set(err, ERR_TOO_BIG, "'answer' and 'meta' are over %d bytes", PROMPT_META_BYTES_MAX);
	if (reward && strcmp(reward, "run") != 0 && strcmp(reward, "none") != 0)
		return err_set(err, ERR_UNSUPPORTED, "reward '%.32s' is unknown: expected 'run' or 'none'", reward);
	p->unscored = reward && strcmp(reward, "none") == 0;
	return 0;
}

/* *prompts is owned by the caller, whatever is returned. */
static int get_prompts(const struct peer *peer, const struct message_node *frame, struct request_prompt **prompts,
                       int *n, struct err *err)
{
	const struct message_node *list = message_field(frame, "prompts");
	int64_t count = list ? message_count(list) : -1;

	*prompts = NULL;
	*n = 0;
	if (count < 0)
		return err_set(err, list ? ERR_INVALID : ERR_MISSING, "field 'prompts': expected an array");
	if (count == 0 || count > REQUEST_PROMPTS_MAX)
		return err_set(err, count ? ERR_TOO_BIG : ERR_INVALID, "field 'prompts': expected 1 to %d, found %" PRId64,
		               REQUEST_PROMPTS_MAX, count);
	*prompts = xcalloc((size_t)count, sizeof **prompts);
	for (uint32_t i = 0; i < (uint32_t)count; i++)
		if (get_prompt(peer, message_item(list, i), &(*prompts)[(*n)++], err))
			return err_context(err, "prompt %" PRIu32, i);
	return 0;
}

/* ---- the frames ---- */

/* Whether the run takes such requests, and another one now. */
static bool is_served(struct peer *peer, enum frame_type type, int64_t id)
{
	if (peer->exchange->handlers && peer->n_requests < REQUESTS_MAX)
		return true;
	if (peer->exchange->handlers)
		refuse(peer, type, id, WIRE_BUSY, "too many requests are not answered yet: try again when some are");
	else
		refuse(peer, type, id, WIRE_UNSUPPORTED, "this run takes no requests");
	return false;
}

int peer_on_submit(struct peer *peer, const struct message_node *frame, struct err *err)
{
	const struct request_handlers *handlers = peer->exchange->handlers;
	struct request_answer answer = {0};
	struct request_prompt *prompts = NULL;
	int64_t id;
	int n;

	if (message_get_int(frame, "id", 0, INT64_MAX, &id, err))
		return err->code;
	if (!is_served(peer, FRAME_SUBMIT, id))
		return 0;
	int rc = get_prompts(peer, frame, &prompts, &n, err);
	if (rc)
		refuse_by(peer, FRAME_SUBMIT, id, &answer, err);
	else if (handlers->submit(handlers->context, prompts, n, &answer, err))
		refuse_by(peer, FRAME_SUBMIT, id, &answer, err);
	else
		accept(peer, id, &answer);
	free_prompts(prompts, n);
	return 0;
}

static int read_evaluation(const struct peer *peer, const struct message_node *frame, struct request_prompt **prompts,
                           int *n, struct request_settings *settings, struct err *err)
{
	bool held_out = false;

	*prompts = NULL;
	*n = 0;
	if (get_settings(peer, frame, settings, err) ||
	    (message_field(frame, "held_out") && message_get_bool(frame, "held_out", &held_out, err)))
		return err->code;
	if (held_out && message_field(frame, "prompts"))
		return err_set(err, ERR_INVALID, "expected 'prompts' or 'held_out', found both");
	return held_out ? 0 : get_prompts(peer, frame, prompts, n, err);
}

int peer_on_evaluate(struct peer *peer, const struct message_node *frame, struct err *err)
{
	const struct request_handlers *handlers = peer->exchange->handlers;
	struct request_settings settings;
	struct request_answer answer = {0};
	struct request_prompt *prompts = NULL;
	int64_t id;
	int n;

	if (message_get_int(frame, "id", 0, INT64_MAX, &id, err))
		return err->code;
	if (!is_served(peer, FRAME_EVALUATE, id))
		return 0;
	struct request *request = add_request(peer, id);
	int rc = read_evaluation(peer, frame, &prompts, &n, &settings, err);
	if (!rc)
		rc = handlers->evaluate(handlers->context, request->ticket, prompts, n, &settings, &answer, err);
	if (rc) {
		free(take_request(peer, request->ticket));
		refuse_by(peer, FRAME_EVALUATE, id, &answer, err);
	} else {
		accept(peer, id, &answer);
	}
	free_prompts(prompts, n);
	return 0;
}

/* *sequences is owned by the caller, whatever is returned. */
static int get_sequences(const struct peer *peer, const struct message_node *frame, struct request_sequence **out,
                         int *n, struct err *err)
{
	const struct message_node *list = message_field(frame, "sequences");
	int64_t count = list ? message_count(list) : -1;
	size_t total = 0, n_tokens = 0;
	int64_t n_prompt = 0;

	*out = NULL;
	*n = 0;
	if (count < 1 || count > SCORE_SEQUENCES_MAX)
		return err_set(err, ERR_INVALID, "field 'sequences': expected an array of 1 to %d", SCORE_SEQUENCES_MAX);
	*out = xcalloc((size_t)count, sizeof **out);
	for (uint32_t i = 0; i < (uint32_t)count; i++) {
		struct request_sequence *s = &(*out)[i];
		const struct message_node *map = message_item(list, i);
		if (get_tokens(map, &s->tokens, &n_tokens, err))
			return err_context(err, "sequence %" PRIu32, i);
		*n = (int)i + 1;
		if ((total += n_tokens) > SCORE_TOKENS_MAX)
			return err_set(err, ERR_TOO_BIG, "over %d tokens: ask in several requests", SCORE_TOKENS_MAX);
		if (message_get_int(map, "n_prompt", 1, (int64_t)n_tokens, &n_prompt, err))
			return err_context(err, "sequence %" PRIu32, i);
		s->n_tokens = (int)n_tokens;
		s->n_prompt = (int)n_prompt;
	}
	size_t answer = total * sizeof(float) + (size_t)count * 5 + 128;
	if (answer > peer->exchange->frame_bytes_max)
		return err_set(err, ERR_TOO_BIG, "the answer would have %zu bytes, a frame at most %zu: ask in several requests",
		               answer, peer->exchange->frame_bytes_max);
	return 0;
}

static void free_sequences(struct request_sequence *sequences, int n)
{
	for (int i = 0; i < n; i++) {
		union { const void *from; void *to; } tokens = {.from = sequences[i].tokens};
		free(tokens.to);
	}
	free(sequences);
}

int peer_on_score(struct peer *peer, const struct message_node *frame, struct err *err)
{
	const struct request_handlers *handlers = peer->exchange->handlers;
	struct request_settings settings;
	struct request_answer answer = {0};
	struct request_sequence *sequences = NULL;
	int64_t id, version;
	int n = 0;

	if (message_get_int(frame, "id", 0, INT64_MAX, &id, err) ||
	    message_get_int(frame, "version", 0, INT32_MAX, &version, err))
		return err->code;
	if (!is_served(peer, FRAME_SCORE, id))
		return 0;
	struct request *request = add_request(peer, id);
	int rc = get_settings(peer, frame, &settings, err);
	if (!rc)
		rc = get_sequences(peer, frame, &sequences, &n, err);
	if (!rc)
		rc = handlers->score(handlers->context, request->ticket, version, sequences, n, &settings, &answer, err);
	if (rc) {
		free(take_request(peer, request->ticket));
		refuse_by(peer, FRAME_SCORE, id, &answer, err);
	}
	free_sequences(sequences, n);
	return 0;
}

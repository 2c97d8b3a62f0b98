/* codec.c - trajectory records as msgpack maps; keys and meaning are in PROTOCOL.md, "Trajectory".
 *
 * Unfinished samples (leases and partials between ranks) are records too: their finish is "none".
 * Cost: about 13 bytes a token and 600 bytes a record.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "trainer_bridge/wire/codec.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "arrays travel as they lie in memory");

/* A segment on the wire: i32[5] start, length, version, rank, mode. */
_Static_assert(sizeof(struct segment) == 5 * sizeof(int32_t), "struct segment is its wire form");

/* ---- writing ---- */

static void put_int(struct message_writer *w, const char *key, int64_t value)
{
	message_key(w, key);
	message_put_int(w, value);
}

static void put_uint(struct message_writer *w, const char *key, uint64_t value)
{
	message_key(w, key);
	message_put_uint(w, value);
}

static void put_real(struct message_writer *w, const char *key, double value)
{
	message_key(w, key);
	message_put_real(w, value);
}

static void put_bool(struct message_writer *w, const char *key, bool value)
{
	message_key(w, key);
	message_put_bool(w, value);
}

static void put_text(struct message_writer *w, const char *key, const char *text)
{
	message_key(w, key);
	message_put_text(w, text);
}

static void put_array(struct message_writer *w, const char *key, const void *items, int32_t n,
                      size_t item_bytes)
{
	message_key(w, key);
	message_put_bin(w, items, (size_t)n * item_bytes);
}

enum { PAIRS_ALWAYS = 12 + 12 + 2 + 9 + 1, PAIRS_REWARD = 3, PAIRS_ADVANTAGE = 3, PAIRS_TARGET = 1 };

static void put_identity(struct message_writer *w, const struct trajectory *t) /* 12 pairs */
{
	put_int(w, "schema", TRAJECTORY_SCHEMA);
	put_uint(w, "id", t->id);
	put_uint(w, "group", t->group_id);
	put_int(w, "sample", t->sample);
	put_int(w, "group_size", t->group_size);
	put_text(w, "prompt_id", t->prompt_id);
	put_int(w, "epoch", t->epoch);
	put_bool(w, "eval", t->eval);
	put_uint(w, "seed", t->seed);
	put_text(w, "answer", t->answer);
	put_text(w, "meta", t->meta);
	put_int(w, "max_tokens", t->max_tokens);
}

static void put_tokens(struct message_writer *w, const struct trajectory *t) /* 12 pairs, 1 more */
{
	put_real(w, "temperature", (double)t->sampling.temperature);
	put_real(w, "top_p", (double)t->sampling.top_p);
	put_int(w, "top_k", t->sampling.top_k);
	if (t->sampling.min_p > 0) put_real(w, "min_p", (double)t->sampling.min_p);
	put_int(w, "n_prompt", t->n_prompt);
	put_array(w, "tokens", t->tokens, t->n_tokens, sizeof *t->tokens);
	put_array(w, "logprobs", t->logprobs, t->n_tokens, sizeof *t->logprobs);
	if (t->target_logprobs)
		put_array(w, "target_logprobs", t->target_logprobs, t->n_tokens, sizeof *t->target_logprobs);
	put_array(w, "versions", t->versions, t->n_tokens, sizeof *t->versions);
	put_array(w, "mask", t->loss_mask, t->n_tokens, sizeof *t->loss_mask);
	put_array(w, "segments", t->segments, t->n_segments, sizeof *t->segments);
	put_text(w, "finish", finish_name(t->finish));
	put_text(w, "error", t->error);
	put_int(w, "deferrals", t->deferrals);
}

static void put_score(struct message_writer *w, const struct trajectory *t) /* 2 pairs, 3 and 3 more */
{
	if (t->has_reward) {
		put_real(w, "reward", t->reward);
		put_real(w, "reward_answer", t->reward_answer);
		put_real(w, "reward_steps", t->reward_steps);
	}
	if (t->has_advantage) {
		put_real(w, "advantage", (double)t->advantage);
		put_real(w, "baseline", (double)t->baseline);
		put_real(w, "scale", (double)t->scale);
	}
	put_bool(w, "pivot", t->pivot);
	put_real(w, "loss_weight", (double)t->loss_weight);
}

static void put_telemetry(struct message_writer *w, const struct trajectory *t) /* 9 pairs */
{
	put_int(w, "drafted", t->drafted);
	put_int(w, "accepted", t->accepted);
	put_int(w, "verify_calls", t->verify_calls);
	put_real(w, "queue_s", t->queue_seconds);
	put_real(w, "prefill_s", t->prefill_seconds);
	put_real(w, "decode_s", t->decode_seconds);
	put_real(w, "reward_s", t->reward_seconds);
	put_int(w, "staleness_max", t->staleness_max);
	put_int(w, "staleness_min", t->staleness_min);
}

void codec_put_trajectory(struct message_writer *w, const struct trajectory *t)
{
	uint32_t n_reward = t->has_reward ? PAIRS_REWARD : 0;
	uint32_t n_advantage = t->has_advantage ? PAIRS_ADVANTAGE : 0;
	uint32_t n_target = t->target_logprobs ? PAIRS_TARGET : 0;

	message_begin_map(w, PAIRS_ALWAYS + (t->sampling.min_p > 0) + n_reward + n_advantage + n_target);
	put_identity(w, t);
	put_tokens(w, t);
	put_score(w, t);
	put_telemetry(w, t);
	put_uint(w, "checksum", trajectory_checksum(t));
}

/* ---- reading ---- */

/* The first error stays; readers after it do nothing, so that fields can be listed plainly. */
struct reader {
	const struct message_node *map;
	struct err *err;
	bool failed;
};

static int64_t get_int(struct reader *r, const char *key, int64_t min, int64_t max)
{
	int64_t value = min;

	r->failed = r->failed || message_get_int(r->map, key, min, max, &value, r->err);
	return value;
}

static int32_t get_i32(struct reader *r, const char *key, int32_t min)
{
	return (int32_t)get_int(r, key, min, INT32_MAX);
}

static uint64_t get_uint(struct reader *r, const char *key)
{
	uint64_t value = 0;

	r->failed = r->failed || message_get_uint(r->map, key, &value, r->err);
	return value;
}

static double get_real(struct reader *r, const char *key)
{
	double value = 0;

	r->failed = r->failed || message_get_real(r->map, key, &value, r->err);
	return value;
}

static bool get_bool(struct reader *r, const char *key)
{
	bool value = false;

	r->failed = r->failed || message_get_bool(r->map, key, &value, r->err);
	return value;
}

static const char *get_text(struct reader *r, const char *key)
{
	const char *text = NULL;

	r->failed = r->failed || message_get_text(r->map, key, &text, r->err);
	return text;
}

static char *copy_text(struct reader *r, const char *key)
{
	const char *text = get_text(r, key);
	return text && !r->failed ? xstrdup(text) : NULL;
}

/* Bytes of an array of exactly n items, or NULL. */
static const void *get_array(struct reader *r, const char *key, int32_t n, size_t item_bytes)
{
	const void *bytes = NULL;
	size_t n_bytes = 0;

	r->failed = r->failed || message_get_bin(r->map, key, &bytes, &n_bytes, r->err);
	if (!r->failed && n_bytes != (size_t)n * item_bytes) {
		err_set(r->err, ERR_INVALID, "field '%s': expected %" PRId32 " items of %zu bytes, found %zu bytes",
		        key, n, item_bytes, n_bytes);
		r->failed = true;
	}
	return r->failed ? NULL : bytes;
}

/* Items of an array whose count is told by its size alone. */
static int32_t count_items(struct reader *r, const char *key, size_t item_bytes)
{
	const void *bytes;
	size_t n_bytes = 0;

	r->failed = r->failed || message_get_bin(r->map, key, &bytes, &n_bytes, r->err);
	if (!r->failed && (n_bytes % item_bytes || n_bytes / item_bytes > INT32_MAX / 2)) {
		err_set(r->err, ERR_INVALID, "field '%s': %zu bytes are not a sequence of items of %zu bytes", key,
		        n_bytes, item_bytes);
		r->failed = true;
	}
	return r->failed ? 0 : (int32_t)(n_bytes / item_bytes);
}

static bool has(const struct reader *r, const char *key)
{
	return message_field(r->map, key) != NULL;
}

static void refuse(struct reader *r, const char *what, int64_t found)
{
	if (!r->failed)
		err_set(r->err, ERR_INVALID, "%s (found %" PRId64 ")", what, found);
	r->failed = true;
}

static void get_identity(struct reader *r, struct trajectory *t)
{
	t->id = get_uint(r, "id");
	t->group_id = get_uint(r, "group");
	t->group_size = (int32_t)get_int(r, "group_size", 1, TRAJECTORY_SAMPLES_MAX);
	t->sample = (int32_t)get_int(r, "sample", 0, t->group_size - 1);
	t->prompt_id = copy_text(r, "prompt_id");
	t->epoch = get_i32(r, "epoch", 0);
	t->eval = get_bool(r, "eval");
	t->seed = get_uint(r, "seed");
	t->answer = copy_text(r, "answer");
	t->meta = copy_text(r, "meta");
	t->max_tokens = get_i32(r, "max_tokens", 0);
	if (t->group_id == 0 || t->group_id > UINT64_MAX / TRAJECTORY_SAMPLES_MAX)
		refuse(r, "field 'group': expected 1 or more, and room for a trajectory id", (int64_t)t->group_id);
	if (t->id != trajectory_id(t->group_id, t->sample))
		refuse(r, "field 'id' is not group * 4096 + sample", (int64_t)t->id);
}

static void copy_array(void *to, const void *from, int32_t n, size_t item_bytes)
{
	if (from && n)
		memcpy(to, from, (size_t)n * item_bytes);
}

static void get_tokens(struct reader *r, struct trajectory *t)
{
	int32_t n = t->n_tokens;

	t->sampling.temperature = (float)get_real(r, "temperature");
	t->sampling.top_p = (float)get_real(r, "top_p");
	t->sampling.top_k = get_i32(r, "top_k", 0);
	t->sampling.min_p = has(r, "min_p") ? (float)get_real(r, "min_p") : 0.0f;
	t->n_prompt = (int32_t)get_int(r, "n_prompt", 0, n);
	copy_array(t->tokens, get_array(r, "tokens", n, sizeof *t->tokens), n, sizeof *t->tokens);
	copy_array(t->logprobs, get_array(r, "logprobs", n, sizeof *t->logprobs), n, sizeof *t->logprobs);
	if (has(r, "target_logprobs")) {
		trajectory_keep_target(t);
		copy_array(t->target_logprobs, get_array(r, "target_logprobs", n, sizeof *t->target_logprobs), n,
		           sizeof *t->target_logprobs);
	}
	copy_array(t->versions, get_array(r, "versions", n, sizeof *t->versions), n, sizeof *t->versions);
	copy_array(t->loss_mask, get_array(r, "mask", n, sizeof *t->loss_mask), n, sizeof *t->loss_mask);
	t->deferrals = get_i32(r, "deferrals", 0);
	t->error = copy_text(r, "error");
	const char *finish = get_text(r, "finish");
	int reason = finish ? finish_parse(finish) : -1;
	if (reason < 0)
		refuse(r, "field 'finish' is no known reason", reason);
	else
		t->finish = (enum finish_reason)reason;
}

/* Segments tile the response: no gap, no overlap, nothing before it or behind it. */
static void get_segments(struct reader *r, struct trajectory *t)
{
	int32_t n = count_items(r, "segments", sizeof *t->segments);
	const void *bytes = get_array(r, "segments", n, sizeof *t->segments);
	int64_t at = t->n_prompt;

	if (r->failed)
		return;
	if (n > 0) {
		t->segments = xmalloc((size_t)n * sizeof *t->segments);
		copy_array(t->segments, bytes, n, sizeof *t->segments);
	}
	t->n_segments = n;
	for (int32_t i = 0; i < n && !r->failed; i++) {
		if (t->segments[i].start != at || t->segments[i].length < 1)
			refuse(r, "field 'segments': each must start where the one before it ends", i);
		at += t->segments[i].length;
	}
	if (at != t->n_tokens)
		refuse(r, "field 'segments' must cover the response and end with it", at);
}

static void get_score(struct reader *r, struct trajectory *t)
{
	t->has_reward = has(r, "reward");
	if (t->has_reward) {
		t->reward = get_real(r, "reward");
		t->reward_answer = get_real(r, "reward_answer");
		t->reward_steps = get_real(r, "reward_steps");
	}
	t->has_advantage = has(r, "advantage");
	if (t->has_advantage) {
		t->advantage = (float)get_real(r, "advantage");
		t->baseline = (float)get_real(r, "baseline");
		t->scale = (float)get_real(r, "scale");
	}
	t->pivot = get_bool(r, "pivot");
	t->loss_weight = (float)get_real(r, "loss_weight");
}

static void get_telemetry(struct reader *r, struct trajectory *t)
{
	t->drafted = get_i32(r, "drafted", 0);
	t->accepted = get_i32(r, "accepted", 0);
	t->verify_calls = get_i32(r, "verify_calls", 0);
	t->queue_seconds = get_real(r, "queue_s");
	t->prefill_seconds = get_real(r, "prefill_s");
	t->decode_seconds = get_real(r, "decode_s");
	t->reward_seconds = get_real(r, "reward_s");
	t->staleness_max = get_i32(r, "staleness_max", INT32_MIN);
	t->staleness_min = get_i32(r, "staleness_min", INT32_MIN);
}

int codec_get_trajectory(const struct message_node *node, struct trajectory **out, struct err *err)
{
	struct reader r = {.map = node, .err = err};
	int64_t schema = get_int(&r, "schema", 1, INT32_MAX);
	int32_t n_tokens = count_items(&r, "tokens", sizeof(int32_t));

	*out = NULL;
	if (r.failed)
		return err_context(err, "trajectory");
	if (schema != TRAJECTORY_SCHEMA)
		return err_set(err, ERR_UNSUPPORTED, "trajectory has schema %" PRId64 ", this program reads %d",
		               schema, TRAJECTORY_SCHEMA);
	struct trajectory *t = trajectory_new(NULL, 0, n_tokens); /* what is there, not what max_tokens claims */
	t->n_tokens = n_tokens;
	get_identity(&r, t);
	get_tokens(&r, t);
	get_segments(&r, t);
	get_score(&r, t);
	get_telemetry(&r, t);
	uint64_t stated = get_uint(&r, "checksum");
	if (!r.failed && stated != trajectory_checksum(t)) {
		err_set(err, ERR_INVALID,
		        "checksum is %016" PRIx64 ", the record says %016" PRIx64 ": it was damaged on its way",
		        trajectory_checksum(t), stated);
		r.failed = true;
	}
	if (!r.failed) {
		*out = t;
		return 0;
	}
	err_context(err, "trajectory %" PRIu64, t->id);
	trajectory_free(t);
	return err->code;
}

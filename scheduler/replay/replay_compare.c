/* replay_compare.c - bits beside bits. */
#include "scheduler/replay/replay_compare.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "configs/config.h"
#include "rollout/sampling/noise.h"

enum { TEXT_TOKENS_BEFORE = 24, TEXT_TOKENS_AFTER = 8, PROMPT_TOKENS_SHOWN = 512 };

static bool same_bits(const void *a, const void *b, size_t n_bytes) { return memcmp(a, b, n_bytes) == 0; }

static bool have_targets(const struct trajectory *a, const struct trajectory *b)
{
	return a->target_logprobs && b->target_logprobs;
}

static unsigned token_fields(const struct trajectory *a, const struct trajectory *b, int32_t i)
{
	unsigned fields = 0;

	if (a->tokens[i] != b->tokens[i]) fields |= 1u << FIELD_TOKENS;
	if (!same_bits(&a->logprobs[i], &b->logprobs[i], 4)) fields |= 1u << FIELD_LOGPROBS;
	if (have_targets(a, b) && !same_bits(&a->target_logprobs[i], &b->target_logprobs[i], 4)) fields |= 1u << FIELD_TARGET_LOGPROBS;
	return fields;
}

/* Where the record goes on, or was put aside, ours ends for its length alone. */
static bool finish_differs(const struct replay_stretch *stretch, const struct trajectory *recorded,
                           const struct trajectory *again)
{
	if (again->n_tokens != stretch->end) return true; /* it ended before, or goes on after */
	if (replay_ends_by_itself(recorded, stretch)) return again->finish != recorded->finish;
	bool undecided = stretch->end < recorded->n_tokens || recorded->finish == FINISH_NONE;
	return undecided && again->finish != FINISH_LENGTH;
}

static bool reward_differs(const struct trajectory *a, const struct trajectory *b)
{
	return a->has_reward != b->has_reward || !same_bits(&a->reward, &b->reward, sizeof a->reward) ||
	       !same_bits(&a->reward_answer, &b->reward_answer, sizeof a->reward_answer) ||
	       !same_bits(&a->reward_steps, &b->reward_steps, sizeof a->reward_steps);
}

uint64_t replay_checksum(const struct trajectory *recorded, const struct trajectory *again, bool reward_known)
{
	struct trajectory whole = *again;

	whole.id = recorded->id;
	whole.max_tokens = recorded->max_tokens;
	if (recorded->finish != FINISH_STOP && recorded->finish != FINISH_LENGTH) whole.finish = recorded->finish;
	if (!recorded->target_logprobs) whole.target_logprobs = NULL;
	if (whole.n_tokens == recorded->n_tokens) whole.loss_mask = recorded->loss_mask; /* decided at delivery */
	if (!reward_known) {
		whole.has_reward = recorded->has_reward;
		whole.reward = recorded->reward;
		whole.reward_answer = recorded->reward_answer;
		whole.reward_steps = recorded->reward_steps;
	}
	return trajectory_checksum(&whole);
}

struct replay_verdict replay_compare(const struct replay_stretch *stretch, const struct trajectory *recorded,
                                     const struct trajectory *again, uint64_t run_seed, bool reward_known)
{
	struct replay_verdict v = { .position = -1 };
	int32_t end = again->n_tokens < stretch->end ? again->n_tokens : stretch->end;

	if (again->finish == FINISH_ERROR) {
		v.fields |= 1u << FIELD_RECORD;
		return v;
	}
	for (int32_t i = stretch->start; i < end; i++) {
		unsigned fields = token_fields(recorded, again, i);
		if (fields && v.position < 0) v.position = i;
		v.fields |= fields;
	}
	if (v.position < 0 && again->n_tokens != stretch->end) { /* one of them has a token where the other has none */
		v.position = end;
		v.fields |= 1u << FIELD_TOKENS;
	}
	if (finish_differs(stretch, recorded, again)) v.fields |= 1u << FIELD_FINISH;
	if (stretch->end < recorded->n_tokens) return v;
	if (recorded->seed != noise_key(run_seed, recorded->prompt_id ? recorded->prompt_id : "", recorded->epoch, recorded->sample))
		v.fields |= 1u << FIELD_SEED;
	if (reward_known && reward_differs(recorded, again)) v.fields |= 1u << FIELD_REWARD;
	if (replay_checksum(recorded, again, reward_known) != trajectory_checksum(recorded)) v.fields |= 1u << FIELD_CHECKSUM;
	return v;
}

/* ---- as words ---- */

static json_t *text_of(const struct tokenizer *tokenizer, const int32_t *tokens, int32_t n)
{
	struct err err;
	char *text;
	size_t n_bytes;

	if (!tokenizer || tokenizer_decode_utf8(tokenizer, tokens, (size_t)n, false, &text, &n_bytes, &err)) return json_null();
	json_t *json = json_stringn(text, n_bytes);
	free(text);
	return json ? json : json_null();
}

static void put_logprob(json_t *o, const char *key, float value)
{
	char name[48], hex[16];
	uint32_t bits;

	memcpy(&bits, &value, sizeof bits);
	snprintf(hex, sizeof hex, "0x%08" PRIx32, bits);
	snprintf(name, sizeof name, "%s_hex", key);
	json_object_set_new(o, key, isfinite(value) ? json_real((double)value) : json_null());
	json_object_set_new(o, name, json_string(hex));
}

/* One side of a difference at a token. */
static void put_token(json_t *o, const struct tokenizer *tokenizer, const struct trajectory *t, int32_t at, int32_t end)
{
	if (at >= end) return; /* here it has none */
	int32_t last = at + TEXT_TOKENS_AFTER < end ? at + TEXT_TOKENS_AFTER : end;
	json_object_set_new(o, "token", json_integer(t->tokens[at]));
	json_object_set_new(o, "text", text_of(tokenizer, t->tokens + at, 1));
	json_object_set_new(o, "after", text_of(tokenizer, t->tokens + at + 1, last - at - 1));
	put_logprob(o, "logprob", t->logprobs[at]);
	if (t->target_logprobs) put_logprob(o, "target_logprob", t->target_logprobs[at]);
}

static void put_reward(json_t *o, const struct trajectory *t)
{
	json_object_set_new(o, "reward", t->has_reward ? json_real(t->reward) : json_null());
	if (!t->has_reward) return;
	json_object_set_new(o, "reward_answer", json_real(t->reward_answer));
	json_object_set_new(o, "reward_steps", json_real(t->reward_steps));
}

static void put_hex(json_t *o, const char *key, uint64_t value)
{
	char text[24];
	snprintf(text, sizeof text, "%016" PRIx64, value);
	json_object_set_new(o, key, json_string(text));
}

static json_t *segment_of(const struct trajectory *t, int index)
{
	static const char *const modes[] = { "exact", "speculative", "quantized" };
	const struct segment *s = &t->segments[index];
	int mode = s->mode & ~SEGMENT_KV_KEPT;

	return json_pack("{s:i, s:i, s:i, s:i, s:i, s:s}", "index", index, "start", s->start, "length", s->length, "version",
	                 s->version, "rank", s->rank, "mode", mode >= 0 && mode <= ROLLOUT_QUANTIZED ? modes[mode] : "unknown");
}

static void put_place(json_t *o, const struct replay_verdict *v, const struct replay_stretch *stretch,
                      const struct trajectory *t, const struct tokenizer *tokenizer)
{
	int index = stretch->segment;
	int32_t from = v->position > TEXT_TOKENS_BEFORE ? v->position - TEXT_TOKENS_BEFORE : 0;

	while (index + 1 < t->n_segments && t->segments[index + 1].start <= v->position) index++;
	json_object_set_new(o, "position", json_integer(v->position));
	json_object_set_new(o, "response_position", json_integer(v->position - t->n_prompt));
	json_object_set_new(o, "segment", segment_of(t, index));
	json_object_set_new(o, "before", text_of(tokenizer, t->tokens + from, v->position - from));
}

static json_t *names_of(unsigned fields)
{
	static const char *const names[] = {
#define X(name, text) text,
		REPLAY_FIELD_LIST(X)
#undef X
	};
	json_t *list = json_array();

	for (int i = 0; i < FIELD_COUNT; i++)
		if (fields & 1u << i) json_array_append_new(list, json_string(names[i]));
	return list;
}

static json_t *identity(const struct stored_sample *sample, const struct trajectory *t)
{
	static const char *const states[] = { "partial", "done", "delivered", "dropped" };
	json_t *o = json_object();

	json_object_set_new(o, "trajectory", json_integer((json_int_t)sample->id));
	json_object_set_new(o, "group", json_integer((json_int_t)sample->group_id));
	json_object_set_new(o, "sample", json_integer((json_int_t)(sample->id % TRAJECTORY_SAMPLES_MAX)));
	if (t) json_object_set_new(o, "prompt_id", json_string(t->prompt_id));
	if (t) json_object_set_new(o, "epoch", json_integer(t->epoch));
	json_object_set_new(o, "step", sample->step < 0 ? json_null() : json_integer(sample->step));
	json_object_set_new(o, "state", json_string(sample->state <= STORE_DROPPED ? states[sample->state] : "unknown"));
	json_object_set_new(o, "eval", json_boolean(sample->eval));
	return o;
}

static json_t *side(const struct replay_verdict *v, const struct replay_stretch *stretch, const struct trajectory *recorded,
                    const struct trajectory *t, const struct tokenizer *tokenizer)
{
	bool is_record = t == recorded;
	json_t *o = json_object();

	if (v->position >= 0) put_token(o, tokenizer, t, v->position, is_record ? stretch->end : t->n_tokens);
	bool goes_on = is_record && stretch->end < t->n_tokens;
	if (v->fields & 1u << FIELD_FINISH)
		json_object_set_new(o, "finish_reason", json_string(goes_on ? "none" : finish_name(t->finish)));
	if (v->fields & 1u << FIELD_REWARD) put_reward(o, t);
	if (v->fields & 1u << FIELD_CHECKSUM)
		put_hex(o, "checksum", is_record ? trajectory_checksum(t)
		                       : replay_checksum(recorded, t, (v->fields & 1u << FIELD_REWARD) != 0));
	return o;
}

json_t *replay_describe(const struct replay_verdict *v, const struct replay_stretch *stretch,
                        const struct stored_sample *sample, const struct trajectory *recorded,
                        const struct trajectory *again, const struct tokenizer *tokenizer, const char *note)
{
	json_t *o = identity(sample, recorded);

	json_object_set_new(o, "differs", names_of(v->fields));
	if (recorded) {
		int32_t from = recorded->n_prompt > PROMPT_TOKENS_SHOWN ? recorded->n_prompt - PROMPT_TOKENS_SHOWN : 0;
		json_object_set_new(o, "prompt", text_of(tokenizer, recorded->tokens + from, recorded->n_prompt - from));
	}
	if (again && v->position >= 0) put_place(o, v, stretch, recorded, tokenizer);
	if (again) json_object_set_new(o, "recorded", side(v, stretch, recorded, recorded, tokenizer));
	if (again) json_object_set_new(o, "replayed", side(v, stretch, recorded, again, tokenizer));
	if (note) json_object_set_new(o, "note", json_string(note));
	return o;
}

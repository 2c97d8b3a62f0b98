/* trajectory.c - the record of one sample: its memory, its growth token by token, its checksum.
 *
 * The arrays are sized at birth for the longest response that was asked for, so the decode loop does
 * not allocate; they grow all the same if somebody appends past that (a record read from elsewhere).
 * Segments are few, one per (version, rank, mode) run, and grow one at a time.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "configs/config.h"
#include "rollout/trajectory.h"

static const char *const finish_names[] = {
#define X(name, text) text,
	FINISH_LIST(X)
#undef X
};

enum { FINISH_COUNT = sizeof finish_names / sizeof *finish_names };

const char *finish_name(enum finish_reason finish)
{
	assert((int)finish >= 0 && (int)finish < FINISH_COUNT);
	return finish_names[finish];
}

int finish_parse(const char *text)
{
	for (int i = 0; i < FINISH_COUNT; i++)
		if (strcmp(finish_names[i], text) == 0)
			return i;
	return -1;
}

static void reserve_tokens(struct trajectory *t, int32_t capacity)
{
	size_t n = (size_t)capacity;

	t->tokens = xrealloc(t->tokens, n * sizeof *t->tokens);
	t->logprobs = xrealloc(t->logprobs, n * sizeof *t->logprobs);
	if (t->target_logprobs) t->target_logprobs = xrealloc(t->target_logprobs, n * sizeof *t->target_logprobs);
	t->versions = xrealloc(t->versions, n * sizeof *t->versions);
	t->loss_mask = xrealloc(t->loss_mask, n * sizeof *t->loss_mask);
	t->capacity = capacity;
}

struct trajectory *trajectory_new(const int32_t *prompt, int32_t n_prompt, int32_t max_tokens)
{
	assert(n_prompt >= 0 && max_tokens >= 0 && n_prompt <= INT32_MAX - max_tokens);
	struct trajectory *t = xcalloc(1, sizeof *t);
	int32_t capacity = n_prompt + max_tokens;

	reserve_tokens(t, capacity > 0 ? capacity : 1);
	for (int32_t i = 0; i < n_prompt; i++) {
		t->tokens[i] = prompt[i];
		t->logprobs[i] = 0.0f;
		t->versions[i] = -1;
		t->loss_mask[i] = 0;
	}
	t->n_prompt = t->n_tokens = n_prompt;
	t->max_tokens = max_tokens;
	t->sampling = (struct sampling_options){.temperature = 1.0f, .top_p = 1.0f, .top_k = 0};
	t->loss_weight = 1.0f;
	return t;
}

void trajectory_keep_target(struct trajectory *t)
{
	if (t->target_logprobs) return;
	t->target_logprobs = xmalloc((size_t)t->capacity * sizeof *t->target_logprobs);
	memcpy(t->target_logprobs, t->logprobs, (size_t)t->n_tokens * sizeof *t->target_logprobs);
}

void trajectory_propose(struct trajectory *t, const int32_t *tokens, int32_t n)
{
	free(t->proposal);
	t->proposal = n > 0 ? memcpy(xmalloc((size_t)n * sizeof *tokens), tokens, (size_t)n * sizeof *tokens) : NULL;
	t->n_proposal = n;
}

static void *copy_bytes(const void *from, size_t n_bytes)
{
	return n_bytes ? memcpy(xmalloc(n_bytes), from, n_bytes) : NULL;
}

static char *copy_text(const char *text)
{
	return text ? xstrdup(text) : NULL;
}

struct trajectory *trajectory_copy(const struct trajectory *from)
{
	struct trajectory *t = xmalloc(sizeof *t);
	size_t n = (size_t)from->n_tokens;

	*t = *from;
	t->tokens = NULL, t->logprobs = NULL, t->target_logprobs = NULL, t->versions = NULL, t->loss_mask = NULL;
	reserve_tokens(t, from->capacity);
	memcpy(t->tokens, from->tokens, n * sizeof *t->tokens);
	memcpy(t->logprobs, from->logprobs, n * sizeof *t->logprobs);
	if (from->target_logprobs) {
		trajectory_keep_target(t);
		memcpy(t->target_logprobs, from->target_logprobs, n * sizeof *t->target_logprobs);
	}
	memcpy(t->versions, from->versions, n * sizeof *t->versions);
	memcpy(t->loss_mask, from->loss_mask, n * sizeof *t->loss_mask);
	t->proposal = copy_bytes(from->proposal, (size_t)from->n_proposal * sizeof *t->proposal);
	t->segments = copy_bytes(from->segments, (size_t)from->n_segments * sizeof *t->segments);
	t->prompt_id = copy_text(from->prompt_id);
	t->answer = copy_text(from->answer);
	t->meta = copy_text(from->meta);
	t->error = copy_text(from->error);
	return t;
}

void trajectory_free(struct trajectory *t)
{
	if (!t)
		return;
	free(t->tokens);
	free(t->logprobs);
	free(t->target_logprobs);
	free(t->versions);
	free(t->loss_mask);
	free(t->proposal);
	free(t->segments);
	free(t->prompt_id);
	free(t->answer);
	free(t->meta);
	free(t->error);
	free(t);
}

/* The segment that a token made now belongs to. */
static struct segment *current_segment(struct trajectory *t, int32_t version, int32_t rank, int32_t mode)
{
	if (t->n_segments > 0) {
		struct segment *last = &t->segments[t->n_segments - 1];
		if (last->version == version && last->rank == rank && last->mode == mode)
			return last;
	}
	t->segments = xrealloc(t->segments, ((size_t)t->n_segments + 1) * sizeof *t->segments);
	struct segment *segment = &t->segments[t->n_segments++];
	*segment = (struct segment){.start = t->n_tokens, .version = version, .rank = rank, .mode = mode};
	return segment;
}

void trajectory_append(struct trajectory *t, int32_t token, float logprob, int32_t version, int32_t rank,
                       int32_t mode)
{
	if (t->n_tokens == t->capacity) {
		assert(t->capacity <= INT32_MAX / 2);
		reserve_tokens(t, t->capacity > 8 ? 2 * t->capacity : 16);
	}
	current_segment(t, version, rank, mode)->length++;
	t->tokens[t->n_tokens] = token;
	t->logprobs[t->n_tokens] = logprob;
	if (t->target_logprobs) t->target_logprobs[t->n_tokens] = mode == ROLLOUT_QUANTIZED ? NAN : logprob;
	t->versions[t->n_tokens] = version;
	t->loss_mask[t->n_tokens] = 1;
	t->n_tokens++;
}

void trajectory_truncate(struct trajectory *t, int32_t n_tokens)
{
	assert(n_tokens >= t->n_prompt);
	if (n_tokens >= t->n_tokens) return;
	t->n_tokens = n_tokens;
	while (t->n_segments > 0 && t->segments[t->n_segments - 1].start >= n_tokens) t->n_segments--;
	if (t->n_segments == 0) return;
	struct segment *last = &t->segments[t->n_segments - 1];
	if (last->start + last->length > n_tokens) last->length = n_tokens - last->start;
}

static void hash_text(XXH3_state_t *state, const char *text)
{
	uint64_t length = text ? strlen(text) : UINT64_MAX; /* so that NULL and "" differ */

	XXH3_64bits_update(state, &length, sizeof length);
	if (text)
		XXH3_64bits_update(state, text, length);
}

/* Every number goes in as a little-endian 64-bit word (or its array's own little-endian bytes), in the
 * order of PROTOCOL.md "Checksum"; the build refuses big-endian machines. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "arrays are hashed and sent as they lie in memory");

static void hash_int(XXH3_state_t *state, int64_t value)
{
	XXH3_64bits_update(state, &value, sizeof value);
}

static void hash_real(XXH3_state_t *state, double value)
{
	XXH3_64bits_update(state, &value, sizeof value);
}

uint64_t trajectory_checksum(const struct trajectory *t)
{
	XXH3_state_t state;
	size_t n = (size_t)t->n_tokens;

	XXH3_64bits_reset(&state);
	hash_int(&state, (int64_t)t->id);
	hash_int(&state, (int64_t)t->group_id);
	hash_int(&state, t->sample);
	hash_int(&state, t->group_size);
	hash_text(&state, t->prompt_id);
	hash_int(&state, t->epoch);
	hash_int(&state, t->eval);
	hash_int(&state, (int64_t)t->seed);
	hash_real(&state, (double)t->sampling.temperature);
	hash_real(&state, (double)t->sampling.top_p);
	hash_int(&state, t->sampling.top_k);
	if (t->sampling.min_p > 0) hash_real(&state, (double)t->sampling.min_p);
	hash_int(&state, t->max_tokens);
	hash_int(&state, t->n_prompt);
	hash_int(&state, t->n_tokens);
	XXH3_64bits_update(&state, t->tokens, n * sizeof *t->tokens);
	XXH3_64bits_update(&state, t->logprobs, n * sizeof *t->logprobs);
	XXH3_64bits_update(&state, t->versions, n * sizeof *t->versions);
	XXH3_64bits_update(&state, t->loss_mask, n * sizeof *t->loss_mask);
	hash_int(&state, t->finish);
	hash_int(&state, t->has_reward);
	if (t->has_reward) {
		hash_real(&state, t->reward);
		hash_real(&state, t->reward_answer);
		hash_real(&state, t->reward_steps);
	}
	hash_int(&state, t->has_advantage);
	if (t->has_advantage) {
		hash_real(&state, (double)t->advantage);
		hash_real(&state, (double)t->baseline);
		hash_real(&state, (double)t->scale);
	}
	hash_int(&state, t->pivot);
	hash_real(&state, (double)t->loss_weight);
	if (t->target_logprobs) XXH3_64bits_update(&state, t->target_logprobs, n * sizeof *t->target_logprobs);
	return XXH3_64bits_digest(&state);
}

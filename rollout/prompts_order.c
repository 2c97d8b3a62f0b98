/* prompts_order.c - which prompt comes when, and the fresh trajectory of one sample.
 *
 * An epoch's order is a keyed permutation of [0, n) that needs no memory: a balanced Feistel network of
 * ROUNDS rounds over the next even number of bits, walked until it lands below n (Black, Rogaway 2002,
 * "Ciphers with Arbitrary Finite Domains").  The domain is less than 4 n, so under 4 steps are expected.
 * Constant time and memory, the same on every machine.
 */
#include "rollout/prompts.h"

#include <assert.h>
#include <xxhash.h>

#include "rollout/sampling/noise.h"

enum { ROUNDS = 8 };

/* One pass of the network over 2 * half bits. */
static uint64_t feistel(uint64_t value, int half, uint64_t key)
{
	uint64_t mask = (UINT64_C(1) << half) - 1, left = value >> half, right = value & mask;

	for (uint64_t round = 0; round < ROUNDS; round++) {
		uint64_t block[2] = {right, round};
		uint64_t next = left ^ (XXH3_64bits_withSeed(block, sizeof block, key) & mask);
		left = right;
		right = next;
	}
	return left << half | right;
}

static uint64_t permute(uint64_t value, uint64_t n, uint64_t key)
{
	int half = 1;

	while (half < 32 && UINT64_C(1) << (2 * half) < n)
		half++;
	do
		value = feistel(value, half, key);
	while (value >= n);
	return value;
}

size_t prompts_index(const struct prompts *prompts, uint64_t ordinal, bool shuffle, uint64_t seed,
                     int32_t *epoch)
{
	uint64_t n = prompts->n, turn = ordinal / n;

	assert(n > 0 && n <= UINT32_MAX && turn <= INT32_MAX);
	*epoch = (int32_t)turn;
	if (!shuffle)
		return (size_t)(ordinal % n);
	return (size_t)permute(ordinal % n, n, XXH3_64bits_withSeed(&turn, sizeof turn, seed));
}

struct trajectory *prompts_open_sample(const struct prompt *prompt, uint64_t group_id, int32_t sample,
                                       int32_t group_size, int32_t epoch, uint64_t run_seed,
                                       const struct sampling_options *sampling, int32_t max_tokens)
{
	int32_t limit = prompt->max_tokens > 0 && prompt->max_tokens < max_tokens ? prompt->max_tokens : max_tokens;
	struct trajectory *trajectory = trajectory_new(prompt->tokens, prompt->n_tokens, limit);

	trajectory->id = trajectory_id(group_id, sample);
	trajectory->group_id = group_id;
	trajectory->sample = sample;
	trajectory->group_size = group_size;
	trajectory->prompt_id = xstrdup(prompt->id);
	trajectory->epoch = epoch;
	trajectory->seed = noise_key(run_seed, prompt->id, epoch, sample);
	trajectory->answer = prompt->answer ? xstrdup(prompt->answer) : NULL;
	trajectory->meta = prompt->meta ? xstrdup(prompt->meta) : NULL;
	trajectory->sampling = *sampling;
	return trajectory;
}

struct trajectory *prompts_open_sibling(const struct trajectory *member, int32_t sample, uint64_t run_seed)
{
	struct prompt prompt = { .id = member->prompt_id, .answer = member->answer, .meta = member->meta,
	                         .tokens = member->tokens, .n_tokens = member->n_prompt };

	return prompts_open_sample(&prompt, member->group_id, sample, member->group_size, member->epoch, run_seed,
	                           &member->sampling, member->max_tokens);
}

/* test_explore.c - explore mode: which samples of a pool are drawn again; and that whatever happens around them (other
 * samples, explored or not, chunks, budgets, drafts, being put aside, new weights), what is drawn again is the sample of
 * exact mode, bit for bit, and what is explored that of the quantized copy alone. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "configs/config.h"
#include "rollout/engine.h"
#include "rollout/explore.h"
#include "rollout/sampling/noise.h"
#include "tests/support/random_model.h"

enum { CONTEXT = 96, VERSIONS = 2, GROUPS = 3, POOL = 8, KEEP_MAX = 5, SAMPLES = GROUPS * (POOL + KEEP_MAX), CASES = 60 };

static struct {
	struct policy *policies[VERSIONS];
	struct trajectory *fresh[GROUPS][POOL];
	struct trajectory *explored[GROUPS][POOL]; /* by the copy alone, under version 0 */
	struct trajectory *exact[GROUPS][POOL];    /* by the target alone, under version 0 */
	uint64_t rng;
} world;

static int below(int n) { return (int)(random_bits(&world.rng) % (uint64_t)n); }

/* ---- the choice ---- */

static struct trajectory **pool_of(const double *rewards, int n)
{
	struct trajectory **pool = xcalloc((size_t)n, sizeof *pool);

	for (int i = 0; i < n; i++) {
		pool[i] = trajectory_new((int32_t[]){1}, 1, 4);
		pool[i]->sample = i;
		pool[i]->has_reward = !isnan(rewards[i]);
		pool[i]->reward = isnan(rewards[i]) ? 0 : rewards[i];
	}
	return pool;
}

static void pool_free(struct trajectory **pool, int n)
{
	for (int i = 0; i < n; i++) trajectory_free(pool[i]);
	free(pool);
}

static void assert_chosen(const double *rewards, int n, int keep, const int *samples, int n_samples)
{
	struct trajectory **pool = pool_of(rewards, n);
	struct explore_place chosen[64];

	assert_int_equal(explore_choose(pool, n, keep, chosen), n_samples);
	for (int i = 0; i < n_samples; i++) assert_int_equal(pool[chosen[i].index]->sample, samples[i]);
	/* Not the order of arrival. */
	struct trajectory *first = pool[0];
	memmove(pool, pool + 1, (size_t)(n - 1) * sizeof *pool);
	pool[n - 1] = first;
	assert_int_equal(explore_choose(pool, n, keep, chosen), n_samples);
	for (int i = 0; i < n_samples; i++) assert_int_equal(pool[chosen[i].index]->sample, samples[i]);
	pool_free(pool, n);
}

static void test_best_and_worst(void **state)
{
	(void)state;
	assert_chosen((double[]){0.3, 0.9, 0.1, 0.5, 0.7, 0.2}, 6, 4, (int[]){1, 4, 5, 2}, 4);
	assert_chosen((double[]){0.3, 0.9, 0.1, 0.5, 0.7, 0.2}, 6, 3, (int[]){1, 4, 2}, 3); /* odd: one more of the best */
	assert_chosen((double[]){0.3, 0.9, 0.1}, 3, 1, (int[]){1}, 1);
	assert_chosen((double[]){0.3, 0.9, 0.1}, 3, 3, (int[]){1, 0, 2}, 3);
}

static void test_ties_go_by_sample(void **state)
{
	(void)state;
	assert_chosen((double[]){1, 0, 1, 1, 0, 1}, 6, 4, (int[]){0, 2, 1, 4}, 4);
	assert_chosen((double[]){1, 1, 1, 1, 1, 0}, 6, 4, (int[]){0, 1, 4, 5}, 4); /* too few worst: the last of the best */
	assert_chosen((double[]){2, 2, 2, 2, 2, 2}, 6, 4, (int[]){0, 1, 4, 5}, 4);
}

static void test_samples_without_reward(void **state)
{
	(void)state;
	assert_chosen((double[]){NAN, 0.9, NAN, 0.5, 0.7, 0.2}, 6, 2, (int[]){1, 5}, 2);
	assert_chosen((double[]){NAN, 0.9, NAN, 0.5, NAN, NAN}, 6, 4, (int[]){1, 3}, 2); /* all that there are */
	assert_chosen((double[]){NAN, NAN}, 2, 2, NULL, 0);
}

static void test_flat(void **state)
{
	(void)state;
	static const struct {
		double rewards[3];
		bool flat;
	} cases[] = {{{1, 1, 1}, true}, {{1, 0, 1}, false}, {{NAN, 1, 1}, true}, {{NAN, NAN, NAN}, true}, {{0, NAN, 1}, false}};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct trajectory **pool = pool_of(cases[i].rewards, 3);
		assert_int_equal(explore_is_flat(pool, 3), cases[i].flat);
		pool_free(pool, 3);
	}
}

/* Any pool: no sample twice, nobody between the halves, ranks count up. */
static void test_choice_properties(void **state)
{
	(void)state;
	for (int round = 0; round < 500; round++) {
		double rewards[40];
		struct explore_place chosen[40];
		int n = 1 + below(40), keep = 1 + below(n), scored = 0, levels = 1 + below(6);
		for (int i = 0; i < n; i++) {
			rewards[i] = below(8) == 0 ? NAN : below(levels);
			scored += !isnan(rewards[i]);
		}
		struct trajectory **pool = pool_of(rewards, n);
		int n_chosen = explore_choose(pool, n, keep, chosen);
		assert_int_equal(n_chosen, keep < scored ? keep : scored);
		for (int i = 0; i < n_chosen; i++) {
			assert_true(pool[chosen[i].index]->has_reward);
			if (i == 0) continue;
			const struct trajectory *a = pool[chosen[i - 1].index], *b = pool[chosen[i].index];
			assert_true(chosen[i].rank > chosen[i - 1].rank);
			assert_true(a->reward > b->reward || (a->reward == b->reward && a->sample < b->sample));
			assert_true(chosen[i].rank == chosen[i - 1].rank + 1 || i == (n_chosen + 1) / 2);
		}
		if (n_chosen > 0) {
			assert_int_equal(chosen[0].rank, 0);
			assert_int_equal(chosen[n_chosen - 1].rank, n_chosen > 1 ? scored - 1 : 0);
		}
		pool_free(pool, n);
	}
}

static void test_spearman(void **state)
{
	(void)state;
	assert_true(fabs(explore_spearman((double[]){1, 2, 3}, (double[]){10, 20, 90}, 3) - 1) < 1e-12);
	assert_true(fabs(explore_spearman((double[]){1, 2, 3}, (double[]){3, 2, 1}, 3) + 1) < 1e-12);
	/* ranks 1 2 3 4 5 and 2 1 4 3 5: 1 - 6 * 4 / (5 * 24) */
	assert_true(fabs(explore_spearman((double[]){1, 2, 3, 4, 5}, (double[]){2, 1, 4, 3, 5}, 5) - 0.8) < 1e-12);
	/* ties at their mean: ranks 1.5 1.5 3 and 1 2 3: 1.5 / sqrt(1.5 * 2) */
	assert_true(fabs(explore_spearman((double[]){0, 0, 1}, (double[]){1, 2, 3}, 3) - 1.5 / sqrt(3)) < 1e-12);
	assert_true(isnan(explore_spearman((double[]){1, 1}, (double[]){1, 2}, 2)));
	assert_true(isnan(explore_spearman((double[]){1}, (double[]){1}, 1)));
}

static void test_note(void **state)
{
	(void)state;
	struct trajectory **pool = pool_of((double[]){0.25, 1}, 2), *again;

	for (int i = 0; i < 3; i++) trajectory_append(pool[0], 5 + i, 0, 0, 0, ROLLOUT_QUANTIZED);
	pool[0]->meta = xstrdup("{\"level\":3}");
	again = explore_again(pool[0]);
	assert_int_equal(again->n_proposal, 3);
	trajectory_append(again, 5, 0, 0, 0, ROLLOUT_SPECULATIVE);
	trajectory_append(again, 9, 0, 0, 0, ROLLOUT_SPECULATIVE);
	assert_int_equal(explore_agreed(pool[0], again), 1);
	for (int twice = 0; twice < 2; twice++) {
		again->has_reward = twice > 0;
		again->reward = 0.5;
		explore_note(again, pool[0], 2, 1);
		json_t *meta = json_loads(again->meta, 0, NULL), *note = json_object_get(meta, "explore");
		assert_int_equal(json_integer_value(json_object_get(meta, "level")), 3);
		assert_int_equal(json_integer_value(json_object_get(note, "pool")), 2);
		assert_int_equal(json_integer_value(json_object_get(note, "rank")), 2);
		assert_int_equal(json_integer_value(json_object_get(note, "divergence")), 1);
		assert_int_equal(json_integer_value(json_object_get(note, "explored_tokens")), 3);
		assert_true(json_real_value(json_object_get(note, "explored_reward")) == 0.25);
		assert_int_equal(json_is_null(json_object_get(note, "reward")), !twice);
		json_decref(meta);
	}
	trajectory_append(again, 9, 0, 0, 0, ROLLOUT_SPECULATIVE);
	trajectory_free(again);
	again = explore_again(pool[0]);
	for (int i = 0; i < 3; i++) trajectory_append(again, 5 + i, 0, 0, 0, ROLLOUT_SPECULATIVE);
	assert_int_equal(explore_divergence(pool[0], again), -1);
	trajectory_free(again);
	pool_free(pool, 2);
}

/* ---- the engine ---- */

static struct engine_options plain_options(int mode)
{
	return (struct engine_options){
		.mode = mode, .drafter = DRAFTER_KIND_COMBINED, .draft_length_max = 8, .suffix_tokens = 4096, .explore_chunk = 32,
		.max_active = 1, .prefill_chunk = 16, .n_threads = 1, .kv_bytes = 1 << 22, .stop_token = -1,
	};
}

static struct engine *engine_with(const struct engine_options *options, int version)
{
	struct engine *engine;
	struct err err;
	int rc = engine_open(&engine, world.policies[version], options, CONTEXT, &err);
	if (rc) fail_msg("%s", err.text);
	return engine;
}

/* To its end, alone; t is taken. */
static struct trajectory *alone(struct trajectory *t, int mode, int version)
{
	struct engine_options options = plain_options(mode);
	struct engine *engine = engine_with(&options, version);
	struct trajectory *ended;

	t->eval = mode == ROLLOUT_QUANTIZED; /* not rescored */
	engine_add(engine, t);
	while (!(ended = engine_take_finished(engine))) engine_round(engine);
	ended->eval = false;
	engine_close(engine);
	return ended;
}

static int world_open(void **state)
{
	(void)state;
	static const struct sampling_options settings[GROUPS] = {{1.0f, 1.0f, 0}, {0.15f, 1.0f, 0}, {1.2f, 1.0f, 12, 0.02f}};
	struct model_config config = random_model_config(32, 2, 2, 1, 64, 61, CONTEXT);
	struct err err;

	world.rng = 77;
	for (int v = 0; v < VERSIONS; v++) {
		struct weights weights;
		random_model(&weights, &config, 7 + (uint64_t)v);
		assert_int_equal(policy_create(&world.policies[v], &weights, v, &(struct draft_options){.quantizer = QUANTIZE_SEARCH}, 1, &err), 0);
		weights_free(&weights);
	}
	for (int g = 0; g < GROUPS; g++) {
		int32_t prompt[CONTEXT], n_prompt = g == 0 ? 1 : 5 + below(36);
		for (int i = 0; i < n_prompt; i++) prompt[i] = 3 + below(58);
		for (int s = 0; s < POOL; s++) {
			struct trajectory *t = trajectory_new(prompt, n_prompt, 10 + 15 * g);
			t->group_id = (uint64_t)g + 1;
			t->sample = s;
			t->group_size = POOL;
			t->id = trajectory_id(t->group_id, s);
			t->prompt_id = xstrdup("p");
			t->seed = noise_key((uint64_t)g, t->prompt_id, 0, s);
			t->sampling = settings[g];
			world.fresh[g][s] = t;
			world.explored[g][s] = alone(trajectory_copy(t), ROLLOUT_QUANTIZED, 0);
			world.exact[g][s] = alone(trajectory_copy(t), ROLLOUT_EXACT, 0);
		}
	}
	return 0;
}

static int world_close(void **state)
{
	(void)state;
	for (int g = 0; g < GROUPS; g++) {
		for (int s = 0; s < POOL; s++) {
			trajectory_free(world.fresh[g][s]);
			trajectory_free(world.explored[g][s]);
			trajectory_free(world.exact[g][s]);
		}
	}
	for (int v = 0; v < VERSIONS; v++) policy_free(world.policies[v]);
	return 0;
}

/* What exact mode draws where the first tokens were drawn under version 0 and the others under version 1. */
static struct trajectory *expected_of(const struct trajectory *found, const struct trajectory *fresh)
{
	struct trajectory *t = trajectory_copy(fresh);
	const struct trajectory *first = world.exact[fresh->group_id - 1][fresh->sample];
	int under_0 = 0;

	for (int i = found->n_prompt; i < found->n_tokens; i++) under_0 += found->versions[i] == 0;
	assert_true(under_0 <= trajectory_response_length(first));
	for (int i = t->n_prompt; under_0 > 0; i++, under_0--)
		trajectory_append(t, first->tokens[i], first->logprobs[i], 0, 0, ROLLOUT_EXACT);
	bool ended = first->n_tokens == t->n_tokens;
	if (ended) {
		t->finish = first->finish;
		return t;
	}
	return alone(t, ROLLOUT_EXACT, 1);
}

static void assert_same(const struct trajectory *found, const struct trajectory *expected)
{
	size_t n = (size_t)expected->n_tokens;

	assert_int_equal(found->n_tokens, expected->n_tokens);
	assert_memory_equal(found->tokens, expected->tokens, n * sizeof *found->tokens);
	assert_memory_equal(found->logprobs, expected->logprobs, n * sizeof *found->logprobs);
	assert_memory_equal(found->versions, expected->versions, n * sizeof *found->versions);
	assert_int_equal(found->finish, expected->finish);
}

struct pool_case {
	struct engine *engine;
	struct engine_options options;
	struct trajectory *pool[GROUPS][POOL], *again[GROUPS][KEEP_MAX];
	struct explore_place chosen[GROUPS][KEEP_MAX];
	int n_pool[GROUPS], n_chosen[GROUPS], keep, n_again, n_expected;
	bool updated; /* the engine has version 1 */
};

/* A verdict on tokens, with ties. */
static void reward(struct trajectory *t)
{
	int sum = 0;

	for (int i = t->n_prompt; i < t->n_tokens; i++) sum += t->tokens[i];
	t->reward = sum % 4;
	t->has_reward = true;
}

static void choose(struct pool_case *c, int g)
{
	c->n_chosen[g] = explore_choose(c->pool[g], POOL, c->keep, c->chosen[g]);
	c->n_expected += c->n_chosen[g];
	for (int i = 0; i < c->n_chosen[g]; i++) {
		struct trajectory *t = explore_again(c->pool[g][c->chosen[g][i].index]);
		t->sample = POOL + i;
		t->id = trajectory_id(t->group_id, t->sample);
		engine_add(c->engine, t);
	}
}

static void take(struct pool_case *c)
{
	struct trajectory *t;

	while ((t = engine_take_finished(c->engine))) {
		int g = (int)t->group_id - 1;
		assert_true(t->finish == FINISH_STOP || t->finish == FINISH_LENGTH);
		if (t->sample >= POOL) {
			c->again[g][t->sample - POOL] = t;
			c->n_again++;
			continue;
		}
		if (!c->updated) assert_same(t, world.explored[g][t->sample]);
		assert_null(t->target_logprobs);
		reward(t);
		c->pool[g][t->sample] = t;
		if (++c->n_pool[g] == POOL) choose(c, g);
	}
}

/* Something is put aside, with its keys and values or without, and comes back at once. */
static void put_aside(struct pool_case *c)
{
	struct kv_parcel parcel = {0};
	struct trajectory *t = below(2) ? engine_withdraw(c->engine, 0)
	                                : engine_withdraw_with_kv(c->engine, engine_least_progress(c->engine), &parcel);

	if (t) engine_add_with_kv(c->engine, t, &parcel);
	kv_parcel_free(&parcel);
}

static void case_check(struct pool_case *c)
{
	for (int g = 0; g < GROUPS; g++) {
		for (int i = 0; i < c->n_chosen[g]; i++) {
			struct trajectory *t = c->again[g][i];
			const struct trajectory *explored = c->pool[g][c->chosen[g][i].index];
			struct trajectory *expected = expected_of(t, world.fresh[g][explored->sample]);
			assert_same(t, expected);
			for (int s = 0; s < t->n_segments; s++) assert_int_equal(t->segments[s].mode, ROLLOUT_SPECULATIVE);
			trajectory_free(expected);
			trajectory_free(t);
		}
		for (int s = 0; s < POOL; s++) trajectory_free(c->pool[g][s]);
	}
}

static void random_case(void)
{
	static const int drafters[] = {DRAFTER_KIND_QUANT, DRAFTER_KIND_SUFFIX, DRAFTER_KIND_COMBINED};
	struct pool_case c = {.options = plain_options(ROLLOUT_EXPLORE), .keep = 1 + below(KEEP_MAX)};
	int update_at = below(2) ? below(40) : -1;

	c.options.explore_chunk = 1 + below(32);
	c.options.max_active = 1 + below(12);
	c.options.draft_length = below(2) ? 1 + below(6) : 0;
	c.options.drafter = drafters[below(3)];
	c.options.prefill_chunk = 4 + below(20);
	c.options.n_threads = 1 + below(2);
	if (below(2)) c.options.kv_bytes = 1 << 17; /* tight: somebody is put back now and then */
	c.engine = engine_with(&c.options, 0);
	for (int i = 0; i < GROUPS * POOL; i++) {
		struct trajectory *t = trajectory_copy(world.fresh[i % GROUPS][i / GROUPS]);
		t->explored = true;
		engine_add(c.engine, t);
	}
	for (int round = 0; engine_pending(c.engine) > 0; round++) {
		assert_true(round < 10000);
		assert_true(engine_round(c.engine) > 0);
		take(&c);
		if (round == update_at) {
			engine_set_policy(c.engine, world.policies[1], false);
			c.updated = true;
		}
		if (below(20) == 0) put_aside(&c);
	}
	assert_int_equal(c.n_again, c.n_expected);
	engine_close(c.engine);
	case_check(&c);
}

static void test_again_is_exact(void **state)
{
	(void)state;
	const char *cases = getenv("EXPLORE_CASES");
	for (int i = 0, n = cases ? atoi(cases) : CASES; i < n; i++) random_case();
}

/* A proposal that is wrong from the first token on, or goes on too long, changes nothing; a right one is taken whole. */
static void test_proposals(void **state)
{
	(void)state;
	struct engine_options options = plain_options(ROLLOUT_EXPLORE);
	const struct trajectory *exact = world.exact[2][0];
	int32_t n = trajectory_response_length(exact), wrong[CONTEXT];

	for (int kind = 0; kind < 3; kind++) {
		struct engine *engine = engine_with(&options, 0);
		struct trajectory *t = trajectory_copy(world.fresh[2][0]), *ended;
		struct engine_stats stats;
		for (int i = 0; i < CONTEXT; i++) wrong[i] = i < n && kind > 0 ? exact->tokens[exact->n_prompt + i] : 60;
		trajectory_propose(t, wrong, kind == 1 ? n : kind == 2 ? n + 5 : 20);
		engine_add(engine, t);
		while (!(ended = engine_take_finished(engine))) engine_round(engine);
		assert_same(ended, exact);
		engine_stats_read(engine, &stats);
		if (kind == 1) {
			assert_int_equal(stats.proposed, stats.proposals_accepted);
			assert_true(stats.proposed >= (uint64_t)(n - 2)); /* all but the tokens that a round makes itself */
		}
		trajectory_free(ended);
		engine_close(engine);
	}
}

/* Samples that say the same are verified once: four cost the rows of one. */
static void test_same_texts_share_rows(void **state)
{
	(void)state;
	uint64_t rows[4];

	for (int i = 0; i < 4; i++) {
		bool many = i % 2, explored = i / 2;
		struct engine_options options = plain_options(ROLLOUT_EXPLORE);
		options.max_active = 8;
		options.explore_chunk = 6;
		options.draft_length = 1;
		options.drafter = DRAFTER_KIND_SUFFIX;
		struct engine *engine = engine_with(&options, 0);
		struct engine_stats stats;
		struct trajectory *ended, *greedy = trajectory_copy(world.fresh[2][0]);
		greedy->sampling = (struct sampling_options){.temperature = 0, .top_p = 1};
		struct trajectory *expected = alone(trajectory_copy(greedy), explored ? ROLLOUT_QUANTIZED : ROLLOUT_EXACT, 0);
		for (int k = 0; k < 1 + 3 * many; k++) {
			struct trajectory *t = trajectory_copy(greedy);
			t->sample = k;
			t->id = trajectory_id(t->group_id, k);
			t->explored = explored;
			if (!explored) trajectory_propose(t, expected->tokens + expected->n_prompt, trajectory_response_length(expected));
			engine_add(engine, t);
		}
		for (int left = 1 + 3 * many; left > 0;) {
			engine_round(engine);
			while ((ended = engine_take_finished(engine))) {
				assert_int_equal(ended->n_tokens, expected->n_tokens);
				assert_memory_equal(ended->tokens, expected->tokens, (size_t)expected->n_tokens * sizeof *ended->tokens);
				assert_memory_equal(ended->logprobs, expected->logprobs, (size_t)expected->n_tokens * sizeof *ended->logprobs);
				trajectory_free(ended);
				left--;
			}
		}
		engine_stats_read(engine, &stats);
		rows[i] = stats.verify_rows + stats.decode_rows;
		trajectory_free(greedy);
		trajectory_free(expected);
		engine_close(engine);
	}
	assert_true(rows[0] > 10 && rows[2] > 10);
	assert_int_equal(rows[0], rows[1]);
	assert_int_equal(rows[2], rows[3]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_best_and_worst),
		cmocka_unit_test(test_ties_go_by_sample),
		cmocka_unit_test(test_samples_without_reward),
		cmocka_unit_test(test_flat),
		cmocka_unit_test(test_choice_properties),
		cmocka_unit_test(test_spearman),
		cmocka_unit_test(test_note),
		cmocka_unit_test(test_again_is_exact),
		cmocka_unit_test(test_proposals),
		cmocka_unit_test(test_same_texts_share_rows),
	};
	return cmocka_run_group_tests(tests, world_open, world_close);
}

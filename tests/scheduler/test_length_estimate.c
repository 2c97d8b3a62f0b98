/* test_length_estimate.c - what is expected of a sample, and whether its KV is worth its way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "configs/config.h"
#include "scheduler/controller/length_estimate.h"
#include "scheduler/worker/kv_shipping.h"

enum { SAMPLES = 4, PROMPT = 3 };

static struct trajectory *sample_of(const char *prompt_id, int length, enum finish_reason finish)
{
	int32_t prompt[PROMPT] = {1, 2, 3};
	struct trajectory *t = trajectory_new(prompt, PROMPT, 200);
	t->prompt_id = xstrdup(prompt_id);
	for (int i = 0; i < length; i++) trajectory_append(t, 5, 0, 0, 0, 0);
	t->finish = finish;
	return t;
}

static struct live_group *group_of(struct group_table *table, uint64_t id, const char *prompt_id)
{
	struct live_group *g = group_table_add(table, id, SAMPLES, false);
	for (int i = 0; i < SAMPLES; i++) g->samples[i] = sample_of(prompt_id, 0, FINISH_NONE);
	return g;
}

static void become(struct live_group *g, int i, int length, enum finish_reason finish)
{
	struct trajectory *t = sample_of(g->samples[i]->prompt_id, length, finish);
	trajectory_free(g->samples[i]);
	g->samples[i] = t;
}

static void learn(struct length_estimate *e, const char *prompt_id, int length)
{
	struct trajectory *t = sample_of(prompt_id, length, FINISH_STOP);
	length_estimate_learn(e, t);
	trajectory_free(t);
}

static void from_the_particular_to_the_general(void **state)
{
	(void)state;
	struct length_estimate *e = length_estimate_open();
	struct group_table *table = group_table_open();
	struct live_group *known = group_of(table, 1, "known"), *fresh = group_of(table, 2, "fresh");

	assert_int_equal(length_estimate_group(e, fresh), 0); /* nothing is known at all */
	for (int i = 0; i < 8; i++) learn(e, "other", 20);
	assert_int_equal(length_estimate_group(e, fresh), 20);
	for (int i = 0; i < 8; i++) learn(e, "known", 100);
	assert_int_equal(length_estimate_group(e, fresh), 60);
	assert_int_equal(length_estimate_group(e, known), (60 + 4 * 100) / 5); /* the prompt counts as four */
	become(fresh, 0, 150, FINISH_STOP);
	become(fresh, 1, 7, FINISH_ERROR); /* says nothing */
	assert_int_equal(length_estimate_rest(e, fresh, 2), (60 + 150) / 2);
	group_table_close(table);
	length_estimate_close(e);
}

static void what_is_long_goes_on(void **state)
{
	(void)state;
	struct length_estimate *e = length_estimate_open();
	struct group_table *table = group_table_open();
	struct live_group *g = group_of(table, 1, "p");

	for (int i = 0; i < 8; i++) learn(e, "p", 40);
	become(g, 0, 10, FINISH_NONE);
	become(g, 1, 100, FINISH_NONE);
	become(g, 2, 190, FINISH_NONE);
	assert_int_equal(length_estimate_rest(e, g, 0), 30);
	assert_int_equal(length_estimate_rest(e, g, 1), 50);
	assert_int_equal(length_estimate_rest(e, g, 2), 10); /* 200 tokens are the most */
	assert_int_equal(length_estimate_rest(e, g, 3), 40);
	group_table_close(table);
	length_estimate_close(e);
}

/* A policy that has changed is followed within some groups. */
static void memory_fades(void **state)
{
	(void)state;
	struct length_estimate *e = length_estimate_open();
	struct group_table *table = group_table_open();
	struct live_group *g = group_of(table, 1, "p");

	for (int i = 0; i < 1000; i++) learn(e, "p", 10);
	for (int i = 0; i < 48; i++) learn(e, "p", 110);
	assert_true(length_estimate_group(e, g) > 75);
	group_table_close(table);
	length_estimate_close(e);
}

static void what_is_faster_is_done(void **state)
{
	(void)state;
	struct kv_shipping s = {.mode = MIGRATE_KV_AUTO};
	size_t mib = 1 << 20;

	assert_true(kv_shipping_wants_rate(&s) && kv_shipping_pays(&s, mib, 100, 0)); /* to know the rate */
	assert_true(kv_shipping_pays(&s, 50 * mib, 1100, 1e-3)); /* 1.05 s both ways at the assumed rate */
	assert_false(kv_shipping_pays(&s, 50 * mib, 1000, 1e-3));
	kv_shipping_observe(&s, 1000, 1); /* says nothing of the rate */
	for (int i = 0; i < 4; i++) kv_shipping_observe(&s, mib, i % 2 ? 2e-3 : 1e-3);
	assert_false(kv_shipping_wants_rate(&s));
	assert_true(s.bytes_per_second > 0.74e9 * 1.048 && s.bytes_per_second < 0.76e9 * 1.049);
	/* 2 MiB both ways at 0.79 GB/s are 2.7 ms. */
	assert_true(kv_shipping_pays(&s, mib, 100, 28e-6));
	assert_false(kv_shipping_pays(&s, mib, 100, 25e-6));
	assert_false(kv_shipping_pays(&s, mib, 100, 0)); /* what a prefill costs is not known */
	assert_false(kv_shipping_pays(&s, mib, 0, 1));
	s.mode = MIGRATE_KV_RECOMPUTE;
	assert_false(kv_shipping_pays(&s, mib, 100, 1));
	s.mode = MIGRATE_KV_SHIP;
	assert_true(kv_shipping_pays(&s, mib, 100, 0));
	assert_false(kv_shipping_pays(&s, (size_t)KV_SHIP_BYTES_MAX + 1, 100, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(from_the_particular_to_the_general),
		cmocka_unit_test(what_is_long_goes_on),
		cmocka_unit_test(memory_fades),
		cmocka_unit_test(what_is_faster_is_done),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

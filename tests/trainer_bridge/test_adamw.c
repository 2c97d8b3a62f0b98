/* test_adamw.c - AdamW against values worked out by hand, and the learner that drives it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "quant/bf16.h"
#include "tests/support/random_model.h"
#include "trainer_bridge/trainer/adamw.h"
#include "trainer_bridge/trainer/learner.h"
#include "trainer_bridge/trainer/objective.h"

static void assert_near(double found, double expected, double bound)
{
	if (!(fabs(found - expected) <= bound)) fail_msg("expected %.9g, found %.9g", expected, found);
}

static void test_two_steps_by_hand(void **state)
{
	(void)state;
	const uint16_t initial[1] = { bf16_from_f32(1.0f) };
	const struct adamw_options options = { 0.1f, 0.9f, 0.99f, 0.5f };
	uint16_t rounded[1];
	float params[1], grads[1] = { 4.0f };
	struct adamw adamw;
	adamw_open(&adamw, initial, 1);

	/* gradient 4 * 0.5 = 2: m = 0.2, v = 0.04; m / (1 - 0.9) = 2, sqrt(v / (1 - 0.99)) = 2;
	 * x = 1 * (1 - 0.1 * 0.5) - 0.1 * 2 / 2 = 0.85 */
	adamw_begin(&adamw);
	adamw_update(&adamw, &options, grads, 0.5f, 0, 1, true, rounded, params);
	assert_near(adamw.m[0], 0.2, 1e-7);
	assert_near(adamw.v[0], 0.04, 1e-7);
	assert_near(adamw.master[0], 0.85, 1e-6);
	assert_int_equal(rounded[0], bf16_from_f32(adamw.master[0]));
	assert_near(params[0], bf16_to_f32(rounded[0]), 0);

	/* gradient -1, no decay: m = 0.18 - 0.1 = 0.08, v = 0.0396 + 0.01 = 0.0496;
	 * m / 0.19 = 0.4210526, sqrt(v / 0.0199) = 1.5787528; x = 0.85 - 0.1 * 0.2667 = 0.8233302 */
	grads[0] = -1.0f;
	adamw_begin(&adamw);
	adamw_update(&adamw, &options, grads, 1.0f, 0, 1, false, rounded, params);
	assert_near(adamw.m[0], 0.08, 1e-7);
	assert_near(adamw.v[0], 0.0496, 1e-7);
	assert_near(adamw.master[0], 0.8233302, 1e-6);
	assert_int_equal(adamw.step, 2);
	adamw_close(&adamw);
}

static void test_small_steps_survive_in_the_master_copy(void **state)
{
	(void)state;
	const uint16_t initial[1] = { bf16_from_f32(1.0f) };
	const struct adamw_options options = { 1e-4f, 0.9f, 0.95f, 0 };
	uint16_t rounded[1];
	float params[1], grads[1] = { 1.0f };
	struct adamw adamw;
	adamw_open(&adamw, initial, 1);
	for (int i = 0; i < 100; i++) {
		adamw_begin(&adamw);
		adamw_update(&adamw, &options, grads, 1, 0, 1, true, rounded, params);
		if (i == 0) assert_int_equal(rounded[0], initial[0]); /* 1e-4 is below half a BF16 step of 1 */
	}
	assert_near(adamw.master[0], 0.99, 1e-4);
	assert_near(params[0], 0.99, 0.002);
	adamw_close(&adamw);
}

static void test_ranges_leave_the_rest(void **state)
{
	(void)state;
	const uint16_t initial[3] = { 0, 0, 0 };
	const struct adamw_options options = { 0.1f, 0.9f, 0.95f, 0 };
	uint16_t rounded[3] = { 7, 7, 7 };
	float params[3] = { 7, 7, 7 }, grads[3] = { 1, 1, 1 };
	struct adamw adamw;
	adamw_open(&adamw, initial, 3);
	adamw_begin(&adamw);
	adamw_update(&adamw, &options, grads, 1, 1, 2, false, rounded, params);
	assert_near(params[0], 7, 0);
	assert_near(params[1], -0.1, 0.001);
	assert_near(params[2], 7, 0);
	adamw_close(&adamw);
}

enum { N = 12, LENGTH = 40 };

struct next_token {
	const struct train_sequence *sequences;
	int vocab_size;
	double losses[N];
};

static void next_token_row(void *context, int sequence, int token, float *logits)
{
	struct next_token *c = context;
	int32_t target = c->sequences[sequence].tokens[token];
	c->losses[sequence] -= objective_softmax(logits, c->vocab_size, 1, target, NULL);
	objective_backward(logits, c->vocab_size, 1, target, -1.0f / (N * (LENGTH - 1)));
}

/* Loss before each of n_steps updates on the same sequences, and the weights after them. */
static void overfit(double *losses, int n_steps, int n_threads, double grad_clip, struct weights *weights)
{
	struct model_config config = random_model_small();
	int32_t tokens[N][LENGTH];
	struct train_sequence sequences[N];
	uint64_t state = 1;
	random_model(weights, &config, 2);
	for (int s = 0; s < N; s++) {
		sequences[s] = (struct train_sequence){ tokens[s], LENGTH, 1 };
		for (int i = 0; i < LENGTH; i++) tokens[s][i] = (int32_t)(random_bits(&state) % 96);
	}
	struct learner *learner = learner_open(weights, n_threads);
	const struct adamw_options options = { 0.003f, 0.9f, 0.95f, 0 };
	for (int i = 0; i < n_steps; i++) {
		struct next_token context = { sequences, config.vocab_size, { 0 } };
		learner_pass(learner, NULL, sequences, N, true, next_token_row, &context);
		losses[i] = 0;
		for (int s = 0; s < N; s++) losses[i] += context.losses[s] / (N * (LENGTH - 1));
		assert_true(learner_update(learner, &options, grad_clip) > 0);
	}
	for (size_t i = 0; i < weights->n_elements; i++)
		assert_near(learner_params(learner)[i], bf16_to_f32(weights->data[i]), 0);
	learner_close(learner);
}

static void test_learner_learns(void **state)
{
	(void)state;
	enum { STEPS = 25 };
	double losses[STEPS];
	struct weights weights;
	overfit(losses, STEPS, 1, 1.0, &weights);
	assert_true(losses[STEPS - 1] < 0.6 * losses[0]);
	weights_free(&weights);
}

static void test_learner_threads_and_repetition(void **state)
{
	(void)state;
	enum { STEPS = 4 };
	double one[STEPS], two[STEPS], again[STEPS];
	struct weights a, b, c;
	overfit(one, STEPS, 1, 1.0, &a);
	overfit(two, STEPS, 2, 1.0, &b);
	overfit(again, STEPS, 2, 1.0, &c);
	for (int i = 0; i < STEPS; i++) assert_near(two[i], one[i], 0.01 * one[i]);
	assert_memory_equal(b.data, c.data, b.n_elements * sizeof *b.data);
	weights_free(&a);
	weights_free(&b);
	weights_free(&c);
}

static void poison_row(void *context, int sequence, int token, float *logits)
{
	(void)context, (void)sequence, (void)token;
	logits[0] = NAN;
}

static void test_learner_refuses_nan(void **state)
{
	(void)state;
	struct model_config config = random_model_small();
	const int32_t tokens[3] = { 1, 2, 3 };
	const struct train_sequence sequence = { tokens, 3, 1 };
	const struct adamw_options options = { 0.1f, 0.9f, 0.95f, 0 };
	struct weights weights;
	random_model(&weights, &config, 3);
	uint16_t *before = xmalloc(weights.n_elements * sizeof *before);
	memcpy(before, weights.data, weights.n_elements * sizeof *before);
	struct learner *learner = learner_open(&weights, 1);
	learner_pass(learner, NULL, &sequence, 1, true, poison_row, NULL);
	assert_false(isfinite(learner_update(learner, &options, 1.0)));
	assert_memory_equal(before, weights.data, weights.n_elements * sizeof *before);
	assert_near(learner_update(learner, &options, 1.0), 0, 0); /* the gradient is zero again */
	learner_close(learner);
	weights_free(&weights);
	free(before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_steps_by_hand),
		cmocka_unit_test(test_small_steps_survive_in_the_master_copy),
		cmocka_unit_test(test_ranges_leave_the_rest),
		cmocka_unit_test(test_learner_learns),
		cmocka_unit_test(test_learner_threads_and_repetition),
		cmocka_unit_test(test_learner_refuses_nan),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

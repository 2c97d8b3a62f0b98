/* test_objective.c - the clipped objective token by token, its gradient against differences, and whole
 * batches: masks, weights, minibatches. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/random_model.h"
#include "trainer_bridge/trainer/objective.h"
#include "trainer_bridge/trainer/policy_update.h"

static const struct objective_options plain = { .clip_low = 0.2f, .clip_high = 0.28f };

static void assert_near(double found, double expected, double bound)
{
	if (!(fabs(found - expected) <= bound)) fail_msg("expected %.9g, found %.9g", expected, found);
}

static struct objective_token token_with(double ratio, float advantage)
{
	return (struct objective_token){ .logp = (float)(log(ratio) - 1), .logp_old = -1, .logp_behaviour = -1,
		                             .logp_ref = -1, .advantage = advantage, .weight = 1 };
}

static void test_clip_sides(void **state)
{
	(void)state;
	static const struct { double ratio; float advantage; double loss, gradient; bool clipped; } cases[] = {
		{ 1.0, 2, -2.0, -2.0, false },
		{ 1.27, 2, -2.54, -2.54, false },
		{ 1.5, 2, -2.56, 0, true },    /* rose enough */
		{ 0.5, 2, -1.0, -1.0, false }, /* fell though it was good: pull it back */
		{ 0.81, -2, 1.62, 1.62, false },
		{ 0.5, -2, 1.6, 0, true },     /* fell enough */
		{ 1.5, -2, 3.0, 3.0, false },  /* rose though it was bad */
		{ 1.5, 0, 0, 0, false },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct objective_token token = token_with(cases[i].ratio, cases[i].advantage);
		struct objective_result r = objective_evaluate(&plain, &token);
		assert_near(r.loss, cases[i].loss, 1e-5);
		assert_near(r.gradient, cases[i].gradient, 1e-5);
		assert_int_equal(r.clipped, cases[i].clipped);
		assert_near(r.tis, 1, 0);
	}
}

static void test_importance_weight_is_capped(void **state)
{
	(void)state;
	struct objective_options options = plain;
	options.tis_clip = 2;
	struct objective_token token = token_with(1, 1);
	token.logp_behaviour = -1 - logf(1.5f); /* drawn with p smaller by 1.5: weight 1.5 */
	assert_near(objective_evaluate(&options, &token).tis, 1.5, 1e-5);
	assert_near(objective_evaluate(&options, &token).gradient, -1.5, 1e-5);
	token.logp_behaviour = -1 - logf(5);
	assert_near(objective_evaluate(&options, &token).tis, 2, 0);
	token.logp_behaviour = -1 + logf(4); /* a staler policy liked it better */
	assert_near(objective_evaluate(&options, &token).tis, 0.25, 1e-5);
	options.tis_clip = 0;
	assert_near(objective_evaluate(&options, &token).tis, 1, 0);
}

/* The old policy cannot draw it: no policy loss, whatever the advantage; the KL stays. */
static void test_token_outside_the_old_policy(void **state)
{
	(void)state;
	struct objective_options options = plain;
	options.tis_clip = 2;
	options.kl_coef = 0.5f;
	for (float advantage = -2; advantage <= 2; advantage++) {
		struct objective_token token = token_with(1, advantage);
		token.logp_old = -INFINITY;
		token.logp_ref = token.logp + logf(2);
		struct objective_result r = objective_evaluate(&options, &token);
		assert_near(r.tis, 0, 0);
		assert_near(r.loss, 0.5 * (1 - log(2)), 1e-6);
		assert_near(r.gradient, -0.5, 1e-6);
		assert_int_equal(r.clipped, false);
	}
}

static void test_weight_zero_is_nothing(void **state)
{
	(void)state;
	struct objective_options options = plain;
	options.kl_coef = 1;
	struct objective_token token = token_with(1.1, 3);
	token.logp_ref = -2;
	token.weight = 0;
	struct objective_result r = objective_evaluate(&options, &token);
	assert_near(r.loss, 0, 0);
	assert_near(r.gradient, 0, 0);
}

static void test_kl(void **state)
{
	(void)state;
	struct objective_options options = plain;
	options.kl_coef = 0.5f;
	struct objective_token token = token_with(1, 0);
	assert_near(objective_evaluate(&options, &token).kl, 0, 0); /* equal policies */
	token.logp_ref = token.logp + logf(2);
	struct objective_result r = objective_evaluate(&options, &token);
	assert_near(r.kl, 2 - log(2) - 1, 1e-6);
	assert_near(r.loss, 0.5 * (1 - log(2)), 1e-6);
	assert_near(r.gradient, 0.5 * (1 - 2), 1e-6);
}

static void test_gradient_is_the_derivative(void **state)
{
	(void)state;
	struct objective_options options = { 0.2f, 0.28f, 2, 0.3f };
	uint64_t random = 1;
	for (int i = 0; i < 200; i++) {
		float u[5];
		for (int j = 0; j < 5; j++) u[j] = (float)(random_bits(&random) >> 40) / 16777216.0f - 0.5f;
		struct objective_token token = { -1 + u[0], -1, -1 + 2 * u[1], -1 + u[2], 4 * u[3], 0.75f };
		double ratio = exp(u[0]), h = 1e-3;
		if (fabs(ratio - 0.8) < 0.01 || fabs(ratio - 1.28) < 0.01) continue; /* at the kink */
		struct objective_result r = objective_evaluate(&options, &token);
		token.logp += (float)h;
		double above = objective_evaluate(&options, &token).loss;
		token.logp -= (float)(2 * h);
		double below = objective_evaluate(&options, &token).loss;
		assert_near((above - below) / (2 * h), r.gradient, 2e-3);
	}
}

static void test_softmax_and_its_gradient(void **state)
{
	(void)state;
	enum { N = 7 };
	const float logits[N] = { 1, -2, 0.5f, 80, 79, 77.5f, -90 };
	const float inv_t = 0.5f;
	float p[N], entropy, shifted[N];
	memcpy(p, logits, sizeof p);
	float logp = objective_softmax(p, N, inv_t, 4, &entropy);
	double sum = 0, expected_entropy = 0;
	for (int i = 0; i < N; i++) sum += exp((logits[i] - 80.0) * inv_t);
	for (int i = 0; i < N; i++) {
		double q = exp((logits[i] - 80.0) * inv_t) / sum;
		assert_near(p[i], q, 1e-6);
		expected_entropy -= q > 0 ? q * log(q) : 0;
	}
	assert_near(logp, -0.5 - log(sum), 1e-6);
	assert_near(entropy, expected_entropy, 1e-5);
	objective_backward(p, N, inv_t, 4, 3.0f);
	for (int i = 0; i < N; i++) {
		memcpy(shifted, logits, sizeof shifted);
		shifted[i] += 0.01f;
		double above = objective_softmax(shifted, N, inv_t, 4, NULL);
		memcpy(shifted, logits, sizeof shifted);
		shifted[i] -= 0.01f;
		double below = objective_softmax(shifted, N, inv_t, 4, NULL);
		assert_near(p[i], 3 * (above - below) / 0.02, 2e-3);
	}
}

/* A batch: members of one prompt with random responses under a random model. */
enum { MEMBERS = 6, PROMPT = 4, RESPONSE = 8 };

struct batch {
	struct weights weights;
	struct learner *learner;
	struct trajectory *members[MEMBERS];
	struct config config;
};

static void batch_open(struct batch *b)
{
	struct model_config model = random_model_small();
	uint64_t random = 7;
	config_defaults(&b->config);
	random_model(&b->weights, &model, 8);
	b->learner = learner_open(&b->weights, 1);
	for (int m = 0; m < MEMBERS; m++) {
		int32_t prompt[PROMPT] = { 5, 6, 7, 8 };
		struct trajectory *t = b->members[m] = trajectory_new(prompt, PROMPT, RESPONSE);
		for (int i = 0; i < RESPONSE - m % 3; i++)
			trajectory_append(t, (int32_t)(random_bits(&random) % 96), -4, 0, 0, 0);
		t->sampling = (struct sampling_options){ 1, 1, 0 };
		t->has_advantage = true;
		t->advantage = m % 2 ? 1.0f : -0.5f;
		t->loss_weight = 1;
		t->finish = FINISH_LENGTH;
	}
}

static void batch_close(struct batch *b)
{
	for (int m = 0; m < MEMBERS; m++) trajectory_free(b->members[m]);
	learner_close(b->learner);
	weights_free(&b->weights);
	config_free(&b->config);
}

static struct trainer_report update(struct batch *b)
{
	struct trainer_report report;
	struct err err;
	assert_int_equal(policy_update(b->learner, &b->weights.config, NULL, b->members, MEMBERS,
	                               &b->config.trainer, 3, &report, &err),
	                 0);
	return report;
}

static void test_batch_moves_towards_advantage(void **state)
{
	(void)state;
	struct batch b;
	batch_open(&b);
	b.config.trainer.tis_clip = 0;
	b.config.trainer.learning_rate = 0.001;
	struct trainer_report first = update(&b), last = first;
	for (int i = 0; i < 10; i++) last = update(&b);
	assert_int_equal(first.step, 3);
	assert_int_equal(first.tokens, 2 * (8 + 7 + 6));
	assert_near(first.loss, -0.25, 1e-6); /* ratio 1: minus the mean advantage over tokens */
	assert_true(first.grad_norm > 0 && first.entropy > 0);
	assert_near(first.clip_frac, 0, 0);
	/* importance weights are now those of likelier good and unlikelier bad tokens */
	b.config.trainer.tis_clip = 1000;
	for (int m = 0; m < MEMBERS; m++) b.members[m]->advantage = 1;
	double before = first.tis_mean;
	assert_near(before, 1, 0);
	last = update(&b);
	assert_true(last.tis_mean > 1);
	batch_close(&b);
}

static void test_batch_leaves_out_what_does_not_count(void **state)
{
	(void)state;
	struct batch b;
	batch_open(&b);
	b.members[0]->loss_weight = 0; /* the pivot */
	b.members[1]->eval = true;
	b.members[2]->finish = FINISH_ERROR;
	b.members[3]->has_advantage = false;
	memset(b.members[4]->loss_mask, 0, (size_t)b.members[4]->n_tokens);
	b.members[5]->loss_mask[PROMPT] = 0;
	assert_int_equal(update(&b).tokens, RESPONSE - 2 - 1);
	uint16_t before = b.weights.data[5];
	b.members[5]->loss_weight = 0;
	struct trainer_report nothing = update(&b);
	assert_int_equal(nothing.tokens, 0);
	assert_near(nothing.grad_norm, 0, 0);
	assert_int_equal(b.weights.data[5], before);
	batch_close(&b);
}

static void test_batch_masked_tokens_have_no_gradient(void **state)
{
	(void)state;
	struct batch a, b;
	batch_open(&a);
	batch_open(&b);
	for (int m = 0; m < MEMBERS; m++) {
		a.members[m]->loss_mask[PROMPT + 3] = b.members[m]->loss_mask[PROMPT + 3] = 0;
		b.members[m]->logprobs[PROMPT + 3] = -0.001f; /* must not be read */
	}
	update(&a);
	update(&b);
	assert_memory_equal(a.weights.data, b.weights.data, a.weights.n_elements * sizeof *a.weights.data);
	batch_close(&a);
	batch_close(&b);
}

static void test_batch_weights_are_relative(void **state)
{
	(void)state;
	struct batch a, b;
	batch_open(&a);
	batch_open(&b);
	for (int m = 0; m < MEMBERS; m++) b.members[m]->loss_weight = 4; /* all equal: the same mean */
	assert_near(update(&a).loss, update(&b).loss, 1e-6);
	a.members[1]->loss_weight = 0.5f;
	assert_true(fabs(update(&a).loss - update(&b).loss) > 1e-3);
	batch_close(&a);
	batch_close(&b);
}

static void test_batch_minibatches_clip(void **state)
{
	(void)state;
	struct batch b;
	batch_open(&b);
	b.config.trainer.minibatches = 2;
	b.config.trainer.learning_rate = 0.02; /* far enough that the second minibatch leaves the clip range */
	struct trainer_report report = update(&b);
	assert_int_equal(report.tokens, 42);
	assert_true(report.clip_frac > 0);
	batch_close(&b);
}

/* Old log-probabilities that are recorded are taken, in place of a pass: weights and ratios follow them, the
 * weights alone follow the behaviour policy's. */
static void test_batch_takes_recorded_targets(void **state)
{
	(void)state;
	for (int minibatches = 1; minibatches <= 2; minibatches++) {
		struct trainer_report reports[4];
		for (int i = 0; i < 4; i++) {
			struct batch b;
			batch_open(&b);
			b.config.trainer.minibatches = minibatches;
			b.config.trainer.learning_rate = 0;
			for (int m = 0; i > 0 && m < MEMBERS; m++) {
				struct trajectory *t = b.members[m];
				trajectory_keep_target(t);
				for (int k = PROMPT; k < t->n_tokens; k++) t->target_logprobs[k] = t->logprobs[k] + logf(1.5f);
				if (i == 2) t->sampling.top_p = 0.9f; /* of the truncated distribution: no old policy's */
				if (i == 3) memcpy(t->target_logprobs, t->logprobs, (size_t)t->n_tokens * sizeof(float));
			}
			reports[i] = update(&b);
			batch_close(&b);
		}
		assert_near(reports[0].clip_frac, 0, 0); /* old is the present policy: ratio 1 */
		assert_near(reports[1].tis_mean, 1.5, 1e-5);
		assert_near(reports[3].tis_mean, 1, 0);
		assert_true(reports[1].clip_frac > 0); /* the present policy is far from the recorded one */
		assert_near(reports[2].loss, reports[0].loss, 0);
		assert_near(reports[2].tis_mean, reports[0].tis_mean, 0);
	}
}

static void test_batch_kl_holds_back(void **state)
{
	(void)state;
	double moved[2];
	for (int with_kl = 0; with_kl < 2; with_kl++) {
		struct batch b;
		struct trainer_report report;
		struct err err;
		batch_open(&b);
		b.config.trainer.tis_clip = 0;
		b.config.trainer.learning_rate = 0.001;
		b.config.trainer.kl_coef = with_kl ? 10 : 1e-9; /* the smallest: measured, without effect */
		float *reference = xmalloc(b.weights.n_elements * sizeof *reference);
		memcpy(reference, learner_params(b.learner), b.weights.n_elements * sizeof *reference);
		for (int i = 0; i < 6; i++) {
			assert_int_equal(policy_update(b.learner, &b.weights.config, reference, b.members, MEMBERS,
			                               &b.config.trainer, i, &report, &err), 0);
			if (i == 0) assert_near(report.kl, 0, 0); /* still the same policy */
		}
		moved[with_kl] = report.kl;
		free(reference);
		batch_close(&b);
	}
	assert_true(moved[0] > 0);
	assert_true(moved[1] < 0.5 * moved[0]);
}

static void test_batch_refuses_foreign_tokens(void **state)
{
	(void)state;
	struct batch b;
	struct trainer_report report;
	struct err err;
	batch_open(&b);
	b.members[2]->tokens[PROMPT + 1] = 96;
	assert_int_equal(policy_update(b.learner, &b.weights.config, NULL, b.members, MEMBERS, &b.config.trainer,
	                               0, &report, &err),
	                 ERR_PEER);
	assert_non_null(strstr(err.text, "expected tokens below 96, found 96"));
	batch_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clip_sides),
		cmocka_unit_test(test_importance_weight_is_capped),
		cmocka_unit_test(test_token_outside_the_old_policy),
		cmocka_unit_test(test_weight_zero_is_nothing),
		cmocka_unit_test(test_kl),
		cmocka_unit_test(test_gradient_is_the_derivative),
		cmocka_unit_test(test_softmax_and_its_gradient),
		cmocka_unit_test(test_batch_moves_towards_advantage),
		cmocka_unit_test(test_batch_leaves_out_what_does_not_count),
		cmocka_unit_test(test_batch_masked_tokens_have_no_gradient),
		cmocka_unit_test(test_batch_weights_are_relative),
		cmocka_unit_test(test_batch_minibatches_clip),
		cmocka_unit_test(test_batch_takes_recorded_targets),
		cmocka_unit_test(test_batch_kl_holds_back),
		cmocka_unit_test(test_batch_refuses_foreign_tokens),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_model_train.c - the trainer's forward against the engine's and a double-precision one, its
 * backward against finite differences of the latter. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/forward.h"
#include "quant/bf16.h"
#include "tests/support/double_model.h"
#include "tests/support/random_model.h"
#include "trainer_bridge/trainer/model_train.h"
#include "trainer_bridge/trainer/objective.h"

/* Bounds, several times what was measured on random models. */
#define GRADIENT_RELATIVE 1e-5  /* against the tensor's largest gradient; measured below 1e-6 */
#define LOGPROB_DOUBLE 2e-5     /* trainer against double precision; measured 3.8e-6 */
#define LOGPROB_ENGINE 1e-3     /* trainer against engine; measured 3e-6, but a cache entry may round apart */

enum { LENGTH = 14, SEQUENCES = 3, PROBES = 12 };

/* Three sequences of different lengths and first predicted tokens, with a coefficient per token. */
struct fixture {
	struct weights weights;
	int32_t tokens[SEQUENCES][LENGTH];
	double coefficient[SEQUENCES][LENGTH];
	struct train_sequence sequences[SEQUENCES];
	float *params;
};

static double uniform(uint64_t *state)
{
	return (double)(random_bits(state) >> 11) / 9007199254740992.0;
}

static void fixture_open(struct fixture *f, const struct model_config *config, uint64_t seed)
{
	static const int lengths[SEQUENCES] = { LENGTH, 2, 9 }, firsts[SEQUENCES] = { 1, 1, 5 };
	random_model(&f->weights, config, seed);
	f->params = xmalloc(f->weights.n_elements * sizeof *f->params);
	for (size_t i = 0; i < f->weights.n_elements; i++) f->params[i] = bf16_to_f32(f->weights.data[i]);
	for (int s = 0; s < SEQUENCES; s++) {
		f->sequences[s] = (struct train_sequence){ f->tokens[s], lengths[s], firsts[s] };
		for (int i = 0; i < LENGTH; i++) {
			f->tokens[s][i] = (int32_t)(random_bits(&seed) % (uint64_t)config->vocab_size);
			f->coefficient[s][i] = 2 * uniform(&seed) - 1;
		}
	}
}

static void fixture_close(struct fixture *f)
{
	weights_free(&f->weights);
	free(f->params);
}

/* Gradient of the sum of coefficient * log-probability by the code under test. */
static float *gradient_of(struct fixture *f)
{
	struct model_train *model = model_train_open(&f->weights, false);
	float *grads = xcalloc(f->weights.n_elements, sizeof *grads);
	int n_rows, r = 0, vocab = f->weights.config.vocab_size;
	float *logits = model_train_forward(model, f->params, f->sequences, SEQUENCES, &n_rows);
	for (int s = 0; s < SEQUENCES; s++)
		for (int i = f->sequences[s].first; i < f->sequences[s].n_tokens; i++, r++) {
			objective_softmax(logits + r * vocab, vocab, 1, f->tokens[s][i], NULL);
			objective_backward(logits + r * vocab, vocab, 1, f->tokens[s][i], (float)f->coefficient[s][i]);
		}
	assert_int_equal(n_rows, r);
	model_train_backward(model, f->params, grads, logits);
	model_train_close(model);
	return grads;
}

static double loss_of(const struct fixture *f, const double *params)
{
	double loss = 0;
	for (int s = 0; s < SEQUENCES; s++)
		loss += double_model_loss(&f->weights, params, f->tokens[s], f->sequences[s].n_tokens,
		                          f->sequences[s].first, f->coefficient[s]);
	return loss;
}

static double difference_of(const struct fixture *f, double *params, size_t at)
{
	double h = 1e-5, keep = params[at];
	params[at] = keep + h;
	double above = loss_of(f, params);
	params[at] = keep - h;
	double below = loss_of(f, params);
	params[at] = keep;
	return (above - below) / (2 * h);
}

static void check_gradient(const struct model_config *config, uint64_t seed)
{
	struct fixture f;
	fixture_open(&f, config, seed);
	float *grads = gradient_of(&f);
	double *params = xmalloc(f.weights.n_elements * sizeof *params), worst = 0;
	for (size_t i = 0; i < f.weights.n_elements; i++) params[i] = f.params[i];
	for (int t = 0; t < f.weights.n_tensors; t++) {
		const struct weight_tensor *tensor = &f.weights.tensors[t];
		size_t n = (size_t)tensor->rows * (size_t)tensor->cols, largest = 0;
		for (size_t i = 1; i < n; i++)
			if (fabsf(grads[tensor->offset + i]) > fabsf(grads[tensor->offset + largest])) largest = i;
		double scale = fabsf(grads[tensor->offset + largest]);
		assert_true(scale > 0);
		for (int p = 0; p < PROBES; p++) {
			size_t at = tensor->offset + (p ? random_bits(&seed) % n : largest);
			double error = fabs(difference_of(&f, params, at) - grads[at]) / scale;
			if (error > worst) worst = error;
			if (!(error < GRADIENT_RELATIVE)) fail_msg("%s: relative error %g", tensor->name, error);
		}
	}
	print_message("gradient: worst relative error %.1e\n", worst);
	free(params);
	free(grads);
	fixture_close(&f);
}

static void test_gradient_tied(void **state)
{
	(void)state;
	struct model_config config = random_model_config(32, 2, 2, 2, 48, 40, 64);
	check_gradient(&config, 1);
}

static void test_gradient_untied_gqa(void **state)
{
	(void)state;
	struct model_config config = random_model_config(48, 2, 6, 2, 40, 33, 64);
	config.tied = false;
	check_gradient(&config, 2);
}

static void test_gradient_head_dim_of_its_own(void **state)
{
	(void)state;
	struct model_config config = random_model_config(24, 1, 4, 1, 32, 21, 64);
	config.head_dim = 16; /* n_heads * head_dim = 64, dim = 24 */
	check_gradient(&config, 3);
}

static void test_gradients_add_up(void **state)
{
	(void)state;
	struct model_config config = random_model_small();
	struct fixture f;
	fixture_open(&f, &config, 4);
	struct model_train *model = model_train_open(&f.weights, false);
	size_t n = f.weights.n_elements;
	float *once = xcalloc(n, sizeof *once), *twice = xcalloc(n, sizeof *twice);
	int n_rows;
	for (int i = 0; i < 3; i++) {
		float *logits = model_train_forward(model, f.params, f.sequences, SEQUENCES, &n_rows);
		model_train_backward(model, f.params, i ? twice : once, logits);
	}
	for (size_t i = 0; i < n; i++)
		assert_true(fabsf(twice[i] - 2 * once[i]) <= 1e-5f * fabsf(once[i]) + 1e-4f);
	model_train_close(model);
	free(once);
	free(twice);
	fixture_close(&f);
}

/* Log-probability of every predicted token of the fixture, in order; rows of other sequences in the
 * same pass must not matter. */
static void trainer_logprobs(float *out, struct fixture *f, bool round_kv)
{
	struct model_train *model = model_train_open(&f->weights, round_kv);
	int n_rows, r = 0, vocab = f->weights.config.vocab_size;
	float *logits = model_train_forward(model, f->params, f->sequences, SEQUENCES, &n_rows);
	for (int s = 0; s < SEQUENCES; s++)
		for (int i = f->sequences[s].first; i < f->sequences[s].n_tokens; i++, r++)
			out[r] = objective_softmax(logits + r * vocab, vocab, 1, f->tokens[s][i], NULL);
	model_train_close(model);
}

static void test_forward_against_double(void **state)
{
	(void)state;
	struct model_config config = random_model_small();
	struct fixture f;
	float ours[SEQUENCES * LENGTH];
	double worst = 0;
	fixture_open(&f, &config, 5);
	double *params = xmalloc(f.weights.n_elements * sizeof *params);
	for (size_t i = 0; i < f.weights.n_elements; i++) params[i] = f.params[i];
	trainer_logprobs(ours, &f, false);
	for (int s = 0, r = 0; s < SEQUENCES; s++)
		for (int i = f.sequences[s].first; i < f.sequences[s].n_tokens; i++, r++) {
			double only_this[LENGTH] = { 0 };
			only_this[i] = 1;
			double expected = double_model_loss(&f.weights, params, f.tokens[s], f.sequences[s].n_tokens, i,
			                                    only_this);
			worst = fmax(worst, fabs(expected - ours[r]));
		}
	print_message("log-probability against double precision: worst %.1e\n", worst);
	assert_true(worst < LOGPROB_DOUBLE);
	free(params);
	fixture_close(&f);
}

/* Log-probability by the engine's forward, one sequence in one call. */
static void engine_logprobs(float *out, const struct policy *policy, const struct train_sequence *sequence)
{
	struct kv_cache *cache;
	struct kv_seq seq;
	struct err err;
	struct forward_row rows[LENGTH];
	const struct model_config *c = &policy->config;
	size_t stride = forward_logits_stride(c);
	float *logits = xaligned((size_t)LENGTH * stride * sizeof *logits);
	assert_int_equal(kv_cache_open(&cache, c, KV_BF16, 1 << 22, &err), 0);
	kv_seq_open(&seq, cache);
	assert_int_equal(kv_seq_reserve(&seq, 0, sequence->n_tokens), 0);
	struct forward *forward = forward_open(c, LENGTH, 1);
	for (int i = 0; i < sequence->n_tokens; i++)
		rows[i] = (struct forward_row){ &seq, i, sequence->tokens[i], i };
	forward_run(forward, policy, PART_TARGET, rows, sequence->n_tokens, logits, stride);
	for (int i = sequence->first; i < sequence->n_tokens; i++)
		*out++ = objective_softmax(logits + (size_t)(i - 1) * stride, c->vocab_size, 1, sequence->tokens[i],
		                           NULL);
	forward_close(forward);
	kv_seq_close(&seq);
	kv_cache_close(cache);
	free(logits);
}

static void test_forward_against_engine(void **state)
{
	(void)state;
	struct model_config config = random_model_small();
	struct fixture f;
	struct policy *policy;
	struct err err;
	float ours[SEQUENCES * LENGTH], theirs[LENGTH];
	double worst = 0;
	fixture_open(&f, &config, 6);
	assert_int_equal(policy_create(&policy, &f.weights, 0, NULL, 1, &err), 0);
	trainer_logprobs(ours, &f, true);
	for (int s = 0, r = 0; s < SEQUENCES; s++) {
		engine_logprobs(theirs, policy, &f.sequences[s]);
		for (int i = 0; i < f.sequences[s].n_tokens - f.sequences[s].first; i++)
			worst = fmax(worst, fabs((double)theirs[i] - (double)ours[r++]));
	}
	print_message("log-probability against the engine: worst %.1e\n", worst);
	assert_true(worst < LOGPROB_ENGINE);
	policy_free(policy);
	fixture_close(&f);
}

static void test_unknown_layout_is_refused(void **state)
{
	(void)state;
	struct model_config config = random_model_small();
	struct err err;
	assert_int_equal(model_train_check(&config, &err), 0);
	config.qk_norm = true;
	assert_int_equal(model_train_check(&config, &err), ERR_UNSUPPORTED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gradient_tied),
		cmocka_unit_test(test_gradient_untied_gqa),
		cmocka_unit_test(test_gradient_head_dim_of_its_own),
		cmocka_unit_test(test_gradients_add_up),
		cmocka_unit_test(test_forward_against_double),
		cmocka_unit_test(test_forward_against_engine),
		cmocka_unit_test(test_unknown_layout_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_policy_maker.c - a policy made while its weights arrive, in any order, is the policy made of all of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "policy/policy.h"
#include "tests/support/random_model.h"

static void same_linear(const struct linear *a, const struct linear *b)
{
	assert_int_equal(a->n, b->n);
	assert_int_equal(a->k, b->k);
	assert_memory_equal(a->target, b->target, packed_bf16_elements(a->n, a->k) * sizeof *a->target);
	assert_int_equal(a->draft.q != NULL, b->draft.q != NULL);
	if (a->draft.q) assert_memory_equal(a->draft.q, b->draft.q, qmatrix_bytes(a->draft.format, a->n, a->k));
	assert_int_equal(a->bias != NULL, b->bias != NULL);
	if (a->bias) assert_memory_equal(a->bias, b->bias, (size_t)a->n * sizeof *a->bias);
}

static void same_policy(const struct policy *a, const struct policy *b)
{
	const struct model_config *c = &a->config;

	assert_int_equal(a->bytes, b->bytes);
	assert_int_equal(a->version, b->version);
	assert_int_equal(a->embedding != NULL, b->embedding != NULL);
	if (a->embedding) assert_memory_equal(a->embedding, b->embedding, 2 * (size_t)c->vocab_size * (size_t)c->dim);
	assert_memory_equal(a->final_norm, b->final_norm, 2 * (size_t)c->dim);
	for (int i = 0; i < c->n_layers; i++) {
		const struct layer *x = &a->layers[i], *y = &b->layers[i];
		assert_memory_equal(x->attention_norm, y->attention_norm, 2 * (size_t)c->dim);
		assert_memory_equal(x->ffn_norm, y->ffn_norm, 2 * (size_t)c->dim);
		same_linear(&x->qkv, &y->qkv);
		same_linear(&x->o, &y->o);
		same_linear(&x->gate_up, &y->gate_up);
		same_linear(&x->down, &y->down);
	}
	same_linear(&a->head, &b->head);
}

/* The tensors appear one by one in memory that held something else. */
static struct policy *make_in_order(const struct weights *weights, const int *order, const struct draft_options *draft)
{
	struct weights arriving;
	struct policy *policy;
	struct err err;

	weights_alloc(&arriving, &weights->config);
	memset(arriving.data, 0xff, 2 * arriving.n_elements); /* NaN */
	struct policy_maker *maker = policy_maker_open(&arriving, 5, draft, 2);
	for (int i = 0; i < weights->n_tensors; i++) {
		const struct weight_tensor *t = &weights->tensors[order[i]];
		assert_int_equal(policy_maker_finish(maker, &policy, &err), ERR_INCOMPLETE);
		memcpy(arriving.data + t->offset, weights->data + t->offset, 2 * (size_t)t->rows * (size_t)t->cols);
		policy_maker_tensor(maker, order[i]);
	}
	if (policy_maker_finish(maker, &policy, &err)) fail_msg("%s", err.text);
	policy_maker_close(maker);
	weights_free(&arriving);
	return policy;
}

static void check_orders(struct model_config config, const struct draft_options *draft)
{
	struct weights weights;
	struct policy *whole;
	struct err err;
	uint64_t random = 11;
	int order[64];

	random_model(&weights, &config, 2);
	assert_int_equal(policy_create(&whole, &weights, 5, draft, 1, &err), 0);
	for (int i = 0; i < weights.n_tensors; i++) order[i] = weights.n_tensors - 1 - i;
	for (int round = 0; round < 5; round++) {
		struct policy *made = make_in_order(&weights, order, draft);
		same_policy(whole, made);
		policy_free(made);
		for (int i = weights.n_tensors - 1; i > 0; i--) {
			int j = (int)(random_bits(&random) % (uint64_t)(i + 1)), swapped = order[i];
			order[i] = order[j];
			order[j] = swapped;
		}
	}
	policy_free(whole);
	weights_free(&weights);
}

static void test_any_order(void **state)
{
	struct draft_options int4 = {.format = FORMAT_INT4, .head_format = FORMAT_INT8, .quantizer = QUANTIZE_SEARCH};
	struct draft_options nvfp4 = {.format = FORMAT_NVFP4, .head_format = FORMAT_BF16, .quantizer = QUANTIZE_RTN};
	struct model_config config = random_model_small();

	(void)state;
	check_orders(config, NULL);
	check_orders(config, &int4);
	config.tied = false;
	config.qkv_bias = config.qk_norm = config.o_bias = config.mlp_bias = true;
	check_orders(config, &nvfp4);
}

static void test_bad_numbers_and_giving_up(void **state)
{
	struct model_config config = random_model_small();
	struct weights weights;
	struct policy *policy;
	struct err err;

	(void)state;
	random_model(&weights, &config, 2);
	weights.data[weights.tensors[4].offset + 3] = 0x7f80;
	struct policy_maker *maker = policy_maker_open(&weights, 7, NULL, 1);
	for (int i = 0; i < weights.n_tensors; i++) policy_maker_tensor(maker, i);
	assert_int_equal(policy_maker_finish(maker, &policy, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, weights.tensors[4].name));
	policy_maker_close(maker);
	maker = policy_maker_open(&weights, 7, NULL, 1); /* half made, and dropped */
	policy_maker_tensor(maker, 0);
	policy_maker_tensor(maker, 12);
	policy_maker_close(maker);
	policy_maker_close(NULL);
	weights_free(&weights);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_any_order),
		cmocka_unit_test(test_bad_numbers_and_giving_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

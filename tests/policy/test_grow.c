/* test_grow.c - a grown model has the size that was asked for and computes the same bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/grow.h"
#include "tests/support/policy_rig.h"
#include "tests/support/random_model.h"

enum { LENGTH = 21 };

static size_t elements(const struct model_config *config)
{
	struct weights layout;
	weights_layout(&layout, config);
	size_t n = layout.n_elements;
	weights_free(&layout);
	return n;
}

/* A rig like `rig`, of the grown weights. */
static void rig_grow(struct policy_rig *grown, const struct policy_rig *rig, const struct model_config *to,
                     const struct draft_options *draft)
{
	struct err err;
	memcpy(grown->tokens, rig->tokens, sizeof grown->tokens);
	weights_grow(&grown->weights, to, &rig->weights);
	assert_int_equal(policy_create(&grown->policy, &grown->weights, 1, draft, 2, &err), 0);
	assert_int_equal(kv_cache_open(&grown->cache, to, KV_BF16, 64u << 20, &err), 0);
	grown->forward = forward_open(to, RIG_ROWS_MAX, 2);
}

static void rig_set_draft(struct policy_rig *rig, const struct draft_options *draft)
{
	struct err err;
	policy_free(rig->policy);
	assert_int_equal(policy_create(&rig->policy, &rig->weights, 1, draft, 1, &err), 0);
}

static void assert_same_logits(const struct policy_rig *a, const struct policy_rig *b, bool draft)
{
	float *expected = rig_run(a, a->tokens, LENGTH, draft), *got = rig_run(b, b->tokens, LENGTH, draft);
	for (int i = 0; i < LENGTH; i++)
		if (memcmp(rig_row(a, expected, i), rig_row(b, got, i), (size_t)a->policy->config.vocab_size * 4) != 0)
			fail_msg("%s: logits of row %d differ in their bits", draft ? "drafter" : "target", i);
	free(expected);
	free(got);
}

static void compare_shape(int shape, int more_layers, int more_ffn, const struct draft_options *draft)
{
	struct policy_rig rig, grown;
	struct model_config c = rig_shape(shape), to = c;
	rig_open(&rig, &c, 70 + (uint64_t)shape, 1);
	rig_set_draft(&rig, draft);
	to.n_layers += more_layers;
	if (more_ffn) to.ffn_dim = (c.ffn_dim + 127) / 128 * 128 + more_ffn;
	rig_grow(&grown, &rig, &to, draft);
	assert_same_logits(&rig, &grown, false);
	assert_same_logits(&rig, &grown, true);
	rig_close(&rig);
	rig_close(&grown);
}

static void test_same_bits(void **state)
{
	(void)state;
	const struct draft_options draft = {FORMAT_INT4, FORMAT_INT4, QUANTIZE_SEARCH, false};
	for (int shape = 0; shape < RIG_SHAPES; shape++) {
		compare_shape(shape, 3, 0, &draft);
		compare_shape(shape, 0, 128, &draft);
		compare_shape(shape, 5, 384, &draft);
	}
}

/* Groups of 128 and minimums, whose last group is partly padding before and zeros after. */
static void test_same_bits_in_every_format(void **state)
{
	(void)state;
	for (enum format format = 0; format <= FORMAT_BF16; format++)
		for (int fp32 = 0; fp32 <= 1; fp32++)
			compare_shape(3, 2, 128, &(struct draft_options){format, format, QUANTIZE_RTN, fp32});
}

static void test_shape_reaches_the_size(void **state)
{
	(void)state;
	struct model_config from = random_model_small(), to;
	struct err err;
	size_t have = elements(&from), layer = (elements(&from) - 96 * 64 - 64) / 2;

	assert_int_equal(weights_grow_shape(&to, &from, (double)have + 2.5 * (double)layer, GROW_LAYERS, &err), 0);
	assert_int_equal(to.n_layers, from.n_layers + 3);
	assert_int_equal(to.ffn_dim, from.ffn_dim);

	assert_int_equal(weights_grow_shape(&to, &from, 5e7, GROW_LAYERS, &err), 0);
	assert_int_equal(to.n_layers, GROW_LAYERS);
	assert_int_equal(to.ffn_dim % 128, 0);
	assert_true(elements(&to) >= 50000000 && elements(&to) < 55000000);

	/* More layers than allowed are kept. */
	assert_int_equal(weights_grow_shape(&to, &from, 1e6, 1, &err), 0);
	assert_int_equal(to.n_layers, from.n_layers);
	assert_true(elements(&to) >= 1000000);
}

static void test_refusals(void **state)
{
	(void)state;
	struct model_config from = random_model_small(), to;
	struct err err;
	assert_int_equal(weights_grow_shape(&to, &from, 1000, GROW_LAYERS, &err), ERR_USAGE);
	assert_non_null(strstr(err.text, "parameters already"));
	assert_int_equal(weights_grow_shape(&to, &from, 1e12, GROW_LAYERS, &err), ERR_TOO_BIG);
	assert_non_null(strstr(err.text, "allow more layers"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_bits),
		cmocka_unit_test(test_same_bits_in_every_format),
		cmocka_unit_test(test_shape_reaches_the_size),
		cmocka_unit_test(test_refusals),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

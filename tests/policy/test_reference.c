/* test_reference.c - log-probabilities near an independent reference in double precision, and near those
 * of Hugging Face transformers. */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/policy_rig.h"
#include "tests/support/random_model.h"
#include "tests/support/reference_model.h"

enum { LENGTH = 37 /* two full pages and a part */ };

/* Largest |difference of log-probabilities|, over the whole vocabulary, from the double-precision
 * reference that rounds K and V to BF16 as the cache does.  What is left is FP32 and the rare K or V
 * that the two round to different sides: 2^-8 of one element. */
#define REFERENCE_BOUND 5e-3
/* Mean over all tokens and positions: single rounding flips vanish in it. */
#define REFERENCE_MEAN_BOUND 3e-4
/* transformers keep K and V in FP32, as does our cache of that type; a BF16 cache alone moves
 * log-probabilities of the golden tokens by up to 0.01 (stories15M) and 0.041 (minimind2-small, off its
 * domain, at -5 to -20 nat). */
static const double golden_bounds[N_KV_TYPES] = {[KV_BF16] = 0.05, [KV_F32] = 2e-3};
/* The reference in double precision without BF16 rounding against transformers' FP32. */
#define GOLDEN_REFERENCE_BOUND 1e-4

static void test_reference(void **state)
{
	(void)state;
	for (int s = 0; s < RIG_SHAPES; s++) {
		struct policy_rig rig;
		struct model_config c = rig_shape(s);
		rig_open(&rig, &c, 100 + (uint64_t)s, 1);
		float *logits = rig_run(&rig, rig.tokens, LENGTH, PART_TARGET);
		double *expected = xcalloc((size_t)LENGTH * (size_t)c.vocab_size, sizeof *expected);
		double *got = xcalloc((size_t)c.vocab_size, sizeof *got), worst = 0.0, sum = 0.0;
		reference_logits(expected, &rig.weights, rig.tokens, LENGTH, true);
		for (int t = 0; t < LENGTH; t++) {
			for (int v = 0; v < c.vocab_size; v++) got[v] = (double)rig_row(&rig, logits, t)[v];
			for (int v = 0; v < c.vocab_size; v++) {
				double difference =
					fabs(reference_log_probability(got, c.vocab_size, v) -
				         reference_log_probability(expected + t * c.vocab_size, c.vocab_size, v));
				worst = fmax(worst, difference);
				sum += difference;
			}
		}
		double mean = sum / LENGTH / c.vocab_size;
		print_message("shape %d: |log-probability - reference| max %.2g, mean %.2g\n", s, worst, mean);
		assert_true(worst < REFERENCE_BOUND);
		assert_true(mean < REFERENCE_MEAN_BOUND);
		free(expected);
		free(got);
		free(logits);
		rig_close(&rig);
	}
}

/* The drafter is the target but for INT4 weights: near, and not equal. */
static void test_draft_resembles_target(void **state)
{
	(void)state;
	struct policy_rig rig;
	struct model_config c = random_model_small();
	double squares = 0.0, difference = 0.0;
	rig_open(&rig, &c, 900, 1);
	float *target = rig_run(&rig, rig.tokens, LENGTH, PART_TARGET),
		  *draft = rig_run(&rig, rig.tokens, LENGTH, PART_DRAFT);
	for (int t = 0; t < LENGTH; t++) {
		for (int v = 0; v < c.vocab_size; v++) {
			double a = (double)rig_row(&rig, target, t)[v], b = (double)rig_row(&rig, draft, t)[v];
			squares += a * a;
			difference += (a - b) * (a - b);
		}
	}
	double relative = sqrt(difference / squares);
	print_message("drafter: relative error of the logits %.3f\n", relative);
	assert_true(relative > 0.01 && relative < 0.35);
	free(target);
	free(draft);
	rig_close(&rig);
}

static const char *data_path(const char *name, char path[512])
{
	const char *data = getenv("DRUMROLL_DATA");
	snprintf(path, 512, "%s/%s", data ? data : "../shared/data", name);
	return path;
}

/* Returns false where the model is not on this machine. */
static bool rig_load(struct policy_rig *rig, const char *model, enum kv_type type)
{
	char path[512], name[128];
	struct err err;
	snprintf(name, sizeof name, "models/%s", model);
	int code = weights_load(&rig->weights, data_path(name, path), &err);
	if (code == ERR_MISSING) {
		print_message("skipped: no %s\n", path);
		return false;
	}
	if (code) fail_msg("%s", err.text);
	assert_int_equal(policy_create(&rig->policy, &rig->weights, 1, NULL, 1, &err), 0);
	assert_int_equal(kv_cache_open(&rig->cache, &rig->policy->config, type, 64u << 20, &err), 0);
	rig->forward = forward_open(&rig->policy->config, RIG_ROWS_MAX, 1);
	return true;
}

static double log_probability(const struct policy_rig *rig, float *logits, int row, int token)
{
	int n = rig->policy->config.vocab_size;
	double *wide = xcalloc((size_t)n, sizeof *wide);
	for (int v = 0; v < n; v++) wide[v] = (double)rig_row(rig, logits, row)[v];
	double result = reference_log_probability(wide, n, token);
	free(wide);
	return result;
}

static void check_golden_case(struct policy_rig *rig, const json_t *golden, double *worst)
{
	const json_t *tokens = json_object_get(golden, "tokens"), *expected = json_object_get(golden, "logprobs");
	const json_t *top = json_array_get(json_array_get(json_object_get(golden, "last_top8"), 0), 0);
	int n = (int)json_array_size(tokens), best = 0, ids[RIG_ROWS_MAX];
	assert_true(n > 1 && n <= RIG_ROWS_MAX && (int)json_array_size(expected) == n - 1);
	for (int i = 0; i < n; i++) ids[i] = (int)json_integer_value(json_array_get(tokens, (size_t)i));
	float *logits = rig_run(rig, ids, n, PART_TARGET), *last = rig_row(rig, logits, n - 1);
	for (int i = 0; i < n - 1; i++) {
		double got = log_probability(rig, logits, i, ids[i + 1]);
		*worst = fmax(*worst, fabs(got - json_number_value(json_array_get(expected, (size_t)i))));
	}
	for (int v = 0; v < rig->policy->config.vocab_size; v++) best = last[v] > last[best] ? v : best;
	assert_int_equal(best, json_integer_value(top));
	free(logits);
}

/* False where the model or its goldens are not on this machine. */
static bool check_golden(const char *model, enum kv_type type)
{
	struct policy_rig rig;
	char path[512], name[128];
	double worst = 0.0;
	snprintf(name, sizeof name, "goldens/%s.json", model);
	json_t *golden = json_load_file(data_path(name, path), 0, NULL);
	if (!golden || !rig_load(&rig, model, type)) {
		json_decref(golden);
		return false;
	}
	const json_t *cases = json_object_get(golden, "cases");
	assert_true(json_array_size(cases) > 0);
	for (size_t i = 0; i < json_array_size(cases); i++)
		check_golden_case(&rig, json_array_get(cases, i), &worst);
	print_message("%s, %s KV: |log-probability - transformers| max %.2g\n", model, type == KV_F32 ? "f32" : "bf16",
	              worst);
	assert_true(worst < golden_bounds[type]);
	json_decref(golden);
	rig_close(&rig);
	return true;
}

static void test_goldens(void **state)
{
	(void)state;
	static const char *const models[] = {"stories15M", "minimind2-small"};
	int n_checked = 0;
	for (int m = 0; m < 2; m++)
		for (int type = 0; type < N_KV_TYPES; type++) n_checked += check_golden(models[m], (enum kv_type)type);
	if (n_checked == 0) {
		print_message("skipped: no goldens at ../shared/data or $DRUMROLL_DATA\n");
		skip();
	}
}

/* The reference itself against transformers: what differs above is the cache's BF16 alone. */
static void test_golden_reference(void **state)
{
	(void)state;
	struct policy_rig rig;
	char path[512];
	int ids[RIG_ROWS_MAX];
	json_t *golden = json_load_file(data_path("goldens/stories15M.json", path), 0, NULL);
	if (!golden || !rig_load(&rig, "stories15M", KV_F32)) {
		json_decref(golden);
		print_message("skipped: no %s\n", path);
		skip();
		return;
	}
	const json_t *first = json_array_get(json_object_get(golden, "cases"), 2); /* the shortest */
	const json_t *tokens = json_object_get(first, "tokens"), *expected = json_object_get(first, "logprobs");
	int n = (int)json_array_size(tokens), vocab = rig.policy->config.vocab_size;
	for (int i = 0; i < n; i++) ids[i] = (int)json_integer_value(json_array_get(tokens, (size_t)i));
	double *logits = xcalloc((size_t)n * (size_t)vocab, sizeof *logits);
	reference_logits(logits, &rig.weights, ids, n, false);
	for (int i = 0; i < n - 1; i++) {
		double got = reference_log_probability(logits + (size_t)i * (size_t)vocab, vocab, ids[i + 1]);
		assert_true(fabs(got - json_number_value(json_array_get(expected, (size_t)i))) <
		            GOLDEN_REFERENCE_BOUND);
	}
	free(logits);
	json_decref(golden);
	rig_close(&rig);
}

/* F32 tensors and GQA as published. */
static void test_stories260k(void **state)
{
	(void)state;
	struct policy_rig rig;
	double worst = 0.0;
	if (!rig_load(&rig, "stories260K", KV_BF16)) {
		skip();
		return;
	}
	int n = LENGTH, vocab = rig.policy->config.vocab_size, ids[LENGTH] = {1};
	for (int i = 1; i < n; i++) ids[i] = 3 + (i * 97) % (vocab - 3);
	double *expected = xcalloc((size_t)n * (size_t)vocab, sizeof *expected);
	reference_logits(expected, &rig.weights, ids, n, true);
	float *logits = rig_run(&rig, ids, n, PART_TARGET);
	for (int i = 0; i < n - 1; i++)
		worst = fmax(worst, fabs(log_probability(&rig, logits, i, ids[i + 1]) -
		                         reference_log_probability(expected + i * vocab, vocab, ids[i + 1])));
	print_message("stories260K: |log-probability - reference| max %.2g\n", worst);
	assert_true(worst < REFERENCE_BOUND);
	free(expected);
	free(logits);
	rig_close(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reference),
		cmocka_unit_test(test_draft_resembles_target),
		cmocka_unit_test(test_goldens),
		cmocka_unit_test(test_golden_reference),
		cmocka_unit_test(test_stories260k),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_logprobs.c - log-probabilities of 512 tokens near those of an independent implementation in double
 * precision (goldens/make_logprobs.py), for every family and option from its config.json on. */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/forward.h"
#include "tests/support/random_model.h"
#include "tests/support/reference_model.h"

enum { TOKENS_MAX = 512, CHUNK = 64 };

/* The sanitizers' builds are slow: there a part of the tokens, whose expected numbers are the same. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { TOKENS = 80 };
#else
enum { TOKENS = TOKENS_MAX };
#endif

/* Largest and mean |difference|.  With an FP32 cache what differs is the order of FP32 sums; with a BF16
 * cache every key and value is rounded by up to 2^-9 of itself. */
static const struct { double max, mean; } bounds[N_KV_TYPES] = {
	[KV_F32] = {2e-3, 2e-5}, [KV_BF16] = {0.3, 0.02},
};

struct run {
	struct policy *policy;
	int tokens[TOKENS_MAX], n;
	double expected[TOKENS_MAX]; /* of tokens[i + 1] */
};

static json_t *golden(const char *name)
{
	char path[128];
	json_error_t error;
	snprintf(path, sizeof path, "tests/policy/goldens/%s.json", name);
	json_t *root = json_load_file(path, 0, &error);
	if (!root) fail_msg("%s: %s", path, error.text);
	return root;
}

static void read_expected(struct run *run, const json_t *list)
{
	run->n = (int)json_array_size(list) + 1;
	assert_true(run->n > 1 && run->n <= TOKENS_MAX);
	if (run->n > TOKENS) run->n = TOKENS;
	for (int i = 0; i < run->n - 1; i++) run->expected[i] = json_number_value(json_array_get(list, (size_t)i));
}

static double log_probability(const float *logits, int n, int token)
{
	double *wide = xcalloc((size_t)n, sizeof *wide);
	for (int v = 0; v < n; v++) wide[v] = (double)logits[v];
	double result = reference_log_probability(wide, n, token);
	free(wide);
	return result;
}

/* Chunked prefill, as scoring does. */
static void compare(const struct run *run, const char *name, enum kv_type type)
{
	const struct model_config *c = &run->policy->config;
	size_t stride = forward_logits_stride(c);
	struct forward *forward = forward_open(c, CHUNK, 2);
	float *logits = xaligned(CHUNK * stride * sizeof *logits);
	struct kv_cache *cache;
	struct kv_seq seq;
	struct err err;
	double worst = 0, sum = 0;
	assert_true(run->n <= c->max_context);
	assert_int_equal(kv_cache_open(&cache, c, type, 64u << 20, &err), 0);
	kv_seq_open(&seq, cache);
	assert_int_equal(kv_seq_reserve(&seq, 0, run->n), 0);
	for (int at = 0; at < run->n - 1; at += CHUNK) {
		struct forward_row rows[CHUNK];
		int n = run->n - 1 - at < CHUNK ? run->n - 1 - at : CHUNK;
		for (int i = 0; i < n; i++) rows[i] = (struct forward_row){&seq, at + i, run->tokens[at + i], i};
		forward_run(forward, run->policy, PART_TARGET, rows, n, logits, stride);
		for (int i = 0; i < n; i++) {
			double got = log_probability(logits + (size_t)i * stride, c->vocab_size, run->tokens[at + i + 1]);
			double difference = fabs(got - run->expected[at + i]);
			worst = fmax(worst, difference);
			sum += difference;
		}
	}
	print_message("%-18s %s KV: |difference| max %.1e, mean %.1e\n", name, type == KV_F32 ? "f32 " : "bf16", worst,
	              sum / (run->n - 1));
	assert_true(worst <= bounds[type].max && sum / (run->n - 1) <= bounds[type].mean);
	kv_seq_close(&seq);
	kv_cache_close(cache);
	forward_close(forward);
	free(logits);
}

/* The case's own config.json, and the weights and tokens of its seed. */
static void open_family(struct run *run, const json_t *item)
{
	uint64_t seed = (uint64_t)json_integer_value(json_object_get(item, "seed")), state = 1000 + seed;
	char *text = json_dumps(json_object_get(item, "config"), 0);
	struct model_config config;
	struct weights weights;
	struct err err;
	if (model_config_parse(&config, text, strlen(text), NULL, 0, &err)) fail_msg("%s", err.text);
	free(text);
	random_model(&weights, &config, seed);
	assert_int_equal(policy_create(&run->policy, &weights, 0, NULL, 1, &err), 0);
	weights_free(&weights);
	read_expected(run, json_object_get(item, "logprobs"));
	for (int i = 0; i < run->n; i++) run->tokens[i] = (int)(random_bits(&state) % (uint64_t)config.vocab_size);
}

static void test_families(void **state)
{
	(void)state;
	json_t *root = golden("logprobs_families");
	const json_t *cases = json_object_get(root, "cases");
	assert_true(json_array_size(cases) >= 16);
	for (size_t i = 0; i < json_array_size(cases); i++) {
		const json_t *item = json_array_get(cases, i);
		struct run run;
		open_family(&run, item);
		for (int type = 0; type < N_KV_TYPES; type++)
			compare(&run, json_string_value(json_object_get(item, "name")), (enum kv_type)type);
		policy_free(run.policy);
	}
	json_decref(root);
}

/* False where the model is not on this machine. */
static bool open_model(struct run *run, const json_t *item)
{
	const char *data = getenv("DRUMROLL_DATA"), *name = json_string_value(json_object_get(item, "name"));
	const json_t *tokens = json_object_get(item, "tokens");
	char path[512];
	struct err err;
	snprintf(path, sizeof path, "%s/models/%s", data ? data : "../shared/data", name);
	int code = policy_load(&run->policy, path, NULL, 1, &err);
	if (code == ERR_MISSING) return false;
	if (code) fail_msg("%s", err.text);
	read_expected(run, json_object_get(item, "logprobs"));
	assert_true((int)json_array_size(tokens) >= run->n);
	for (int i = 0; i < run->n; i++) run->tokens[i] = (int)json_integer_value(json_array_get(tokens, (size_t)i));
	return true;
}

static void test_models(void **state)
{
	(void)state;
	json_t *root = golden("logprobs_models");
	const json_t *cases = json_object_get(root, "cases");
	int n_checked = 0;
	for (size_t i = 0; i < json_array_size(cases); i++) {
		const json_t *item = json_array_get(cases, i);
		struct run run;
		if (!open_model(&run, item)) continue;
		for (int type = 0; type < N_KV_TYPES; type++)
			compare(&run, json_string_value(json_object_get(item, "name")), (enum kv_type)type);
		policy_free(run.policy);
		n_checked++;
	}
	json_decref(root);
	if (n_checked == 0) {
		print_message("skipped: no models at ../shared/data or $DRUMROLL_DATA\n");
		skip();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_families),
		cmocka_unit_test(test_models),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_verify.c - one verification against handmade drafts: right ones are taken, the first wrong one
 * is replaced by the target's own draw, and what was drafted never shows in tokens or
 * log-probabilities.  The drafter's proposals, and threads, change nothing either. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "configs/config.h"
#include "rollout/speculation/draft.h"
#include "rollout/speculation/verify.h"
#include "tests/support/random_model.h"

enum { N_TOKENS = 12, LOGITS_MAX = 64, CONTEXT = 64 };

static struct {
	struct policy *policy;
	struct kv_cache *cache;
	struct workspace workspace;
	struct prefix_table prefixes;
	int32_t tokens[N_TOKENS];  /* what plain decoding makes after the prompt */
	float logprobs[N_TOKENS];
} bench;

static const int32_t prompt[] = {7, 8, 9, 10, 11};
enum { N_PROMPT = sizeof prompt / sizeof *prompt };
static const struct verify_label label = {.rank = 3, .mode = ROLLOUT_SPECULATIVE};

/* A session whose prompt is computed but for its last token. */
static struct session *session_ready(int32_t max_tokens)
{
	struct trajectory *t = trajectory_new(prompt, N_PROMPT, max_tokens);
	t->id = t->group_id = 1;
	t->seed = 99;
	struct session *s = session_open(t, PART_TARGET, &bench.prefixes, CONTEXT);
	struct prefix *p = s->prefix;

	if (!prefix_ready(p)) {
		assert_int_equal(kv_seq_reserve(&p->kv, 0, prefix_positions(p)), 0);
		for (int32_t i = 0; i < prefix_positions(p); i++)
			workspace_add_row(&bench.workspace, &p->kv, i, prompt[i], -1);
		verify_run(&bench.workspace, NULL, 0, label);
		bench.workspace.n_rows = 0;
		p->n_computed = prefix_positions(p);
	}
	p->waiting++;
	session_fork(s);
	return s;
}

static void step(struct session *const *sessions, int n)
{
	for (int i = 0; i < n; i++) {
		int32_t n_tokens = sessions[i]->trajectory->n_tokens;
		assert_int_equal(kv_seq_reserve(&sessions[i]->kv, n_tokens - 1, n_tokens + sessions[i]->n_draft), 0);
	}
	verify_run(&bench.workspace, sessions, n, label);
	bench.workspace.n_rows = 0;
}

static void session_end(struct session *s)
{
	trajectory_free(session_close(s, &bench.prefixes));
}

static int bench_open(void **state)
{
	(void)state;
	struct model_config config = random_model_config(64, 2, 4, 2, 96, 80, CONTEXT);
	struct engine_options options = {.prefill_chunk = 16, .n_threads = 2, .stop_token = -1};
	struct weights weights;
	struct err err;

	config.n_eos = 0;
	random_model(&weights, &config, 5);
	assert_int_equal(policy_create(&bench.policy, &weights, 4, &(struct draft_options){.quantizer = QUANTIZE_SEARCH}, 1, &err), 0);
	weights_free(&weights);
	assert_int_equal(kv_cache_open(&bench.cache, &config, KV_BF16, 1 << 22, &err), 0);
	bench.prefixes.cache = bench.cache;
	workspace_open(&bench.workspace, bench.policy, &options, LOGITS_MAX);

	struct session *s = session_ready(N_TOKENS);
	while (s->trajectory->finish == FINISH_NONE) step(&s, 1);
	for (int i = 0; i < N_TOKENS; i++) {
		bench.tokens[i] = s->trajectory->tokens[N_PROMPT + i];
		bench.logprobs[i] = s->trajectory->logprobs[N_PROMPT + i];
	}
	session_end(s);
	return 0;
}

static int bench_close(void **state)
{
	(void)state;
	workspace_close(&bench.workspace);
	kv_cache_close(bench.cache);
	policy_free(bench.policy);
	return 0;
}

static void assert_prefix_of_truth(const struct trajectory *t)
{
	size_t n = (size_t)trajectory_response_length(t);
	assert_memory_equal(t->tokens + N_PROMPT, bench.tokens, n * sizeof *bench.tokens);
	assert_memory_equal(t->logprobs + N_PROMPT, bench.logprobs, n * sizeof *bench.logprobs);
}

/* A draft of 8 that is right for `right` tokens makes right + 1 tokens. */
static void accepts_up_to_the_first_wrong_token(void **state)
{
	(void)state;
	for (int right = 0; right <= 8; right++) {
		struct session *s = session_ready(N_TOKENS);
		s->n_draft = 8;
		for (int i = 0; i < 8; i++) s->draft[i] = i == right ? (bench.tokens[i] + 1) % 80 : bench.tokens[i];
		step(&s, 1);
		assert_int_equal(s->n_made, right + 1);
		assert_int_equal(s->n_accepted, right);
		assert_int_equal(s->n_computed, s->trajectory->n_tokens - 1);
		assert_int_equal(s->trajectory->versions[N_PROMPT], 4);
		assert_int_equal(s->trajectory->segments[0].rank, 3);
		assert_prefix_of_truth(s->trajectory);
		/* The rejected rows' KV must not be seen by what follows. */
		s->n_draft = 0;
		while (s->trajectory->finish == FINISH_NONE) step(&s, 1);
		assert_int_equal(trajectory_response_length(s->trajectory), N_TOKENS);
		assert_prefix_of_truth(s->trajectory);
		session_end(s);
	}
}

static void ends_within_a_draft(void **state)
{
	(void)state;
	struct workspace *w = &bench.workspace;
	struct session *s = session_ready(5);

	/* By length: five tokens, although six drafts are right. */
	s->n_draft = 6;
	for (int i = 0; i < 6; i++) s->draft[i] = bench.tokens[i];
	step(&s, 1);
	assert_int_equal(s->n_made, 5);
	assert_int_equal(s->trajectory->finish, FINISH_LENGTH);
	session_end(s);

	/* By a stop token, which is kept and learned from. */
	int stop_at = 3;
	for (int i = 0; i < 3; i++)
		if (bench.tokens[i] == bench.tokens[3]) stop_at = i;
	s = session_ready(N_TOKENS);
	w->stops[w->n_stops++] = bench.tokens[3];
	s->n_draft = 6;
	for (int i = 0; i < 6; i++) s->draft[i] = bench.tokens[i];
	step(&s, 1);
	w->n_stops--;
	assert_int_equal(s->n_made, stop_at + 1);
	assert_int_equal(s->trajectory->finish, FINISH_STOP);
	assert_int_equal(s->trajectory->loss_mask[s->trajectory->n_tokens - 1], 1);
	assert_prefix_of_truth(s->trajectory);
	session_end(s);
}

/* Sessions with drafts of all lengths in one call, with the quantized drafter and with nonsense. */
static void drafters_change_nothing(void **state)
{
	(void)state;
	enum { N = 6 };
	uint64_t rng = 3;

	for (int nonsense = 0; nonsense < 2; nonsense++) {
		struct session *sessions[N];
		int n = N;
		for (int i = 0; i < N; i++) sessions[i] = session_ready(N_TOKENS);
		while (n > 0) {
			for (int i = 0; i < n; i++) {
				struct session *s = sessions[i];
				int32_t room = s->length_max - s->trajectory->n_tokens - 1;
				s->n_draft = i + 1 < room ? i + 1 : room;
				assert_int_equal(
					kv_seq_reserve(&s->kv, s->trajectory->n_tokens - 1, s->trajectory->n_tokens + s->n_draft),
					0);
				for (int k = 0; nonsense && k < s->n_draft; k++)
					s->draft[k] = (int32_t)(random_bits(&rng) % 80);
			}
			if (!nonsense) draft_quant.propose(&bench.workspace, sessions, n);
			step(sessions, n);
			int kept = 0;
			for (int i = 0; i < n; i++) {
				assert_prefix_of_truth(sessions[i]->trajectory);
				if (sessions[i]->trajectory->finish == FINISH_NONE) sessions[kept++] = sessions[i];
				else session_end(sessions[i]);
			}
			n = kept;
		}
	}
	assert_int_equal(kv_cache_pages_used(bench.cache), 0);
}

/* Weights that overflow: an error on the sample, not tokens made of NaN. */
static void diverged_weights_are_an_error(void **state)
{
	(void)state;
	struct session *s = session_ready(N_TOKENS);
	for (int i = 0; i < bench.policy->config.dim; i++)
		bench.policy->final_norm[i] ^= 0x4000; /* 1 becomes 1e38 */
	step(&s, 1);
	for (int i = 0; i < bench.policy->config.dim; i++) bench.policy->final_norm[i] ^= 0x4000;
	assert_int_equal(s->trajectory->finish, FINISH_ERROR);
	assert_non_null(s->trajectory->error);
	assert_int_equal(trajectory_response_length(s->trajectory), 0);
	session_end(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepts_up_to_the_first_wrong_token),
		cmocka_unit_test(ends_within_a_draft),
		cmocka_unit_test(drafters_change_nothing),
		cmocka_unit_test(diverged_weights_are_an_error),
	};
	return cmocka_run_group_tests(tests, bench_open, bench_close);
}

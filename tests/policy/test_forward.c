/* test_forward.c - the forward pass gives the same bits whatever shares the call, however it is cut, on
 * any number of threads and any instruction set (test_reference.c: that they are the right ones). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/policy_rig.h"
#include "tests/support/random_model.h"

enum { LENGTH = 37 /* two full pages and a part */ };

static void assert_same_rows(const struct policy_rig *rig, float *a, float *b, int begin, int end,
                             const char *what)
{
	size_t n_bytes = (size_t)rig->policy->config.vocab_size * sizeof(float);
	for (int i = begin; i < end; i++)
		if (memcmp(rig_row(rig, a, i), rig_row(rig, b, i), n_bytes) != 0)
			fail_msg("%s: logits of row %d differ in their bits", what, i);
}

static void test_instruction_sets(void **state)
{
	(void)state;
	static const char *const names[] = {"avx2", "avx512", "avx512vnni"};
	int n_compared = 0;
	for (int s = 0; s < RIG_SHAPES; s++) {
		struct policy_rig rig;
		struct model_config c = rig_shape(s);
		rig_open_kv(&rig, &c, s % 2 ? KV_F32 : KV_BF16, 200 + (uint64_t)s, 1);
		for (int draft = 0; draft <= 1; draft++) {
			forward_set_kernels(rig.forward, kernels_named("scalar"));
			float *expected = rig_run(&rig, rig.tokens, LENGTH, draft);
			for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
				if (!kernels_named(names[i])) continue;
				forward_set_kernels(rig.forward, kernels_named(names[i]));
				float *got = rig_run(&rig, rig.tokens, LENGTH, draft);
				assert_same_rows(&rig, expected, got, 0, LENGTH, names[i]);
				free(got);
				n_compared++;
			}
			free(expected);
		}
		rig_close(&rig);
	}
	if (n_compared == 0) {
		print_message("skipped: this CPU has only the scalar kernels\n");
		skip();
	}
}

static void test_threads(void **state)
{
	(void)state;
	for (int s = 0; s < RIG_SHAPES; s++) {
		struct model_config c = rig_shape(s);
		for (int draft = 0; draft <= 1; draft++) {
			float *expected = NULL;
			for (int n_threads = 1; n_threads <= 5; n_threads++) {
				struct policy_rig rig;
				rig_open(&rig, &c, 300, n_threads);
				for (int n = LENGTH; n > 0; n -= LENGTH - 3) { /* above and below OWN_NORM_ROWS */
					float *got = rig_run(&rig, rig.tokens, n, draft);
					if (expected) assert_same_rows(&rig, expected, got, 0, n, "threads");
					if (expected) free(got);
					else expected = got;
				}
				rig_close(&rig);
			}
			free(expected);
		}
	}
}

static void every_split(enum kv_type type)
{
	struct policy_rig rig;
	struct model_config c = random_model_small();
	rig_open_kv(&rig, &c, type, 400, 1);
	float *expected = rig_run(&rig, rig.tokens, LENGTH, PART_TARGET), *got = rig_logits(&rig, LENGTH);
	for (int cut = 0; cut <= LENGTH; cut++) {
		struct kv_seq seq;
		kv_seq_open(&seq, rig.cache);
		rig_run_piece(&rig, &seq, rig.tokens, 0, cut, PART_TARGET, got);
		rig_run_piece(&rig, &seq, rig.tokens, cut, LENGTH, PART_TARGET, got);
		kv_seq_close(&seq);
		assert_same_rows(&rig, expected, got, 0, LENGTH, "prefill in two pieces");
	}
	for (int piece = 1; piece <= 17; piece += 4) {
		struct kv_seq seq;
		kv_seq_open(&seq, rig.cache);
		for (int at = 0; at < LENGTH; at += piece)
			rig_run_piece(&rig, &seq, rig.tokens, at, at + piece < LENGTH ? at + piece : LENGTH, PART_TARGET, got);
		kv_seq_close(&seq);
		assert_same_rows(&rig, expected, got, 0, LENGTH, "prefill in equal pieces");
	}
	free(expected);
	free(got);
	rig_close(&rig);
}

static void test_every_split(void **state)
{
	(void)state;
	every_split(KV_BF16);
	every_split(KV_F32);
}

/* The two types are near and not the same. */
static void test_kv_types_differ(void **state)
{
	(void)state;
	struct policy_rig narrow, wide;
	struct model_config c = random_model_small();
	double worst = 0;
	rig_open_kv(&narrow, &c, KV_BF16, 410, 1);
	rig_open_kv(&wide, &c, KV_F32, 410, 1);
	float *a = rig_run(&narrow, narrow.tokens, LENGTH, PART_TARGET), *b = rig_run(&wide, wide.tokens, LENGTH, PART_TARGET);
	for (int i = 0; i < LENGTH; i++)
		for (int v = 0; v < c.vocab_size; v++)
			worst = fmax(worst, fabs((double)rig_row(&narrow, a, i)[v] - (double)rig_row(&wide, b, i)[v]));
	assert_true(worst > 1e-5 && worst < 0.1);
	free(a);
	free(b);
	rig_close(&narrow);
	rig_close(&wide);
}

/* What earlier sequences left in a page, NaN at worst, is never read. */
static void test_stale_pages(void **state)
{
	(void)state;
	struct model_config c = random_model_small();
	struct policy_rig rig;
	struct kv_seq seq;
	rig_open(&rig, &c, 450, 1);
	float *expected[2] = {rig_run(&rig, rig.tokens, LENGTH, PART_TARGET), rig_run(&rig, rig.tokens, LENGTH, PART_DRAFT)};
	for (int draft = 0; draft <= 1; draft++) {
		kv_seq_open(&seq, rig.cache);
		assert_int_equal(kv_seq_reserve(&seq, 0, 2 * LENGTH), 0);
		for (int i = 0; i < seq.n_pages; i++)
			memset(seq.pages[i], 0xff,
			       kv_k_offset(rig.cache, c.n_layers - 1, c.n_kv_heads - 1) * sizeof(uint16_t));
		kv_seq_close(&seq);
		float *got = rig_run(&rig, rig.tokens, LENGTH, draft);
		assert_same_rows(&rig, expected[draft], got, 0, LENGTH, "over stale pages");
		free(got);
		free(expected[draft]);
	}
	rig_close(&rig);
}

/* A prefill whose rows want no logits takes a shorter way through the last layer. */
static void test_without_logits(void **state)
{
	(void)state;
	struct policy_rig rig;
	struct model_config c = random_model_small();
	struct forward_row rows[LENGTH];
	struct kv_seq seq;
	rig_open(&rig, &c, 500, 2);
	float *expected = rig_run(&rig, rig.tokens, LENGTH, PART_TARGET), *got = rig_logits(&rig, LENGTH);
	kv_seq_open(&seq, rig.cache);
	assert_int_equal(kv_seq_reserve(&seq, 0, LENGTH), 0);
	for (int i = 0; i < LENGTH - 1; i++) rows[i] = (struct forward_row){&seq, i, rig.tokens[i], -1};
	forward_run(rig.forward, rig.policy, PART_TARGET, rows, LENGTH - 1, NULL, 0);
	rig_run_piece(&rig, &seq, rig.tokens, LENGTH - 1, LENGTH, PART_TARGET, got);
	assert_same_rows(&rig, expected, got, LENGTH - 1, LENGTH, "after a prefill without logits");
	kv_seq_close(&seq);
	free(expected);
	free(got);
	rig_close(&rig);
}

/* Five sequences of unequal lengths, advanced by unequal chunks, rows and logits rows shuffled. */
static void test_ragged_batch(void **state)
{
	(void)state;
	enum { N_SEQS = 5 };
	struct policy_rig rig;
	struct model_config c = rig_shape(1);
	struct kv_seq seqs[N_SEQS];
	float *expected[N_SEQS], *got[N_SEQS], *logits;
	int at[N_SEQS] = {0}, length[N_SEQS];
	uint64_t random = 7;
	rig_open(&rig, &c, 600, 2);
	logits = rig_logits(&rig, RIG_ROWS_MAX);
	for (int s = 0; s < N_SEQS; s++) {
		length[s] = 20 + 11 * s;
		expected[s] = rig_run(&rig, rig.tokens + s, length[s], PART_TARGET);
		got[s] = rig_logits(&rig, length[s]);
		kv_seq_open(&seqs[s], rig.cache);
	}
	for (int n_rows = 1; n_rows > 0;) {
		struct forward_row rows[RIG_ROWS_MAX];
		n_rows = 0;
		for (int s = 0; s < N_SEQS; s++) {
			int chunk = (int)(random_bits(&random) % 9), left = length[s] - at[s];
			if (chunk > left) chunk = left;
			assert_int_equal(kv_seq_reserve(&seqs[s], at[s], at[s] + chunk), 0);
			for (int i = 0; i < chunk; i++, at[s]++, n_rows++)
				rows[n_rows] = (struct forward_row){&seqs[s], at[s], rig.tokens[s + at[s]], n_rows};
		}
		for (int i = n_rows - 1; i > 0; i--) {
			int k = (int)(random_bits(&random) % (uint64_t)(i + 1));
			struct forward_row swap = rows[i];
			rows[i] = rows[k];
			rows[k] = swap;
		}
		forward_run(rig.forward, rig.policy, PART_TARGET, rows, n_rows, logits, forward_logits_stride(&c));
		for (int i = 0; i < n_rows; i++)
			memcpy(rig_row(&rig, got[rows[i].seq - seqs], rows[i].position),
			       rig_row(&rig, logits, rows[i].logits_row), (size_t)c.vocab_size * sizeof(float));
		for (int s = 0; s < N_SEQS && n_rows == 0; s++) n_rows = at[s] < length[s];
	}
	for (int s = 0; s < N_SEQS; s++) {
		assert_same_rows(&rig, expected[s], got[s], 0, length[s], "ragged batch");
		kv_seq_close(&seqs[s]);
		free(expected[s]);
		free(got[s]);
	}
	free(logits);
	rig_close(&rig);
}

/* A prompt computed once and shared by three samples, within and at the end of a page. */
static void test_fork(void **state)
{
	(void)state;
	struct policy_rig rig;
	struct model_config c = random_model_small();
	rig_open(&rig, &c, 700, 1);
	for (int n_prompt = 15; n_prompt <= 17; n_prompt++) {
		struct kv_seq parent, children[3];
		float *got = rig_logits(&rig, LENGTH), *prompt = rig_logits(&rig, LENGTH);
		int tokens[3][LENGTH];
		kv_seq_open(&parent, rig.cache);
		rig_run_piece(&rig, &parent, rig.tokens, 0, n_prompt, PART_TARGET, prompt);
		for (int i = 0; i < 3; i++) {
			kv_seq_open(&children[i], rig.cache);
			kv_seq_fork(&children[i], &parent, n_prompt);
			for (int t = 0; t < LENGTH; t++)
				tokens[i][t] = t < n_prompt ? rig.tokens[t] : rig.tokens[(t + 7 * i) % LENGTH];
		}
		for (int t = n_prompt; t < LENGTH;
		     t++) { /* interleaved, so that writes would be seen by the others */
			for (int i = 0; i < 3; i++) {
				float *alone = rig_run(&rig, tokens[i], t + 1, PART_TARGET);
				rig_run_piece(&rig, &children[i], tokens[i], t, t + 1, PART_TARGET, got);
				assert_same_rows(&rig, alone, got, t, t + 1, "forked");
				free(alone);
			}
		}
		for (int i = 0; i < 3; i++) kv_seq_close(&children[i]);
		kv_seq_close(&parent);
		assert_int_equal(kv_cache_pages_used(rig.cache), 0);
		free(got);
		free(prompt);
	}
	rig_close(&rig);
}

/* Rounds of drafting, verification and rejection leave the bits of plain decoding. */
static void test_draft_leaves_no_trace(void **state)
{
	(void)state;
	enum { DRAFT = 4 };
	struct policy_rig rig;
	struct model_config c = random_model_small();
	struct kv_seq seq;
	rig_open(&rig, &c, 800, 1);
	float *expected = rig_run(&rig, rig.tokens, LENGTH, PART_TARGET), *got = rig_logits(&rig, RIG_TOKENS);
	float *drafted = rig_logits(&rig, RIG_TOKENS);
	kv_seq_open(&seq, rig.cache);
	rig_run_piece(&rig, &seq, rig.tokens, 0, 3, PART_TARGET, got);
	for (int at = 3, accepted = 0; at < LENGTH - DRAFT;
	     at += accepted + 1, accepted = (accepted + 1) % DRAFT) {
		int proposal[RIG_TOKENS];
		for (int i = 0; i < at + DRAFT + 1; i++)
			proposal[i] = i <= at + accepted ? rig.tokens[i] : (rig.tokens[i] + 1) % c.vocab_size;
		for (int i = at; i < at + DRAFT; i++) rig_run_piece(&rig, &seq, proposal, i, i + 1, PART_DRAFT, drafted);
		rig_run_piece(&rig, &seq, proposal, at, at + DRAFT + 1, PART_TARGET, got);
		kv_seq_truncate(&seq, at + accepted + 1);
		assert_same_rows(&rig, expected, got, at, at + accepted + 1, "verified");
	}
	kv_seq_close(&seq);
	free(expected);
	free(got);
	free(drafted);
	rig_close(&rig);
}

/* Two threads pack the same policy as one. */
static void test_policy_threads(void **state)
{
	(void)state;
	struct err err;
	for (int s = 0; s < RIG_SHAPES; s++) {
		struct policy_rig rig;
		struct model_config c = rig_shape(s);
		rig_open(&rig, &c, 1000, 1);
		float *expected = rig_run(&rig, rig.tokens, LENGTH, PART_DRAFT);
		size_t bytes = rig.policy->bytes;
		policy_free(rig.policy);
		assert_int_equal(policy_create(&rig.policy, &rig.weights, 2, &(struct draft_options){.quantizer = QUANTIZE_SEARCH}, 3, &err), 0);
		float *got = rig_run(&rig, rig.tokens, LENGTH, PART_DRAFT);
		assert_same_rows(&rig, expected, got, 0, LENGTH, "packed by three threads");
		assert_int_equal(rig.policy->bytes, bytes);
		assert_int_equal(rig.policy->version, 2);
		free(expected);
		free(got);
		rig_close(&rig);
	}
}

/* The int4 part of a nested drafter is a drafter whose matrices are the int4 ones inside. */
static void test_nested_part(void **state)
{
	(void)state;
	struct err err;
	for (int s = 0; s < RIG_SHAPES; s++) {
		struct policy_rig rig;
		struct model_config c = rig_shape(s);
		struct draft_options nested = {.format = FORMAT_INT8, .head_format = FORMAT_INT6, .quantizer = QUANTIZE_RTN};
		rig_open(&rig, &c, 1100, 1);
		policy_free(rig.policy);
		assert_int_equal(policy_create(&rig.policy, &rig.weights, 0, &nested, 1, &err), 0);
		float *whole = rig_run(&rig, rig.tokens, LENGTH, PART_DRAFT), *part = rig_run(&rig, rig.tokens, LENGTH, PART_DRAFT_INT4);
		assert_memory_not_equal(whole, part, (size_t)c.vocab_size * sizeof *whole);
		for (int l = 0; l < c.n_layers; l++) {
			struct layer *layer = &rig.policy->layers[l];
			struct linear *linears[] = {&layer->qkv, &layer->o, &layer->gate_up, &layer->down};
			for (int i = 0; i < 4; i++) linears[i]->draft = qmatrix_int4(&linears[i]->draft);
		}
		rig.policy->head.draft = qmatrix_int4(&rig.policy->head.draft);
		float *replaced = rig_run(&rig, rig.tokens, LENGTH, PART_DRAFT);
		assert_same_rows(&rig, replaced, part, 0, LENGTH, "the int4 part");
		free(whole);
		free(part);
		free(replaced);
		rig_close(&rig);
	}
}

static void test_policy_refuses_nonfinite(void **state)
{
	(void)state;
	struct err err;
	struct weights weights;
	struct policy *policy = NULL;
	struct model_config c = random_model_small();
	random_model(&weights, &c, 1);
	weights.data[weights.tensors[3].offset + 5] = 0x7fc0;
	assert_int_equal(policy_create(&policy, &weights, 4, &(struct draft_options){.quantizer = QUANTIZE_SEARCH}, 1, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, "version 4"));
	assert_non_null(strstr(err.text, weights.tensors[3].name));
	assert_null(policy);
	weights_free(&weights);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_instruction_sets),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_every_split),
		cmocka_unit_test(test_kv_types_differ),
		cmocka_unit_test(test_stale_pages),
		cmocka_unit_test(test_without_logits),
		cmocka_unit_test(test_ragged_batch),
		cmocka_unit_test(test_fork),
		cmocka_unit_test(test_draft_leaves_no_trace),
		cmocka_unit_test(test_nested_part),
		cmocka_unit_test(test_policy_threads),
		cmocka_unit_test(test_policy_refuses_nonfinite),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

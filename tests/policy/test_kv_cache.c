/* test_kv_cache.c - budget, rewind, sharing and copy on write, against a model that copies everything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/kv_cache.h"
#include "quant/bf16.h"
#include "tests/support/random_model.h"

enum { PAGES = 6 };

static struct kv_cache *cache_open(int n_pages)
{
	struct kv_cache *cache = NULL;
	struct err err;
	struct model_config c = random_model_small();
	assert_int_equal(kv_cache_open(&cache, &c, KV_BF16, 1 << 20, &err), 0);
	size_t page_bytes = kv_cache_page_bytes(cache);
	kv_cache_close(cache);
	assert_int_equal(kv_cache_open(&cache, &c, KV_BF16, (size_t)n_pages * page_bytes + page_bytes / 2, &err), 0);
	assert_int_equal(kv_cache_pages_max(cache), n_pages);
	return cache;
}

/* One number per position stands for its keys and values. */
static uint16_t *slot(const struct kv_seq *seq, int position)
{
	return (uint16_t *)seq->pages[position / KV_TILE] + (kv_v_offset(seq->cache, 1, 1) + (size_t)(position % KV_TILE));
}

static void test_budget_is_hard(void **state)
{
	(void)state;
	struct kv_cache *cache = cache_open(PAGES);
	struct kv_seq a, b;
	kv_seq_open(&a, cache);
	kv_seq_open(&b, cache);
	assert_int_equal(kv_seq_reserve(&a, 0, 4 * KV_TILE), 0);
	assert_int_equal(kv_cache_pages_used(cache), 4);
	assert_int_equal(kv_seq_reserve(&b, 0, 2 * KV_TILE + 1), ERR_MEMORY);
	assert_int_equal(b.n_pages, 0);
	assert_int_equal(kv_cache_pages_used(cache), 4);
	assert_int_equal(kv_seq_reserve(&b, 0, 2 * KV_TILE), 0);
	assert_int_equal(kv_seq_reserve(&b, 2 * KV_TILE, 2 * KV_TILE + 1), ERR_MEMORY);
	assert_int_equal(b.n_pages, 2);
	kv_seq_truncate(&a, 3 * KV_TILE);
	assert_int_equal(kv_seq_reserve(&b, 2 * KV_TILE, 2 * KV_TILE + 1), 0);
	assert_int_equal(kv_cache_pages_used(cache), PAGES);
	kv_seq_close(&a);
	kv_seq_close(&b);
	assert_int_equal(kv_cache_pages_used(cache), 0);
	kv_cache_close(cache);
}

static void test_budget_below_a_page(void **state)
{
	(void)state;
	struct kv_cache *cache = NULL;
	struct err err;
	struct model_config c = random_model_small();
	assert_int_equal(kv_cache_open(&cache, &c, KV_BF16, 100, &err), ERR_MEMORY);
	assert_null(cache);
	assert_non_null(strstr(err.text, "100 bytes"));
}

static void test_rewind_keeps_partial_page(void **state)
{
	(void)state;
	struct kv_cache *cache = cache_open(PAGES);
	struct kv_seq seq;
	kv_seq_open(&seq, cache);
	assert_int_equal(kv_seq_reserve(&seq, 0, 3 * KV_TILE), 0);
	*slot(&seq, KV_TILE) = 77;
	kv_seq_truncate(&seq, KV_TILE + 1);
	assert_int_equal(seq.n_pages, 2);
	assert_int_equal(kv_cache_pages_used(cache), 2);
	assert_int_equal(*slot(&seq, KV_TILE), 77);
	kv_seq_truncate(&seq, KV_TILE);
	assert_int_equal(seq.n_pages, 1);
	assert_int_equal(kv_seq_reserve(&seq, KV_TILE, KV_TILE), 0);
	assert_int_equal(seq.n_pages, 1);
	kv_seq_close(&seq);
	kv_cache_close(cache);
}

static void test_fork_shares_and_copies(void **state)
{
	(void)state;
	struct kv_cache *cache = cache_open(PAGES);
	struct kv_seq parent, child;
	kv_seq_open(&parent, cache);
	kv_seq_open(&child, cache);
	assert_int_equal(kv_seq_reserve(&parent, 0, KV_TILE + 3), 0);
	*slot(&parent, 0) = 1;
	*slot(&parent, KV_TILE + 2) = 2;
	kv_seq_fork(&child, &parent, KV_TILE + 3);
	assert_int_equal(kv_cache_pages_used(cache), 2);
	assert_ptr_equal(child.pages[0], parent.pages[0]);
	assert_ptr_equal(child.pages[1], parent.pages[1]);

	assert_int_equal(kv_seq_reserve(&child, KV_TILE + 3, KV_TILE + 4), 0);
	assert_ptr_equal(child.pages[0], parent.pages[0]);
	assert_ptr_not_equal(child.pages[1], parent.pages[1]);
	assert_int_equal(kv_cache_pages_used(cache), 3);
	assert_int_equal(*slot(&child, KV_TILE + 2), 2);
	*slot(&child, KV_TILE + 3) = 3;
	assert_int_not_equal(*slot(&parent, KV_TILE + 3), 3);

	uint16_t *own = parent.pages[1]; /* the parent is alone with its page again: no second copy */
	assert_int_equal(kv_seq_reserve(&parent, KV_TILE + 3, KV_TILE + 4), 0);
	assert_ptr_equal(parent.pages[1], own);
	kv_seq_close(&parent);
	assert_int_equal(*slot(&child, 0), 1);
	assert_int_equal(kv_cache_pages_used(cache), 2);
	kv_seq_close(&child);
	kv_cache_close(cache);
}

/* A copy on write that does not fit leaves the shared page as it is. */
static void test_copy_beyond_budget(void **state)
{
	(void)state;
	struct kv_cache *cache = cache_open(2);
	struct kv_seq parent, child;
	kv_seq_open(&parent, cache);
	kv_seq_open(&child, cache);
	assert_int_equal(kv_seq_reserve(&parent, 0, KV_TILE + 3), 0);
	kv_seq_fork(&child, &parent, KV_TILE + 3);
	assert_int_equal(kv_seq_reserve(&child, KV_TILE + 3, KV_TILE + 4), ERR_MEMORY);
	assert_ptr_equal(child.pages[1], parent.pages[1]);
	kv_seq_close(&parent);
	assert_int_equal(kv_seq_reserve(&child, KV_TILE + 3, KV_TILE + 4), 0);
	kv_seq_close(&child);
	kv_cache_close(cache);
}

/* Pages are aligned, and the tiles of layers and heads are apart. */
static void test_layout(void **state)
{
	(void)state;
	struct kv_cache *cache = cache_open(PAGES);
	struct model_config c = random_model_small();
	struct kv_seq seq;
	size_t tile = (size_t)c.head_dim * KV_TILE, expected = 0;
	kv_seq_open(&seq, cache);
	assert_int_equal(kv_seq_reserve(&seq, 0, PAGES * KV_TILE), 0);
	for (int i = 0; i < PAGES; i++) assert_int_equal((uintptr_t)seq.pages[i] % 64, 0);
	for (int layer = 0; layer < c.n_layers; layer++) {
		for (int head = 0; head < c.n_kv_heads; head++, expected += 2 * tile) {
			assert_int_equal(kv_k_offset(cache, layer, head), expected);
			assert_int_equal(kv_v_offset(cache, layer, head), expected + tile);
		}
	}
	assert_true(kv_cache_page_bytes(cache) >= expected * sizeof(uint16_t));
	kv_seq_close(&seq);
	kv_cache_close(cache);
}

/* Both types: what is put is found at the kernel's place, rounded to the type, and a page costs as much as
 * kv_bytes says. */
static void test_types(void **state)
{
	(void)state;
	struct model_config c = random_model_small();
	float key[16], value[16];
	for (int i = 0; i < c.head_dim; i++) {
		key[i] = 1.0f + 0.001f * (float)i;
		value[i] = -2.0f - 0.003f * (float)i;
	}
	for (int type = 0; type < N_KV_TYPES; type++) {
		struct kv_cache *cache;
		struct kv_seq seq;
		struct err err;
		int position = KV_TILE + 5;
		assert_int_equal(kv_cache_open(&cache, &c, (enum kv_type)type, 1 << 20, &err), 0);
		assert_int_equal(kv_cache_type(cache), type);
		assert_int_equal(kv_cache_pages_max(cache), (1u << 20) / kv_cache_page_bytes(cache));
		assert_int_equal(kv_bytes(&c, (enum kv_type)type, 3 * KV_TILE + 1), 4 * kv_cache_page_bytes(cache));
		assert_true(kv_cache_page_bytes(cache) >= (size_t)c.n_layers * (size_t)c.n_kv_heads * 2 * (size_t)c.head_dim *
		                                              KV_TILE * kv_element_bytes((enum kv_type)type));
		kv_seq_open(&seq, cache);
		assert_int_equal(kv_seq_reserve(&seq, 0, 2 * KV_TILE), 0);
		kv_seq_put_key(&seq, position, 1, 1, key);
		kv_seq_put_value(&seq, position, 1, 1, value);
		for (int d = 0; d < c.head_dim; d++) {
			size_t k = kv_k_offset(cache, 1, 1) + (size_t)d * KV_TILE + 5;
			size_t v = kv_v_offset(cache, 1, 1) + 5 * (size_t)c.head_dim + (size_t)d;
			if (type == KV_F32) {
				assert_true(((float *)seq.pages[1])[k] == key[d] && ((float *)seq.pages[1])[v] == value[d]);
			} else {
				assert_int_equal(((uint16_t *)seq.pages[1])[k], bf16_from_f32(key[d]));
				assert_int_equal(((uint16_t *)seq.pages[1])[v], bf16_from_f32(value[d]));
			}
		}
		kv_seq_close(&seq);
		kv_cache_close(cache);
	}
}

/* Random forks, writes, rewinds and closes: every sequence always reads what it wrote. */
enum { N_SEQS = 6, POSITIONS = 5 * KV_TILE, OPERATIONS = 20000 };

static void check_sequence(const struct kv_seq *seq, const uint16_t *written, int length)
{
	for (int p = 0; p < length; p++) assert_int_equal(*slot(seq, p), written[p]);
}

static void test_random_timelines(void **state)
{
	(void)state;
	struct kv_cache *cache = cache_open(12);
	struct kv_seq seqs[N_SEQS];
	static uint16_t written[N_SEQS][POSITIONS];
	int length[N_SEQS] = {0}, n_refused = 0, n_forks = 0;
	uint64_t random = 1;
	for (int s = 0; s < N_SEQS; s++) kv_seq_open(&seqs[s], cache);
	for (int i = 0; i < OPERATIONS; i++) {
		int s = (int)(random_bits(&random) % N_SEQS), other = (int)(random_bits(&random) % N_SEQS);
		int upto = (int)(random_bits(&random) % (uint64_t)(POSITIONS + 1));
		if (random_bits(&random) % 4 == 0 && s != other && upto <= length[other]) {
			kv_seq_close(&seqs[s]);
			kv_seq_open(&seqs[s], cache);
			kv_seq_fork(&seqs[s], &seqs[other], upto);
			memcpy(written[s], written[other], sizeof written[s]);
			length[s] = upto;
			n_forks++;
		} else if (upto < length[s]) {
			kv_seq_truncate(&seqs[s], upto);
			length[s] = upto;
		} else if (kv_seq_reserve(&seqs[s], length[s], upto) == 0) {
			for (; length[s] < upto; length[s]++)
				*slot(&seqs[s], length[s]) = written[s][length[s]] = (uint16_t)random_bits(&random);
		} else {
			n_refused++;
		}
		check_sequence(&seqs[s], written[s], length[s]);
		check_sequence(&seqs[other], written[other], length[other]);
		assert_true(kv_cache_pages_used(cache) <= kv_cache_pages_max(cache));
	}
	assert_true(n_refused > 100 && n_forks > 100);
	for (int s = 0; s < N_SEQS; s++) kv_seq_close(&seqs[s]);
	assert_int_equal(kv_cache_pages_used(cache), 0);
	kv_cache_close(cache);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_budget_is_hard),
		cmocka_unit_test(test_budget_below_a_page),
		cmocka_unit_test(test_rewind_keeps_partial_page),
		cmocka_unit_test(test_fork_shares_and_copies),
		cmocka_unit_test(test_copy_beyond_budget),
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_random_timelines),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_intake_base.c - deltas and LoRA pairs against a base: what they make, and what is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include <zstd.h>

#include "quant/bf16.h"
#include "tests/support/model_dir.h"
#include "tests/support/random_model.h"
#include "trainer_bridge/server/intake.h"
#include "trainer_bridge/wire/checksum.h"
#include "trainer_bridge/wire/delta.h"
#include "trainer_bridge/wire/lora.h"
#include "trainer_bridge/wire/protocol.h"

struct world {
	char dir[MODEL_DIR_PATH_MAX];
	struct intake *intake;
	struct weights base, sent;
	struct delta *delta;
	int n_begun, n_dropped, n_tensors;
	size_t n_bytes;
	const uint16_t *data; /* of the version that was begun last */
};

static void on_begun(void *context, int64_t version, const struct weights *weights)
{
	struct world *world = context;

	(void)version;
	world->n_begun++;
	world->n_bytes = 0;
	world->n_tensors = 0;
	world->data = weights->data;
}

static void on_bytes(void *context, size_t begin, size_t end)
{
	struct world *world = context;
	world->n_bytes += end - begin;
}

static void on_tensor(void *context, int tensor, uint64_t xxh3)
{
	struct world *world = context;
	const struct weight_tensor *t = &world->base.tensors[tensor];

	assert_int_equal(checksum(world->data + t->offset, 2 * (size_t)t->rows * (size_t)t->cols), xxh3);
	world->n_tensors++;
}

static void on_dropped(void *context)
{
	struct world *world = context;
	world->n_dropped++;
}

static int set_up(void **state)
{
	struct world *world = calloc(1, sizeof *world);
	struct model_config config = random_model_small();
	struct err err;

	model_dir_make(world->dir);
	assert_int_equal(random_model_save(world->dir, &config, 7, &err), 0);
	assert_int_equal(weights_load(&world->base, world->dir, &err), 0);
	weights_alloc(&world->sent, &config);
	memcpy(world->sent.data, world->base.data, 2 * world->base.n_elements);
	world->delta = delta_open();
	world->intake = intake_open(&world->base.config);
	intake_set_model(world->intake, world->dir);
	intake_observe(world->intake, &(struct intake_observer){.context = world, .begun = on_begun, .bytes = on_bytes,
	                                                        .tensor = on_tensor, .dropped = on_dropped});
	*state = world;
	return 0;
}

static int tear_down(void **state)
{
	struct world *world = *state;

	intake_close(world->intake);
	delta_close(world->delta);
	weights_free(&world->base);
	weights_free(&world->sent);
	model_dir_remove(world->dir);
	free(world);
	return 0;
}

#define SAYS(call, expected, said) do { \
	err.text[0] = 0; \
	assert_int_equal(call, expected); \
	if (!strstr(err.text, said)) fail_msg("'%s' does not say '%s'", err.text, said); \
} while (0)

#define WORKS(call) do { if (call) fail_msg("%s", err.text); } while (0)

static size_t bytes_of(const struct weights *weights, int i)
{
	return 2 * (size_t)weights->tensors[i].rows * (size_t)weights->tensors[i].cols;
}

static const uint8_t *data_of(const struct weights *weights, int i)
{
	return (const uint8_t *)(weights->data + weights->tensors[i].offset);
}

static int begin(struct world *world, enum intake_encoding encoding, int64_t version, int64_t base, struct err *err)
{
	struct intake_push push = {.version = version, .encoding = encoding, .base = base, .rank = 2, .alpha = 3};
	return intake_begin_push(world->intake, &push, version - 1, err);
}

static void check_and_adopt(struct world *world, int64_t version, const struct weights *expected)
{
	const struct weights *got;
	struct err err;

	WORKS(intake_commit(world->intake, version, &got, &err));
	assert_memory_equal(got->data, expected->data, 2 * expected->n_elements);
	assert_int_equal(world->n_tensors, expected->n_tensors);       /* the watcher has seen it all, */
	assert_int_equal(world->n_bytes, 2 * expected->n_elements);    /* each byte once */
	intake_adopt(world->intake);
}

/* Every tensor in pieces of `piece` bytes that are packed, unless raw says otherwise. */
static void send_delta(struct world *world, int64_t version, size_t piece, bool raw_too)
{
	struct err err;

	for (int i = 0; i < world->sent.n_tensors; i++) {
		const uint8_t *new = data_of(&world->sent, i), *old = data_of(&world->base, i);
		const char *name = world->sent.tensors[i].name;
		size_t n = bytes_of(&world->sent, i), packed_bytes;
		for (size_t at = 0, k = 0; at < n && memcmp(new, old, n) != 0; at += piece, k++) {
			size_t m = n - at < piece ? n - at : piece;
			const void *packed = delta_pack(world->delta, new + at, old + at, m, &packed_bytes);
			WORKS(raw_too && k % 2 ? intake_chunk(world->intake, version, name, at, new + at, m, &err)
			                       : intake_delta(world->intake, version, name, at, (int64_t)m, packed, packed_bytes, &err));
		}
		WORKS(intake_checksum(world->intake, version, name, checksum(new, n), &err));
	}
}

static void test_deltas_make_the_new_version(void **state)
{
	struct world *world = *state;
	struct err err;
	uint64_t random = 1;

	for (int64_t version = 1; version < 6; version++) {
		for (int k = 0; k < 300; k++)
			world->sent.data[random_bits(&random) % (world->sent.n_elements / 2)] ^= 1; /* the last tensors stay */
		WORKS(begin(world, INTAKE_DELTA, version, version - 1, &err)); /* 0: the model directory */
		send_delta(world, version, 2 + 2 * (size_t)version * 500, version % 2);
		check_and_adopt(world, version, &world->sent);
		memcpy(world->base.data, world->sent.data, 2 * world->base.n_elements);
	}
	assert_int_equal(world->n_dropped, 0);
}

/* Two sets of memory serve for ever. */
static void test_memory_is_used_in_turn(void **state)
{
	struct world *world = *state;
	const uint16_t *seen[2] = {NULL, NULL};
	struct err err;

	for (int64_t version = 1; version < 8; version++) {
		WORKS(begin(world, version % 3 ? INTAKE_DELTA : INTAKE_FULL, version, version - 1, &err));
		if (version % 3)
			send_delta(world, version, 4096, false);
		else
			for (int i = 0; i < world->sent.n_tensors; i++) {
				const char *name = world->sent.tensors[i].name;
				WORKS(intake_chunk(world->intake, version, name, 0, data_of(&world->sent, i), bytes_of(&world->sent, i), &err));
				WORKS(intake_seal(world->intake, version, name, &err));
			}
		if (version > 2)
			assert_ptr_equal(world->data, seen[version % 2]);
		seen[version % 2] = world->data;
		check_and_adopt(world, version, &world->sent);
	}
	assert_ptr_not_equal(seen[0], seen[1]);
}

static void test_other_bases_are_refused(void **state)
{
	struct world *world = *state;
	struct err err;

	SAYS(begin(world, INTAKE_DELTA, 9, 3, &err), ERR_BASE, "is version 0, and 3 was stated: push in full");
	SAYS(begin(world, INTAKE_LORA, 9, 3, &err), ERR_BASE, "push in full");
	WORKS(begin(world, INTAKE_DELTA, 9, 0, &err));
	send_delta(world, 9, 1000, false);
	check_and_adopt(world, 9, &world->sent);
	SAYS(begin(world, INTAKE_DELTA, 10, 0, &err), ERR_BASE, "is version 9, and 0 was stated");

	struct intake *fresh = intake_open(&world->base.config); /* no model, no version */
	struct intake_push push = {.version = 1, .encoding = INTAKE_DELTA};
	SAYS(intake_begin_push(fresh, &push, 0, &err), ERR_BASE, "holds no base yet");
	intake_close(fresh);
}

/* A base that is not what the peer thinks shows in a checksum, also of a tensor that was not sent. */
static void test_a_wrong_base_is_found_out(void **state)
{
	struct world *world = *state;
	struct err err;
	int last = world->sent.n_tensors - 1;

	world->sent.data[world->sent.tensors[last].offset] ^= 1;
	WORKS(begin(world, INTAKE_DELTA, 1, 0, &err));
	SAYS(intake_checksum(world->intake, 1, world->sent.tensors[last].name,
	                     checksum(data_of(&world->sent, last), bytes_of(&world->sent, last)), &err),
	     ERR_INVALID, "push in full, for the bases may differ");
}

/* A zstd frame of n zero bytes. */
static size_t zeros(size_t n, uint8_t *packed, size_t room)
{
	uint8_t *bytes = calloc(1, n);
	size_t size = ZSTD_compress(packed, room, bytes, n, 1);

	assert_false(ZSTD_isError(size));
	free(bytes);
	return size;
}

static void test_hostile_deltas(void **state)
{
	struct world *world = *state;
	struct intake *intake = world->intake;
	const char *name = world->sent.tensors[0].name, *other = world->sent.tensors[1].name;
	int64_t n = (int64_t)bytes_of(&world->sent, 0);
	static uint8_t packed[1 << 16], bomb[1 << 16];
	struct err err;
	size_t exact = zeros((size_t)n, packed, sizeof packed);
	size_t huge = zeros(256 << 20, bomb, sizeof bomb); /* 8 KB that would be 256 MB */

	WORKS(begin(world, INTAKE_FULL, 1, 0, &err));
	SAYS(intake_delta(intake, 1, name, 0, n, packed, exact, &err), ERR_INVALID, "begin it as 'delta'");
	intake_abandon(intake);
	assert_int_equal(world->n_dropped, 1);

	WORKS(begin(world, INTAKE_DELTA, 1, 0, &err));
	SAYS(intake_delta(intake, 1, name, 0, n, bomb, huge, &err), ERR_TOO_BIG, "unpacks to more than the");
	SAYS(intake_delta(intake, 1, name, 0, n - 2, packed, exact, &err), ERR_TOO_BIG, "unpacks to more than the");
	SAYS(intake_delta(intake, 1, other, 0, 128, packed, exact, &err), ERR_TOO_BIG, "unpacks to more than the 128");
	SAYS(intake_delta(intake, 1, name, 0, n + 2, packed, exact, &err), ERR_TOO_BIG, "or more");
	SAYS(intake_delta(intake, 1, name, 0, n, packed, exact - 1, &err), ERR_INVALID, "no zstd frame");
	SAYS(intake_delta(intake, 1, name, 0, n, "garbage", 7, &err), ERR_INVALID, "no zstd frame");
	SAYS(intake_delta(intake, 1, name, 0, n, "", 0, &err), ERR_INVALID, "0 bytes");
	SAYS(intake_delta(intake, 1, name, 0, n - 1, packed, exact, &err), ERR_INVALID, "must be even");
	SAYS(intake_delta(intake, 1, name, 2, n - 2, packed, exact, &err), ERR_INVALID, "expected the chunk at byte 0");
	SAYS(intake_delta(intake, 1, "model.nothing", 0, n, packed, exact, &err), ERR_MISSING, "model.nothing");
	/* None of it has left a trace. */
	WORKS(intake_delta(intake, 1, name, 0, n, packed, exact, &err));
	SAYS(intake_delta(intake, 1, name, 0, n, packed, exact, &err), ERR_INVALID, "expected the chunk at byte");
	WORKS(intake_checksum(intake, 1, name, checksum(world->sent.data, (size_t)n), &err));
	SAYS(intake_checksum(intake, 1, name, checksum(world->sent.data, (size_t)n), &err), ERR_STATE, "came twice");
	SAYS(intake_delta(intake, 1, name, 0, n, packed, exact, &err), ERR_STATE, "behind its checksum");
	const struct weights *got;
	SAYS(intake_commit(intake, 1, &got, &err), ERR_INCOMPLETE, "lacks 19 of 20 tensors");
}

/* An infinity that comes about by the xor. */
static void test_a_delta_that_diverges(void **state)
{
	struct world *world = *state;
	struct err err;
	size_t packed_bytes, n = bytes_of(&world->sent, 3);
	const char *name = world->sent.tensors[3].name;

	world->sent.data[world->sent.tensors[3].offset + 5] = 0x7f80;
	WORKS(begin(world, INTAKE_DELTA, 1, 0, &err));
	const void *packed = delta_pack(world->delta, data_of(&world->sent, 3), data_of(&world->base, 3), n, &packed_bytes);
	WORKS(intake_delta(world->intake, 1, name, 0, (int64_t)n, packed, packed_bytes, &err));
	SAYS(intake_checksum(world->intake, 1, name, checksum(data_of(&world->sent, 3), n), &err), ERR_INVALID, "diverged");
}

/* ---- LoRA ---- */

static float small(uint64_t *random)
{
	return ((float)(random_bits(random) >> 40) / 8388608.0f - 1) / 8; /* -1/8 to 1/8 */
}

static int tensor_named(const struct world *world, const char *name)
{
	int i = weights_find(&world->base, name);
	assert_true(i >= 0);
	return i;
}

static int side(struct world *world, int64_t version, const char *name, const float *values, size_t n, struct err *err)
{
	const uint8_t *bytes = (const uint8_t *)values;
	size_t cut = n * 4 / 3;

	int rc = intake_chunk(world->intake, version, name, 0, bytes, cut, err);
	if (!rc) rc = intake_chunk(world->intake, version, name, cut, bytes + cut, n * 4 - cut, err);
	return rc ? rc : intake_checksum(world->intake, version, name, checksum(values, n * 4), err);
}

/* The merged matrix is the nearest BF16 to the double-precision one, or where FP32 rounding decides a near tie its
 * neighbour; and it is what PROTOCOL.md's formula says, to the bit. */
static void check_merge(const struct world *world, int tensor, const float *a, const float *b, int rank, double alpha)
{
	const struct weight_tensor *t = &world->base.tensors[tensor];
	float scale = (float)(alpha / rank);
	int n_near = 0;

	for (int i = 0; i < t->rows; i++)
		for (int j = 0; j < t->cols; j++) {
			size_t at = t->offset + (size_t)i * (size_t)t->cols + (size_t)j;
			double exact = 0;
			volatile float d = 0;
			for (int r = 0; r < rank; r++) {
				volatile float product = b[i * rank + r] * a[r * t->cols + j];
				d = r ? d + product : product;
				exact += (double)b[i * rank + r] * (double)a[r * t->cols + j];
			}
			volatile float step = scale * d;
			float base = bf16_to_f32(world->base.data[at]);
			exact = (double)base + alpha / rank * exact;
			assert_int_equal(world->data[at], bf16_from_f32(base + step));
			float got = bf16_to_f32(world->data[at]);
			double half_unit = ldexp(fmax(fabs(exact), ldexp(1, -126)), -8);
			assert_true(fabs((double)got - exact) <= half_unit * 1.001 + 1e-7);
			n_near += world->data[at] == bf16_from_f32((float)exact);
		}
	assert_true(n_near >= t->rows * t->cols * 999 / 1000);
}

static void test_pairs_are_merged(void **state)
{
	struct world *world = *state;
	int q = tensor_named(world, "model.layers.1.self_attn.q_proj.weight"), gate = tensor_named(world, "model.layers.0.mlp.gate_proj.weight");
	int norm = tensor_named(world, "model.norm.weight");
	static float a[64 * 16], b[160 * 16];
	struct err err;
	uint64_t random = 3;

	for (int64_t version = 1; version < 4; version++) { /* again and again against version 0 */
		int rank = 1 << version; /* 2, 4, 8 */
		struct intake_push push = {.version = version, .encoding = INTAKE_LORA, .rank = rank, .alpha = 3 * (double)version};
		WORKS(intake_begin_push(world->intake, &push, version - 1, &err));
		for (int k = 0; k < 2; k++) {
			int i = k ? gate : q;
			const struct weight_tensor *t = &world->base.tensors[i];
			char name[2][160];
			for (int s = 0; s < 2; s++) /* with PEFT's prefix and without */
				snprintf(name[s], sizeof name[s], "%s%.*s.lora_%c.weight", k ? "base_model.model." : "",
				         (int)(strlen(t->name) - strlen(".weight")), t->name, 'A' + s);
			for (int x = 0; x < rank * t->cols; x++) a[x] = small(&random);
			for (int x = 0; x < rank * t->rows; x++) b[x] = small(&random);
			size_t n_a = (size_t)rank * (size_t)t->cols, n_b = (size_t)rank * (size_t)t->rows;
			WORKS(k ? side(world, version, name[1], b, n_b, &err) : side(world, version, name[0], a, n_a, &err));
			WORKS(k ? side(world, version, name[0], a, n_a, &err) : side(world, version, name[1], b, n_b, &err));
			check_merge(world, i, a, b, rank, push.alpha);
		}
		world->sent.data[world->sent.tensors[norm].offset] = (uint16_t)(0x3f80 + version); /* one that comes whole */
		WORKS(intake_chunk(world->intake, version, "model.norm.weight", 0, data_of(&world->sent, norm), 128, &err));
		WORKS(intake_checksum(world->intake, version, "model.norm.weight", checksum(data_of(&world->sent, norm), 128), &err));
		const struct weights *got;
		WORKS(intake_commit(world->intake, version, &got, &err));
		for (int i = 0; i < got->n_tensors; i++) {
			if (i == q || i == gate)
				continue;
			const struct weights *expected = i == norm ? &world->sent : &world->base;
			assert_memory_equal(data_of(got, i), data_of(expected, i), bytes_of(got, i));
		}
		assert_int_equal(world->n_tensors, got->n_tensors);
		intake_adopt(world->intake);
	}
	SAYS(begin(world, INTAKE_DELTA, 9, 3, &err), ERR_BASE, "is version 0"); /* a lora version is no base */
}

static void test_hostile_pairs(void **state)
{
	struct world *world = *state;
	struct intake *intake = world->intake;
	struct intake_push push = {.version = 1, .encoding = INTAKE_LORA, .rank = LORA_RANK_MAX + 1, .alpha = 1};
	static const char q_a[] = "model.layers.0.self_attn.q_proj.lora_A.weight", q_b[] = "model.layers.0.self_attn.q_proj.lora_B.weight",
	                  v_a[] = "model.layers.0.self_attn.v_proj.lora_A.weight", q[] = "model.layers.0.self_attn.q_proj.weight";
	static float values[2048];
	const struct weights *got;
	struct err err;

	SAYS(intake_begin_push(intake, &push, 0, &err), ERR_INVALID, "'rank': expected 1 to 1024");
	push.rank = 0;
	SAYS(intake_begin_push(intake, &push, 0, &err), ERR_INVALID, "'rank'");
	push = (struct intake_push){.version = 1, .encoding = INTAKE_LORA, .rank = 2, .alpha = (double)NAN};
	SAYS(intake_begin_push(intake, &push, 0, &err), ERR_INVALID, "'alpha'");
	push.alpha = 1;
	push.rank = 65; /* of 64 columns */
	WORKS(intake_begin_push(intake, &push, 0, &err));
	SAYS(intake_chunk(intake, 1, q_a, 0, values, 16, &err), ERR_INVALID, "rank 65 for 64 x 64");
	intake_abandon(intake);
	push.rank = 2;
	WORKS(intake_begin_push(intake, &push, 0, &err));
	SAYS(intake_chunk(intake, 1, "model.nothing.lora_A.weight", 0, values, 16, &err), ERR_MISSING, "model.nothing.weight");
	SAYS(intake_chunk(intake, 1, "model.norm.lora_A.weight", 0, values, 16, &err), ERR_INVALID, "1 x 64");
	SAYS(intake_checksum(intake, 1, q_a, 0, &err), ERR_INCOMPLETE, "found 0");
	WORKS(intake_chunk(intake, 1, q_a, 0, values, 16, &err));
	SAYS(intake_chunk(intake, 1, q_a, 0, values, 16, &err), ERR_INVALID, "expected the chunk at byte 16");
	SAYS(intake_chunk(intake, 1, q_a, 16, values, 512, &err), ERR_TOO_BIG, "expected 512 bytes (2 x 64 f32)");
	SAYS(intake_chunk(intake, 1, v_a, 0, values, 16, &err), ERR_STATE, "is not complete yet");
	SAYS(intake_chunk(intake, 1, q, 0, values, 16, &err), ERR_STATE, "being changed by a LoRA pair");
	SAYS(intake_checksum(intake, 1, q_a, 0, &err), ERR_INCOMPLETE, "expected 512 bytes");
	SAYS(intake_commit(intake, 1, &got, &err), ERR_INCOMPLETE, "one of the LoRA pair");
	WORKS(intake_chunk(intake, 1, q_a, 16, values, 496, &err));
	SAYS(intake_checksum(intake, 1, q_a, 1, &err), ERR_INVALID, "XXH3");
	WORKS(intake_checksum(intake, 1, q_a, checksum(values, 512), &err));
	SAYS(intake_checksum(intake, 1, q_a, checksum(values, 512), &err), ERR_STATE, "came twice");
	for (int i = 0; i < 128; i++)
		values[i] = (float)INFINITY; /* times A's zeros: NaN */
	WORKS(intake_chunk(intake, 1, q_b, 0, values, 512, &err));
	SAYS(intake_checksum(intake, 1, q_b, checksum(values, 512), &err), ERR_INVALID, "diverged");
	SAYS(intake_commit(intake, 1, &got, &err), ERR_INCOMPLETE, "lacks 1");
	SAYS(intake_chunk(intake, 1, q_a, 0, values, 16, &err), ERR_STATE, "has come already");
}

/* Blocks of columns and odd shapes agree with one row at a time. */
static void test_merge_has_no_seams(void **state)
{
	enum { ROWS = 3, COLS = 2500, RANK = 5 };
	static float a[RANK * COLS], b[ROWS * RANK];
	static uint16_t base[ROWS * COLS], whole[ROWS * COLS], rows[ROWS * COLS];
	struct lora lora = {.rows = ROWS, .cols = COLS, .rank = RANK, .scale = 0.75f, .a = a, .b = b};
	uint64_t random = 9;

	(void)state;
	for (int i = 0; i < RANK * COLS; i++) a[i] = small(&random);
	for (int i = 0; i < ROWS * RANK; i++) b[i] = small(&random);
	for (int i = 0; i < ROWS * COLS; i++) base[i] = bf16_from_f32(small(&random));
	lora_merge(&lora, base, whole, 0, ROWS);
	for (int i = 0; i < ROWS; i++)
		lora_merge(&lora, base, rows, i, 1);
	assert_memory_equal(whole, rows, sizeof rows);
	for (int i = 0; i < ROWS * COLS; i += 7) {
		float d = 0;
		for (int r = 0; r < RANK; r++) {
			volatile float product = b[i / COLS * RANK + r] * a[r * COLS + i % COLS];
			d = d + product;
		}
		volatile float step = 0.75f * d;
		assert_int_equal(whole[i], bf16_from_f32(bf16_to_f32(base[i]) + step));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_deltas_make_the_new_version, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_memory_is_used_in_turn, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_other_bases_are_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_wrong_base_is_found_out, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_hostile_deltas, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_delta_that_diverges, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_pairs_are_merged, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_hostile_pairs, set_up, tear_down),
		cmocka_unit_test(test_merge_has_no_seams),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

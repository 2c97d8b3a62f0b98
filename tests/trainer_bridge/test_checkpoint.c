/* test_checkpoint.c - a trainer that goes on from its file makes the bits that it would have made; damaged and foreign
 * files are refused. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "tests/support/model_dir.h"
#include "tests/support/random_model.h"
#include "trainer_bridge/trainer/checkpoint.h"
#include "trainer_bridge/trainer/objective.h"

enum { LENGTH = 6 };

static char dir[MODEL_DIR_PATH_MAX], path[MODEL_DIR_PATH_MAX + 32];

static int make_dir(void **state)
{
	(void)state;
	model_dir_make(dir);
	snprintf(path, sizeof path, "%s/trainer.ckpt", dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	model_dir_remove(dir);
	return 0;
}

static void next_token(void *context, int sequence, int token, float *logits)
{
	const struct train_sequence *s = context;
	(void)sequence;
	objective_backward(logits, 96, 1, s->tokens[token], -0.2f);
}

/* Update number `at`, on tokens of its own. */
static void update(struct learner *learner, uint64_t at)
{
	int32_t tokens[LENGTH];
	for (int i = 0; i < LENGTH; i++) tokens[i] = (int32_t)(random_bits(&at) % 96);
	struct train_sequence sequence = { tokens, LENGTH, 1 };
	const struct adamw_options options = { 0.003f, 0.9f, 0.95f, 0.01f };
	learner_pass(learner, NULL, &sequence, 1, true, next_token, &sequence);
	assert_true(learner_update(learner, &options, 1) > 0);
}

static struct learner *fresh(struct weights *weights)
{
	struct model_config config = random_model_small();
	random_model(weights, &config, 2);
	return learner_open(weights, 1);
}

static void release(struct learner *learner, struct weights *weights)
{
	learner_close(learner);
	weights_free(weights);
}

static void write_after(struct learner *learner, int n)
{
	struct err err;
	const struct checkpoint checkpoint = { .run_id = "run-1", .version = n, .batch_id = 40 + (uint64_t)n };
	for (int i = 0; i < n; i++) update(learner, (uint64_t)i);
	if (checkpoint_write(path, &checkpoint, learner, n % 2, &err)) fail_msg("%s", err.text);
}

static void test_goes_on_with_the_same_bits(void **state)
{
	(void)state;
	struct weights whole, first, second;
	struct checkpoint at;
	struct err err;
	struct learner *a = fresh(&whole), *b = fresh(&first), *c = fresh(&second);
	for (int i = 0; i < 5; i++) update(a, (uint64_t)i);
	write_after(b, 3);
	if (checkpoint_read(path, &at, c, &err)) fail_msg("%s", err.text);
	assert_string_equal(at.run_id, "run-1");
	assert_int_equal(at.version, 3);
	assert_int_equal(at.batch_id, 43);
	assert_memory_equal(first.data, second.data, 2 * first.n_elements);
	assert_memory_equal(learner_params(b), learner_params(c), sizeof(float) * first.n_elements);
	for (int i = 3; i < 5; i++) update(c, (uint64_t)i);
	assert_memory_equal(whole.data, second.data, 2 * whole.n_elements);
	assert_memory_equal(learner_adamw(a)->v, learner_adamw(c)->v, sizeof(float) * whole.n_elements);
	assert_int_equal(model_dir_count(dir), 1); /* nothing beside it */
	release(a, &whole);
	release(b, &first);
	release(c, &second);
}

static size_t size_after(struct learner *learner, int n)
{
	struct checkpoint at;
	struct err err;
	size_t n_bytes;

	write_after(learner, n);
	if (checkpoint_read(path, &at, learner, &err)) fail_msg("%s", err.text);
	assert_int_equal(at.version, n);
	free(model_dir_get(dir, "trainer.ckpt", &n_bytes));
	return n_bytes;
}

/* Two files change places: whatever is left of the one before the last does no harm. */
static void test_every_one_replaces_the_one_before(void **state)
{
	(void)state;
	struct weights weights;
	struct learner *learner = fresh(&weights);
	size_t n_bytes = size_after(learner, 2);
	assert_int_equal(size_after(learner, 4), n_bytes);
	unsigned char *longer = calloc(1, n_bytes + 7); /* half written when its writer died, and of a larger model */
	assert_non_null(longer);
	model_dir_put(dir, "trainer.ckpt.spare", longer, n_bytes + 7);
	assert_int_equal(size_after(learner, 6), n_bytes);
	assert_int_equal(size_after(learner, 8), n_bytes);
	assert_int_equal(model_dir_count(dir), 2);
	free(longer);
	release(learner, &weights);
}

static void test_damaged_and_foreign_files(void **state)
{
	(void)state;
	struct weights weights, other;
	struct checkpoint at;
	struct err err;
	struct learner *learner = fresh(&weights);
	assert_int_equal(checkpoint_read(path, &at, learner, &err), ERR_MISSING);
	write_after(learner, 1);
	size_t n_bytes;
	unsigned char *bytes = model_dir_get(dir, "trainer.ckpt", &n_bytes);
	uint16_t before = weights.data[0];
	for (size_t i = 0; i < n_bytes; i += 1 + n_bytes / 300) {
		bytes[i] ^= 4;
		model_dir_put(dir, "trainer.ckpt", bytes, n_bytes);
		assert_int_equal(checkpoint_read(path, &at, learner, &err), ERR_INVALID);
		assert_non_null(strstr(err.text, "trainer.ckpt"));
		bytes[i] ^= 4;
	}
	const size_t cuts[] = { 0, 1, 100, 119, 120, n_bytes / 2, n_bytes - 1 };
	for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
		model_dir_put(dir, "trainer.ckpt", bytes, cuts[i]);
		assert_true(checkpoint_read(path, &at, learner, &err) < 0);
	}
	assert_int_equal(weights.data[0], before); /* a refused file changes nothing */
	model_dir_put(dir, "trainer.ckpt", bytes, n_bytes);
	assert_int_equal(checkpoint_read(path, &at, learner, &err), 0);
	free(bytes);

	struct model_config config = random_model_config(32, 1, 2, 1, 64, 96, 64);
	random_model(&other, &config, 5);
	struct learner *stranger = learner_open(&other, 1);
	assert_int_equal(checkpoint_read(path, &at, stranger, &err), ERR_INVALID);
	assert_non_null(strstr(err.text, "another model"));
	release(stranger, &other);
	release(learner, &weights);
}

static void test_one_trainer_at_a_time(void **state)
{
	(void)state;
	struct err err;
	int ready[2];
	char byte;
	assert_int_equal(pipe(ready), 0);
	pid_t holder = fork();
	if (holder == 0) { /* holds it for a moment */
		if (checkpoint_lock(path, 0, &err) || write(ready[1], "x", 1) != 1) _exit(1);
		nanosleep(&(struct timespec){ .tv_nsec = 300000000 }, NULL);
		_exit(0);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(checkpoint_lock(path, 0, &err), ERR_STATE);
	assert_non_null(strstr(err.text, "another trainer"));
	assert_int_equal(checkpoint_lock(path, 60, &err), 0); /* it is waited for */
	int status;
	assert_int_equal(waitpid(holder, &status, 0), holder);
	assert_int_equal(status, 0);
	close(ready[0]);
	close(ready[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_goes_on_with_the_same_bits, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_every_one_replaces_the_one_before, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_damaged_and_foreign_files, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_one_trainer_at_a_time, make_dir, remove_dir),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

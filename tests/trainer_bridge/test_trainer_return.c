/* test_trainer_return.c - the reference trainer comes back to a run that lost what it had pushed, or has it on its way:
 * which refusals of its push are forgiven. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include <math.h>

#include "tests/support/bridge_server.h"
#include "tests/support/model_dir.h"
#include "tests/support/random_model.h"
#include "trainer_bridge/client/client.h"
#include "trainer_bridge/trainer/adamw.h"
#include "trainer_bridge/trainer/checkpoint.h"
#include "trainer_bridge/trainer/trainer.h"

#define WORKS(call) do { if (call) fail_msg("%s", err.text); } while (0)

enum { RUN_VERSION = 3, OWN_VERSION = 5 };

static char model_path[MODEL_DIR_PATH_MAX], own_path[MODEL_DIR_PATH_MAX]; /* of version 0; the trainer's checkpoint */
static struct weights base;

static int make_model(void **state)
{
	struct model_config config = random_model_small();
	struct err err;

	(void)state;
	model_dir_make(model_path);
	model_dir_make(own_path);
	WORKS(random_model_save(model_path, &config, 3, &err));
	WORKS(weights_load(&base, model_path, &err));
	return 0;
}

static int remove_model(void **state)
{
	(void)state;
	weights_free(&base);
	model_dir_remove(model_path);
	model_dir_remove(own_path);
	return 0;
}

/* The trainer had trained on batch 1 and pushed OWN_VERSION; `first` is the first of its master values. */
static void keep_checkpoint(float first)
{
	struct checkpoint at = { .run_id = "run-1", .version = OWN_VERSION, .batch_id = 1 };
	struct weights weights;
	char path[MODEL_DIR_PATH_MAX + 16];
	struct err err;

	WORKS(weights_load(&weights, model_path, &err));
	struct learner *learner = learner_open(&weights, 1);
	learner_adamw(learner)->master[0] = first;
	snprintf(path, sizeof path, "%s/ckpt", own_path);
	WORKS(checkpoint_write(path, &at, learner, false, &err));
	learner_close(learner);
	weights_free(&weights);
}

/* Its exit status, once it has been told that the run is over or has given up. */
static int trainer_returns(const char *address)
{
	char model[MODEL_DIR_PATH_MAX + 32], checkpoint[MODEL_DIR_PATH_MAX + 32], connect[300];
	char name[] = "trainer", config[] = "configs/quickstart/run.yaml", flag[] = "--connect", set[] = "--set", lock[] = "--set";

	snprintf(model, sizeof model, "model.path=%s", model_path);
	snprintf(checkpoint, sizeof checkpoint, "trainer.checkpoint=%s/ckpt", own_path);
	snprintf(connect, sizeof connect, "%s", address);
	char *argv[] = { name, config, flag, connect, set, model, lock, checkpoint, NULL };
	return trainer_command(8, argv);
}

static void test_what_the_run_lost_is_pushed_again(void **state)
{
	struct bridge_server bridge;

	(void)state;
	keep_checkpoint(0.5f);
	bridge_server_start(&bridge, (struct server_options){ .version = RUN_VERSION });
	bridge_lock(&bridge);
	server_finish(bridge.server);
	bridge_unlock(&bridge);
	assert_int_equal(trainer_returns(bridge.address), EXIT_SUCCESS);
	bridge_lock(&bridge);
	assert_int_equal(bridge.seen.version, OWN_VERSION);
	bridge_unlock(&bridge);
	bridge_server_stop(&bridge);
}

/* The same code on the wire, for another reason. */
static void test_weights_that_are_not_finite_end_it(void **state)
{
	const float bad[] = { NAN, INFINITY };

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct bridge_server bridge;
		keep_checkpoint(bad[i]);
		bridge_server_start(&bridge, (struct server_options){ .version = RUN_VERSION });
		bridge_lock(&bridge);
		server_finish(bridge.server);
		bridge_unlock(&bridge);
		assert_int_equal(trainer_returns(bridge.address), EXIT_FAILURE);
		bridge_lock(&bridge);
		assert_int_equal(bridge.seen.versions, 0);
		bridge_unlock(&bridge);
		bridge_server_stop(&bridge);
	}
}

static void expect_push(struct client *client, int64_t version, const struct weights *weights, int code, bool not_new)
{
	struct err err = { 0 };

	if (client_push_weights(client, version, weights, 1 << 16, &err) != code) fail_msg("version %d: %s", (int)version, err.text);
	assert_int_equal(client_push_was_not_new(client), not_new);
}

/* The run's version moves between its greeting and the push. */
static void test_only_the_number_makes_a_push_not_new(void **state)
{
	struct bridge_server bridge;
	struct weights broken;
	struct client *client;
	struct err err;

	(void)state;
	WORKS(weights_load(&broken, model_path, &err));
	broken.data[7] = 0x7fc0; /* NaN */
	bridge_server_start(&bridge, (struct server_options){ .version = RUN_VERSION });
	WORKS(client_open(&client, bridge.address, NULL, "a", 5, 20, &err));
	assert_int_equal(client_version(client), RUN_VERSION);
	bridge_lock(&bridge);
	server_set_version(bridge.server, OWN_VERSION);
	bridge_unlock(&bridge);
	expect_push(client, OWN_VERSION, &base, ERR_INVALID, true);
	expect_push(client, OWN_VERSION + 1, &broken, ERR_INVALID, false);
	expect_push(client, OWN_VERSION - 1, &broken, ERR_INVALID, true);
	expect_push(client, OWN_VERSION + 1, &base, 0, false);
	bridge.refuse_weights = ERR_INVALID; /* by the engine, when all of it is there */
	expect_push(client, OWN_VERSION + 2, &base, ERR_INVALID, false);
	client_close(client);
	bridge_server_stop(&bridge);
	weights_free(&broken);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_the_run_lost_is_pushed_again),
		cmocka_unit_test(test_weights_that_are_not_finite_end_it),
		cmocka_unit_test(test_only_the_number_makes_a_push_not_new),
	};
	return cmocka_run_group_tests(tests, make_model, remove_model);
}

/* test_python_client.c - trainer_bridge/python/ against a live server; python_peer.py and python_breaks.py do the
 * talking. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "tests/support/bridge_server.h"

enum { BREAKS_SEEDS = 6, BREAKS_BATCHES = 24 };

/* The first Python that has msgpack and numpy: the system's, where the package is installed, may not be the first in PATH. */
static const char *find_python(void)
{
	static const char *const known[] = {"python3", "/usr/bin/python3"};

	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		char command[128];
		snprintf(command, sizeof command, "%s -c 'import msgpack, numpy' 2>/dev/null", known[i]);
		if (system(command) == 0)
			return known[i];
	}
	return NULL;
}

static void check_weights(const struct weights *weights)
{
	for (int i = 0; i < weights->n_tensors; i++) {
		const struct weight_tensor *tensor = &weights->tensors[i];
		size_t n = (size_t)tensor->rows * (size_t)tensor->cols;
		for (size_t k = 0; k < n; k++)
			if (weights->data[tensor->offset + k] != (i % 2 ? 0x3f00 + (k + (size_t)i) % 256 : 0x3f81))
				fail_msg("%s[%zu] is %04x", tensor->name, k, weights->data[tensor->offset + k]);
	}
}

static void converse(struct server_options options)
{
	const char *python = find_python();
	struct bridge_server bridge;
	char command[512];

	if (!python) {
		printf("no Python with msgpack and numpy (Debian: python3-msgpack, python3-numpy)\n");
		skip();
	}
	options.secret = "correct horse";
	bridge_server_start(&bridge, options);
	for (uint64_t id = 1; id <= 3; id++)
		bridge_put_batch(&bridge, id, 30 * (int)id, 9);
	bridge_lock(&bridge);
	server_finish(bridge.server);
	bridge_unlock(&bridge);
	snprintf(command, sizeof command, "%s -B tests/trainer_bridge/python_peer.py %s 'correct horse'", python,
	         bridge.address);
	fflush(stdout);
	if (system(command) != 0)
		fail_msg("python_peer.py has failed");
	bridge_lock(&bridge);
	assert_int_equal(bridge.seen.n_acked, 3);
	assert_int_equal(bridge.seen.versions, 3);
	assert_int_equal(bridge.seen.reports, 3);
	assert_int_equal(bridge.seen.report.tokens, 5);
	assert_true(bridge.seen.report.loss == 0.75);
	check_weights(&bridge.seen.weights);
	bridge_unlock(&bridge);
	bridge_server_stop(&bridge);
}

static void test_over_a_unix_socket(void **state)
{
	(void)state;
	converse((struct server_options){0});
}

static void test_over_tcp_with_small_frames(void **state)
{
	(void)state;
	converse((struct server_options){.listen = "tcp:127.0.0.1:0", .frame_bytes_max = 8192});
}

/* BREAKS_SEEDS worlds of cut connections, DRUMROLL_LONG of them where that is set. */
static void test_connections_that_break(void **state)
{
	const char *python = find_python(), *wanted = getenv("DRUMROLL_LONG");
	int n_seeds = wanted && atoi(wanted) > 0 ? atoi(wanted) : BREAKS_SEEDS;

	(void)state;
	if (!python) {
		printf("no Python with msgpack and numpy (Debian: python3-msgpack, python3-numpy)\n");
		skip();
	}
	for (int seed = 1; seed <= n_seeds; seed++) {
		struct bridge_server bridge;
		char command[512];

		bridge_server_start(&bridge, (struct server_options){.secret = "correct horse", .frame_bytes_max = 4096});
		for (uint64_t id = 1; id <= BREAKS_BATCHES; id++)
			bridge_put_batch(&bridge, id, 12, 9);
		bridge_lock(&bridge);
		server_finish(bridge.server);
		bridge_unlock(&bridge);
		snprintf(command, sizeof command, "%s -B tests/trainer_bridge/python_breaks.py %s 'correct horse' %d", python,
		         bridge.address, seed);
		fflush(stdout);
		if (system(command) != 0)
			fail_msg("python_breaks.py has failed with seed %d", seed);
		bridge_lock(&bridge);
		assert_int_equal(bridge.seen.n_acked, BREAKS_BATCHES);
		for (int i = 0; i < BREAKS_BATCHES; i++)
			assert_int_equal(bridge.seen.acked[i], i + 1);
		assert_int_equal(bridge.seen.versions, BREAKS_BATCHES);
		assert_int_equal(bridge.seen.version, BREAKS_BATCHES);
		bridge_unlock(&bridge);
		bridge_server_stop(&bridge);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_over_a_unix_socket),
		cmocka_unit_test(test_over_tcp_with_small_frames),
		cmocka_unit_test(test_connections_that_break),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_server.c - server and client together over real sockets: delivery, weights, secrets, listening. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/support/bridge_fixture.h"
#include "tests/support/bridge_server.h"
#include "tests/support/random_model.h"
#include "trainer_bridge/client/client.h"

static struct client *connect_client(const struct bridge_server *bridge, const char *secret, const char *name)
{
	struct client *client;
	struct err err;

	if (client_open(&client, bridge->address, secret, name, 1, 5, &err))
		fail_msg("%s", err.text);
	return client;
}

static void pull(struct client *client, uint64_t batch_id, int n, int32_t n_response)
{
	struct client_batch batch;
	struct err err;

	if (client_pull(client, &batch, 5, &err))
		fail_msg("%s", err.text);
	assert_int_equal(batch.batch_id, batch_id);
	assert_int_equal(batch.step, batch_id);
	assert_int_equal(batch.version, 7);
	assert_int_equal(batch.n, n);
	for (int i = 0; i < n; i++) {
		struct trajectory *expected = bridge_batch_item(batch_id, i, n_response);
		assert_true(bridge_same_trajectory(batch.trajectories[i], expected));
		trajectory_free(expected);
	}
	client_batch_free(&batch);
}

static void ack(struct client *client, uint64_t batch_id)
{
	struct err err;

	if (client_ack(client, batch_id, &err))
		fail_msg("%s", err.text);
}

static void fails_to_pull(struct client *client, double seconds, int code, const char *said)
{
	struct client_batch batch;
	struct err err;

	assert_int_equal(client_pull(client, &batch, seconds, &err), code);
	if (!strstr(err.text, said))
		fail_msg("'%s' does not say '%s'", err.text, said);
}

/* ---- batches ---- */

static void deliver(struct server_options options)
{
	struct bridge_server bridge;
	struct client_batch batch;
	struct err err;

	bridge_server_start(&bridge, options);
	struct client *client = connect_client(&bridge, options.secret, "trainer \xc3\xa9");
	bridge_await(&bridge, &bridge.seen.joined, 1);
	assert_string_equal(bridge.seen.last_name, "trainer \xc3\xa9");
	assert_string_equal(client_run_id(client), "run-1");
	for (uint64_t id = 1; id <= 5; id++) {
		bridge_put_batch(&bridge, id, (int)id * 40, 9);
		pull(client, id, (int)id * 40, 9);
		ack(client, id);
		bridge_await(&bridge, &bridge.seen.n_acked, (int)id);
		assert_int_equal(bridge.seen.acked[id - 1], id);
	}
	bridge_lock(&bridge);
	assert_int_equal(server_unacknowledged(bridge.server), 0);
	server_finish(bridge.server);
	bridge_unlock(&bridge);
	assert_int_equal(client_pull(client, &batch, 5, &err), 0);
	assert_int_equal(batch.n, 0); /* the run is over, and stays so */
	assert_int_equal(client_pull(client, &batch, 5, &err), 0);
	assert_int_equal(batch.n, 0);
	client_close(client);
	bridge_await(&bridge, &bridge.seen.left, 1);
	assert_string_equal(bridge.seen.last_why, "said goodbye");
	bridge_server_stop(&bridge);
}

static void test_batches_over_a_unix_socket(void **state)
{
	(void)state;
	deliver((struct server_options){0});
}

static void test_batches_over_tcp_with_a_secret(void **state)
{
	(void)state;
	deliver((struct server_options){.listen = "tcp:127.0.0.1:0", .secret = "correct horse battery"});
}

static void test_batches_in_many_parts(void **state)
{
	(void)state;
	deliver((struct server_options){.frame_bytes_max = 4096});
}

static void test_what_is_not_acknowledged_comes_again(void **state)
{
	struct bridge_server bridge;

	(void)state;
	bridge_server_start(&bridge, (struct server_options){.credits_max = 3});
	for (uint64_t id = 1; id <= 4; id++)
		bridge_put_batch(&bridge, id, 3, 5);
	struct client *client = connect_client(&bridge, NULL, "first");
	pull(client, 1, 3, 5);
	pull(client, 2, 3, 5);
	ack(client, 1);
	pull(client, 3, 3, 5);
	bridge_await(&bridge, &bridge.seen.n_acked, 1);
	client_close(client);
	bridge_await(&bridge, &bridge.seen.left, 1);

	client = connect_client(&bridge, NULL, "second");
	pull(client, 2, 3, 5);
	ack(client, 2);
	ack(client, 2);  /* twice is once */
	ack(client, 99); /* never was: ignored */
	pull(client, 3, 3, 5);
	ack(client, 3);
	pull(client, 4, 3, 5);
	ack(client, 4);
	bridge_await(&bridge, &bridge.seen.n_acked, 4);
	fails_to_pull(client, 0.05, ERR_TIMEOUT, "time allowed");
	bridge_put_batch(&bridge, 5, 1, 1); /* the pull that timed out still counts */
	pull(client, 5, 1, 1);
	client_close(client);
	for (uint64_t id = 1; id <= 4; id++)
		assert_int_equal(bridge.seen.acked[id - 1], id);
	bridge_server_stop(&bridge);
}

/* It handled the batch, and its acknowledgement was lost with the connection. */
static void test_a_late_acknowledgement_counts_before_pulling(void **state)
{
	struct bridge_server bridge;

	(void)state;
	bridge_server_start(&bridge, (struct server_options){0});
	bridge_put_batch(&bridge, 1, 3, 5);
	bridge_put_batch(&bridge, 2, 3, 5);
	struct client *client = connect_client(&bridge, NULL, "first");
	pull(client, 1, 3, 5);
	client_close(client);
	client = connect_client(&bridge, NULL, "again");
	ack(client, 1);
	pull(client, 2, 3, 5);
	client_close(client);
	bridge_server_stop(&bridge);
}

static void test_a_batch_has_one_holder(void **state)
{
	struct bridge_server bridge;

	(void)state;
	bridge_server_start(&bridge, (struct server_options){0});
	bridge_put_batch(&bridge, 1, 2, 5);
	struct client *a = connect_client(&bridge, NULL, "a"), *b = connect_client(&bridge, NULL, "b");
	bridge_await(&bridge, &bridge.seen.joined, 2);
	pull(a, 1, 2, 5);
	fails_to_pull(b, 0.05, ERR_TIMEOUT, "");
	ack(b, 1);
	fails_to_pull(b, 5, ERR_STATE, "given to another peer");
	bridge_put_batch(&bridge, 2, 2, 5);
	pull(b, 2, 2, 5);
	client_close(a);
	pull(b, 1, 2, 5); /* the one that a left behind */
	ack(b, 1);
	ack(b, 2);
	bridge_await(&bridge, &bridge.seen.n_acked, 2);
	client_close(b);
	bridge_server_stop(&bridge);
}

static void test_a_vanished_server_is_an_error(void **state)
{
	struct bridge_server bridge;
	struct client *client;
	struct err err;

	(void)state;
	bridge_server_start(&bridge, (struct server_options){0});
	client = connect_client(&bridge, NULL, "a");
	bridge_server_stop(&bridge);
	fails_to_pull(client, 5, ERR_PEER, "the run");
	client_close(client);
	assert_int_equal(client_open(&client, bridge.address, NULL, "a", 0.1, 5, &err), ERR_IO);
	assert_non_null(strstr(err.text, "is it running"));
}

/* ---- weights and reports ---- */

static void push_fails(struct client *client, int64_t version, const struct weights *weights, int code,
                       const char *said)
{
	struct err err;

	assert_int_equal(client_push_weights(client, version, weights, 1000, &err), code);
	if (!strstr(err.text, said))
		fail_msg("'%s' does not say '%s'", err.text, said);
}

static void test_weights_arrive(void **state)
{
	struct bridge_server bridge;
	struct weights weights;
	struct err err;

	(void)state;
	bridge_server_start(&bridge,
	                    (struct server_options){.listen = "tcp:127.0.0.1:0", .frame_bytes_max = 8192});
	struct client *client = connect_client(&bridge, NULL, "a");
	for (int64_t version = 1; version < 4; version++) {
		random_model(&weights, &bridge.config, (uint64_t)version);
		if (client_push_weights(client, version, &weights, version == 1 ? 1 << 20 : 1000, &err))
			fail_msg("%s", err.text);
		assert_int_equal(client_version(client), version);
		bridge_lock(&bridge);
		assert_int_equal(bridge.seen.version, version);
		assert_memory_equal(bridge.seen.weights.data, weights.data, 2 * weights.n_elements);
		bridge_unlock(&bridge);
		weights_free(&weights);
	}
	client_close(client);
	client = connect_client(&bridge, NULL, "b");
	assert_int_equal(client_version(client), 3);
	client_close(client);
	bridge_server_stop(&bridge);
}

static void test_refused_weights_leave_all_as_it_was(void **state)
{
	struct bridge_server bridge;
	struct weights weights, shrunk;
	struct model_config config;
	struct err err;

	(void)state;
	bridge_server_start(&bridge, (struct server_options){.version = 4});
	config = bridge.config;
	config.ffn_dim -= 8;
	random_model(&weights, &bridge.config, 1);
	random_model(&shrunk, &config, 1);
	struct client *client = connect_client(&bridge, NULL, "a");
	push_fails(client, 4, &weights, ERR_INVALID, "push 5 or more");
	push_fails(client, 5, &shrunk, ERR_INCOMPLETE,
	           "gate_proj.weight': expected 20480 bytes (160 x 64 bf16), found 19456");
	weights.n_tensors--;
	push_fails(client, 5, &weights, ERR_INCOMPLETE,
	           "lacks 1 of 20 tensors, the first is 'model.norm.weight'");
	weights.n_tensors++;
	bridge_lock(&bridge);
	bridge.refuse_weights = ERR_MEMORY;
	bridge_unlock(&bridge);
	push_fails(client, 5, &weights, ERR_MEMORY, "the engine does not want it (memory, may be tried again)");
	bridge_lock(&bridge);
	bridge.refuse_weights = 0;
	assert_int_equal(bridge.seen.versions, 0);
	bridge_unlock(&bridge);
	assert_int_equal(client_push_weights(client, 5, &weights, 1000, &err), 0);
	bridge_await(&bridge, &bridge.seen.versions, 1);
	client_close(client);
	weights_free(&weights);
	weights_free(&shrunk);
	bridge_server_stop(&bridge);
}

static void test_batches_and_weights_cross(void **state)
{
	struct bridge_server bridge;
	struct weights weights;
	struct err err;

	(void)state;
	bridge_server_start(&bridge, (struct server_options){.frame_bytes_max = 16384});
	random_model(&weights, &bridge.config, 1);
	struct client *client = connect_client(&bridge, NULL, "a");
	fails_to_pull(client, 0.01, ERR_TIMEOUT, "");
	bridge_put_batch(&bridge, 1, 2000, 100); /* megabytes that come while weights go */
	for (int64_t version = 1; version < 6; version++)
		assert_int_equal(client_push_weights(client, version, &weights, 512, &err), 0);
	pull(client, 1, 2000, 100);
	ack(client, 1);
	client_close(client);
	weights_free(&weights);
	bridge_server_stop(&bridge);
}

static void test_reports_arrive(void **state)
{
	const struct trainer_report sent = {.step = 3,
	                                    .loss = -0.5,
	                                    .grad_norm = 1.5,
	                                    .kl = 1e-3,
	                                    .clip_frac = 0.25,
	                                    .entropy = 2,
	                                    .tis_mean = 0.99,
	                                    .learning_rate = 2e-4,
	                                    .seconds = 9,
	                                    .tokens = 77};
	struct bridge_server bridge;
	struct err err;

	(void)state;
	bridge_server_start(&bridge, (struct server_options){0});
	struct client *client = connect_client(&bridge, NULL, "a");
	assert_int_equal(client_report(client, &sent, &err), 0);
	bridge_await(&bridge, &bridge.seen.reports, 1);
	assert_memory_equal(&bridge.seen.report, &sent, sizeof sent);
	client_close(client);
	bridge_server_stop(&bridge);
}

/* ---- secrets ---- */

static void open_fails(const struct bridge_server *bridge, const char *secret, const char *said)
{
	struct client *client;
	struct err err;

	assert_int_equal(client_open(&client, bridge->address, secret, "a", 1, 5, &err), ERR_PEER);
	assert_null(client);
	if (!strstr(err.text, said))
		fail_msg("'%s' does not say '%s'", err.text, said);
}

static void test_secrets_must_agree(void **state)
{
	struct bridge_server bridge;

	(void)state;
	bridge_server_start(&bridge, (struct server_options){.secret = "correct horse"});
	open_fails(&bridge, "wrong horse", "not the one of this run");
	open_fails(&bridge, NULL, "asks for a secret");
	client_close(connect_client(&bridge, "correct horse", "a"));
	bridge_server_stop(&bridge);
	bridge_server_start(&bridge, (struct server_options){0});
	open_fails(&bridge, "correct horse", "asked for none");
	bridge_server_stop(&bridge);
}

/* ---- listening ---- */

static void ignore_name(void *context, const char *name)
{
	(void)context;
	(void)name;
}

static void listen_fails(const char *address, const char *secret, int code, const char *said)
{
	struct model_config config = random_model_small();
	struct server_options options = {.listen = address,
	                                 .secret = secret,
	                                 .frame_bytes_max = 1 << 20,
	                                 .credits_max = 1,
	                                 .run_id = "x",
	                                 .model = &config};
	struct server_callbacks callbacks = {.peer_joined = ignore_name};
	struct server *server;
	struct err err;

	assert_int_equal(server_open(&server, &options, &callbacks, &err), code);
	assert_null(server);
	if (!strstr(err.text, said))
		fail_msg("'%s' does not say '%s'", err.text, said);
}

static void test_addresses_in_use_are_refused(void **state)
{
	struct bridge_server bridge;

	(void)state;
	bridge_server_start(&bridge, (struct server_options){.listen = "tcp:127.0.0.1:0"});
	listen_fails(bridge.address, NULL, ERR_IO, bridge.address);
	listen_fails(bridge.address, NULL, ERR_IO, "in use; stop the program");
	bridge_server_stop(&bridge);
	bridge_server_start(&bridge, (struct server_options){0});
	listen_fails(bridge.address, NULL, ERR_IO, "another run answers there");
	client_close(connect_client(&bridge, NULL, "a")); /* and the run there has not suffered */
	bridge_server_stop(&bridge);
}

static void test_stale_sockets_are_replaced_and_files_are_not(void **state)
{
	struct bridge_server bridge;
	char dir[] = "/tmp/bridge-XXXXXX", listen[128];
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct stat status;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(un.sun_path, sizeof un.sun_path, "%s/stale", dir);
	snprintf(listen, sizeof listen, "unix:%s", un.sun_path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
	close(fd); /* as a killed process leaves it */
	bridge_server_start(&bridge, (struct server_options){.listen = listen});
	client_close(connect_client(&bridge, NULL, "a"));
	assert_int_equal(stat(un.sun_path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	bridge_server_stop(&bridge);
	assert_int_equal(stat(un.sun_path, &status), -1);

	FILE *file = fopen(un.sun_path, "w");
	fputs("precious", file);
	fclose(file);
	listen_fails(listen, NULL, ERR_IO, "is no socket");
	assert_int_equal(stat(un.sun_path, &status), 0);
	assert_int_equal(status.st_size, 8);
	unlink(un.sun_path);
	rmdir(dir);
}

static void test_careless_options_are_refused(void **state)
{
	(void)state;
	listen_fails("tcp:*:0", NULL, ERR_CONFIG, "there is no secret");
	listen_fails("tcp:127.0.0.1:0", "short", ERR_CONFIG, "5 bytes, expected 8");
	listen_fails("unix:/nowhere/at/all/sock", NULL, ERR_IO, "/nowhere/at/all/sock");
	listen_fails("tcp:192.0.2.1:0", "long enough", ERR_IO, "address of this machine");
	listen_fails("carrier pigeon", NULL, ERR_USAGE, "carrier pigeon");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_batches_over_a_unix_socket),
		cmocka_unit_test(test_batches_over_tcp_with_a_secret),
		cmocka_unit_test(test_batches_in_many_parts),
		cmocka_unit_test(test_what_is_not_acknowledged_comes_again),
		cmocka_unit_test(test_a_late_acknowledgement_counts_before_pulling),
		cmocka_unit_test(test_a_batch_has_one_holder),
		cmocka_unit_test(test_a_vanished_server_is_an_error),
		cmocka_unit_test(test_weights_arrive),
		cmocka_unit_test(test_refused_weights_leave_all_as_it_was),
		cmocka_unit_test(test_batches_and_weights_cross),
		cmocka_unit_test(test_reports_arrive),
		cmocka_unit_test(test_secrets_must_agree),
		cmocka_unit_test(test_addresses_in_use_are_refused),
		cmocka_unit_test(test_stale_sockets_are_replaced_and_files_are_not),
		cmocka_unit_test(test_careless_options_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_micro_batches.c - order, announced lengths and micro-batches over real sockets: every group of a batch once, in
 * the order asked for, before the batch is complete, and all of it again where the peer left before its end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "tests/support/bridge_fixture.h"
#include "tests/support/bridge_server.h"
#include "trainer_bridge/client/client.h"

static struct client *connect_client(const struct bridge_server *bridge, struct client_options options)
{
	struct client *client;
	struct err err;

	options.address = bridge->address;
	options.name = options.name ? options.name : "trainer";
	options.connect_seconds = 1;
	options.timeout_seconds = 5;
	if (client_open_with(&client, &options, &err))
		fail_msg("%s", err.text);
	return client;
}

/* Samples 0 and 1 of a group, completed in the order in which they are put. */
static void put_group(struct bridge_server *bridge, uint64_t batch_id, uint64_t group, uint64_t completed)
{
	struct trajectory *items[2] = {bridge_trajectory(group, 0, (int32_t)group), bridge_trajectory(group, 1, 3)};

	bridge_lock(bridge);
	server_put_group(bridge->server, batch_id, (int64_t)batch_id, 7, completed, items, 2);
	bridge_unlock(bridge);
	trajectory_free(items[0]);
	trajectory_free(items[1]);
}

static void end_batch(struct bridge_server *bridge, uint64_t batch_id)
{
	bridge_lock(bridge);
	server_end_batch(bridge->server, batch_id, 8);
	bridge_unlock(bridge);
}

static enum server_stream streams(struct bridge_server *bridge)
{
	bridge_lock(bridge);
	enum server_stream stream = server_streams(bridge->server);
	bridge_unlock(bridge);
	return stream;
}

/* A section with these groups, in order, both samples of each. */
static void expect_section(struct client *client, uint64_t batch_id, int64_t micro, const uint64_t *groups, int n)
{
	struct client_batch batch;
	struct err err;

	if (client_pull(client, &batch, 5, &err))
		fail_msg("%s", err.text);
	assert_int_equal(batch.batch_id, batch_id);
	assert_int_equal(batch.micro, micro);
	assert_false(batch.ended);
	assert_int_equal(batch.n, 2 * n);
	for (int i = 0; i < 2 * n; i++) {
		struct trajectory *expected =
			bridge_trajectory(groups[i / 2], i % 2, i % 2 ? 3 : (int32_t)groups[i / 2]);
		assert_true(bridge_same_trajectory(batch.trajectories[i], expected));
		trajectory_free(expected);
	}
	client_batch_free(&batch);
}

static void expect_end(struct client *client, uint64_t batch_id)
{
	struct client_batch batch;
	struct err err;

	if (client_pull(client, &batch, 5, &err))
		fail_msg("%s", err.text);
	assert_true(batch.ended && batch.n == 0);
	assert_int_equal(batch.batch_id, batch_id);
	assert_int_equal(batch.version, 8);
}

static void expect_nothing(struct client *client)
{
	struct client_batch batch;
	struct err err;

	assert_int_equal(client_pull(client, &batch, 0.05, &err), ERR_TIMEOUT);
}

static void ack(struct client *client, uint64_t batch_id)
{
	struct err err;

	assert_int_equal(client_ack(client, batch_id, &err), 0);
}

static void test_orders_of_a_whole_batch(void **state)
{
	const uint64_t prompt[] = {3, 5, 8}, completion[] = {8, 3, 5};
	struct bridge_server bridge;

	(void)state;
	bridge_server_start(&bridge, (struct server_options){0});
	for (int by_completion = 0; by_completion < 2; by_completion++) {
		uint64_t id = 1 + (uint64_t)by_completion;
		put_group(&bridge, id, 8, 1);
		put_group(&bridge, id, 5, 3);
		put_group(&bridge, id, 3, 2);
		end_batch(&bridge, id);
		struct client *client = connect_client(&bridge, (struct client_options){.by_completion = by_completion});
		expect_section(client, id, -1, by_completion ? completion : prompt, 3);
		ack(client, id);
		client_close(client);
	}
	bridge_await(&bridge, &bridge.seen.n_acked, 2);
	bridge_server_stop(&bridge);
}

/* Two by two as they come; the last one has what is left. */
static void test_groups_stream_before_the_batch_ends(void **state)
{
	const uint64_t groups[] = {9, 4, 6, 2, 7};
	struct bridge_server bridge;
	struct err err;

	(void)state;
	bridge_server_start(&bridge, (struct server_options){.frame_bytes_max = 4096});
	assert_int_equal(streams(&bridge), SERVER_WHOLE);
	struct client *client = connect_client(&bridge, (struct client_options){.by_completion = true, .micro_groups = 2});
	assert_int_equal(streams(&bridge), SERVER_WHOLE); /* it has not asked for one */
	expect_nothing(client);
	for (int i = 0; i < 200 && streams(&bridge) == SERVER_WHOLE; i++)
		expect_nothing(client);
	assert_int_equal(streams(&bridge), SERVER_STREAM_COMPLETION);
	put_group(&bridge, 1, groups[0], 1);
	expect_nothing(client); /* one does not make a micro-batch */
	put_group(&bridge, 1, groups[1], 2);
	expect_section(client, 1, 0, groups, 2);
	assert_int_equal(streams(&bridge), SERVER_STREAM_COMPLETION); /* its credit is used up, the batch goes on */
	ack(client, 1);
	struct client_batch batch;
	assert_int_equal(client_pull(client, &batch, 5, &err), ERR_STATE);
	assert_non_null(strstr(err.text, "not complete"));
	put_group(&bridge, 1, groups[2], 3);
	put_group(&bridge, 1, groups[3], 4);
	put_group(&bridge, 1, groups[4], 5);
	expect_section(client, 1, 1, groups + 2, 2);
	expect_nothing(client);
	end_batch(&bridge, 1);
	expect_section(client, 1, 2, groups + 4, 1);
	expect_end(client, 1);
	ack(client, 1);
	bridge_await(&bridge, &bridge.seen.n_acked, 1);
	assert_int_equal(streams(&bridge), SERVER_WHOLE);
	client_close(client);
	bridge_server_stop(&bridge);
}

/* What a peer left behind before the end is given again from its beginning: to one that streams at once, to one
 * that does not when the batch is complete. */
static void test_an_unfinished_batch_comes_again(void **state)
{
	const uint64_t groups[] = {1, 2, 3};
	struct bridge_server bridge;

	(void)state;
	bridge_server_start(&bridge, (struct server_options){0});
	struct client *first = connect_client(&bridge, (struct client_options){.micro_groups = 1});
	expect_nothing(first);
	put_group(&bridge, 4, 1, 1);
	expect_section(first, 4, 0, groups, 1);
	put_group(&bridge, 4, 2, 2);
	client_close(first);
	bridge_await(&bridge, &bridge.seen.left, 1);

	struct client *other = connect_client(&bridge, (struct client_options){.by_completion = true, .micro_groups = 1});
	expect_nothing(other); /* the open batch comes in another order than it wants */
	struct client *second = connect_client(&bridge, (struct client_options){.micro_groups = 1});
	expect_section(second, 4, 0, groups, 1);
	expect_section(second, 4, 1, groups + 1, 1);
	client_close(second);
	bridge_await(&bridge, &bridge.seen.left, 2);
	client_close(other);
	bridge_await(&bridge, &bridge.seen.left, 3);

	struct client *whole = connect_client(&bridge, (struct client_options){0});
	expect_nothing(whole);
	ack(whole, 4); /* and nobody can have it all yet */
	struct client_batch batch;
	struct err err;
	assert_int_equal(client_pull(whole, &batch, 5, &err), ERR_STATE);
	put_group(&bridge, 4, 3, 3);
	end_batch(&bridge, 4);
	expect_section(whole, 4, -1, groups, 3);
	ack(whole, 4);
	bridge_await(&bridge, &bridge.seen.n_acked, 1);
	client_close(whole);
	bridge_server_stop(&bridge);
}

static void expect_lengths(struct client *client, uint64_t batch_id, int64_t micro, const uint64_t *groups, int n)
{
	struct client_lengths lengths;
	struct err err;

	if (client_lengths(client, &lengths, 5, &err))
		fail_msg("%s", err.text);
	assert_int_equal(lengths.batch_id, batch_id);
	assert_int_equal(lengths.micro, micro);
	assert_int_equal(lengths.n, 2 * n);
	for (int i = 0; i < 2 * n; i++) {
		struct trajectory *t = bridge_trajectory(groups[i / 2], i % 2, i % 2 ? 3 : (int32_t)groups[i / 2]);
		assert_int_equal(lengths.groups[i], groups[i / 2]);
		assert_int_equal(lengths.prompts[i], t->n_prompt);
		assert_int_equal(lengths.responses[i], trajectory_response_length(t));
		trajectory_free(t);
	}
}

/* More trajectories than one frame of lengths holds. */
static void test_lengths_are_announced(void **state)
{
	enum { N = 300 };
	uint64_t groups[N];
	struct bridge_server bridge;

	(void)state;
	bridge_server_start(&bridge, (struct server_options){.frame_bytes_max = 4096});
	for (int i = 0; i < N; i++) {
		groups[i] = 1 + (uint64_t)i;
		put_group(&bridge, 1, groups[i], groups[i]);
	}
	end_batch(&bridge, 1);
	struct client *client = connect_client(&bridge, (struct client_options){.lengths = true});
	expect_lengths(client, 1, -1, groups, N);
	expect_section(client, 1, -1, groups, N);
	ack(client, 1);
	client_close(client);
	bridge_await(&bridge, &bridge.seen.n_acked, 1);

	client = connect_client(&bridge, (struct client_options){.lengths = true, .micro_groups = 2});
	expect_nothing(client);
	put_group(&bridge, 2, 1, 1);
	put_group(&bridge, 2, 2, 2);
	expect_lengths(client, 2, 0, groups, 2); /* the batch is open yet */
	expect_section(client, 2, 0, groups, 2);
	end_batch(&bridge, 2);
	expect_end(client, 2);
	ack(client, 2);
	client_close(client);
	bridge_await(&bridge, &bridge.seen.n_acked, 2);
	bridge_server_stop(&bridge);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_orders_of_a_whole_batch),
		cmocka_unit_test(test_groups_stream_before_the_batch_ends),
		cmocka_unit_test(test_an_unfinished_batch_comes_again),
		cmocka_unit_test(test_lengths_are_announced),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

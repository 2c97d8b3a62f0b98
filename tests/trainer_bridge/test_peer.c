/* test_peer.c - the server's side of the protocol under damaged and shuffled frames, without sockets.
 *
 * The seeds are fixed; each round plays a decent conversation in which some frames are damaged, doubled,
 * dropped or cut, and checks what must hold whatever comes in: an answer to a refusal, no version half
 * taken, every batch waiting, held by the peer, or acknowledged.
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
#include "trainer_bridge/server/peer.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { ROUNDS = 4000, N_BATCHES = 3, FRAMES_MAX = 32 };

static struct {
	int joined, left, acked, versions, reports;
} seen;

static uint16_t sent[] = {1, 2, 3, 4, 5, 6}; /* vocabulary 2, dimension 2: embedding and norm */

static void on_joined(void *context, const char *name)
{
	(void)context;
	(void)name;
	seen.joined++;
}

static void on_left(void *context, const char *name, const char *why)
{
	(void)context;
	(void)name;
	(void)why;
	seen.left++;
}

static void on_acked(void *context, uint64_t batch_id)
{
	(void)context;
	assert_in_range(batch_id, 1, N_BATCHES);
	seen.acked++;
}

static int on_weights(void *context, int64_t version, const struct weights *weights, struct err *err)
{
	(void)context;
	(void)version;
	(void)err;
	assert_memory_equal(weights->data, sent, sizeof sent);
	seen.versions++;
	return 0;
}

static void on_report(void *context, const struct trainer_report *report)
{
	(void)context;
	(void)report;
	seen.reports++;
}

struct payload {
	uint8_t *bytes;
	size_t n_bytes;
};

struct script {
	struct payload frames[FRAMES_MAX];
	int n;
	struct message_writer *writer;
};

static struct message_writer *begin(struct script *script, enum frame_type type, uint32_t n_fields)
{
	message_writer_reset(script->writer);
	frame_begin(script->writer, type, n_fields);
	return script->writer;
}

static void end(struct script *script)
{
	size_t n_bytes;
	const void *bytes = message_bytes(script->writer, &n_bytes);
	struct payload *payload = &script->frames[script->n++];

	assert_true(script->n <= FRAMES_MAX);
	payload->bytes = malloc(n_bytes);
	payload->n_bytes = n_bytes;
	memcpy(payload->bytes, bytes, n_bytes);
}

static void script_tensor(struct script *script, const char *name, const uint16_t *data, size_t n)
{
	struct message_writer *w = begin(script, FRAME_WEIGHTS_CHUNK, 4);
	message_key(w, "version"); message_put_int(w, 1);
	message_key(w, "name"); message_put_text(w, name);
	message_key(w, "offset"); message_put_int(w, 0);
	message_key(w, "data"); message_put_bin(w, data, 2 * n);
	end(script);
	w = begin(script, FRAME_WEIGHTS_TENSOR, 3);
	message_key(w, "version"); message_put_int(w, 1);
	message_key(w, "name"); message_put_text(w, name);
	message_key(w, "xxh3"); message_put_uint(w, XXH3_64bits(data, 2 * n));
	end(script);
}

static void script_weights(struct script *script)
{
	struct message_writer *w = begin(script, FRAME_WEIGHTS_BEGIN, 2);
	message_key(w, "version"); message_put_int(w, 1);
	message_key(w, "encoding"); message_put_text(w, "full");
	end(script);
	script_tensor(script, "model.embed_tokens.weight", sent, 4);
	script_tensor(script, "model.norm.weight", sent + 4, 2);
	w = begin(script, FRAME_WEIGHTS_COMMIT, 1);
	message_key(w, "version"); message_put_int(w, 1);
	end(script);
}

static void write_script(struct script *script)
{
	const uint8_t nonce[NONCE_BYTES] = {0};
	struct message_writer *w = begin(script, FRAME_HELLO, 5);

	message_key(w, "protocol_min"); message_put_int(w, 1);
	message_key(w, "protocol_max"); message_put_int(w, 1);
	message_key(w, "name"); message_put_text(w, "fuzz");
	message_key(w, "role"); message_put_text(w, "trainer");
	message_key(w, "nonce"); message_put_bin(w, nonce, sizeof nonce);
	end(script);
	for (uint64_t id = 1; id <= N_BATCHES; id++) {
		w = begin(script, FRAME_PULL, 1);
		message_key(w, "credits"); message_put_int(w, 1);
		end(script);
		w = begin(script, FRAME_ACK, 1);
		message_key(w, "batch_id"); message_put_uint(w, id);
		end(script);
	}
	script_weights(script);
	w = begin(script, FRAME_REPORT, 3);
	message_key(w, "step"); message_put_int(w, 1);
	message_key(w, "loss"); message_put_real(w, 0.5);
	message_key(w, "tokens"); message_put_int(w, 9);
	end(script);
	begin(script, FRAME_PING, 0);
	end(script);
	begin(script, FRAME_BYE, 0);
	end(script);
}

/* A copy of the frame with up to three bytes changed, inserted into or cut off. */
static struct payload damage(const struct payload *from, uint64_t *random)
{
	struct payload damaged = {malloc(from->n_bytes + 1), from->n_bytes};

	memcpy(damaged.bytes, from->bytes, from->n_bytes);
	switch (bridge_random(random) % 3) {
	case 0:
		for (uint32_t n = bridge_random(random) % 3; n < 3; n++)
			damaged.bytes[bridge_random(random) % damaged.n_bytes] = (uint8_t)bridge_random(random);
		break;
	case 1:
		damaged.n_bytes = bridge_random(random) % from->n_bytes + 1;
		break;
	default:
		damaged.bytes[damaged.n_bytes++] = (uint8_t)bridge_random(random);
	}
	return damaged;
}

/* All that the server has to say now. */
static void drain(struct peer *peer)
{
	struct peer_frame frame;

	while (peer_next_frame(peer, &frame)) {
		assert_true(frame.head_bytes > FRAME_LENGTH_BYTES);
		peer_frame_free(&frame);
	}
}

static void send_one(struct peer *peer, const struct payload *payload, uint64_t *random)
{
	uint32_t luck = bridge_random(random) % 100;

	if (luck < 4)
		return; /* lost */
	if (luck < 12) {
		struct payload damaged = damage(payload, random);
		peer_receive(peer, damaged.bytes, damaged.n_bytes);
		free(damaged.bytes);
	} else {
		peer_receive(peer, payload->bytes, payload->n_bytes);
		if (luck < 16)
			peer_receive(peer, payload->bytes, payload->n_bytes);
	}
	if (bridge_random(random) % 4 > 0)
		drain(peer);
}

/* Batches that are left: each waits, or is held by the peer. */
static void check_batches(const struct exchange *exchange, const struct peer *peer)
{
	int n = 0;

	for (const struct batch *batch = exchange->batches.first; batch; batch = batch->next, n++)
		assert_true(!batch->holder || batch->holder == peer);
	assert_int_equal(n, exchange->batches.n);
	assert_int_equal(n, N_BATCHES - seen.acked);
}

static void play_round(const struct script *script, struct trajectory *trajectory, uint64_t seed)
{
	struct model_config config = {.dim = 2, .vocab_size = 2, .tied = true};
	struct exchange exchange = {
		.run_id = "r",
		.frame_bytes_max = 4096,
		.credits_max = 2,
		.callbacks = {NULL, on_joined, on_left, on_acked, on_weights, on_report, {0}},
		.intake = intake_open(&config),
	};
	struct peer *peer = peer_open(&exchange);
	uint64_t random = seed;

	memset(&seen, 0, sizeof seen);
	for (uint64_t id = 1; id <= N_BATCHES; id++)
		batches_put(&exchange.batches, id, 0, 0, &trajectory, 1);
	for (int i = 0; i < script->n; i++) {
		send_one(peer, &script->frames[i], &random);
		check_batches(&exchange, peer);
	}
	exchange.finishing = true;
	drain(peer);
	peer_close(peer, "over");
	check_batches(&exchange, NULL);
	assert_int_equal(seen.joined, seen.left);
	assert_int_equal(exchange.n_welcome, 0);
	assert_null(exchange.pusher);
	batches_clear(&exchange.batches);
	intake_close(exchange.intake);
}

static void test_damaged_conversations(void **state)
{
	struct script script = {.writer = message_writer_open()};
	struct trajectory *trajectory = bridge_trajectory(1, 0, 300); /* two parts */
	int n_whole = 0, n_acked = 0;

	(void)state;
	write_script(&script);
	for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
		play_round(&script, trajectory, seed);
		n_whole += seen.versions == 1;
		n_acked += seen.acked;
	}
	assert_in_range(n_whole, ROUNDS / 10, ROUNDS - ROUNDS / 10); /* both kinds of rounds are there */
	assert_in_range(n_acked, ROUNDS, N_BATCHES * ROUNDS - ROUNDS / 10);
	for (int i = 0; i < script.n; i++)
		free(script.frames[i].bytes);
	message_writer_close(script.writer);
	trajectory_free(trajectory);
}

/* A peer that acknowledges before it has been sent everything still gets whole frames. */
static void test_an_early_acknowledgement_does_not_pull_the_rug(void **state)
{
	struct model_config config = {.dim = 2, .vocab_size = 2, .tied = true};
	struct exchange exchange = {
		.run_id = "r",
		.frame_bytes_max = 4096,
		.credits_max = 2,
		.callbacks = {NULL, on_joined, on_left, on_acked, on_weights, on_report, {0}},
		.intake = intake_open(&config),
	};
	struct script script = {.writer = message_writer_open()};
	struct trajectory *trajectory = bridge_trajectory(1, 0, 300);
	struct peer *peer = peer_open(&exchange);
	struct peer_frame frame, first;

	(void)state;
	write_script(&script);
	batches_put(&exchange.batches, 1, 0, 0, &trajectory, 1);
	peer_receive(peer, script.frames[0].bytes, script.frames[0].n_bytes);
	assert_true(peer_next_frame(peer, &frame)); /* welcome */
	peer_frame_free(&frame);
	peer_receive(peer, script.frames[1].bytes, script.frames[1].n_bytes); /* pull */
	assert_true(peer_next_frame(peer, &first)); /* part 0, on its way while ... */
	peer_receive(peer, script.frames[2].bytes, script.frames[2].n_bytes); /* ... the batch is acknowledged */
	assert_int_equal(exchange.batches.n, 0);
	assert_true(peer_next_frame(peer, &frame)); /* part 1 */
	assert_true(first.body_bytes > 0 && frame.body_bytes > 0);
	size_t length = first.body[0] | (size_t)first.body[1]
	                                    << 8; /* of the only trajectory, which is still whole */
	assert_int_equal(length + FRAME_LENGTH_BYTES, first.body_bytes + frame.body_bytes);
	peer_frame_free(&first);
	peer_frame_free(&frame);
	assert_false(peer_next_frame(peer, &frame));
	peer_close(peer, "over");
	for (int i = 0; i < script.n; i++)
		free(script.frames[i].bytes);
	message_writer_close(script.writer);
	trajectory_free(trajectory);
	intake_close(exchange.intake);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_damaged_conversations),
		cmocka_unit_test(test_an_early_acknowledgement_does_not_pull_the_rug),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

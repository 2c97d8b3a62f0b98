/* test_server_weights.c - deltas, LoRA pairs, a watched directory, and hostile pushes, over real sockets. */
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
#include <time.h>
#include <unistd.h>

#include "policy/file.h"
#include "quant/bf16.h"
#include "tests/support/bridge_server.h"
#include "tests/support/model_dir.h"
#include "tests/support/random_model.h"
#include "trainer_bridge/client/client.h"
#include "trainer_bridge/wire/checksum.h"
#include "trainer_bridge/wire/frame.h"
#include "trainer_bridge/wire/lora.h"

#define WORKS(call) do { if (call) fail_msg("%s", err.text); } while (0)

static char model_path[MODEL_DIR_PATH_MAX]; /* of version 0 */
static struct weights base;

static int make_model(void **state)
{
	struct model_config config = random_model_small();
	struct err err;

	(void)state;
	model_dir_make(model_path);
	WORKS(random_model_save(model_path, &config, 3, &err));
	WORKS(weights_load(&base, model_path, &err));
	return 0;
}

static int remove_model(void **state)
{
	(void)state;
	weights_free(&base);
	model_dir_remove(model_path);
	return 0;
}

static struct client *join(struct bridge_server *bridge)
{
	struct client *client;
	struct err err;

	WORKS(client_open(&client, bridge->address, NULL, "a", 5, 20, &err));
	return client;
}

static void expect_seen(struct bridge_server *bridge, int64_t version, const struct weights *weights)
{
	bridge_lock(bridge);
	assert_int_equal(bridge->seen.version, version);
	assert_memory_equal(bridge->seen.weights.data, weights->data, 2 * weights->n_elements);
	bridge_unlock(bridge);
}

static void change(struct weights *weights, uint64_t seed)
{
	for (size_t i = 0; i < weights->n_elements / 2; i++)
		weights->data[i] ^= random_bits(&seed) % 8 == 0;
}

/* With whole tensors as one frame's data and with chunks of a few bytes. */
static void test_deltas_over_the_socket(void **state)
{
	struct bridge_server bridge;
	struct weights old, new;
	struct err err;

	(void)state;
	bridge_server_start(&bridge, (struct server_options){.model_dir = model_path});
	struct client *client = join(&bridge);
	weights_alloc(&old, &base.config);
	weights_alloc(&new, &base.config);
	memcpy(old.data, base.data, 2 * base.n_elements);
	for (int64_t version = 1; version < 5; version++) {
		memcpy(new.data, old.data, 2 * old.n_elements);
		change(&new, (uint64_t)version);
		uint64_t before = client_sent_bytes(client);
		WORKS(client_push_delta(client, version, &new, version - 1, &old, version == 1 ? 1 << 20 : 3001, &err));
		if (version == 1)
			assert_true(client_sent_bytes(client) - before < 2 * new.n_elements / 3);
		expect_seen(&bridge, version, &new);
		memcpy(old.data, new.data, 2 * old.n_elements);
	}
	assert_int_equal(client_push_delta(client, 6, &new, 3, &old, 1 << 20, &err), ERR_BASE); /* as the page says, */
	WORKS(client_push_weights(client, 6, &new, 1 << 20, &err));                              /* push in full */
	assert_int_equal(client_push_delta(client, 7, &new, 6, &base, 1 << 20, &err), ERR_INVALID); /* its base is another */
	assert_non_null(strstr(err.text, "the bases may differ"));
	WORKS(client_push_delta(client, 7, &base, 6, &new, 1 << 20, &err));
	expect_seen(&bridge, 7, &base);
	assert_true(client_is_local(client));
	client_close(client);
	weights_free(&old);
	weights_free(&new);
	bridge_server_stop(&bridge);
}

static void test_pairs_over_the_socket(void **state)
{
	enum { RANK = 4 };
	static float a[RANK * 64], b[160 * RANK];
	struct bridge_server bridge;
	struct weights merged;
	struct err err;
	uint64_t random = 1;

	(void)state;
	for (int i = 0; i < RANK * 64; i++) a[i] = (float)(int)(random_bits(&random) % 200) / 1000 - 0.1f;
	for (int i = 0; i < RANK * 160; i++) b[i] = (float)(int)(random_bits(&random) % 200) / 1000 - 0.1f;
	bridge_server_start(&bridge, (struct server_options){.model_dir = model_path});
	struct client *client = join(&bridge);
	struct client_lora pair = {.matrix = "model.layers.1.mlp.up_proj", .rows = 160, .cols = 64, .a = a, .b = b};
	int tensor = weights_find(&base, "model.layers.1.mlp.up_proj.weight");
	weights_alloc(&merged, &base.config);
	for (int64_t version = 1; version < 4; version++) {
		memcpy(merged.data, base.data, 2 * base.n_elements);
		struct lora lora = {.rows = 160, .cols = 64, .rank = RANK, .scale = (float)((double)version / RANK), .a = a, .b = b};
		lora_merge(&lora, base.data + base.tensors[tensor].offset, merged.data + base.tensors[tensor].offset, 0, 160);
		WORKS(client_push_lora(client, version, 0, RANK, (double)version, &pair, 1, version == 1 ? 100 : 1 << 20, &err));
		expect_seen(&bridge, version, &merged);
	}
	client_close(client);
	weights_free(&merged);
	bridge_server_stop(&bridge);
}

/* ---- pushes that wait ---- */

static atomic_bool may_begin;

static bool ready(void *context, const uint16_t *data)
{
	(void)context;
	(void)data;
	return atomic_load(&may_begin);
}

static void *allow_later(void *unused)
{
	nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
	atomic_store(&may_begin, true);
	return unused;
}

static int count_weights(void *context, int64_t version, const struct weights *weights, struct err *err)
{
	(void)version;
	(void)weights;
	(void)err;
	assert_true(atomic_load(&may_begin));
	++*(int *)context;
	return 0;
}

static void ignore_name(void *context, const char *name) { (void)context; (void)name; }
static void ignore_leaving(void *context, const char *name, const char *why) { (void)context; (void)name; (void)why; }

struct turning { struct server *server; atomic_bool stop; };

static void *turn(void *context)
{
	struct turning *turning = context;
	while (!atomic_load(&turning->stop)) server_poll(turning->server, 5);
	return NULL;
}

/* The memory is in use: the peer is not refused, and not read. */
static void test_a_push_waits_for_memory(void **state)
{
	char dir[MODEL_DIR_PATH_MAX], listen[MODEL_DIR_PATH_MAX + 16];
	int n_versions = 0;
	struct server_callbacks callbacks = {.context = &n_versions, .peer_joined = ignore_name, .peer_left = ignore_leaving,
	                                     .weights_arrived = count_weights, .weights = {.ready = ready}};
	struct turning turning = {0};
	struct client *client;
	pthread_t thread, allower;
	struct err err;

	(void)state;
	model_dir_make(dir);
	snprintf(listen, sizeof listen, "unix:%s/sock", dir);
	struct server_options options = {.listen = listen, .run_id = "r", .frame_bytes_max = 1 << 20, .credits_max = 1,
	                                 .model = &base.config};
	WORKS(server_open(&turning.server, &options, &callbacks, &err));
	pthread_create(&thread, NULL, turn, &turning);
	WORKS(client_open(&client, listen, NULL, "a", 5, 20, &err));
	for (int64_t version = 1; version < 4; version++) {
		atomic_store(&may_begin, false);
		pthread_create(&allower, NULL, allow_later, NULL);
		WORKS(client_push_weights(client, version, &base, 1 << 20, &err));
		pthread_join(allower, NULL);
	}
	assert_int_equal(n_versions, 3);
	client_close(client);
	atomic_store(&turning.stop, true);
	pthread_join(thread, NULL);
	server_close(turning.server);
	model_dir_remove(dir);
}

/* ---- hostile pushes ---- */

static struct message_writer *put(struct message_writer *w, const char *type, uint32_t n, int64_t version, const char *name)
{
	message_begin_map(w, n);
	message_key(w, "type");
	message_put_text(w, type);
	message_key(w, "version");
	message_put_int(w, version);
	if (name) {
		message_key(w, "name");
		message_put_text(w, name);
	}
	return w;
}

static void send_begin(int fd, struct message_writer *w, int64_t version, const char *encoding)
{
	put(w, "weights_begin", 4, version, NULL);
	message_key(w, "encoding");
	message_put_text(w, encoding);
	message_key(w, "base");
	message_put_int(w, 0);
	bridge_raw_message(fd, w);
}

static void send_chunk(int fd, struct message_writer *w, int64_t version, const char *name, uint64_t offset, int64_t xor_bytes,
                       const void *bytes, size_t n)
{
	put(w, "weights_chunk", xor_bytes < 0 ? 5 : 6, version, name);
	message_key(w, "offset");
	message_put_uint(w, offset);
	if (xor_bytes >= 0) {
		message_key(w, "xor_bytes");
		message_put_int(w, xor_bytes);
	}
	message_key(w, "data");
	message_put_bin(w, bytes, n);
	bridge_raw_message(fd, w);
}

/* NAME is long enough to be taken straight to its place. */
static struct bridge_server bridge;
static struct message_writer *writer;
static uint8_t bytes[64 << 10];
static const char NAME[] = "model.layers.0.mlp.gate_proj.weight"; /* 20480 bytes */

static int start(void **state)
{
	(void)state;
	bridge_server_start(&bridge, (struct server_options){.model_dir = model_path, .frame_ms = 300});
	writer = message_writer_open();
	return 0;
}

/* Whatever happened: no version was taken, and a decent push is. */
static int stop(void **state)
{
	struct err err;

	(void)state;
	bridge_lock(&bridge);
	assert_int_equal(bridge.seen.versions, 0);
	bridge_unlock(&bridge);
	struct client *client = join(&bridge);
	WORKS(client_push_weights(client, 100, &base, 1 << 20, &err));
	expect_seen(&bridge, 100, &base);
	client_close(client);
	message_writer_close(writer);
	bridge_server_stop(&bridge);
	return 0;
}

static int open_push(const char *encoding)
{
	int fd = bridge_raw_connect(bridge.address);

	bridge_raw_hello(fd);
	send_begin(fd, writer, 1, encoding);
	return fd;
}

static void test_long_chunks_that_do_not_fit(void **state)
{
	(void)state;
	int fd = open_push("full");
	send_chunk(fd, writer, 1, NAME, 0, -1, bytes, 20482);
	bridge_raw_expect_error(fd, "too_big", false, "expected 20480 bytes (160 x 64 bf16), found 20482 or more");
	send_chunk(fd, writer, 1, NAME, 0, -1, bytes, 20480); /* of the refused push: skipped, unanswered */
	send_begin(fd, writer, 2, "full");
	send_chunk(fd, writer, 2, "model.other", 0, -1, bytes, 20480);
	bridge_raw_expect_error(fd, "missing", false, "model.other");
	send_begin(fd, writer, 3, "full");
	send_chunk(fd, writer, 3, NAME, 2, -1, bytes, 20000);
	bridge_raw_expect_error(fd, "invalid", false, "at byte 0, found byte 2");
	send_begin(fd, writer, 4, "full");
	send_chunk(fd, writer, 5, NAME, 0, -1, bytes, 20480);
	bridge_raw_expect_error(fd, "invalid", false, "found 5");
	close(fd);
	fd = bridge_raw_connect(bridge.address);
	bridge_raw_hello(fd);
	send_chunk(fd, writer, 1, NAME, 0, -1, bytes, 20480); /* without a begin */
	bridge_raw_expect_error(fd, "state", false, "weights_begin");
	close(fd);
}

static void test_duplicates_nan_and_missing_commits(void **state)
{
	(void)state;
	int fd = open_push("full");
	send_chunk(fd, writer, 1, NAME, 0, -1, bytes, 20480);
	put(writer, "weights_tensor", 4, 1, NAME);
	message_key(writer, "xxh3");
	message_put_uint(writer, 1);
	bridge_raw_message(fd, writer);
	bridge_raw_expect_error(fd, "invalid", false, "the peer states 0000000000000001");
	send_begin(fd, writer, 2, "full");
	send_chunk(fd, writer, 2, NAME, 0, -1, bytes, 20480);
	put(writer, "weights_tensor", 4, 2, NAME);
	message_key(writer, "sha256"); /* not even 32 bytes */
	message_put_bin(writer, bytes, 31);
	bridge_raw_message(fd, writer);
	bridge_raw_expect_error(fd, "invalid", false, "expected 32 bytes");

	memset(bytes, 0xff, 20480); /* NaN, with its right sum, behind the same tensor once before */
	for (int64_t version = 3; version < 5; version++) {
		send_begin(fd, writer, version, "full");
		for (int twice = 0; twice < 2; twice++) {
			send_chunk(fd, writer, version, NAME, 0, -1, bytes, 20480);
			put(writer, "weights_tensor", 4, version, NAME);
			message_key(writer, "xxh3");
			message_put_uint(writer, checksum(bytes, 20480));
			bridge_raw_message(fd, writer);
		}
		bridge_raw_expect_error(fd, version == 3 ? "invalid" : "state", false, version == 3 ? "diverged" : "behind its checksum");
		memset(bytes, 0, sizeof bytes);
	}
	send_begin(fd, writer, 5, "full"); /* and goes without a commit */
	send_chunk(fd, writer, 5, NAME, 0, -1, bytes, 20480);
	close(fd);
}

static void test_hostile_deltas(void **state)
{
	(void)state;
	int fd = open_push("delta");
	send_chunk(fd, writer, 1, NAME, 0, 20480, "not zstd", 8);
	bridge_raw_expect_error(fd, "invalid", false, "no zstd frame");
	send_begin(fd, writer, 2, "full");
	send_chunk(fd, writer, 2, NAME, 0, 20480, bytes, 20480); /* long, and not to be taken in place */
	bridge_raw_expect_error(fd, "invalid", false, "begin it as 'delta'");
	send_begin(fd, writer, 3, "gzip");
	bridge_raw_expect_error(fd, "unsupported", false, "'full', 'delta' or 'lora'");
	send_begin(fd, writer, 4, "delta");
	send_chunk(fd, writer, 4, NAME, 0, 4194306, bytes, 10);
	bridge_raw_expect_error(fd, "invalid", true, "xor_bytes");
	close(fd);
}

/* The connection ends, or falls silent, inside a body that goes straight to its place. */
static void test_bodies_that_end_early(void **state)
{
	size_t n;
	uint8_t length[FRAME_LENGTH_BYTES];

	(void)state;
	for (int silent = 0; silent < 2; silent++) {
		int fd = open_push("full");
		put(writer, "weights_chunk", 5, 1, NAME);
		message_key(writer, "offset");
		message_put_uint(writer, 0);
		message_key(writer, "data");
		message_put_bin(writer, bytes, 20480);
		const uint8_t *payload = message_bytes(writer, &n);
		frame_put_length(length, n);
		bridge_raw_send(fd, length, sizeof length);
		for (size_t at = 0; at < n - 5000; at += 997) /* in pieces, the head cut too */
			bridge_raw_send(fd, payload + at, n - 5000 - at < 997 ? n - 5000 - at : 997);
		message_writer_reset(writer);
		if (silent)
			bridge_raw_expect_error(fd, "timeout", true, "not finished in time");
		close(fd);
	}
	bridge_await(&bridge, &bridge.seen.left, 2);
}

/* ---- a watched directory ---- */

static char watched[MODEL_DIR_PATH_MAX];

static void put_file(const char *name, const char *text)
{
	model_dir_put(watched, name, text, strlen(text));
}

/* Waits for NAME.status, checks what it says, and that the marker is gone. */
static void expect_status(const char *name, const char *said)
{
	char file[64], path[MODEL_DIR_PATH_MAX + 80];

	snprintf(path, sizeof path, "%s/%s.status", watched, name);
	for (int i = 0; access(path, F_OK) != 0; i++) {
		if (i == 1000)
			fail_msg("no %s after 10 s", path);
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	}
	nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
	snprintf(file, sizeof file, "%s.status", name);
	size_t n;
	char *text = (char *)model_dir_get(watched, file, &n);
	assert_true(n > 0 && text[n - 1] == '\n');
	text[n - 1] = '\0';
	if (!strstr(text, said))
		fail_msg("'%s' does not say '%s'", text, said);
	free(text);
	unlink(path);
	snprintf(path, sizeof path, "%s/%s.ready", watched, name);
	assert_int_not_equal(access(path, F_OK), 0);
}

static void save(const char *name, const struct weights *weights)
{
	char path[MODEL_DIR_PATH_MAX + 64];
	struct err err;

	snprintf(path, sizeof path, "%s/%s", watched, name);
	mkdir(path, 0700);
	WORKS(weights_save(weights, path, &err));
}

static void drop_folder(const char *name)
{
	char path[MODEL_DIR_PATH_MAX + 64];
	snprintf(path, sizeof path, "%s/%s", watched, name);
	model_dir_remove(path);
}

static void test_a_watched_directory(void **state)
{
	struct bridge_server seeing;
	struct weights new, other;
	struct model_config config = base.config;
	struct err err;

	(void)state;
	model_dir_make(watched);
	weights_alloc(&new, &base.config);
	memcpy(new.data, base.data, 2 * base.n_elements);
	change(&new, 4);
	bridge_server_start(&seeing, (struct server_options){.model_dir = model_path, .watch_dir = watched});
	save("one", &new);
	put_file("one.ready", "3\n");
	expect_status("one", "{\"version\": 3, \"taken\": true}");
	expect_seen(&seeing, 3, &new);

	put_file("none.ready", "4");
	expect_status("none", "\"version\": 4, \"taken\": false, \"code\": \"missing\"");
	put_file("one.ready", "three");
	expect_status("one", "\"taken\": false, \"code\": \"invalid\", \"text\": \"one.ready: expected a version");
	put_file("one.ready", "3");
	expect_status("one", "not new: the policy is at 3, push 4 or more");

	config.ffn_dim -= 8; /* it shrinks */
	random_model(&other, &config, 1);
	save("two", &other);
	weights_free(&other);
	put_file("two.ready", "4");
	expect_status("two", "gate_proj.weight': expected 160 x 64 numbers, found 152 x 64");
	new.data[new.tensors[5].offset] = 0x7fc0;
	save("two", &new);
	put_file("two.ready", "4");
	expect_status("two", "diverged");
	new.data[new.tensors[5].offset] = 0;
	save("two", &new);
	char path[MODEL_DIR_PATH_MAX + 64];
	snprintf(path, sizeof path, "%s/two/model.safetensors", watched);
	assert_int_equal(truncate(path, 50000), 0); /* half-written */
	put_file("two.ready", "4");
	expect_status("two", "\"taken\": false");
	expect_seen(&seeing, 3, &seeing.seen.weights); /* all the while */
	bridge_lock(&seeing);
	assert_int_equal(seeing.seen.versions, 1);
	bridge_unlock(&seeing);

	save("two", &new);
	put_file(".hidden.ready", "9");
	put_file("two.ready", " 4 \n");
	expect_status("two", "{\"version\": 4, \"taken\": true}");
	expect_seen(&seeing, 4, &new);
	struct client *client = join(&seeing); /* what came as files is a base like any other */
	WORKS(client_push_delta(client, 5, &base, 4, &new, 1 << 20, &err));
	expect_seen(&seeing, 5, &base);
	client_close(client);
	bridge_server_stop(&seeing);
	weights_free(&new);
	drop_folder("one");
	drop_folder("two");
	snprintf(path, sizeof path, "%s/.hidden.ready", watched);
	assert_int_equal(unlink(path), 0); /* was left alone */
	model_dir_remove(watched);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_deltas_over_the_socket),
		cmocka_unit_test(test_pairs_over_the_socket),
		cmocka_unit_test(test_a_push_waits_for_memory),
		cmocka_unit_test_setup_teardown(test_long_chunks_that_do_not_fit, start, stop),
		cmocka_unit_test_setup_teardown(test_duplicates_nan_and_missing_commits, start, stop),
		cmocka_unit_test_setup_teardown(test_hostile_deltas, start, stop),
		cmocka_unit_test_setup_teardown(test_bodies_that_end_early, start, stop),
		cmocka_unit_test(test_a_watched_directory),
	};
	return cmocka_run_group_tests(tests, make_model, remove_model);
}

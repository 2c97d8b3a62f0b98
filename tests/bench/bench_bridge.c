/* bench_bridge.c - trajectories and weights over a Unix socket and over TCP on loopback, beside a plain
 * copy of as many bytes through the same kind of socket.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/bridge_fixture.h"
#include "trainer_bridge/address.h"
#include "trainer_bridge/client.h"

enum { BATCHES = 20, BATCH_SAMPLES = 256, RESPONSE = 2000, PUSHES = 4, CHUNK = 1 << 20 };

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void fail(const char *what, const struct err *err)
{
	fprintf(stderr, "bench_bridge: %s: %s\n", what, err->text);
	exit(1);
}

/* ---- the server's side ---- */

static atomic_bool stop;

static void ignore_name(void *context, const char *name)
{
	(void)context;
	(void)name;
}

static void ignore_leaving(void *context, const char *name, const char *why)
{
	(void)context;
	(void)name;
	(void)why;
}

static void ignore_ack(void *context, uint64_t batch_id)
{
	(void)context;
	(void)batch_id;
}

static int take_weights(void *context, int64_t version, struct weights *weights, struct err *err)
{
	(void)context;
	(void)version;
	(void)err;
	weights_free(weights);
	return 0;
}

static void *turn(void *server)
{
	while (!atomic_load(&stop))
		server_poll(server, 10);
	return NULL;
}

/* ---- a plain copy ---- */

static void *sink(void *listener)
{
	static char bytes[1 << 20];
	int fd = accept(*(int *)listener, NULL, NULL);

	while (recv(fd, bytes, sizeof bytes, 0) > 0)
		;
	send(fd, "k", 1, 0);
	close(fd);
	return NULL;
}

static double plain_copy(const char *listen_text, size_t n_bytes)
{
	struct address address;
	struct err err;
	pthread_t thread;
	char *bytes = calloc(1, CHUNK);

	if (address_parse(&address, listen_text, &err))
		fail("address", &err);
	int listener = socket(address.socket.ss_family, SOCK_STREAM, 0);
	int fd = socket(address.socket.ss_family, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&address.socket, address.socket_bytes) || listen(listener, 1))
		perror("bench_bridge: listen"), exit(1);
	getsockname(listener, (struct sockaddr *)&address.socket, &address.socket_bytes);
	pthread_create(&thread, NULL, sink, &listener);
	if (connect(fd, (struct sockaddr *)&address.socket, address.socket_bytes))
		perror("bench_bridge: connect"), exit(1);
	double start = seconds();
	for (size_t at = 0; at < n_bytes;) {
		ssize_t n = send(fd, bytes, CHUNK, 0);
		if (n <= 0)
			perror("bench_bridge: send"), exit(1);
		at += (size_t)n;
	}
	shutdown(fd, SHUT_WR);
	if (recv(fd, bytes, 1, 0) != 1)
		perror("bench_bridge: recv"), exit(1);
	double took = seconds() - start;
	pthread_join(thread, NULL);
	close(fd);
	close(listener);
	if (address.is_unix)
		unlink(address.path);
	free(bytes);
	return (double)n_bytes / took / 1e6;
}

/* ---- what is measured ---- */

static void put_batches(struct server *server)
{
	struct trajectory *items[BATCH_SAMPLES];

	for (int i = 0; i < BATCH_SAMPLES; i++)
		items[i] = bridge_trajectory((uint64_t)i + 1, 0, RESPONSE);
	double start = seconds();
	for (uint64_t id = 1; id <= BATCHES; id++)
		server_put_batch(server, id, 1, 1, items, BATCH_SAMPLES);
	printf("  encode   %7.0f MB/s\n", 13.0 * RESPONSE * BATCH_SAMPLES * BATCHES / (seconds() - start) / 1e6);
	for (int i = 0; i < BATCH_SAMPLES; i++)
		trajectory_free(items[i]);
}

static void measure(const char *listen_text, const struct model_config *config, const struct weights *weights)
{
	struct server_options options = {.listen = listen_text, .frame_bytes_max = 16 << 20, .credits_max = 2,
	                                 .run_id = "bench", .model = config};
	struct server_callbacks callbacks = {NULL, ignore_name, ignore_leaving, ignore_ack, take_weights, NULL};
	size_t weight_bytes = PUSHES * 2 * weights->n_elements;
	struct server *server;
	struct client *client;
	struct client_batch batch;
	struct err err;
	pthread_t thread;

	printf("%s\n  copy     %7.0f MB/s  (plain send and recv)\n", listen_text, plain_copy(listen_text, weight_bytes));
	if (server_open(&server, &options, &callbacks, &err))
		fail("server_open", &err);
	put_batches(server);
	atomic_store(&stop, false);
	pthread_create(&thread, NULL, turn, server);
	if (client_open(&client, server_address(server), NULL, "bench", 5, 60, &err))
		fail("client_open", &err);
	double start = seconds();
	for (int i = 0; i < BATCHES; i++) {
		if (client_pull(client, &batch, 60, &err) || client_ack(client, batch.batch_id, &err))
			fail("client_pull", &err);
		client_batch_free(&batch);
	}
	printf("  batches  %7.0f MB/s  (%d samples of %d tokens: moved, decoded, checksums verified)\n",
	       13.0 * RESPONSE * BATCH_SAMPLES * BATCHES / (seconds() - start) / 1e6, BATCH_SAMPLES, RESPONSE);
	start = seconds();
	for (int64_t version = 1; version <= PUSHES; version++)
		if (client_push_weights(client, version, weights, CHUNK, &err))
			fail("client_push_weights", &err);
	printf("  weights  %7.0f MB/s  (%zu MB a version: moved, checksums, search for NaN)\n",
	       (double)weight_bytes / (seconds() - start) / 1e6, 2 * weights->n_elements / 1000000);
	client_close(client);
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	server_close(server);
}

int main(void)
{
	struct model_config config = {.dim = 1024, .n_layers = 12, .n_heads = 16, .n_kv_heads = 4, .head_dim = 64,
	                              .ffn_dim = 2816, .vocab_size = 32000, .max_context = 2048, .tied = true};
	struct weights weights;
	char dir[] = "/tmp/bench-bridge-XXXXXX", unix_text[64];

	weights_alloc(&weights, &config);
	if (!mkdtemp(dir))
		return perror("bench_bridge: mkdtemp"), 1;
	snprintf(unix_text, sizeof unix_text, "unix:%s/sock", dir);
	measure(unix_text, &config, &weights);
	measure("tcp:127.0.0.1:0", &config, &weights);
	weights_free(&weights);
	rmdir(dir);
	return 0;
}

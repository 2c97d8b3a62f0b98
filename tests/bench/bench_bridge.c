/* bench_bridge.c - trajectories and weights over a Unix socket and over TCP on loopback, beside a plain
 * copy of as many bytes through the same kind of socket: from memory of the weights' size to another such, both
 * written before, with the same socket buffers.  Copies and pushes alternate; medians are compared.
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
#include "trainer_bridge/client/client.h"
#include "trainer_bridge/wire/address.h"

enum { BATCHES = 20, BATCH_SAMPLES = 256, RESPONSE = 2000, PUSHES = 15, CHUNK = 1 << 20, PIECE = 1 << 18 };

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

static int take_weights(void *context, int64_t version, const struct weights *weights, struct err *err)
{
	(void)context;
	(void)version;
	(void)weights;
	(void)err;
	return 0;
}

static void *turn(void *server)
{
	while (!atomic_load(&stop))
		server_poll(server, 10);
	return NULL;
}

/* ---- a plain copy ---- */

struct sink {
	int listener;
	char *bytes; /* [n_bytes] */
	size_t n_bytes;
};

static void *take_all(void *context)
{
	struct sink *sink = context;
	int fd = accept(sink->listener, NULL, NULL);
	ssize_t n;

	for (size_t at = 0; at < sink->n_bytes; at += (size_t)n)
		if ((n = recv(fd, sink->bytes + at, sink->n_bytes - at < PIECE ? sink->n_bytes - at : PIECE, 0)) <= 0)
			break;
	send(fd, "k", 1, 0);
	close(fd);
	return NULL;
}

/* Seconds for n_bytes from one place to the other. */
static double plain_copy(const char *listen_text, const char *from, char *to, size_t n_bytes)
{
	struct address address;
	struct err err;
	pthread_t thread;
	char done;
	int buffer_bytes = 1 << 20; /* as in client.c */

	if (address_parse(&address, listen_text, &err))
		fail("address", &err);
	int listener = socket(address.socket.ss_family, SOCK_STREAM, 0);
	int fd = socket(address.socket.ss_family, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&address.socket, address.socket_bytes) || listen(listener, 1))
		perror("bench_bridge: listen"), exit(1);
	getsockname(listener, (struct sockaddr *)&address.socket, &address.socket_bytes);
	if (address.is_unix)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof buffer_bytes);
	struct sink sink = {listener, to, n_bytes};
	pthread_create(&thread, NULL, take_all, &sink);
	if (connect(fd, (struct sockaddr *)&address.socket, address.socket_bytes))
		perror("bench_bridge: connect"), exit(1);
	double start = seconds();
	for (size_t at = 0; at < n_bytes;) {
		ssize_t n = send(fd, from + at, n_bytes - at < CHUNK ? n_bytes - at : CHUNK, 0);
		if (n <= 0)
			perror("bench_bridge: send"), exit(1);
		at += (size_t)n;
	}
	if (recv(fd, &done, 1, 0) != 1)
		perror("bench_bridge: recv"), exit(1);
	double took = seconds() - start;
	pthread_join(thread, NULL);
	close(fd);
	close(listener);
	if (address.is_unix)
		unlink(address.path);
	return took;
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

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double median(double *values, int n)
{
	qsort(values, (size_t)n, sizeof *values, by_size);
	return values[n / 2];
}

/* The numbers that a small learning rate moves: a quarter, by one unit in the last place. */
static void update(struct weights *weights, uint64_t seed)
{
	for (size_t i = 0; i < weights->n_elements; i++)
		if (bridge_random(&seed) % 4 == 0)
			weights->data[i] ^= 1;
}

static void measure_weights(struct client *client, const char *copy_text, const struct weights *weights)
{
	size_t n_bytes = 2 * weights->n_elements;
	double copies[PUSHES], full[PUSHES], delta[PUSHES];
	char *to = malloc(n_bytes);
	struct weights changed;
	int64_t version = 1;
	uint64_t sent = 0;
	struct err err;

	memset(to, 1, n_bytes);
	weights_alloc(&changed, &weights->config);
	memcpy(changed.data, weights->data, n_bytes);
	update(&changed, 1);
	for (int i = -2; i < PUSHES; i++) { /* the first two touch fresh memory, and are not counted */
		int at = i < 0 ? 0 : i;
		copies[at] = plain_copy(copy_text, (const char *)weights->data, to, n_bytes);
		double start = seconds();
		if (client_push_weights(client, version++, weights, CHUNK, &err))
			fail("client_push_weights", &err);
		full[at] = seconds() - start;
	}
	for (int i = 0; i < PUSHES / 4; i++) {
		uint64_t before = client_sent_bytes(client);
		double start = seconds();
		if (client_push_delta(client, version, i % 2 ? weights : &changed, version - 1, i % 2 ? &changed : weights, CHUNK,
		                      &err))
			fail("client_push_delta", &err);
		version++;
		delta[i] = seconds() - start;
		sent = client_sent_bytes(client) - before;
	}
	double copy = median(copies, PUSHES), push = median(full, PUSHES);
	double bytes = (double)n_bytes;
	printf("  copy     %7.0f MB/s  (plain send and recv, memory to memory)\n", bytes / copy / 1e6);
	printf("  weights  %7.0f MB/s  (%zu MB a version: moved, checksums, search for NaN): %.0f %% of the copy\n",
	       bytes / push / 1e6, n_bytes / 1000000, 100 * copy / push);
	printf("  deltas   %7.0f MB/s of weights, %.1f %% of the bytes\n", bytes / median(delta, PUSHES / 4) / 1e6,
	       100 * (double)sent / bytes);
	weights_free(&changed);
	free(to);
}

static void measure(const char *listen_text, const char *copy_text, const struct model_config *config, const struct weights *weights)
{
	struct server_options options = {.listen = listen_text, .frame_bytes_max = 16 << 20, .credits_max = 2,
	                                 .run_id = "bench", .model = config};
	struct server_callbacks callbacks = {NULL, ignore_name, ignore_leaving, ignore_ack, take_weights, NULL};
	struct server *server;
	struct client *client;
	struct client_batch batch;
	struct err err;
	pthread_t thread;

	printf("%s\n", listen_text);
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
	measure_weights(client, copy_text, weights);
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
	char dir[] = "/tmp/bench-bridge-XXXXXX", unix_text[64], copy_text[64];

	setvbuf(stdout, NULL, _IOLBF, 0);
	weights_alloc(&weights, &config);
	if (!mkdtemp(dir))
		return perror("bench_bridge: mkdtemp"), 1;
	snprintf(unix_text, sizeof unix_text, "unix:%s/sock", dir);
	snprintf(copy_text, sizeof copy_text, "unix:%s/copy", dir);
	uint64_t random = 1;
	for (size_t i = 0; i < weights.n_elements; i++)
		weights.data[i] = (uint16_t)(0x3c00 + bridge_random(&random) % 256);
	measure(unix_text, copy_text, &config, &weights);
	measure("tcp:127.0.0.1:0", "tcp:127.0.0.1:0", &config, &weights);
	weights_free(&weights);
	rmdir(dir);
	return 0;
}

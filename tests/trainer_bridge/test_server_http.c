/* test_server_http.c - the HTTP server against clients of every kind, the slow and the hostile included: it answers the
 * decent ones meanwhile, and has closed every connection in the end. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "trainer_bridge/server/server_http.h"

enum { PATIENCE_MS = 400, BIG = 3 << 20 };

static struct http_server *server;
static int n_asked;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static char *get(void *context, const char *path, const char **type, size_t *n_bytes)
{
	(void)context;
	n_asked++;
	*type = "text/plain";
	if (strcmp(path, "/big") == 0) {
		char *body = malloc(BIG);
		memset(body, 'b', BIG);
		*n_bytes = BIG;
		return body;
	}
	if (strcmp(path, "/hello") != 0) return NULL;
	*n_bytes = 5;
	return strdup("hello");
}

static int setup(void **state)
{
	(void)state;
	struct http_server_options options = { .listen = "tcp:127.0.0.1:0", .option = "metrics.listen", .patience_ms = PATIENCE_MS, .get = get };
	struct err err;

	n_asked = 0;
	return http_server_open(&server, &options, &err);
}

static int teardown(void **state)
{
	(void)state;
	http_server_close(server);
	return 0;
}

static int dial(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const char *colon = strrchr(http_server_address(server), ':');

	address.sin_port = htons((uint16_t)atoi(colon + 1));
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static void turn(double seconds)
{
	for (double start = now(); now() - start < seconds;) {
		http_server_poll(server);
		nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
	}
}

/* All that comes until the server closes, while it is polled; the length, or -1 if it does not close within `seconds`. */
static ssize_t read_all(int fd, char *to, size_t size, double seconds)
{
	size_t n = 0;

	for (double start = now(); now() - start < seconds;) {
		http_server_poll(server);
		ssize_t got = read(fd, to + n, size - 1 - n);
		if (got == 0 || (got < 0 && errno == ECONNRESET)) {
			to[n] = '\0';
			return (ssize_t)n;
		}
		if (got > 0) n += (size_t)got;
		else nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
	}
	return -1;
}

static void ask(const char *request, char *answer, size_t size)
{
	int fd = dial();
	assert_int_equal(write(fd, request, strlen(request)), strlen(request));
	assert_true(read_all(fd, answer, size, 5) >= 0);
	close(fd);
}

static const char hello[] = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";

static void assert_answers(void)
{
	char answer[2048];
	ask(hello, answer, sizeof answer);
	assert_int_equal(strncmp(answer, "HTTP/1.1 200 OK\r\n", 17), 0);
	assert_non_null(strstr(answer, "\r\n\r\nhello"));
}

static void test_pages(void **state)
{
	(void)state;
	char answer[2048];

	assert_answers();
	ask(hello, answer, sizeof answer);
	assert_non_null(strstr(answer, "Content-Type: text/plain\r\n"));
	assert_non_null(strstr(answer, "Content-Length: 5\r\n"));
	assert_non_null(strstr(answer, "Connection: close\r\n"));
	ask("HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n", answer, sizeof answer);
	assert_non_null(strstr(answer, "Content-Length: 5\r\n"));
	assert_null(strstr(answer, "hello"));
	ask("GET /other HTTP/1.1\r\nHost: a\r\n\r\n", answer, sizeof answer);
	assert_int_equal(strncmp(answer, "HTTP/1.1 404 Not Found\r\n", 24), 0);
	int asked = n_asked;
	ask("POST /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", answer, sizeof answer);
	assert_int_equal(strncmp(answer, "HTTP/1.1 405 ", 13), 0);
	assert_non_null(strstr(answer, "Allow: GET, HEAD\r\n"));
	ask("rubbish\r\n\r\n", answer, sizeof answer);
	assert_int_equal(strncmp(answer, "HTTP/1.1 400 ", 13), 0);
	assert_int_equal(n_asked, asked); /* what is refused asks nobody */
}

/* Three megabytes to a reader that takes its time, but not too much. */
static void test_large_body(void **state)
{
	(void)state;
	static char answer[BIG + 4096];
	int fd = dial();

	assert_true(write(fd, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n", 31) > 0);
	ssize_t n = read_all(fd, answer, sizeof answer, 5);
	close(fd);
	char *body = strstr(answer, "\r\n\r\n");
	assert_non_null(body);
	assert_int_equal(answer + n - (body + 4), BIG);
}

/* A request byte by byte is served if it is done in time, and cut off if not. */
static void test_slow_request(void **state)
{
	(void)state;
	char answer[2048];
	int fd = dial();

	for (size_t i = 0; i < sizeof hello - 1; i++) {
		assert_int_equal(write(fd, hello + i, 1), 1);
		http_server_poll(server);
	}
	assert_true(read_all(fd, answer, sizeof answer, 5) > 0);
	assert_non_null(strstr(answer, "\r\n\r\nhello"));
	close(fd);

	double start = now();
	fd = dial();
	assert_int_equal(write(fd, hello, 10), 10);
	assert_int_equal(read_all(fd, answer, sizeof answer, 5), 0);
	assert_true(now() - start > 0.9 * PATIENCE_MS / 1000);
	close(fd);
	fd = dial(); /* dribbling does not prolong it */
	bool cut = false;
	for (start = now(); !cut && now() - start < 5;) {
		cut = send(fd, "X", 1, MSG_NOSIGNAL) < 0 || read(fd, answer, 1) == 0;
		turn(0.02);
	}
	close(fd);
	assert_true(cut);
	assert_true(now() - start < 4);
}

static void test_large_head(void **state)
{
	(void)state;
	static char flood[64 << 10];
	char answer[2048];
	int fd = dial();

	memset(flood, 'a', sizeof flood);
	memcpy(flood, "GET /hello HTTP/1.1\r\nX: ", 24);
	assert_true(write(fd, flood, sizeof flood) > 0);
	assert_true(read_all(fd, answer, sizeof answer, 5) >= 0);
	assert_int_equal(strncmp(answer, "HTTP/1.1 431 ", 13), 0);
	close(fd);
	assert_answers();
}

/* A reader that asks for much and reads nothing is let go; one that hangs up at once does no harm. */
static void test_bad_readers(void **state)
{
	(void)state;
	for (int i = 0; i < 8; i++) {
		int fd = dial();
		assert_true(write(fd, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n", 31) > 0);
		if (i % 2) turn(0.005);
		struct linger linger = { .l_onoff = 1 };
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger); /* a reset */
		close(fd);
		turn(0.005);
	}
	int fd = dial();
	assert_true(write(fd, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n", 31) > 0);
	turn(1.5 * PATIENCE_MS / 1000);
	char answer[4096];
	ssize_t n;
	while ((n = read(fd, answer, sizeof answer)) > 0) {}
	assert_true(n == 0 || errno == ECONNRESET);
	close(fd);
	assert_answers();
}

/* Idle connections beyond the limit are told so; when they have timed out all is well again. */
static void test_many_connections(void **state)
{
	(void)state;
	enum { MANY = 3 * HTTP_CONNECTIONS_MAX };
	char answer[2048];
	int fds[MANY], busy = 0;

	for (int i = 0; i < MANY; i++) {
		fds[i] = dial();
		http_server_poll(server);
	}
	for (int i = 0; i < MANY; i++) {
		ssize_t n = read(fds[i], answer, sizeof answer - 1);
		busy += n > 0 && strncmp(answer, "HTTP/1.1 503 ", 13) == 0;
	}
	assert_int_equal(busy, HTTP_CONNECTIONS_MAX); /* and those beyond get nothing */
	turn(1.5 * PATIENCE_MS / 1000);
	for (int i = 0; i < MANY; i++) close(fds[i]);
	assert_answers();
}

static void test_addresses(void **state)
{
	(void)state;
	struct http_server *other;
	struct http_server_options options = { .listen = http_server_address(server), .option = "metrics.listen", .get = get };
	struct err err;

	assert_int_equal(http_server_open(&other, &options, &err), ERR_IO);
	assert_non_null(strstr(err.text, "in use"));
	assert_non_null(strstr(err.text, "metrics.listen"));
	assert_null(strstr(err.text, "bridge.listen"));
	options.listen = "localhost";
	assert_true(http_server_open(&other, &options, &err) < 0);
	assert_non_null(strstr(err.text, "metrics.listen"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_large_body, setup, teardown),
		cmocka_unit_test_setup_teardown(test_slow_request, setup, teardown),
		cmocka_unit_test_setup_teardown(test_large_head, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_readers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_connections, setup, teardown),
		cmocka_unit_test_setup_teardown(test_addresses, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

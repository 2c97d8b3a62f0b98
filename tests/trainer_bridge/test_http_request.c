/* test_http_request.c - heads of HTTP requests: whole, cut anywhere, and hostile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "trainer_bridge/server/http_request.h"

static int parse(struct http_request *request, const char *text)
{
	return http_request_parse(request, text, strlen(text));
}

static void test_what_clients_send(void **state)
{
	(void)state;
	static const struct { const char *text, *path; bool head_only; } cases[] = {
		{ "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "/metrics", false },
		{ "HEAD / HTTP/1.1\r\nHost: [::1]:9464\r\n\r\n", "/", true },
		{ "GET /status?x=1&y=%20 HTTP/1.0\r\n\r\n", "/status", false }, /* 1.0 needs no Host */
		{ "GET /metrics HTTP/1.1\r\nHost: a:1\r\nUser-Agent: Prometheus/2.42\r\nAccept: text/plain;version=0.0.4;q=0.3,*/*;q=0.1\r\n"
		  "Accept-Encoding: gzip\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n", "/metrics", false },
		{ "GET http://host:9464/status HTTP/1.1\r\nhost: host:9464\r\ncontent-length: 0\r\n\r\n", "/status", false },
		{ "GET /a HTTP/1.1\r\nHost:\r\nX:\ttab\tinside\t\r\n\r\nGET /b HTTP/1.1\r\n", "/a", false }, /* what follows is not looked at */
	};
	struct http_request request;

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_int_equal(parse(&request, cases[i].text), HTTP_OK);
		assert_string_equal(request.path, cases[i].path);
		assert_int_equal(request.head_only, cases[i].head_only);
	}
}

static void test_refused(void **state)
{
	(void)state;
	static const struct { const char *text; int status; } cases[] = {
		{ "GET /metrics HTTP/1.1\r\n\r\n", 400 },                               /* no Host */
		{ "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400 },
		{ "POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 405 },
		{ "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", 405 },
		{ "get / HTTP/1.1\r\nHost: a\r\n\r\n", 405 },                           /* methods are case-sensitive */
		{ "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505 },
		{ "GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400 },
		{ "GET / http/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400 },
		{ "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET metrics HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET http://host HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
		{ "GET /\r\nHost: a\r\n\r\n", 400 },                                    /* HTTP/0.9 */
		{ "\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: a\r\nX: a\nY: b\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", 400 },
		{ "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 413 },
		{ "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 413 },
		{ "\x16\x03\x01\x02", 400 },                                          /* a TLS hello: at once */
	};
	struct http_request request;

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) assert_int_equal(parse(&request, cases[i].text), cases[i].status);
	assert_int_equal(http_request_parse(&request, "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 29), 400);
	assert_int_equal(http_request_parse(&request, "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", 30), 400);
}

/* Every beginning of a request waits for more; and none is read beyond what has come. */
static void test_cut_anywhere(void **state)
{
	(void)state;
	static const char text[] = "GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
	struct http_request request;

	for (size_t n = 0; n < sizeof text - 1; n++) {
		char *copy = malloc(n + 1); /* of its own size, so that a sanitizer sees a byte too many */
		memcpy(copy, text, n);
		copy = realloc(copy, n ? n : 1);
		assert_int_equal(http_request_parse(&request, copy, n), HTTP_MORE);
		free(copy);
	}
	assert_int_equal(http_request_parse(&request, text, sizeof text - 1), HTTP_OK);
}

static void test_limits(void **state)
{
	(void)state;
	static char text[3 * HTTP_HEAD_BYTES_MAX];
	struct http_request request;

	memset(text, 'a', sizeof text);
	assert_int_equal(http_request_parse(&request, text, HTTP_HEAD_BYTES_MAX - 1), HTTP_MORE);
	assert_int_equal(http_request_parse(&request, text, HTTP_HEAD_BYTES_MAX), 431);
	int n = snprintf(text, sizeof text, "GET /%0*d HTTP/1.0\r\n\r\n", HTTP_PATH_MAX - 2, 0);
	assert_int_equal(http_request_parse(&request, text, (size_t)n), HTTP_OK);
	assert_int_equal(strlen(request.path), HTTP_PATH_MAX - 1);
	n = snprintf(text, sizeof text, "GET /%0*d HTTP/1.0\r\n\r\n", HTTP_PATH_MAX - 1, 0);
	assert_int_equal(http_request_parse(&request, text, (size_t)n), 414);
	n = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: a\r\n");
	for (int i = 0; i < HTTP_FIELDS_MAX; i++) n += snprintf(text + n, sizeof text - (size_t)n, "X: %d\r\n", i);
	n += snprintf(text + n, sizeof text - (size_t)n, "\r\n");
	assert_int_equal(http_request_parse(&request, text, (size_t)n), 431);
	n = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: a\r\nX: %0*d\r\n\r\n", HTTP_HEAD_BYTES_MAX, 0);
	assert_int_equal(http_request_parse(&request, text, (size_t)n), 431);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_clients_send),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_cut_anywhere),
		cmocka_unit_test(test_limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

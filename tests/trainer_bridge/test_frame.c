/* test_frame.c - frames cut from a byte stream, and addresses from text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include "tests/support/bridge_fixture.h"
#include "trainer_bridge/address.h"
#include "trainer_bridge/frame.h"

static void feed(struct frame_reader *reader, const uint8_t *bytes, size_t n_bytes)
{
	while (n_bytes > 0) {
		size_t space;
		void *at = frame_reader_space(reader, &space);
		size_t n = n_bytes < space ? n_bytes : space;
		memcpy(at, bytes, n);
		frame_reader_filled(reader, n);
		bytes += n;
		n_bytes -= n;
	}
}

/* Frame i of the stream below: (i * 7919) % 3000 + 1 bytes, all of them i. */
static size_t size_of(int i)
{
	return (size_t)i * 7919 % 3000 + 1;
}

static void test_frames_survive_any_cutting(void **state)
{
	enum { N = 200 };
	static uint8_t stream[N * 3100];
	size_t n_bytes = 0;
	uint64_t random = 5;

	(void)state;
	for (int i = 0; i < N; i++) {
		frame_put_length(stream + n_bytes, size_of(i));
		memset(stream + n_bytes + FRAME_LENGTH_BYTES, i, size_of(i));
		n_bytes += FRAME_LENGTH_BYTES + size_of(i);
	}
	for (size_t largest = 1; largest < 20000; largest = largest * 3 + 1) {
		struct frame_reader *reader = frame_reader_open(3000);
		const void *payload;
		struct err err;
		size_t n, at = 0;
		int i = 0;
		while (at < n_bytes) {
			size_t cut = bridge_random(&random) % largest + 1;
			cut = cut < n_bytes - at ? cut : n_bytes - at;
			feed(reader, stream + at, cut);
			at += cut;
			for (; frame_next(reader, &payload, &n, &err) > 0; i++) {
				assert_int_equal(n, size_of(i));
				assert_int_equal(((const uint8_t *)payload)[0], i);
				assert_int_equal(((const uint8_t *)payload)[n - 1], i);
			}
		}
		assert_int_equal(i, N);
		assert_false(frame_reader_partial(reader));
		frame_reader_close(reader);
	}
}

static void test_lengths_have_limits(void **state)
{
	const struct { uint8_t bytes[4]; int code; } cases[] = {
		{{0, 0, 0, 0}, ERR_INVALID},
		{{0xff, 0xff, 0xff, 0xff}, ERR_TOO_BIG},
		{{0x01, 0x10, 0, 0}, ERR_TOO_BIG},
		{{0x00, 0x10, 0, 0}, 0},
		{{0x01, 0, 0, 0}, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct frame_reader *reader = frame_reader_open(4096);
		const void *payload;
		struct err err;
		size_t n;
		feed(reader, cases[i].bytes, 3);
		assert_int_equal(frame_next(reader, &payload, &n, &err), 0);
		feed(reader, cases[i].bytes + 3, 1);
		assert_int_equal(frame_next(reader, &payload, &n, &err), cases[i].code);
		assert_true(frame_reader_partial(reader));
		frame_reader_close(reader);
	}
}

static void test_memory_follows_what_arrived(void **state)
{
	const uint8_t announced[] = {0, 0, 0, 0x40}; /* 1 GiB */
	struct frame_reader *reader = frame_reader_open(FRAME_BYTES_LIMIT);
	size_t space;

	(void)state;
	feed(reader, announced, sizeof announced);
	frame_reader_space(reader, &space);
	assert_true(space < 1 << 20);
	frame_reader_close(reader);
}

static void test_words_go_both_ways(void **state)
{
	(void)state;
	for (int i = 0; i < FRAME_TYPES; i++)
		assert_int_equal(frame_type_parse(frame_name((enum frame_type)i)), i);
	assert_int_equal(frame_type_parse("helo"), -1);
	assert_int_equal(frame_type_parse(NULL), -1);
	assert_int_equal(wire_error_of(ERR_STATE), WIRE_STATE);
	assert_int_equal(wire_error_of(ERR_PEER), WIRE_INTERNAL);
	assert_int_equal(wire_error_of(-999), WIRE_INTERNAL);
	assert_int_equal(wire_error_parse("busy"), ERR_STATE);
	assert_int_equal(wire_error_parse("from the future"), ERR_PEER);
	assert_true(wire_error_may_retry(WIRE_BUSY));
	assert_false(wire_error_may_retry(WIRE_AUTH));
}

static void address_fails(const char *text, int code, const char *said)
{
	struct address address;
	struct err err = {0};

	assert_int_equal(address_parse(&address, text, &err), code);
	if (!strstr(err.text, said))
		fail_msg("'%s' does not say '%s'", err.text, said);
}

static void test_addresses(void **state)
{
	struct address address;
	struct err err;
	char path[200] = "unix:";

	(void)state;
	assert_int_equal(address_parse(&address, "unix:/tmp/x.sock", &err), 0);
	assert_true(address.is_unix && address.is_loopback);
	assert_string_equal(address.path, "/tmp/x.sock");
	assert_int_equal(address_parse(&address, "tcp:127.0.0.1:7000", &err), 0);
	assert_true(!address.is_unix && address.is_loopback);
	assert_int_equal(ntohs(((struct sockaddr_in *)&address.socket)->sin_port), 7000);
	assert_int_equal(address_parse(&address, "tcp:[::1]:0", &err), 0);
	assert_true(address.is_loopback);
	assert_int_equal(address_parse(&address, "tcp:*:7000", &err), 0);
	assert_false(address.is_loopback);
	assert_int_equal(address_parse(&address, "tcp:192.0.2.7:7000", &err), 0);
	assert_false(address.is_loopback);

	memset(path + 5, 'x', 107);
	assert_int_equal(address_parse(&address, path, &err), 0);
	path[112] = 'x';
	address_fails(path, ERR_TOO_BIG, "at most 107");
	address_fails("unix:", ERR_USAGE, "needs a path");
	address_fails("http://x", ERR_USAGE, "unix:PATH or tcp:HOST:PORT");
	address_fails("tcp:localhost", ERR_USAGE, "tcp:HOST:PORT");
	address_fails("tcp::7000", ERR_USAGE, "tcp:HOST:PORT");
	address_fails("tcp:127.0.0.1:", ERR_USAGE, "tcp:HOST:PORT");
	address_fails("tcp:127.0.0.1:65536", ERR_USAGE, "0 to 65535");
	address_fails("tcp:127.0.0.1:-1", ERR_USAGE, "0 to 65535");
	address_fails("tcp:127.0.0.1:80x", ERR_USAGE, "0 to 65535");
	address_fails("tcp:::1:80", ERR_USAGE, "brackets");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames_survive_any_cutting),
		cmocka_unit_test(test_lengths_have_limits),
		cmocka_unit_test(test_memory_follows_what_arrived),
		cmocka_unit_test(test_words_go_both_ways),
		cmocka_unit_test(test_addresses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

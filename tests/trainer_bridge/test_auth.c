/* test_auth.c - SHA-256 and HMAC against published vectors, and what a proof depends on.
 *
 * Vectors: FIPS 180-4 examples (NIST "SHA256.pdf"), one million 'a' (RFC 6234), RFC 4231 cases 1, 2, 3, 6.
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

#include <unistd.h>

#include "tests/support/bridge_fixture.h"
#include "trainer_bridge/server/auth.h"
#include "trainer_bridge/wire/sha256.h"

static void check_digest(const uint8_t *digest, const char *hex)
{
	uint8_t expected[SHA256_BYTES];

	assert_int_equal(bridge_unhex(hex, expected, sizeof expected), sizeof expected);
	assert_memory_equal(digest, expected, sizeof expected);
}

static void hash_is(const char *text, const char *hex)
{
	struct sha256 sha;
	uint8_t digest[SHA256_BYTES];

	sha256_begin(&sha);
	sha256_add(&sha, text, strlen(text));
	sha256_end(&sha, digest);
	check_digest(digest, hex);
}

static void test_sha256_vectors(void **state)
{
	(void)state;
	hash_is("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	hash_is("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	hash_is("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
	        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

static void test_sha256_in_pieces(void **state)
{
	struct sha256 sha;
	uint8_t digest[SHA256_BYTES];
	char piece[997];
	size_t left = 1000000;

	(void)state;
	memset(piece, 'a', sizeof piece);
	sha256_begin(&sha);
	for (size_t n = 1; left > 0; n = n % sizeof piece + 1) {
		size_t take = n < left ? n : left;
		sha256_add(&sha, piece, take);
		left -= take;
	}
	sha256_end(&sha, digest);
	check_digest(digest, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void mac_is(const void *key, size_t key_bytes, const void *text, size_t text_bytes, const char *hex)
{
	struct hmac_sha256 hmac;
	uint8_t mac[SHA256_BYTES];

	hmac_sha256_begin(&hmac, key, key_bytes);
	hmac_sha256_add(&hmac, text, text_bytes);
	hmac_sha256_end(&hmac, mac);
	check_digest(mac, hex);
}

static void test_hmac_vectors(void **state)
{
	uint8_t key[131], text[50];

	(void)state;
	memset(key, 0x0b, 20);
	mac_is(key, 20, "Hi There", 8, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
	mac_is("Jefe", 4, "what do ya want for nothing?", 28,
	       "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
	memset(key, 0xaa, sizeof key);
	memset(text, 0xdd, sizeof text);
	mac_is(key, 20, text, 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
	mac_is(key, 131, "Test Using Larger Than Block-Size Key - Hash Key First", 54,
	       "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

static void test_a_proof_depends_on_everything(void **state)
{
	uint8_t a[NONCE_BYTES] = {1}, b[NONCE_BYTES] = {2}, mac[MAC_BYTES], other[MAC_BYTES];

	(void)state;
	auth_prove(AUTH_PEER, "secret 1", a, b, "name", mac);
	auth_prove(AUTH_PEER, "secret 1", a, b, "name", other);
	assert_true(auth_equal(mac, other));
	auth_prove(AUTH_SERVER, "secret 1", a, b, "name", other); /* a proof cannot be sent back as one's own */
	assert_false(auth_equal(mac, other));
	auth_prove(AUTH_PEER, "secret 2", a, b, "name", other);
	assert_false(auth_equal(mac, other));
	auth_prove(AUTH_PEER, "secret 1", b, a, "name", other);
	assert_false(auth_equal(mac, other));
	auth_prove(AUTH_PEER, "secret 1", a, b, "nam", other);
	assert_false(auth_equal(mac, other));
	for (int i = 0; i < MAC_BYTES; i++) {
		memcpy(other, mac, sizeof mac);
		other[i] ^= 0x80;
		assert_false(auth_equal(mac, other));
	}
}

static void test_nonces_are_fresh(void **state)
{
	uint8_t a[NONCE_BYTES], b[NONCE_BYTES];

	(void)state;
	auth_nonce(a);
	auth_nonce(b);
	assert_memory_not_equal(a, b, sizeof a);
}

static int read_as(const char *content, char **secret, struct err *err)
{
	char path[] = "/tmp/secret-XXXXXX";
	int fd = mkstemp(path);
	FILE *file = fdopen(fd, "w");

	fputs(content, file);
	fclose(file);
	int rc = auth_secret_read(secret, path, err);
	unlink(path);
	return rc;
}

static void test_secrets_are_first_lines(void **state)
{
	char *secret, line[1100];
	struct err err;

	(void)state;
	assert_int_equal(read_as(" correct horse\r\nbattery\n", &secret, &err), 0);
	assert_string_equal(secret, "correct horse");
	free(secret);
	assert_int_equal(read_as("without a line end", &secret, &err), 0);
	assert_string_equal(secret, "without a line end");
	free(secret);
	assert_int_equal(read_as("", &secret, &err), ERR_CONFIG);
	assert_int_equal(read_as("\ncorrect horse\n", &secret, &err), ERR_CONFIG);
	assert_int_equal(read_as("7 bytes\n", &secret, &err), ERR_CONFIG);
	assert_non_null(strstr(err.text, "found 7"));
	memset(line, 'x', sizeof line);
	line[sizeof line - 1] = '\0';
	assert_int_equal(read_as(line, &secret, &err), ERR_TOO_BIG);
	assert_int_equal(auth_secret_read(&secret, "/nowhere/secret", &err), ERR_MISSING);
	assert_int_equal(auth_secret_read(&secret, "", &err), 0);
	assert_null(secret);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sha256_vectors),
		cmocka_unit_test(test_sha256_in_pieces),
		cmocka_unit_test(test_hmac_vectors),
		cmocka_unit_test(test_a_proof_depends_on_everything),
		cmocka_unit_test(test_nonces_are_fresh),
		cmocka_unit_test(test_secrets_are_first_lines),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

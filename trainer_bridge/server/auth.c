/* auth.c - challenge and response with HMAC-SHA256. */
#include "trainer_bridge/server/auth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer_bridge/wire/sha256.h"

_Static_assert((int)MAC_BYTES == (int)SHA256_BYTES, "a proof is one HMAC-SHA256");

int auth_secret_read(char **secret, const char *path, struct err *err)
{
	static const char blank[] = " \t\r\n";
	char line[1024] = "";

	*secret = NULL;
	if (!*path)
		return 0;
	FILE *file = fopen(path, "r");
	if (!file)
		return err_set_errno(err, ERR_MISSING, "cannot read bridge.secret_file %s", path);
	bool whole = !fgets(line, sizeof line, file) || strchr(line, '\n') || feof(file);
	fclose(file);
	if (!whole)
		return err_set(err, ERR_TOO_BIG, "bridge.secret_file %s: its first line has more than %zu bytes",
		               path, sizeof line - 2);
	char *begin = line + strspn(line, blank), *end = begin + strlen(begin);
	while (end > begin && strchr(blank, end[-1]))
		end--;
	*end = '\0';
	if (end - begin < SECRET_BYTES_MIN)
		return err_set(err, ERR_CONFIG,
		               "bridge.secret_file %s: expected %d bytes or more in its first line, found "
		               "%td; make one with 'head -c 24 /dev/urandom | base64'",
		               path, SECRET_BYTES_MIN, end - begin);
	*secret = xstrdup(begin);
	return 0;
}

void auth_nonce(uint8_t nonce[NONCE_BYTES])
{
	FILE *random = fopen("/dev/urandom", "rb");

	if (!random || fread(nonce, 1, NONCE_BYTES, random) != NONCE_BYTES) {
		fprintf(stderr,
		        "drumroll: cannot read /dev/urandom, and a guessable nonce would be worse than stopping\n");
		abort();
	}
	fclose(random);
}

void auth_prove(enum auth_side side, const char *secret, const uint8_t server_nonce[NONCE_BYTES],
                const uint8_t peer_nonce[NONCE_BYTES], const char *peer_name, uint8_t mac[MAC_BYTES])
{
	const char *purpose = side == AUTH_PEER ? "drumroll 1 peer" : "drumroll 1 server";
	struct hmac_sha256 hmac;

	hmac_sha256_begin(&hmac, secret, strlen(secret));
	hmac_sha256_add(&hmac, purpose, strlen(purpose));
	hmac_sha256_add(&hmac, server_nonce, NONCE_BYTES);
	hmac_sha256_add(&hmac, peer_nonce, NONCE_BYTES);
	hmac_sha256_add(&hmac, peer_name, strlen(peer_name));
	hmac_sha256_end(&hmac, mac);
}

bool auth_equal(const uint8_t a[MAC_BYTES], const uint8_t b[MAC_BYTES])
{
	volatile uint8_t difference = 0;

	for (int i = 0; i < MAC_BYTES; i++)
		difference |= a[i] ^ b[i];
	return difference == 0;
}

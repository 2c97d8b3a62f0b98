/* auth.h - proof of a shared secret by challenge and response, both ways (PROTOCOL.md, "Authentication").
 *
 * The secret never travels; a recorded handshake is useless later, since both sides add a fresh nonce.
 */
#ifndef TRAINER_BRIDGE_SERVER_AUTH_H
#define TRAINER_BRIDGE_SERVER_AUTH_H

#include <stdbool.h>
#include <stdint.h>

#include "trainer_bridge/wire/protocol.h"

/* The secret in a file: its first line without white space around it.  *secret is owned by the caller; NULL
 * where path is "" (none is configured). */
int auth_secret_read(char **secret, const char *path, struct err *err);

enum auth_side { AUTH_PEER, AUTH_SERVER }; /* who proves */

/* NONCE_BYTES from the system's generator. */
void auth_nonce(uint8_t nonce[NONCE_BYTES]);

/* HMAC-SHA256(secret, "drumroll 1 peer" or "drumroll 1 server", server nonce, peer nonce, peer name). */
void auth_prove(enum auth_side side, const char *secret, const uint8_t server_nonce[NONCE_BYTES],
                const uint8_t peer_nonce[NONCE_BYTES], const char *peer_name, uint8_t mac[MAC_BYTES]);

/* In time that does not depend on where they differ. */
bool auth_equal(const uint8_t a[MAC_BYTES], const uint8_t b[MAC_BYTES]);

#endif

/* protocol.h - the numbers and words of the wire, as closed sets; PROTOCOL.md states the same ones and
 * tests/trainer_bridge/test_protocol.c holds the two together. */
#ifndef TRAINER_BRIDGE_WIRE_PROTOCOL_H
#define TRAINER_BRIDGE_WIRE_PROTOCOL_H

#include "configs/err.h"

/* X(name, value) */
#define PROTOCOL_LIST(X) \
	X(PROTOCOL_VERSION, 1)                   /* newest spoken */ \
	X(PROTOCOL_VERSION_MIN, 1)               /* oldest spoken */ \
	X(FRAME_LENGTH_BYTES, 4)                 /* u32, little endian, of the payload behind it */ \
	X(FRAME_BYTES_LIMIT, 1073741824)         /* no configured limit is larger */ \
	X(HANDSHAKE_BYTES_MAX, 4096)             /* a peer's frames before WELCOME */ \
	X(BATCH_HEAD_BYTES_MAX, 256)             /* a batch part's frame minus its data */ \
	X(CHUNK_HEAD_BYTES_MAX, 512)             /* a weights chunk's frame minus its data */ \
	X(DELTA_BYTES_MAX, 4194304)              /* of a delta's piece, unpacked */ \
	X(LORA_RANK_MAX, 1024) \
	X(NONCE_BYTES, 32) \
	X(MAC_BYTES, 32)                         /* HMAC-SHA256 */ \
	X(SECRET_BYTES_MIN, 8) \
	X(PEER_NAME_BYTES_MAX, 128) \
	X(PEERS_MAX, 16)                         /* connections, strangers included */ \
	X(HANDSHAKE_SECONDS_MAX, 10)             /* from connect to WELCOME */ \
	X(FRAME_SECONDS_MAX, 120)                /* from a frame's first byte to its last */ \
	X(LINGER_SECONDS_MAX, 2)                 /* from a last ERROR to the close */ \
	X(REQUEST_PROMPTS_MAX, 4096)             /* in one SUBMIT or EVALUATE */ \
	X(REQUEST_SAMPLES_MAX, 1024)             /* of a prompt */ \
	X(REQUESTS_MAX, 16)                      /* EVALUATE and SCORE of a peer, unanswered */ \
	X(PROMPT_ID_BYTES_MAX, 256) \
	X(PROMPT_META_BYTES_MAX, 65536)          /* answer and meta of a prompt */ \
	X(PROMPTS_BYTES_MAX, 268435456)          /* of all that wait or are evaluated */ \
	X(SCORE_SEQUENCES_MAX, 4096)             /* in one SCORE */ \
	X(SCORE_TOKENS_MAX, 1048576)             /* of them together */

enum {
#define X(name, value) name = (value),
	PROTOCOL_LIST(X)
#undef X
};

/* X(name, "type" on the wire, who sends it: peer, server or both) */
#define FRAME_LIST(X) \
	X(FRAME_HELLO, "hello", "peer") \
	X(FRAME_CHALLENGE, "challenge", "server") \
	X(FRAME_AUTH, "auth", "peer") \
	X(FRAME_WELCOME, "welcome", "server") \
	X(FRAME_PULL, "pull", "peer") \
	X(FRAME_BATCH, "batch", "server") \
	X(FRAME_BATCH_LENGTHS, "batch_lengths", "server") \
	X(FRAME_BATCH_END, "batch_end", "server") \
	X(FRAME_ACK, "ack", "peer") \
	X(FRAME_WEIGHTS_BEGIN, "weights_begin", "peer") \
	X(FRAME_WEIGHTS_CHUNK, "weights_chunk", "peer") \
	X(FRAME_WEIGHTS_TENSOR, "weights_tensor", "peer") \
	X(FRAME_WEIGHTS_COMMIT, "weights_commit", "peer") \
	X(FRAME_WEIGHTS_OK, "weights_ok", "server") \
	X(FRAME_SUBMIT, "submit", "peer") \
	X(FRAME_EVALUATE, "evaluate", "peer") \
	X(FRAME_ACCEPTED, "accepted", "server") \
	X(FRAME_EVALUATION, "evaluation", "server") \
	X(FRAME_SCORE, "score", "peer") \
	X(FRAME_SCORES, "scores", "server") \
	X(FRAME_REPORT, "report", "peer") \
	X(FRAME_ERROR, "error", "server") \
	X(FRAME_PING, "ping", "both") \
	X(FRAME_PONG, "pong", "both") \
	X(FRAME_BYE, "bye", "both")

enum frame_type {
#define X(name, text, sender) name,
	FRAME_LIST(X)
#undef X
	FRAME_TYPES
};

/* X(name, "code" on the wire, the same in this program, may the peer retry?)
 * Where a program code has several words the first is the general one. */
#define WIRE_ERROR_LIST(X) \
	X(WIRE_MISSING, "missing", ERR_MISSING, false) \
	X(WIRE_INCOMPLETE, "incomplete", ERR_INCOMPLETE, true) \
	X(WIRE_INVALID, "invalid", ERR_INVALID, false) \
	X(WIRE_TOO_BIG, "too_big", ERR_TOO_BIG, false) \
	X(WIRE_UNSUPPORTED, "unsupported", ERR_UNSUPPORTED, false) \
	X(WIRE_AUTH, "auth", ERR_PEER, false) \
	X(WIRE_STATE, "state", ERR_STATE, false) \
	X(WIRE_BUSY, "busy", ERR_STATE, true) \
	X(WIRE_TIMEOUT, "timeout", ERR_TIMEOUT, true) \
	X(WIRE_MEMORY, "memory", ERR_MEMORY, true) \
	X(WIRE_BASE, "base", ERR_BASE, false) \
	X(WIRE_INTERNAL, "internal", ERR_IO, true)

enum wire_error {
#define X(name, text, code, retry) name,
	WIRE_ERROR_LIST(X)
#undef X
	WIRE_ERRORS
};

#endif

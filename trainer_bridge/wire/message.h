/* message.h - msgpack maps in and out; the only file pair that knows <msgpack.h>.
 *
 * Every message on the socket and between ranks is one msgpack map with short text keys.  Arrays of
 * numbers travel as little-endian bin.  Unknown keys are ignored by readers.
 */
#ifndef TRAINER_BRIDGE_WIRE_MESSAGE_H
#define TRAINER_BRIDGE_WIRE_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "configs/err.h"

enum {
	MESSAGE_NESTING_MAX = 16,
	MESSAGE_VALUES_MAX = 1 << 20 /* bounds what parsing may cost beyond the bytes themselves */
};

struct message_writer; /* grows; owns its bytes */

struct message_writer *message_writer_open(void);
void message_writer_close(struct message_writer *writer);
void message_writer_reset(struct message_writer *writer);
const void *message_bytes(const struct message_writer *writer, size_t *n_bytes); /* borrowed until the next write */

void message_begin_map(struct message_writer *writer, uint32_t n_pairs); /* as root or as a value */
void message_begin_array(struct message_writer *writer, uint32_t n_items);
void message_key(struct message_writer *writer, const char *key);        /* then exactly one value */
void message_put_int(struct message_writer *writer, int64_t value);
void message_put_uint(struct message_writer *writer, uint64_t value);
void message_put_real(struct message_writer *writer, double value);
void message_put_bool(struct message_writer *writer, bool value);
void message_put_text(struct message_writer *writer, const char *text);  /* NULL: nil */
void message_put_bin(struct message_writer *writer, const void *bytes, size_t n_bytes);
/* The head of a bin whose n_bytes the caller sends behind the message himself, uncopied: the last value. */
void message_begin_bin(struct message_writer *writer, size_t n_bytes);

/* Parsed message; nodes and texts are borrowed until message_close.  Nesting deeper than
 * MESSAGE_NESTING_MAX, more than MESSAGE_VALUES_MAX values, sizes beyond the bytes that are there, and
 * trailing bytes are errors.  The bytes are copied: they need not outlive the call. */
struct message;
struct message_node; /* a value */

int message_parse(struct message **message, const void *bytes, size_t n_bytes, struct err *err);
void message_close(struct message *message);
const struct message_node *message_root(const struct message *message);

/* Of a message of n_bytes, of which n_there have come: where the body begins, if it is a flat map whose last field
 * `data` is a bin that ends it; else 0.  bin_at: where that bin begins. */
size_t message_head(const void *bytes, size_t n_there, size_t n_bytes, size_t *body_bytes, size_t *bin_at);

/* Field of a map, or NULL; where a key is there twice the first counts. */
const struct message_node *message_field(const struct message_node *map, const char *key);
/* Items of an array: count, or -1 if it is none. */
int64_t message_count(const struct message_node *array);
const struct message_node *message_item(const struct message_node *array, uint32_t index);
/* Bytes of a bin, or NULL if it is none. */
const void *message_bin(const struct message_node *node, size_t *n_bytes);
bool message_is_nil(const struct message_node *node);

/* Required typed fields: ERR_MISSING or ERR_INVALID naming key, expected and found.
 * Texts are NUL-terminated copies owned by the message. */
int message_get_int(const struct message_node *map, const char *key, int64_t min, int64_t max, int64_t *value, struct err *err);
int message_get_uint(const struct message_node *map, const char *key, uint64_t *value, struct err *err);
int message_get_real(const struct message_node *map, const char *key, double *value, struct err *err);
int message_get_bool(const struct message_node *map, const char *key, bool *value, struct err *err);
int message_get_text(const struct message_node *map, const char *key, const char **text, struct err *err); /* nil gives NULL */
int message_get_bin(const struct message_node *map, const char *key, const void **bytes, size_t *n_bytes, struct err *err);

#endif

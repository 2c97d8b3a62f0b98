/* frame.h - cuts a byte stream into frames: u32 little-endian length, then that many bytes.
 *
 * Does no I/O.  Memory follows the bytes that have arrived (at most twice of them), never the length
 * that a peer announces.
 */
#ifndef TRAINER_BRIDGE_WIRE_FRAME_H
#define TRAINER_BRIDGE_WIRE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trainer_bridge/wire/message.h"
#include "trainer_bridge/wire/protocol.h"

struct frame_reader;

struct frame_reader *frame_reader_open(size_t frame_bytes_max);
void frame_reader_close(struct frame_reader *reader);
void frame_reader_limit(struct frame_reader *reader, size_t frame_bytes_max);

/* Where to put arriving bytes, and how many fit (at least 64 KiB); ends what frame_next has lent. */
void *frame_reader_space(struct frame_reader *reader, size_t *n_bytes);
void frame_reader_filled(struct frame_reader *reader, size_t n_bytes);

/* 1: a payload, borrowed until frame_reader_space; 0: not all there yet; < 0: the length is 0 or beyond
 * the limit, and the stream is lost. */
int frame_next(struct frame_reader *reader, const void **payload, size_t *n_bytes, struct err *err);

/* A frame, perhaps only begun, that is long and whose last field `data` is a bin: its payload with that bin empty,
 * into head [CHUNK_HEAD_BYTES_MAX], and the length of the bin.  frame_take_head then leaves the stream at the bin's
 * first byte, of which frame_take_body moves what has arrived already. */
bool frame_head(const struct frame_reader *reader, uint8_t *head, size_t *head_bytes, size_t *body_bytes);
void frame_take_head(struct frame_reader *reader);
/* Up to n_bytes into to, or thrown away where to is NULL; returns how many. */
size_t frame_take_body(struct frame_reader *reader, void *to, size_t n_bytes);

/* True while bytes of an unfinished frame lie here. */
bool frame_reader_partial(const struct frame_reader *reader);

void frame_put_length(uint8_t out[FRAME_LENGTH_BYTES], size_t n_bytes);

/* The map {"type": ..., n_fields more pairs} of a frame. */
void frame_begin(struct message_writer *writer, enum frame_type type, uint32_t n_fields);
const char *frame_name(enum frame_type type);
int frame_type_parse(const char *text); /* -1: unknown */

const char *wire_error_name(enum wire_error error);
bool wire_error_may_retry(enum wire_error error);
enum wire_error wire_error_of(int err_code);  /* the general word for an enum err_code; never "auth" */
int wire_error_parse(const char *text);       /* to enum err_code; ERR_PEER if unknown */

#endif

/* frame.c - length-prefixed frames out of a byte stream, and the words of protocol.h. */
#include "trainer_bridge/wire/frame.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { SPACE_MIN = 65536, BODY_MIN = 16384 };

struct frame_reader {
	uint8_t *bytes;
	size_t capacity, start, end; /* [start, end) are unread */
	size_t frame_bytes_max;
};

struct frame_reader *frame_reader_open(size_t frame_bytes_max)
{
	struct frame_reader *reader = xcalloc(1, sizeof *reader);

	reader->frame_bytes_max = frame_bytes_max;
	return reader;
}

void frame_reader_close(struct frame_reader *reader)
{
	if (!reader)
		return;
	free(reader->bytes);
	free(reader);
}

void frame_reader_limit(struct frame_reader *reader, size_t frame_bytes_max)
{
	reader->frame_bytes_max = frame_bytes_max;
}

void *frame_reader_space(struct frame_reader *reader, size_t *n_bytes)
{
	size_t unread = reader->end - reader->start;

	if (reader->start > 0) {
		memmove(reader->bytes, reader->bytes + reader->start, unread);
		reader->start = 0;
		reader->end = unread;
	}
	if (reader->capacity - unread < SPACE_MIN) {
		reader->capacity = 2 * unread + SPACE_MIN;
		reader->bytes = xrealloc(reader->bytes, reader->capacity);
	}
	*n_bytes = reader->capacity - unread;
	return reader->bytes + unread;
}

void frame_reader_filled(struct frame_reader *reader, size_t n_bytes)
{
	assert(n_bytes <= reader->capacity - reader->end);
	reader->end += n_bytes;
}

static size_t length_of(const uint8_t *at)
{
	return (size_t)at[0] | (size_t)at[1] << 8 | (size_t)at[2] << 16 | (size_t)at[3] << 24;
}

/* Where the body begins behind the frame's length, or 0. */
static size_t find_head(const struct frame_reader *reader, size_t *body_bytes, size_t *bin_at)
{
	size_t unread = reader->end - reader->start;

	if (unread <= FRAME_LENGTH_BYTES)
		return 0;
	const uint8_t *at = reader->bytes + reader->start;
	size_t length = length_of(at), there = unread - FRAME_LENGTH_BYTES, most = CHUNK_HEAD_BYTES_MAX - FRAME_LENGTH_BYTES;
	if (length < BODY_MIN || length > reader->frame_bytes_max)
		return 0;
	return message_head(at + FRAME_LENGTH_BYTES, there < most ? there : most, length, body_bytes, bin_at);
}

bool frame_head(const struct frame_reader *reader, uint8_t *head, size_t *head_bytes, size_t *body_bytes)
{
	static const uint8_t empty_bin[] = {0xc4, 0};
	size_t bin_at;

	if (find_head(reader, body_bytes, &bin_at) == 0)
		return false;
	memcpy(head, reader->bytes + reader->start + FRAME_LENGTH_BYTES, bin_at);
	memcpy(head + bin_at, empty_bin, sizeof empty_bin);
	*head_bytes = bin_at + sizeof empty_bin;
	return true;
}

void frame_take_head(struct frame_reader *reader)
{
	size_t body_bytes, bin_at;
	reader->start += FRAME_LENGTH_BYTES + find_head(reader, &body_bytes, &bin_at);
}

size_t frame_take_body(struct frame_reader *reader, void *to, size_t n_bytes)
{
	size_t unread = reader->end - reader->start, n = n_bytes < unread ? n_bytes : unread;

	if (to && n > 0)
		memcpy(to, reader->bytes + reader->start, n);
	reader->start += n;
	return n;
}

int frame_next(struct frame_reader *reader, const void **payload, size_t *n_bytes, struct err *err)
{
	const uint8_t *at = reader->bytes + reader->start;
	size_t unread = reader->end - reader->start;

	if (unread < FRAME_LENGTH_BYTES)
		return 0;
	size_t length = length_of(at);
	if (length == 0)
		return err_set(err, ERR_INVALID, "a frame of 0 bytes: expected a msgpack map behind the length");
	if (length > reader->frame_bytes_max)
		return err_set(err, ERR_TOO_BIG, "a frame of %zu bytes: the limit is %zu here", length,
		               reader->frame_bytes_max);
	if (unread - FRAME_LENGTH_BYTES < length)
		return 0;
	*payload = at + FRAME_LENGTH_BYTES;
	*n_bytes = length;
	reader->start += FRAME_LENGTH_BYTES + length;
	return 1;
}

bool frame_reader_partial(const struct frame_reader *reader)
{
	return reader->end > reader->start;
}

void frame_put_length(uint8_t out[FRAME_LENGTH_BYTES], size_t n_bytes)
{
	assert(n_bytes <= UINT32_MAX);
	for (int i = 0; i < FRAME_LENGTH_BYTES; i++)
		out[i] = (uint8_t)(n_bytes >> 8 * i);
}

static const char *const frame_names[] = {
#define X(name, text, sender) text,
	FRAME_LIST(X)
#undef X
};

const char *frame_name(enum frame_type type)
{
	assert(type < FRAME_TYPES);
	return frame_names[type];
}

int frame_type_parse(const char *text)
{
	for (int i = 0; text && i < FRAME_TYPES; i++)
		if (strcmp(frame_names[i], text) == 0)
			return i;
	return -1;
}

void frame_begin(struct message_writer *writer, enum frame_type type, uint32_t n_fields)
{
	message_begin_map(writer, n_fields + 1);
	message_key(writer, "type");
	message_put_text(writer, frame_name(type));
}

static const struct {
	const char *name;
	int err_code;
	bool may_retry;
} wire_errors[] = {
#define X(name, text, code, retry) {text, code, retry},
	WIRE_ERROR_LIST(X)
#undef X
};

const char *wire_error_name(enum wire_error error)
{
	assert(error < WIRE_ERRORS);
	return wire_errors[error].name;
}

bool wire_error_may_retry(enum wire_error error)
{
	assert(error < WIRE_ERRORS);
	return wire_errors[error].may_retry;
}

enum wire_error wire_error_of(int err_code)
{
	for (int i = 0; i < WIRE_ERRORS; i++)
		if (wire_errors[i].err_code == err_code && i != WIRE_AUTH)
			return (enum wire_error)i;
	return WIRE_INTERNAL;
}

int wire_error_parse(const char *text)
{
	for (int i = 0; text && i < WIRE_ERRORS; i++)
		if (strcmp(wire_errors[i].name, text) == 0)
			return wire_errors[i].err_code;
	return ERR_PEER;
}

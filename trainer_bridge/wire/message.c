/* message.c - msgpack maps in and out, through msgpack-c.
 *
 * Reading is two passes.  The first (message_scan) walks the bytes without building anything and
 * refuses what would cost more than it carries: deep nesting, counts beyond the bytes that are there,
 * more than MESSAGE_VALUES_MAX values, trailing bytes.  Only then does msgpack-c build its tree, whose
 * memory is thereby bounded.  Cost: one byte per tag, bin and text bodies are skipped, plus one copy.
 *
 * Texts are NUL-terminated in place: the byte behind a text is the tag of the next value, which the
 * tree no longer needs.
 */
#include <assert.h>
#include <inttypes.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "trainer_bridge/wire/message.h"

/* ---- writing ---- */

struct message_writer {
	msgpack_sbuffer buffer;
	msgpack_packer packer;
};

static int append_bytes(void *context, const char *bytes, size_t n_bytes)
{
	msgpack_sbuffer *buffer = context;

	if (buffer->alloc - buffer->size < n_bytes) {
		size_t need = buffer->size + n_bytes, twice = 2 * buffer->alloc;
		buffer->alloc = need > twice ? need : twice;
		buffer->data = xrealloc(buffer->data, buffer->alloc);
	}
	if (n_bytes > 0)
		memcpy(buffer->data + buffer->size, bytes, n_bytes);
	buffer->size += n_bytes;
	return 0;
}

struct message_writer *message_writer_open(void)
{
	struct message_writer *writer = xcalloc(1, sizeof *writer);

	writer->buffer.alloc = 256;
	writer->buffer.data = xmalloc(writer->buffer.alloc);
	msgpack_packer_init(&writer->packer, &writer->buffer, append_bytes);
	return writer;
}

void message_writer_close(struct message_writer *writer)
{
	if (!writer)
		return;
	free(writer->buffer.data);
	free(writer);
}

void message_writer_reset(struct message_writer *writer)
{
	writer->buffer.size = 0;
}

const void *message_bytes(const struct message_writer *writer, size_t *n_bytes)
{
	*n_bytes = writer->buffer.size;
	return writer->buffer.data;
}

void message_begin_map(struct message_writer *writer, uint32_t n_pairs)
{
	msgpack_pack_map(&writer->packer, n_pairs);
}

void message_begin_array(struct message_writer *writer, uint32_t n_items)
{
	msgpack_pack_array(&writer->packer, n_items);
}

void message_key(struct message_writer *writer, const char *key)
{
	message_put_text(writer, key);
}

void message_put_int(struct message_writer *writer, int64_t value)
{
	msgpack_pack_int64(&writer->packer, value);
}

void message_put_uint(struct message_writer *writer, uint64_t value)
{
	msgpack_pack_uint64(&writer->packer, value);
}

void message_put_real(struct message_writer *writer, double value)
{
	msgpack_pack_double(&writer->packer, value);
}

void message_put_bool(struct message_writer *writer, bool value)
{
	if (value)
		msgpack_pack_true(&writer->packer);
	else
		msgpack_pack_false(&writer->packer);
}

void message_put_text(struct message_writer *writer, const char *text)
{
	if (!text) {
		msgpack_pack_nil(&writer->packer);
		return;
	}
	msgpack_pack_str(&writer->packer, strlen(text));
	msgpack_pack_str_body(&writer->packer, text, strlen(text));
}

void message_put_bin(struct message_writer *writer, const void *bytes, size_t n_bytes)
{
	message_begin_bin(writer, n_bytes);
	append_bytes(&writer->buffer, bytes, n_bytes);
}

void message_begin_bin(struct message_writer *writer, size_t n_bytes)
{
	assert(n_bytes <= UINT32_MAX);
	msgpack_pack_bin(&writer->packer, n_bytes);
}

/* ---- scanning ---- */

struct scan {
	const uint8_t *bytes;
	size_t n_bytes, at;
	uint64_t open[MESSAGE_NESTING_MAX]; /* values still to come in each open map or array */
	int depth;
	uint64_t n_values;
};

/* Big-endian unsigned of `width` bytes at `at`; false if they are not all there. */
static bool scan_length(struct scan *scan, int width, uint64_t *value)
{
	if (scan->n_bytes - scan->at < (size_t)width)
		return false;
	*value = 0;
	for (int i = 0; i < width; i++)
		*value = *value << 8 | scan->bytes[scan->at++];
	return true;
}

/* Shape of one value: bytes of its length field, fixed part, body bytes or children. */
struct tag {
	int length_width;  /* bytes of a length or count behind the tag, 0: the count is in the tag */
	uint64_t fixed;    /* body bytes or children if length_width is 0; extra body bytes else */
	int per_child;     /* 0: a body of bytes; 1: array; 2: map */
	bool valid;
};

static struct tag read_tag(uint8_t byte)
{
	if (byte <= 0x7f || byte >= 0xe0) /* small integers */
		return (struct tag){.valid = true};
	if (byte <= 0x8f)
		return (struct tag){.fixed = byte & 0x0f, .per_child = 2, .valid = true};
	if (byte <= 0x9f)
		return (struct tag){.fixed = byte & 0x0f, .per_child = 1, .valid = true};
	if (byte <= 0xbf)
		return (struct tag){.fixed = byte & 0x1f, .valid = true};
	switch (byte) {
	case 0xc0: case 0xc2: case 0xc3: /* nil, false, true */
		return (struct tag){.valid = true};
	case 0xc4: case 0xc5: case 0xc6: /* bin 8, 16, 32 */
		return (struct tag){.length_width = 1 << (byte - 0xc4), .valid = true};
	case 0xca: case 0xcb:            /* float 32, 64 */
		return (struct tag){.fixed = byte == 0xca ? 4 : 8, .valid = true};
	case 0xcc: case 0xcd: case 0xce: case 0xcf: /* uint 8 .. 64 */
		return (struct tag){.fixed = 1u << (byte - 0xcc), .valid = true};
	case 0xd0: case 0xd1: case 0xd2: case 0xd3: /* int 8 .. 64 */
		return (struct tag){.fixed = 1u << (byte - 0xd0), .valid = true};
	case 0xd9: case 0xda: case 0xdb: /* str 8, 16, 32 */
		return (struct tag){.length_width = 1 << (byte - 0xd9), .valid = true};
	case 0xdc: case 0xdd:            /* array 16, 32 */
		return (struct tag){.length_width = byte == 0xdc ? 2 : 4, .per_child = 1, .valid = true};
	case 0xde: case 0xdf:            /* map 16, 32 */
		return (struct tag){.length_width = byte == 0xde ? 2 : 4, .per_child = 2, .valid = true};
	default: /* 0xc1 is reserved; extension types are not part of the protocol */
		return (struct tag){.valid = false};
	}
}

static int scan_value(struct scan *scan, struct err *err)
{
	size_t start = scan->at;
	uint8_t byte = scan->bytes[scan->at++];
	struct tag tag = read_tag(byte);
	uint64_t size = tag.fixed;

	if (!tag.valid)
		return err_set(err, ERR_INVALID, "message byte %zu is 0x%02x, which begins no value of this protocol "
		               "(extension types are not used)", start, byte);
	if (tag.length_width && !scan_length(scan, tag.length_width, &size))
		return err_set(err, ERR_INCOMPLETE, "message ends inside the length at byte %zu of %zu", start,
		               scan->n_bytes);
	uint64_t needed = tag.per_child ? size * (uint64_t)tag.per_child : size; /* a child is a byte at least */
	if (needed > scan->n_bytes - scan->at)
		return err_set(err, ERR_INCOMPLETE, "message value at byte %zu needs at least %" PRIu64
		               " more bytes, %zu are there", start, needed, scan->n_bytes - scan->at);
	if (++scan->n_values > MESSAGE_VALUES_MAX)
		return err_set(err, ERR_TOO_BIG, "message holds more than %d values", MESSAGE_VALUES_MAX);
	if (!tag.per_child) {
		scan->at += (size_t)size;
		return 0;
	}
	if (scan->depth == MESSAGE_NESTING_MAX)
		return err_set(err, ERR_TOO_BIG, "message is nested deeper than %d at byte %zu", MESSAGE_NESTING_MAX,
		               start);
	scan->open[scan->depth++] = needed;
	return 0;
}

/* 0 if the bytes are exactly one value within the limits. */
static int message_scan(const void *bytes, size_t n_bytes, struct err *err)
{
	struct scan scan = {.bytes = bytes, .n_bytes = n_bytes};

	do {
		if (scan.at == n_bytes)
			return err_set(err, ERR_INCOMPLETE, "message ends after %zu bytes with values missing", n_bytes);
		if (scan.depth)
			scan.open[scan.depth - 1]--;
		if (scan_value(&scan, err))
			return err->code;
		while (scan.depth && scan.open[scan.depth - 1] == 0)
			scan.depth--;
	} while (scan.depth);
	if (scan.at != n_bytes)
		return err_set(err, ERR_INVALID, "message is followed by %zu bytes that belong to nothing",
		               n_bytes - scan.at);
	return 0;
}

size_t message_head(const void *bytes, size_t n_there, size_t n_bytes, size_t *body_bytes, size_t *bin_at)
{
	static const char last_key[] = "\xa4" "data";
	struct scan scan = {.bytes = bytes, .n_bytes = n_there};
	struct tag tag;
	uint64_t size;

	if (n_there == 0 || (tag = read_tag(scan.bytes[scan.at++]), !tag.valid) || tag.per_child != 2 || tag.length_width)
		return 0;
	for (uint64_t left = 2 * tag.fixed; left > 0; left--) {
		if (scan.at == n_there)
			return 0;
		*bin_at = scan.at;
		struct tag value = read_tag(scan.bytes[scan.at++]);
		size = value.fixed;
		if (!value.valid || value.per_child ||
		    (value.length_width && !scan_length(&scan, value.length_width, &size)))
			return 0;
		if (left == 1 && *bin_at >= sizeof last_key - 1 && scan.bytes[*bin_at] >= 0xc4 &&
		    scan.bytes[*bin_at] <= 0xc6 && size == n_bytes - scan.at &&
		    memcmp(scan.bytes + *bin_at - (sizeof last_key - 1), last_key, sizeof last_key - 1) == 0) {
			*body_bytes = (size_t)size;
			return scan.at;
		}
		if (size > n_there - scan.at)
			return 0;
		scan.at += (size_t)size;
	}
	return 0;
}

/* ---- reading ---- */

struct message {
	char *bytes; /* copy, one byte longer; the tree points into it */
	msgpack_unpacked unpacked;
};

static msgpack_object *object_of(const struct message_node *node)
{
	union { const struct message_node *node; msgpack_object *object; } cast = {.node = node};
	return cast.object;
}

static const struct message_node *node_of(const msgpack_object *object)
{
	return (const struct message_node *)(const void *)object;
}

/* An empty text has no place of its own: msgpack-c points it anywhere. */
static void terminate_text(struct message *message, const msgpack_object_str *text)
{
	if (text->size > 0)
		message->bytes[(size_t)(text->ptr - message->bytes) + text->size] = '\0';
}

/* Recursion is bounded by MESSAGE_NESTING_MAX. */
static void terminate_texts(struct message *message, const msgpack_object *object)
{
	if (object->type == MSGPACK_OBJECT_STR) {
		terminate_text(message, &object->via.str);
	} else if (object->type == MSGPACK_OBJECT_ARRAY) {
		for (uint32_t i = 0; i < object->via.array.size; i++)
			terminate_texts(message, &object->via.array.ptr[i]);
	} else if (object->type == MSGPACK_OBJECT_MAP) {
		for (uint32_t i = 0; i < object->via.map.size; i++) {
			terminate_texts(message, &object->via.map.ptr[i].key);
			terminate_texts(message, &object->via.map.ptr[i].val);
		}
	}
}

int message_parse(struct message **out, const void *bytes, size_t n_bytes, struct err *err)
{
	*out = NULL;
	if (message_scan(bytes, n_bytes, err))
		return err->code;
	struct message *message = xcalloc(1, sizeof *message);
	size_t at = 0;

	message->bytes = xmalloc(n_bytes + 1);
	memcpy(message->bytes, bytes, n_bytes);
	msgpack_unpacked_init(&message->unpacked);
	if (msgpack_unpack_next(&message->unpacked, message->bytes, n_bytes, &at) != MSGPACK_UNPACK_SUCCESS) {
		message_close(message);
		return err_set(err, ERR_INVALID, "message of %zu bytes is not msgpack", n_bytes);
	}
	terminate_texts(message, &message->unpacked.data);
	*out = message;
	return 0;
}

void message_close(struct message *message)
{
	if (!message)
		return;
	msgpack_unpacked_destroy(&message->unpacked);
	free(message->bytes);
	free(message);
}

const struct message_node *message_root(const struct message *message)
{
	return node_of(&message->unpacked.data);
}

const struct message_node *message_field(const struct message_node *map, const char *key)
{
	const msgpack_object *object = object_of(map);
	size_t length = strlen(key);

	if (object->type != MSGPACK_OBJECT_MAP)
		return NULL;
	for (uint32_t i = 0; i < object->via.map.size; i++) {
		const msgpack_object_kv *pair = &object->via.map.ptr[i];
		if (pair->key.type == MSGPACK_OBJECT_STR && pair->key.via.str.size == length &&
		    memcmp(pair->key.via.str.ptr, key, length) == 0)
			return node_of(&pair->val);
	}
	return NULL;
}

int64_t message_count(const struct message_node *array)
{
	const msgpack_object *object = array ? object_of(array) : NULL;
	return object && object->type == MSGPACK_OBJECT_ARRAY ? (int64_t)object->via.array.size : -1;
}

const struct message_node *message_item(const struct message_node *array, uint32_t index)
{
	assert(message_count(array) > (int64_t)index);
	return node_of(&object_of(array)->via.array.ptr[index]);
}

const void *message_bin(const struct message_node *node, size_t *n_bytes)
{
	const msgpack_object *object = object_of(node);

	if (object->type != MSGPACK_OBJECT_BIN)
		return NULL;
	*n_bytes = object->via.bin.size;
	return *n_bytes > 0 ? object->via.bin.ptr : "";
}

bool message_is_nil(const struct message_node *node)
{
	return object_of(node)->type == MSGPACK_OBJECT_NIL;
}

/* ---- typed fields ---- */

static const char *type_name(const msgpack_object *object)
{
	switch (object->type) {
	case MSGPACK_OBJECT_NIL: return "nil";
	case MSGPACK_OBJECT_BOOLEAN: return "a boolean";
	case MSGPACK_OBJECT_POSITIVE_INTEGER:
	case MSGPACK_OBJECT_NEGATIVE_INTEGER: return "an integer";
	case MSGPACK_OBJECT_FLOAT32:
	case MSGPACK_OBJECT_FLOAT64: return "a real number";
	case MSGPACK_OBJECT_STR: return "a text";
	case MSGPACK_OBJECT_BIN: return "a bin";
	case MSGPACK_OBJECT_ARRAY: return "an array";
	case MSGPACK_OBJECT_MAP: return "a map";
	default: return "an extension";
	}
}

/* The field's value; NULL with err set if it is missing. */
static const msgpack_object *require(const struct message_node *map, const char *key, const char *expected,
                                     struct err *err)
{
	const struct message_node *node = message_field(map, key);

	if (!node) {
		const msgpack_object *object = object_of(map);
		if (object->type != MSGPACK_OBJECT_MAP)
			err_set(err, ERR_INVALID, "expected a map with '%s' (%s), found %s", key, expected,
			        type_name(object));
		else
			err_set(err, ERR_MISSING, "field '%s' (%s) is missing", key, expected);
		return NULL;
	}
	return object_of(node);
}

static int wrong_type(const char *key, const char *expected, const msgpack_object *found, struct err *err)
{
	return err_set(err, ERR_INVALID, "field '%s': expected %s, found %s", key, expected, type_name(found));
}

int message_get_int(const struct message_node *map, const char *key, int64_t min, int64_t max, int64_t *value,
                    struct err *err)
{
	const msgpack_object *object = require(map, key, "an integer", err);

	if (!object)
		return err->code;
	if (object->type == MSGPACK_OBJECT_POSITIVE_INTEGER && object->via.u64 > (uint64_t)INT64_MAX)
		return err_set(err, ERR_INVALID, "field '%s': expected %" PRId64 " to %" PRId64 ", found %" PRIu64,
		               key, min, max, object->via.u64);
	if (object->type != MSGPACK_OBJECT_POSITIVE_INTEGER && object->type != MSGPACK_OBJECT_NEGATIVE_INTEGER)
		return wrong_type(key, "an integer", object, err);
	int64_t found =
		object->type == MSGPACK_OBJECT_NEGATIVE_INTEGER ? object->via.i64 : (int64_t)object->via.u64;
	if (found < min || found > max)
		return err_set(err, ERR_INVALID, "field '%s': expected %" PRId64 " to %" PRId64 ", found %" PRId64,
		               key, min, max, found);
	*value = found;
	return 0;
}

int message_get_uint(const struct message_node *map, const char *key, uint64_t *value, struct err *err)
{
	const msgpack_object *object = require(map, key, "an integer from 0", err);

	if (!object)
		return err->code;
	if (object->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
		return wrong_type(key, "an integer from 0", object, err);
	*value = object->via.u64;
	return 0;
}

int message_get_real(const struct message_node *map, const char *key, double *value, struct err *err)
{
	const msgpack_object *object = require(map, key, "a number", err);

	if (!object)
		return err->code;
	switch (object->type) {
	case MSGPACK_OBJECT_FLOAT32:
	case MSGPACK_OBJECT_FLOAT64: *value = object->via.f64; return 0;
	case MSGPACK_OBJECT_POSITIVE_INTEGER: *value = (double)object->via.u64; return 0;
	case MSGPACK_OBJECT_NEGATIVE_INTEGER: *value = (double)object->via.i64; return 0;
	default: return wrong_type(key, "a number", object, err);
	}
}

int message_get_bool(const struct message_node *map, const char *key, bool *value, struct err *err)
{
	const msgpack_object *object = require(map, key, "a boolean", err);

	if (!object)
		return err->code;
	if (object->type != MSGPACK_OBJECT_BOOLEAN)
		return wrong_type(key, "a boolean", object, err);
	*value = object->via.boolean;
	return 0;
}

int message_get_text(const struct message_node *map, const char *key, const char **text, struct err *err)
{
	const msgpack_object *object = require(map, key, "a text", err);

	if (!object)
		return err->code;
	if (object->type == MSGPACK_OBJECT_NIL) {
		*text = NULL;
		return 0;
	}
	if (object->type != MSGPACK_OBJECT_STR)
		return wrong_type(key, "a text", object, err);
	bool empty = object->via.str.size == 0;
	if (!empty && memchr(object->via.str.ptr, 0, object->via.str.size))
		return err_set(err, ERR_INVALID, "field '%s': the text holds a NUL character", key);
	*text = empty ? "" : object->via.str.ptr;
	return 0;
}

int message_get_bin(const struct message_node *map, const char *key, const void **bytes, size_t *n_bytes,
                    struct err *err)
{
	const msgpack_object *object = require(map, key, "a bin", err);

	if (!object)
		return err->code;
	if (object->type != MSGPACK_OBJECT_BIN)
		return wrong_type(key, "a bin", object, err);
	*bytes = object->via.bin.size > 0 ? object->via.bin.ptr : "";
	*n_bytes = object->via.bin.size;
	return 0;
}

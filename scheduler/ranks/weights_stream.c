/* weights_stream.c - one cursor per child over the log. */
#include "scheduler/ranks/weights_stream.h"

#include <stdlib.h>
#include <string.h>

#include "scheduler/ranks/rank_messages.h"
#include "scheduler/ranks/weights_tree.h"

enum { BACKLOG_MAX = 8 << 20 };

/* ---- the log ---- */

struct weights_log *weights_log_open(int64_t version, const struct weights *weights)
{
	struct weights_log *log = xcalloc(1, sizeof *log);
	log->version = version;
	log->weights = *weights;
	return log;
}

void weights_log_close(struct weights_log *log)
{
	if (!log) return;
	free(log->entries);
	free(log);
}

static void append(struct weights_log *log, struct weights_entry entry)
{
	if (log->n == log->capacity) {
		log->capacity = log->capacity ? 2 * log->capacity : 256;
		log->entries = xrealloc(log->entries, (size_t)log->capacity * sizeof *log->entries);
	}
	log->entries[log->n++] = entry;
}

void weights_log_bytes(struct weights_log *log, size_t begin, size_t end)
{
	struct weights_entry *last = log->n ? &log->entries[log->n - 1] : NULL;

	if (last && last->tensor < 0 && last->end == begin) last->end = end;
	else append(log, (struct weights_entry){ .begin = begin, .end = end, .tensor = -1 });
}

void weights_log_tensor(struct weights_log *log, int tensor, uint64_t xxh3)
{
	append(log, (struct weights_entry){ .tensor = tensor, .xxh3 = xxh3 });
}

/* ---- the stream ---- */

struct child {
	int32_t rank;
	bool begun, ended;
	int entry;      /* the next of the log */
	size_t sent;    /* bytes of it */
};

struct weights_stream {
	uint64_t number;
	const struct weights_log *log;
	int32_t *ranks; /* [n_ranks] */
	int n_ranks, fanout, n_children;
	struct child *children; /* [n_children] */
};

struct weights_stream *weights_stream_open(uint64_t number, const struct weights_log *log, const int32_t *ranks, int n,
                                           int fanout, int self)
{
	struct weights_stream *stream = xcalloc(1, sizeof *stream);
	int32_t *children = xcalloc((unsigned long)fanout, sizeof *children);

	*stream = (struct weights_stream){ .number = number, .log = log, .n_ranks = n, .fanout = fanout };
	stream->ranks = xcalloc((unsigned long)(n ? n : 1), sizeof *ranks);
	if (n) memcpy(stream->ranks, ranks, (size_t)n * sizeof *ranks);
	stream->n_children = weights_tree_children(ranks, n, fanout, self, children);
	stream->children = xcalloc((unsigned long)fanout, sizeof *stream->children);
	for (int i = 0; i < stream->n_children; i++) stream->children[i].rank = children[i];
	free(children);
	return stream;
}

void weights_stream_close(struct weights_stream *stream)
{
	if (!stream) return;
	free(stream->ranks);
	free(stream->children);
	free(stream);
}

bool weights_stream_has(const struct weights_stream *stream, int rank)
{
	for (int i = 0; i < stream->n_ranks; i++)
		if (stream->ranks[i] == rank) return true;
	return false;
}

const struct weights_log *weights_stream_log(const struct weights_stream *stream) { return stream->log; }

static void begin_message(const struct weights_stream *stream, struct message_writer *writer, enum rank_message type,
                          uint32_t n_fields)
{
	rank_message_begin(writer, type, n_fields + 1);
	message_key(writer, "stream");
	message_put_uint(writer, stream->number);
}

static void put_uint(struct message_writer *writer, const char *key, uint64_t value)
{
	message_key(writer, key);
	message_put_uint(writer, value);
}

static void write_begin(const struct weights_stream *stream, struct message_writer *writer)
{
	begin_message(stream, writer, RANK_WEIGHTS_BEGIN, 4);
	put_uint(writer, "version", (uint64_t)stream->log->version);
	put_uint(writer, "bytes", 2 * stream->log->weights.n_elements);
	put_uint(writer, "fanout", (uint64_t)stream->fanout);
	message_key(writer, "ranks");
	message_put_bin(writer, stream->ranks, (size_t)stream->n_ranks * sizeof *stream->ranks);
}

/* More bytes may be added to this entry. */
static bool grows(const struct weights_log *log, int entry) { return entry == log->n - 1 && !log->committed; }

/* The entry of which something is to be sent, or NULL. */
static const struct weights_entry *skip_sent(const struct weights_log *log, struct child *child)
{
	for (; child->entry < log->n; child->entry++, child->sent = 0) {
		const struct weights_entry *e = &log->entries[child->entry];
		if (e->tensor >= 0 || e->begin + child->sent < e->end || grows(log, child->entry)) return e;
	}
	return NULL;
}

/* The next message for the child, or false if there is none now.  Bytes at the end of the log may still grow to a
 * whole chunk. */
static bool write_next(const struct weights_stream *stream, struct child *child, struct message_writer *writer,
                       size_t chunk_bytes)
{
	const struct weights_log *log = stream->log;

	if (child->ended) return false;
	if (!child->begun) {
		child->begun = true;
		write_begin(stream, writer);
		return true;
	}
	const struct weights_entry *e = skip_sent(log, child);
	if (!e) {
		if (!log->committed) return false;
		child->ended = true;
		begin_message(stream, writer, RANK_WEIGHTS_COMMIT, 0);
		return true;
	}
	if (e->tensor >= 0) {
		begin_message(stream, writer, RANK_WEIGHTS_TENSOR, 2);
		put_uint(writer, "tensor", (uint64_t)e->tensor);
		put_uint(writer, "xxh3", e->xxh3);
		child->entry++;
		return true;
	}
	size_t begin = e->begin + child->sent, n = e->end - begin;
	if (n < chunk_bytes && grows(log, child->entry)) return false;
	if (n > chunk_bytes) n = chunk_bytes;
	begin_message(stream, writer, RANK_WEIGHTS, 2);
	put_uint(writer, "offset", begin);
	message_key(writer, "data");
	message_put_bin(writer, (const char *)log->weights.data + begin, n);
	child->sent += n;
	return true;
}

int weights_stream_pump(struct weights_stream *stream, struct transport *transport, struct message_writer *writer,
                        size_t chunk_bytes, struct err *err)
{
	int rc = 0;

	for (int i = 0; i < stream->n_children; i++) {
		struct child *child = &stream->children[i];
		while (!rc && transport_backlog(transport, child->rank) < BACKLOG_MAX && write_next(stream, child, writer, chunk_bytes))
			rc = rank_message_send(transport, child->rank, writer, err);
	}
	return rc;
}

bool weights_stream_done(const struct weights_stream *stream)
{
	for (int i = 0; i < stream->n_children; i++)
		if (!stream->children[i].ended) return false;
	return true;
}

size_t weights_stream_backlog(const struct weights_stream *stream, const struct transport *transport)
{
	size_t n = 0;

	for (int i = 0; i < stream->n_children; i++) n += transport_backlog(transport, stream->children[i].rank);
	return n;
}

int weights_stream_drop(struct weights_stream *stream, struct transport *transport, struct message_writer *writer,
                        struct err *err)
{
	int rc = 0;

	for (int i = 0; i < stream->n_children && !rc; i++) {
		if (!stream->children[i].begun || stream->children[i].ended) continue;
		begin_message(stream, writer, RANK_WEIGHTS_DROP, 0);
		stream->children[i].ended = true;
		rc = rank_message_send(transport, stream->children[i].rank, writer, err);
	}
	return rc;
}

/* weights_stream.h - a version of the weights as it grows, and its way to other ranks.
 *
 * The log is what has arrived, in the order in which it did: ranges of bytes, which lie in the version's own
 * memory, and tensors that were checked.  A stream walks a log for each child at the child's pace, so nothing is
 * held twice and a slow child holds up nobody else.  The controller keeps a log of what the socket brings, a worker
 * of what its parent sends; both stream it on.
 *
 *     RANK_WEIGHTS_BEGIN { RANK_WEIGHTS... RANK_WEIGHTS_TENSOR }... RANK_WEIGHTS_COMMIT or _DROP
 *
 * Each stream has a number larger than those before.  A rank takes what belongs to the newest it has heard of: when
 * a rank of the tree dies, the others are sent a new stream without it, and what the old one still brings is late. */
#ifndef SCHEDULER_RANKS_WEIGHTS_STREAM_H
#define SCHEDULER_RANKS_WEIGHTS_STREAM_H

#include "policy/weights.h"
#include "scheduler/ranks/transport.h"
#include "trainer_bridge/wire/message.h"

struct weights_entry {
	size_t begin, end;  /* bytes, where tensor < 0 */
	int tensor;
	uint64_t xxh3;      /* of its bytes */
};

struct weights_log {
	int64_t version;
	struct weights weights; /* tensors and data borrowed */
	struct weights_entry *entries; /* [n] */
	int n, capacity;
	bool committed;         /* it is to be used */
	bool used;              /* a sample has grown under it */
	double began, ended;    /* seconds, its first and last byte came */
};

struct weights_log *weights_log_open(int64_t version, const struct weights *weights);
void weights_log_close(struct weights_log *log); /* NULL is allowed */
void weights_log_bytes(struct weights_log *log, size_t begin, size_t end);
void weights_log_tensor(struct weights_log *log, int tensor, uint64_t xxh3);

struct weights_stream;

/* To ranks [n] through a tree of the fanout; self is this rank, 0 or one of them.  log is borrowed. */
struct weights_stream *weights_stream_open(uint64_t number, const struct weights_log *log, const int32_t *ranks, int n,
                                           int fanout, int self);
void weights_stream_close(struct weights_stream *stream); /* NULL is allowed */
bool weights_stream_has(const struct weights_stream *stream, int rank); /* is it one of the ranks? */
const struct weights_log *weights_stream_log(const struct weights_stream *stream);

/* Sends what there is, in messages of at most chunk_bytes, as far as the children take it. */
int weights_stream_pump(struct weights_stream *stream, struct transport *transport, struct message_writer *writer,
                        size_t chunk_bytes, struct err *err);
/* The log is committed and all of it is with the children, or queued to them. */
bool weights_stream_done(const struct weights_stream *stream);
/* Bytes that are queued to the children. */
size_t weights_stream_backlog(const struct weights_stream *stream, const struct transport *transport);
/* Tells the children that none of it counts. */
int weights_stream_drop(struct weights_stream *stream, struct transport *transport, struct message_writer *writer,
                        struct err *err);

#endif

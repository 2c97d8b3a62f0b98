/* worker_weights.c - takes a stream of weights, makes a policy of it, streams it on. */
#include "scheduler/worker/worker_weights.h"

#include <stdlib.h>
#include <string.h>

#include "scheduler/clock.h"
#include "scheduler/ranks/weights_stream.h"
#include "trainer_bridge/wire/checksum.h"

static const double STUCK_SECONDS = 1; /* children that take nothing for so long are not worth a core */

struct worker_weights {
	const struct config *config;
	struct draft_options draft;
	bool drafts;
	int n_threads;
	struct transport *transport;
	struct message_writer *writer;
	struct weights weights;      /* in the making; data NULL before the first */
	bool *checked;               /* [n_tensors] */
	uint64_t number;             /* of the newest stream; 0: none */
	bool open;                   /* it goes on */
	struct policy_maker *maker;
	struct weights_log *log;     /* of the newest stream, until its children have it */
	struct weights_stream *stream;
	size_t backlog;              /* to its children when it was pumped last */
	double moved;                /* when that was something else */
	double seconds;
};

struct worker_weights *worker_weights_open(const struct model_config *model, const struct draft_options *draft,
                                           int n_threads, const struct config *config, struct transport *transport,
                                           struct message_writer *writer)
{
	struct worker_weights *ww = xcalloc(1, sizeof *ww);

	*ww = (struct worker_weights){ .config = config, .drafts = draft != NULL, .n_threads = n_threads,
	                               .transport = transport, .writer = writer };
	if (draft) ww->draft = *draft;
	weights_layout(&ww->weights, model);
	ww->checked = xcalloc((unsigned long)ww->weights.n_tensors, sizeof *ww->checked);
	return ww;
}

void worker_weights_forget(struct worker_weights *ww)
{
	policy_maker_close(ww->maker);
	weights_stream_close(ww->stream);
	weights_log_close(ww->log);
	ww->maker = NULL;
	ww->stream = NULL;
	ww->log = NULL;
	ww->open = false;
}

void worker_weights_close(struct worker_weights *ww)
{
	if (!ww) return;
	worker_weights_forget(ww);
	weights_free(&ww->weights);
	free(ww->checked);
	free(ww);
}

double worker_weights_seconds(const struct worker_weights *ww) { return ww->seconds; }

static int on_begin(struct worker_weights *ww, uint64_t number, const struct message_node *root, struct err *err)
{
	size_t total = 2 * ww->weights.n_elements, n_bytes;
	int64_t version, fanout;
	const void *ranks;
	uint64_t bytes;

	int rc = message_get_int(root, "version", 0, INT64_MAX, &version, err);
	if (!rc) rc = message_get_uint(root, "bytes", &bytes, err);
	if (!rc) rc = message_get_int(root, "fanout", 1, 1 << 16, &fanout, err);
	if (!rc) rc = message_get_bin(root, "ranks", &ranks, &n_bytes, err);
	if (rc) return rc;
	if (bytes != total)
		return err_set(err, ERR_INVALID, "version %lld has %llu bytes of weights, expected %zu", (long long)version,
		               (unsigned long long)bytes, total);
	worker_weights_forget(ww);
	if (!ww->weights.data) ww->weights.data = xaligned(total);
	memset(ww->checked, 0, (size_t)ww->weights.n_tensors * sizeof *ww->checked);
	int n = (int)(n_bytes / sizeof(int32_t));
	int32_t *list = xcalloc((unsigned long)(n ? n : 1), sizeof *list);
	if (n) memcpy(list, ranks, (size_t)n * sizeof *list);
	ww->number = number;
	ww->open = true;
	ww->seconds = 0;
	ww->log = weights_log_open(version, &ww->weights);
	ww->stream = weights_stream_open(number, ww->log, list, n, (int)fanout, transport_rank(ww->transport));
	free(list);
	ww->maker = policy_maker_open(&ww->weights, version, ww->drafts ? &ww->draft : NULL, ww->n_threads);
	return 0;
}

static int on_bytes(struct worker_weights *ww, const struct message_node *root, struct err *err)
{
	size_t total = 2 * ww->weights.n_elements, n_bytes;
	uint64_t offset;
	const void *data;

	int rc = message_get_uint(root, "offset", &offset, err);
	if (!rc) rc = message_get_bin(root, "data", &data, &n_bytes, err);
	if (rc) return rc;
	if (offset > total || n_bytes > total - offset)
		return err_set(err, ERR_INVALID, "weights of version %lld: %zu bytes at %llu of %zu", (long long)ww->log->version,
		               n_bytes, (unsigned long long)offset, total);
	memcpy((char *)ww->weights.data + offset, data, n_bytes);
	weights_log_bytes(ww->log, offset, offset + n_bytes);
	return 0;
}

/* Checked where it lies, then made part of the policy at once. */
static int on_tensor(struct worker_weights *ww, const struct message_node *root, struct err *err)
{
	double start = clock_seconds();
	int64_t tensor;
	uint64_t xxh3;

	int rc = message_get_int(root, "tensor", 0, ww->weights.n_tensors - 1, &tensor, err);
	if (!rc) rc = message_get_uint(root, "xxh3", &xxh3, err);
	if (rc) return rc;
	const struct weight_tensor *t = &ww->weights.tensors[tensor];
	uint64_t found = checksum(ww->weights.data + t->offset, 2 * (size_t)t->rows * (size_t)t->cols);
	if (found != xxh3 || ww->checked[tensor])
		return err_set(err, ERR_INVALID, "weights of version %lld arrived damaged: expected %s with XXH3 %016llx, found %016llx",
		               (long long)ww->log->version, t->name, (unsigned long long)xxh3, (unsigned long long)found);
	ww->checked[tensor] = true;
	weights_log_tensor(ww->log, (int)tensor, xxh3);
	/* Before it is packed, which takes longer: the ranks below need not wait for that. */
	rc = weights_stream_pump(ww->stream, ww->transport, ww->writer, (size_t)ww->config->bridge.chunk_bytes, err);
	if (rc) return rc;
	policy_maker_tensor(ww->maker, (int)tensor);
	ww->seconds += clock_seconds() - start;
	return 0;
}

static int on_commit(struct worker_weights *ww, int64_t current, struct policy **policy, int64_t *committed, struct err *err)
{
	int rc = 0;

	ww->open = false;
	ww->log->committed = true;
	*committed = ww->log->version;
	if (*committed != current) rc = policy_maker_finish(ww->maker, policy, err); /* else: sent again for others' sake */
	policy_maker_close(ww->maker);
	ww->maker = NULL;
	return rc;
}

int worker_weights_take(struct worker_weights *ww, enum rank_message type, const struct message_node *root,
                        int64_t current, struct policy **policy, int64_t *committed, struct err *err)
{
	uint64_t number;

	*policy = NULL;
	*committed = -1;
	int rc = message_get_uint(root, "stream", &number, err);
	if (rc) return rc;
	if (type == RANK_WEIGHTS_BEGIN && number > ww->number) return on_begin(ww, number, root, err);
	if (number != ww->number || !ww->open) return 0; /* of a stream that was replaced */
	switch (type) {
	case RANK_WEIGHTS: return on_bytes(ww, root, err);
	case RANK_WEIGHTS_TENSOR: return on_tensor(ww, root, err);
	case RANK_WEIGHTS_COMMIT: return on_commit(ww, current, policy, committed, err);
	case RANK_WEIGHTS_DROP:
		rc = weights_stream_drop(ww->stream, ww->transport, ww->writer, err);
		worker_weights_forget(ww);
		return rc;
	default: return err_set(err, ERR_PEER, "stream %llu begins twice", (unsigned long long)number);
	}
}

int worker_weights_pump(struct worker_weights *ww, bool *busy, struct err *err)
{
	if (!ww->stream) return 0;
	int rc = weights_stream_pump(ww->stream, ww->transport, ww->writer, (size_t)ww->config->bridge.chunk_bytes, err);
	if (!ww->open && weights_stream_done(ww->stream)) {
		weights_stream_close(ww->stream);
		weights_log_close(ww->log);
		ww->stream = NULL;
		ww->log = NULL;
	} else if (!ww->open) {
		size_t backlog = weights_stream_backlog(ww->stream, ww->transport);
		double now = clock_seconds();
		if (backlog != ww->backlog) ww->moved = now;
		ww->backlog = backlog;
		*busy = now - ww->moved < STUCK_SECONDS;
	}
	return rc;
}

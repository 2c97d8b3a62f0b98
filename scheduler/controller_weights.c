/* controller_weights.c - a new version from the trainer's socket to every rank.
 *
 * The ranks get it in chunks, each rank at its own pace with a bounded queue, and requantize as soon
 * as they have it all.  Generation goes on when every rank has the version. */
#include <xxhash.h>

#include "scheduler/clock.h"
#include "scheduler/controller_internal.h"

enum { BACKLOG_MAX = 8 << 20 };

int controller_weights_arrived(void *context, int64_t version, struct weights *weights, struct err *err)
{
	struct controller *c = context;

	if (c->phase == PHASE_FINISH || c->phase == PHASE_OVER) {
		weights_free(weights); /* the run has its last step: nothing would use them */
		return 0;
	}
	if (c->broadcasting) {
		weights_free(weights);
		return err_set(err, ERR_STATE, "version %lld is still on its way to the ranks: push version %lld again in a moment",
		               (long long)c->arriving_version, (long long)version);
	}
	/* Begun when it was new, and overtaken since: one version never names two sets of weights. */
	int64_t newest = c->arriving.data ? c->arriving_version - 1 : c->version;
	if (version <= newest) {
		weights_free(weights);
		return err_set(err, ERR_INVALID, "version %lld is not new: push version %lld or more", (long long)version,
		               (long long)newest + 1);
	}
	if (c->arriving.data) weights_free(&c->arriving); /* a newer one before the older was used */
	c->arriving = *weights;
	c->arriving_version = version;
	if (c->batch_is_out) c->out.train_seconds = clock_seconds() - c->batch_put;
	c->last_progress = clock_seconds();
	return 0;
}

void controller_broadcast_begin(struct controller *c)
{
	c->arriving_xxh3 = XXH3_64bits(c->arriving.data, 2 * c->arriving.n_elements);
	for (int r = 1; r < c->n_ranks; r++) {
		c->ranks[r].sent = 0;
		c->ranks[r].updated = false;
	}
	c->broadcasting = true;
	c->broadcast_began = clock_seconds();
	if (c->asynchrony != ASYNCHRONY_ASYNC) controller_enter(c, PHASE_BROADCAST);
}

static int send_chunk(struct controller *c, int rank, size_t n_bytes, struct err *err)
{
	size_t total = 2 * c->arriving.n_elements, offset = c->ranks[rank].sent;
	size_t chunk = (size_t)c->config->bridge.chunk_bytes;

	if (n_bytes > chunk) n_bytes = chunk;
	rank_message_begin(c->writer, RANK_WEIGHTS, 5);
	message_key(c->writer, "version");
	message_put_int(c->writer, c->arriving_version);
	message_key(c->writer, "offset");
	message_put_uint(c->writer, offset);
	message_key(c->writer, "bytes");
	message_put_uint(c->writer, total);
	message_key(c->writer, "xxh3");
	message_put_uint(c->writer, c->arriving_xxh3);
	message_key(c->writer, "data");
	message_put_bin(c->writer, (const char *)c->arriving.data + offset, n_bytes);
	c->ranks[rank].sent += n_bytes;
	return rank_message_send(c->transport, rank, c->writer, err);
}

int controller_broadcast_pump(struct controller *c, struct err *err)
{
	size_t total = 2 * c->arriving.n_elements;
	int rc = 0;

	for (int r = 1; r < c->n_ranks; r++)
		while (!rc && c->ranks[r].sent < total && transport_backlog(c->transport, r) < BACKLOG_MAX)
			rc = send_chunk(c, r, total - c->ranks[r].sent, err);
	return rc;
}

int controller_on_updated(struct controller *c, int rank, const struct message_node *root, struct err *err)
{
	int64_t version;
	int rc = message_get_int(root, "version", 0, INT64_MAX, &version, err);

	if (rc) return rc;
	if (!c->broadcasting || version != c->arriving_version)
		return err_set(err, ERR_PEER, "rank %d reports version %lld, expected %lld", rank, (long long)version,
		               (long long)c->arriving_version);
	c->ranks[rank].updated = true;
	return 0;
}

/* controller_weights.c - a new version from the trainer's socket to every rank.
 *
 * What the bridge takes in is logged as it comes and streamed down a tree of ranks at once (weights_stream.h), so
 * that the last bytes of a push are soon everywhere; the ranks pack and quantize layer by layer meanwhile.  With
 * the trainer's commit the version is complete; with ours, at the right moment of the run, the ranks use it.
 *
 * One version is on its way at a time.  One that is pushed while another is complete but not yet in use is logged
 * only, and streamed when that one is everywhere, or in its place.  Nothing is copied: logs name ranges of the
 * bridge's two buffers, and controller_ready says which of them must not be overwritten. */
#include <inttypes.h>
#include <stdlib.h>

#include "scheduler/clock.h"
#include "scheduler/controller/controller_internal.h"
#include "trainer_bridge/wire/checksum.h"

/* ---- streams ---- */

static void close_stream(struct controller *c)
{
	weights_stream_close(c->stream);
	c->stream = NULL;
}

/* To those that serve and lack it: one that dies or falls silent on the way is no longer among them. */
static void open_stream(struct controller *c, const struct weights_log *log)
{
	int32_t *ranks = xcalloc((unsigned long)c->n_ranks, sizeof *ranks);
	int n = 0;

	close_stream(c);
	for (int r = 1; r < c->n_ranks; r++)
		if (rank_serves(&c->ranks[r]) && !(c->broadcasting && c->ranks[r].updated)) ranks[n++] = r;
	c->stream = weights_stream_open(++c->n_streams, log, ranks, n, (int)c->config->weights.fanout, 0);
	free(ranks);
}

void controller_broadcast_lost(struct controller *c, int rank)
{
	if (c->stream && weights_stream_has(c->stream, rank)) open_stream(c, weights_stream_log(c->stream));
}

static void forget(struct controller *c, struct weights_log **log)
{
	if (c->stream && weights_stream_log(c->stream) == *log) close_stream(c);
	weights_log_close(*log);
	*log = NULL;
}

static void forget_current(struct controller *c)
{
	for (int r = 1; r < c->n_ranks; r++) {
		weights_stream_close(c->ranks[r].catch_up);
		c->ranks[r].catch_up = NULL;
	}
	forget(c, &c->current);
}

void controller_weights_close(struct controller *c)
{
	if (c->ranks) forget_current(c);
	forget(c, &c->growing);
	forget(c, &c->arriving);
	forget(c, &c->next);
}

/* ---- what the bridge takes in ---- */

static bool is_ready(void *context, const uint16_t *data)
{
	const struct controller *c = context;
	if (c->restoring || (c->keeper && weights_keeper_uses(c->keeper, data))) return false; /* a resumed run's own weights go first */
	return !c->broadcasting && !c->next && !(c->arriving && c->arriving->weights.data == data);
}

static void begun(void *context, int64_t version, const struct weights *weights)
{
	struct controller *c = context;

	if (c->current && c->current->weights.data == weights->data) forget_current(c);
	if (c->phase == PHASE_FINISH || c->phase == PHASE_OVER) return; /* nothing would use it */
	c->growing = weights_log_open(version, weights);
	c->growing->began = c->last_progress = clock_seconds();
	if (!c->arriving) open_stream(c, c->growing);
}

static void bytes_came(void *context, size_t begin, size_t end)
{
	struct controller *c = context;
	c->last_progress = clock_seconds();
	if (c->growing) weights_log_bytes(c->growing, begin, end);
}

static void tensor_came(void *context, int tensor, uint64_t xxh3)
{
	struct controller *c = context;
	if (c->growing) weights_log_tensor(c->growing, tensor, xxh3);
}

static void dropped(void *context)
{
	struct controller *c = context;
	struct err err;

	if (!c->growing) return;
	bool listened = c->phase != PHASE_OVER; /* the ranks are still there */
	if (listened && c->stream && weights_stream_log(c->stream) == c->growing &&
	    weights_stream_drop(c->stream, c->transport, c->writer, &err)) progress_note("weights: %s", err.text);
	forget(c, &c->growing);
}

struct intake_observer controller_weights_observer(struct controller *c)
{
	return (struct intake_observer){ .context = c, .ready = is_ready, .begun = begun, .bytes = bytes_came,
	                                 .tensor = tensor_came, .dropped = dropped };
}

int controller_weights_arrived(void *context, int64_t version, const struct weights *weights, struct err *err)
{
	struct controller *c = context;
	/* Begun when it was new, and overtaken since: one version never names two sets of weights. */
	int64_t newest = !c->arriving ? c->version : c->arriving->version - !c->broadcasting;

	(void)weights;
	if (!c->growing) return 0; /* the run has its last step */
	if (version <= newest)
		return err_set(err, ERR_INVALID, "version %lld is not new: push version %lld or more", (long long)version,
		               (long long)newest + 1);
	c->growing->ended = c->last_progress = clock_seconds();
	if (c->broadcasting) {
		c->next = c->growing;
	} else {
		bool replaces = c->arriving != NULL; /* a newer one before the older was used */
		if (replaces) forget(c, &c->arriving);
		c->arriving = c->growing;
		if (replaces) open_stream(c, c->arriving);
	}
	c->growing = NULL;
	if (c->batch_is_out) c->out.train_seconds = clock_seconds() - c->batch_put;
	return 0;
}

/* ---- to the ranks ---- */

/* Do all that serve take part in the stream?  Some may have come since. */
static bool reaches_all(const struct controller *c)
{
	for (int r = 1; r < c->n_ranks; r++)
		if (rank_serves(&c->ranks[r]) && !weights_stream_has(c->stream, r)) return false;
	return true;
}

void controller_broadcast_begin(struct controller *c)
{
	for (int r = 1; r < c->n_ranks; r++) c->ranks[r].updated = false;
	c->broadcasting = c->arriving->committed = true;
	c->summed = false;
	c->requantize_seconds = 0;
	c->broadcast_began = clock_seconds();
	controller_event(c, "weights_commit", ",\"version\":%" PRId64, c->arriving->version);
	if (!c->stream || !reaches_all(c)) open_stream(c, c->arriving);
	if (c->asynchrony != ASYNCHRONY_ASYNC) controller_enter(c, PHASE_BROADCAST);
}

/* For the store; while the ranks pack what they have. */
static void sum_arriving(struct controller *c)
{
	if (!c->summed) c->arriving_xxh3 = checksum(c->arriving->weights.data, 2 * c->arriving->weights.n_elements);
	c->summed = true;
}

int controller_broadcast_pump(struct controller *c, struct err *err)
{
	if (!c->stream) return 0;
	int rc = weights_stream_pump(c->stream, c->transport, c->writer, (size_t)c->config->bridge.chunk_bytes, err);
	if (!rc && c->broadcasting && weights_stream_done(c->stream)) sum_arriving(c);
	return rc;
}

void controller_broadcast_end(struct controller *c)
{
	sum_arriving(c);
	forget_current(c);
	close_stream(c);
	c->current = c->arriving;
	c->arriving = c->next;
	c->next = NULL;
	c->broadcasting = false;
	if (c->arriving) open_stream(c, c->arriving);
	else if (c->growing) open_stream(c, c->growing);
}

int controller_catch_up(struct controller *c, int rank, struct err *err)
{
	struct rank_state *r = &c->ranks[rank];
	int32_t alone = rank;

	if (!c->current) return 0; /* a newer version is coming, and overwrites it */
	if (!r->catch_up) r->catch_up = weights_stream_open(++c->n_streams, c->current, &alone, 1, 1, 0);
	return weights_stream_pump(r->catch_up, c->transport, c->writer, (size_t)c->config->bridge.chunk_bytes, err);
}

void controller_restore_weights(struct controller *c, int64_t version, struct weights *weights)
{
	const struct weights *whole = server_restore_weights(c->server, version, weights);

	c->arriving = weights_log_open(version, whole);
	c->arriving->began = c->arriving->ended = clock_seconds();
	for (int t = 0; t < whole->n_tensors; t++) {
		const struct weight_tensor *tensor = &whole->tensors[t];
		size_t begin = 2 * tensor->offset, bytes = 2 * (size_t)tensor->rows * (size_t)tensor->cols;
		weights_log_bytes(c->arriving, begin, begin + bytes);
		weights_log_tensor(c->arriving, t, checksum((const char *)whole->data + begin, bytes));
	}
	c->restoring = true;
}

/* ---- what ranks say of it ---- */

int controller_on_updated(struct controller *c, int rank, const struct message_node *root, struct err *err)
{
	int64_t version;
	double requantize;
	int rc = message_get_int(root, "version", 0, INT64_MAX, &version, err);

	if (!rc) rc = message_get_real(root, "requantize", &requantize, err);
	if (rc) return rc;
	if (c->ranks[rank].life == RANK_IS_CATCHING_UP) return controller_on_caught_up(c, rank, version, err);
	if (version <= c->version && !c->restoring) return 0; /* sent again when another rank was lost */
	if (!c->broadcasting || version != c->arriving->version)
		return err_set(err, ERR_PEER, "rank %d reports version %lld, expected %lld", rank, (long long)version,
		               (long long)c->version);
	c->ranks[rank].updated = true;
	c->ranks[rank].version = version;
	if (requantize > c->requantize_seconds) c->requantize_seconds = requantize;
	return 0;
}

int controller_on_first(struct controller *c, const struct message_node *root, struct err *err)
{
	struct weights_log *const logs[] = { c->arriving, c->current };
	int64_t version;
	int rc = message_get_int(root, "version", 0, INT64_MAX, &version, err);

	for (int i = 0; !rc && i < 2; i++) {
		if (!logs[i] || logs[i]->version != version || logs[i]->used) continue;
		logs[i]->used = true;
		c->metrics.first_token_seconds = clock_seconds() - logs[i]->ended;
	}
	return rc;
}

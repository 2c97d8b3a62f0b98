/* worker_reached.c - REACHED, with the tokens that the controller does not have yet: what is pruned ends on record at exactly
 * prune.at_tokens, however far it has got. */
#include "scheduler/worker/worker_reached.h"

struct reached {
	struct leases *leases;
	struct transport *transport;
	struct message_writer *writer;
	int rc;
	struct err *err;
};

static int send_tokens(struct reached *r, struct lease *l, const struct trajectory *t)
{
	rank_message_begin(r->writer, RANK_PROGRESS, 1);
	message_key(r->writer, "samples");
	message_begin_array(r->writer, 1);
	rank_message_put_increment(r->writer, l->lease, t, l->told);
	l->told = t->n_tokens;
	return rank_message_send(r->transport, 0, r->writer, r->err);
}

static void each(void *context, const struct trajectory *t, const float *hidden, int dim, int32_t version)
{
	struct reached *r = context;
	struct lease *l = leases_find(r->leases, t->id);

	if (r->rc || !l) return;
	if (t->n_tokens > l->told) r->rc = send_tokens(r, l, t);
	if (r->rc) return;
	rank_message_begin(r->writer, RANK_REACHED, 4);
	message_key(r->writer, "id");
	message_put_uint(r->writer, t->id);
	message_key(r->writer, "lease");
	message_put_uint(r->writer, l->lease);
	message_key(r->writer, "version");
	message_put_int(r->writer, version);
	message_key(r->writer, "hidden");
	message_put_bin(r->writer, hidden, (size_t)dim * sizeof *hidden);
	r->rc = rank_message_send(r->transport, 0, r->writer, r->err);
}

int worker_say_reached(struct engine *engine, struct leases *leases, struct transport *transport,
                       struct message_writer *writer, struct err *err)
{
	struct reached r = { .leases = leases, .transport = transport, .writer = writer, .err = err };

	engine_each_observed(engine, each, &r);
	return r.rc;
}

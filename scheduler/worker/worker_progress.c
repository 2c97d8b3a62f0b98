/* worker_progress.c - PROGRESS: counted first, then written, as a msgpack array says its length before its items. */
#include "scheduler/worker/worker_progress.h"

struct progress {
	struct leases *leases;
	struct message_writer *writer;
	uint32_t n;
	bool put;
};

static void each(void *context, const struct trajectory *t)
{
	struct progress *p = context;
	struct lease *l = leases_find(p->leases, t->id);

	if (!l || t->n_tokens <= l->told || t->finish != FINISH_NONE) return;
	p->n++;
	if (!p->put) return;
	rank_message_put_increment(p->writer, l->lease, t, l->told);
	l->told = t->n_tokens;
}

int worker_say_progress(struct engine *engine, struct leases *leases, struct transport *transport,
                        struct message_writer *writer, struct err *err)
{
	struct progress p = { .leases = leases, .writer = writer };

	engine_each_pending(engine, each, &p);
	if (p.n == 0) return 0;
	rank_message_begin(writer, RANK_PROGRESS, 1);
	message_key(writer, "samples");
	message_begin_array(writer, p.n);
	p.put = true;
	engine_each_pending(engine, each, &p);
	return rank_message_send(transport, 0, writer, err);
}

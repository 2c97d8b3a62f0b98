/* server_batches.c - what the run gives its peers: batches, whole or group by group, and answers to requests. */
#include "trainer_bridge/server/server_internal.h"

void server_put_batch(struct server *server, uint64_t batch_id, int64_t step, int64_t version,
                      struct trajectory *const *trajectories, int n)
{
	batches_put(&server_exchange(server)->batches, batch_id, step, version, trajectories, n);
	server_pump(server);
}

/* An open batch goes on as it began, if there is still somebody to take it; a new one as the next peer wants it. */
enum server_stream server_streams(struct server *server)
{
	const struct batches *batches = &server_exchange(server)->batches;
	const struct batch *open = batches_open(batches);
	int waiting = batches_waiting(batches) - (open && !open->holder);
	const struct peer *peer;
	enum batch_order order;

	if (open && open->holder)
		return open->order == ORDER_PROMPT ? SERVER_STREAM_PROMPT : SERVER_STREAM_COMPLETION;
	for (int i = 0; (peer = server_peer(server, i)); i++)
		if ((waiting -= peer_credits(peer)) < 0 && peer_streams(peer, &order) && (!open || open->order == order))
			return order == ORDER_PROMPT ? SERVER_STREAM_PROMPT : SERVER_STREAM_COMPLETION;
	return SERVER_WHOLE;
}

void server_put_group(struct server *server, uint64_t batch_id, int64_t step, int64_t version, uint64_t completed,
                      struct trajectory *const *trajectories, int n)
{
	enum batch_order order =
		server_streams(server) == SERVER_STREAM_COMPLETION ? ORDER_COMPLETION : ORDER_PROMPT;

	batches_put_group(&server_exchange(server)->batches, batch_id, step, version, order, completed, trajectories, n);
}

void server_end_batch(struct server *server, uint64_t batch_id, int64_t version)
{
	batches_end(&server_exchange(server)->batches, batch_id, version);
	server_pump(server);
}

bool server_wants_batch(struct server *server)
{
	const struct peer *peer;
	int credits = 0;

	for (int i = 0; (peer = server_peer(server, i)); i++)
		credits += peer_credits(peer);
	return credits > batches_waiting(&server_exchange(server)->batches);
}

void server_serve(struct server *server, const struct request_handlers *handlers)
{
	server_exchange(server)->handlers = handlers;
}

void server_answer_evaluation(struct server *server, uint64_t ticket, int64_t version,
                              struct trajectory *const *trajectories, int n)
{
	struct batch *result = batch_new(ticket, 0, version);
	struct peer *peer;

	for (int i = 0, length; i < n; i += length) {
		length = batch_group_length(trajectories + i, n - i);
		batch_add(result, version, (uint64_t)i, trajectories + i, length);
	}
	for (int i = 0; (peer = server_peer(server, i)); i++)
		if (peer_answer_evaluation(peer, ticket, result)) {
			server_pump(server);
			return;
		}
	batch_release(result);
}

void server_answer_scores(struct server *server, uint64_t ticket, int64_t version, const float *logprobs,
                          const int *lengths, int n)
{
	struct peer *peer;

	for (int i = 0; (peer = server_peer(server, i)); i++)
		if (peer_answer_scores(peer, ticket, version, logprobs, lengths, n))
			break;
	server_pump(server);
}

void server_refuse_scores(struct server *server, uint64_t ticket, const struct err *why)
{
	struct peer *peer;

	for (int i = 0; (peer = server_peer(server, i)); i++)
		if (peer_answer_refusal(peer, ticket, why))
			break;
	server_pump(server);
}

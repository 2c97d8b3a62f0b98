/* trainer_simulated.c - a trainer that does not train: it takes a batch, waits as long as training would take, and pushes
 * the weights that there were under the next version.
 *
 * Everything but the training is real: credit, acknowledgement, the push (as a delta in which nothing differs, unless
 * trainer.push is full), the way to the ranks, requantization, staleness.  It keeps nothing: a batch that was not acknowledged
 * comes again, and of one that was the weights are those that the run has (controller_resume.c). */
#include <stdio.h>
#include <time.h>

#include "trainer_bridge/client/client.h"
#include "trainer_bridge/trainer/trainer_simulated.h"

enum { PULL_SECONDS = 60 };

static void wait_seconds(double seconds)
{
	struct timespec left = { .tv_sec = (time_t)seconds, .tv_nsec = (long)(1e9 * (seconds - (double)(time_t)seconds)) };
	while (nanosleep(&left, &left)) continue; /* a signal that is caught does not shorten it */
}

static int64_t count_tokens(const struct client_batch *batch)
{
	int64_t n = 0;
	for (int i = 0; i < batch->n; i++) n += trajectory_response_length(batch->trajectories[i]);
	return n;
}

static int push(const struct trainer_simulated *s, int64_t version, int64_t base, struct err *err)
{
	size_t chunk_bytes = (size_t)s->config->bridge.chunk_bytes;
	int code = ERR_BASE;

	if (s->config->trainer.push != PUSH_FULL)
		code = client_push_delta(s->client, version, s->weights, base, s->weights, chunk_bytes, err);
	return code == ERR_BASE ? client_push_weights(s->client, version, s->weights, chunk_bytes, err) : code;
}

int trainer_simulated_serve(const struct trainer_simulated *s, struct err *err)
{
	int64_t version = client_version(s->client), base = client_weights_version(s->client);

	for (;;) {
		struct client_batch batch;
		int code = client_pull(s->client, &batch, PULL_SECONDS, err);
		if (code == ERR_TIMEOUT) continue; /* a long step */
		if (code) return code;
		if (batch.n == 0) return 0;
		int64_t tokens = count_tokens(&batch);
		double seconds = s->config->trainer.step_seconds + s->config->trainer.token_seconds * (double)tokens;
		wait_seconds(seconds);
		code = push(s, version + 1, base, err);
		if (!code) code = client_ack(s->client, batch.batch_id, err);
		base = ++version;
		if (!code) printf("step %lld  version %lld  tokens %lld  %.2f s\n", (long long)batch.step, (long long)version, (long long)tokens, seconds);
		fflush(stdout);
		client_batch_free(&batch);
		if (code) return code;
	}
}

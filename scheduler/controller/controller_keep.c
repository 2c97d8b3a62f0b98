/* controller_keep.c - what must survive the controller, and when.
 *
 * Work becomes durable at a commit (every run.commit_seconds; what a sample lacks on record is written then, or when its
 * group is scored, so most are written once), a batch before anybody sees it, an acknowledgement
 * when it comes, a version's number before anything is drawn with it and its weights some time after.  What a crash
 * finds (of the process; of the machine with run.durability power), and what a resume makes of it:
 *
 * | crash after                                | resume                                                            |
 * |---|---|
 * | samples generated, not committed           | generated again from what was: the same bits (pure function)      |
 * | group complete, not scored or not on record| all its samples are done: scored again, the same advantages       |
 * | batch stored, not put to the socket        | put, same id                                                      |
 * | batch put, trainer has it, no ack          | put again, same id and bytes; a trainer that had made it its own  |
 * |                                            | acknowledges first thing (PROTOCOL.md), others train on it        |
 * | ack received, not committed (microseconds) | the same                                                          |
 * | ack committed                              | never put again                                                   |
 * | weights pushed, answered, not broadcast,   | gone: the trainer sees that the run is a version behind           |
 * |  or broadcast and its number not committed |  (welcome) and pushes again; nothing was drawn with them          |
 * | number committed, weights not in their file| the version before goes on under its own name; numbers are not    |
 * |                                            | used twice, the trainer pushes under a new one                    |
 * | weights in their file, not noted           | the same                                                          |
 * | weights noted                              | go to the ranks, and generation goes on under them                |
 * | line of metrics in the file, not committed | metrics.jsonl is written anew from the store                      |
 * | within an evaluation                       | it is made again: the same noise, the same samples                |
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "scheduler/clock.h"
#include "scheduler/controller/controller_internal.h"

static const double KEEP_SECONDS = 10;

int controller_open_directory(struct controller *c, struct err *err)
{
	int rc = run_directory_create(c->run_dir, c->config, err);

	if (rc) return rc;
	snprintf(c->run_id, sizeof c->run_id, "%.40s-%08lx", c->config->run.name, (unsigned long)time(NULL));
	char *yaml = run_directory_config_text(c->config);
	rc = run_directory_write(c->run_dir, "config.yaml", yaml, err);
	if (!rc) rc = store_open(&c->store, c->run_dir, c->run_id, yaml, err);
	free(yaml);
	c->stored.evaluated = -1;
	return rc;
}

int controller_keep_open(struct controller *c, struct err *err)
{
	const struct config_run *run = &c->config->run;

	int rc = store_set_durability(c->store, run->durability, err);
	if (!rc && c->config->trainer.kind != TRAINER_NONE && run->durability != DURABILITY_OFF && run->keep_weights > 0)
		rc = weights_keeper_open(&c->keeper, c->run_dir, c->config->model.path, c->stored.kept, err);
	if (!rc) rc = controller_prune_open(c, err); /* with the head that was kept */
	return rc;
}

int controller_save(struct controller *c, struct live_group *g, int sample, enum store_state state, struct err *err)
{
	bool whole = g->unsaved[sample] == UNSAVED_ALL;

	int rc = (whole ? store_put_trajectory : store_put_again)(c->store, g->samples[sample], state, err);
	if (!rc) g->unsaved[sample] = SAVED;
	return rc;
}

int controller_flush(struct controller *c, struct err *err)
{
	int rc = 0;

	for (struct live_group *g = group_table_next(c->groups, 0); g && !rc; g = group_table_next(c->groups, g->id + 1))
		for (int i = 0; i < g->n_samples && !rc; i++)
			if (g->unsaved[i]) rc = controller_save(c, g, i, g->samples[i]->finish == FINISH_NONE ? STORE_PARTIAL : STORE_DONE, err);
	return rc ? rc : store_flush(c->store, err);
}

int controller_announce_version(struct controller *c, struct err *err)
{
	const struct weights_log *log = c->arriving;

	int rc = store_put_version(c->store, log->version, c->step, 0, 2 * log->weights.n_elements, err);
	return rc ? rc : controller_flush(c, err);
}

int controller_keep_version(struct controller *c, struct err *err)
{
	const struct weights *weights = &c->current->weights;

	int rc = store_put_version(c->store, c->version, c->step, c->arriving_xxh3, 2 * weights->n_elements, err);
	if (!rc) rc = store_put_number(c->store, STATE_BATCH_OUT, 0, err);
	if (!rc) rc = controller_flush(c, err);
	c->trainer_restarts = 0;
	if (!rc && c->keeper && c->version % c->config->run.keep_weights == 0)
		weights_keeper_put(c->keeper, c->version, weights);
	return rc;
}

int controller_keep_poll(struct controller *c, struct err *err)
{
	struct err why;
	int64_t version;
	int rc = 0, told = c->keeper ? weights_keeper_poll(c->keeper, &version, &why) : 0;

	if (told < 0)
		progress_note("the weights of version %" PRId64 " are not kept: %s; a resume would go on with those before", version,
		              why.text);
	if (told > 0) rc = store_version_kept(c->store, version, err);
	if (rc || (told <= 0 && clock_seconds() - c->last_flush < c->config->run.commit_seconds / 2)) return rc;
	c->last_flush = clock_seconds();
	rc = controller_flush(c, err);
	if (!rc) store_tidy(c->store);
	return rc;
}

void controller_keep_close(struct controller *c, bool well)
{
	struct err err;
	double until = clock_seconds() + (well ? c->config->run.stall_seconds : 0);

	while (c->keeper && weights_keeper_busy(c->keeper) && clock_seconds() < until) {
		if (controller_keep_poll(c, &err)) break;
		clock_sleep_ms(1);
	}
	weights_keeper_close(c->keeper, well ? KEEP_SECONDS : 0.1);
}

/* ---- samples in flight ---- */

/* Everything that the rank has drawn for one sample since it last said so. */
struct increment {
	uint64_t id, lease;
	int64_t start;
	const char *tokens;         /* i32[n]; borrowed from the message, at any address */
	const char *logprobs;       /* f32[n] */
	const char *segments;       /* struct segment[n_segments], cut to what is new */
	size_t n, n_segments;
};

static int read_increment(const struct message_node *item, struct increment *in, struct err *err)
{
	const void *tokens, *logprobs, *segments;
	size_t token_bytes, logprob_bytes, segment_bytes;

	int rc = message_get_uint(item, "id", &in->id, err);
	if (!rc) rc = message_get_uint(item, "lease", &in->lease, err);
	if (!rc) rc = message_get_int(item, "start", 0, INT32_MAX, &in->start, err);
	if (!rc) rc = message_get_bin(item, "tokens", &tokens, &token_bytes, err);
	if (!rc) rc = message_get_bin(item, "logprobs", &logprobs, &logprob_bytes, err);
	if (!rc) rc = message_get_bin(item, "segments", &segments, &segment_bytes, err);
	if (rc) return rc;
	if (token_bytes != logprob_bytes || token_bytes % 4 || segment_bytes % sizeof(struct segment))
		return err_set(err, ERR_INVALID, "%zu bytes of tokens, %zu of log-probabilities and %zu of segments do not fit each other",
		               token_bytes, logprob_bytes, segment_bytes);
	in->tokens = tokens;
	in->logprobs = logprobs;
	in->segments = segments;
	in->n = token_bytes / 4;
	in->n_segments = segment_bytes / sizeof(struct segment);
	return 0;
}

/* To the sample as last known, and to the store. */
static int take_increment(struct controller *c, struct trajectory *t, const struct increment *in, struct err *err)
{
	for (size_t s = 0; s < in->n_segments; s++) {
		struct segment segment;
		memcpy(&segment, in->segments + s * sizeof segment, sizeof segment);
		int64_t at = segment.start - in->start;
		if (at < 0 || segment.length < 1 || at + segment.length > (int64_t)in->n || segment.start != t->n_tokens)
			return err_set(err, ERR_INVALID, "segment [%d, +%d) does not fit %zu tokens from %d on", segment.start, segment.length,
			               in->n, t->n_tokens);
		int32_t *tokens = xmalloc(4 * (size_t)segment.length);
		float *logprobs = xmalloc(4 * (size_t)segment.length);
		memcpy(tokens, in->tokens + 4 * at, 4 * (size_t)segment.length);
		memcpy(logprobs, in->logprobs + 4 * at, 4 * (size_t)segment.length);
		for (int i = 0; i < segment.length; i++)
			trajectory_append(t, tokens[i], logprobs[i], segment.version, segment.rank, segment.mode);
		int rc = store_put_increment(c->store, t->id, &segment, tokens, logprobs, err);
		free(tokens);
		free(logprobs);
		if (rc) return rc;
	}
	return 0;
}

int controller_on_progress(struct controller *c, int rank, const struct message_node *root, struct err *err)
{
	const struct message_node *items = message_field(root, "samples");
	int64_t n = items ? message_count(items) : -1;
	int rc = n < 0 ? err_set(err, ERR_MISSING, "field 'samples' (an array) is missing in PROGRESS") : 0;

	for (uint32_t i = 0; i < n && !rc; i++) {
		struct increment in;
		rc = read_increment(message_item(items, i), &in, err);
		struct live_group *g = rc ? NULL : group_table_find(c->groups, in.id / TRAJECTORY_SAMPLES_MAX);
		int sample = (int)(rc ? 0 : in.id % TRAJECTORY_SAMPLES_MAX);
		if (!g || sample >= g->n_samples || g->leases[sample] != in.lease) continue; /* of a lease that was taken back (S9) */
		struct trajectory *t = g->samples[sample];
		if (in.start != t->n_tokens) continue;
		int before = t->n_tokens;
		rc = take_increment(c, t, &in, err);
		if (!g->eval || !(c->asynchrony == ASYNCHRONY_ASYNC && c->phase == PHASE_EVAL))
			c->metrics.tokens += (uint64_t)(t->n_tokens - before);
	}
	return rc ? err_context(err, "rank %d", rank) : 0;
}

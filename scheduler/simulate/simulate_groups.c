/* simulate_groups.c - groups and samples of the simulated cluster, whoever has them: opened, expected to take so
 * long, aged, delivered, dropped.
 *
 * A group that is given up may have samples on ranks and messages on their way: it is kept until all of them are
 * back.  Versions of single tokens are recorded only where scheduler.stale_action asks for them (mask).
 */
#include <math.h>
#include <stdlib.h>

#include "configs/err.h"
#include "scheduler/simulate/simulate_internal.h"

static double expected_of(const struct simulation *sim, const struct sim_group *g)
{
	return length_estimate_expected(sim->expected, simulate_lengths_key(sim->in->lengths, g->id), g->n_ended, g->ended_tokens);
}

void sim_group_open(struct simulation *sim, uint64_t id, int n_samples)
{
	struct sim_group *g = sim_groups_add(&sim->groups, id, n_samples);

	sim->next_group = id + 1;
	g->n_prompt = simulate_lengths_prompt(sim->in->lengths, id);
	for (int i = 0; i < n_samples; i++) {
		int32_t length = simulate_lengths_response(sim->in->lengths, id, i);
		g->samples[i] = (struct sim_sample){.group = g, .index = i, .first_version = VERSION_UNSET, .length = length};
		sim->sums.opened++;
		sim->sums.opened_tokens += length;
	}
	if (sim->expected) scheduler_on_sample_expected(sim->scheduler, id, -1, (int)expected_of(sim, g));
}

void sim_sample_tell(struct simulation *sim, struct sim_sample *s, bool ended)
{
	struct sim_group *g = s->group;

	if (!sim->expected || g->gone) return;
	if (ended) {
		length_estimate_add(sim->expected, simulate_lengths_key(sim->in->lengths, g->id), s->length);
		g->n_ended++;
		g->ended_tokens += s->length;
	}
	double expected = expected_of(sim, g);
	for (int i = 0; i < g->n_samples; i++)
		if (g->samples[i].made < g->samples[i].length)
			scheduler_on_sample_expected(sim->scheduler, g->id, i, length_estimate_left(
				expected, g->samples[i].made, (int)sim->config->rollout.max_tokens));
}

/* ---- ages ---- */

void sim_sample_mark(struct simulation *sim, struct sim_sample *s, int32_t made)
{
	struct sim_mark *last = s->n_marks > 0 ? &s->marks[s->n_marks - 1] : NULL;

	if (sim->options.stale_action != ON_STALE_MASK || (last && last->version == sim->version)) return;
	if (!last || last->made < made) {
		s->marks = xrealloc(s->marks, ((size_t)s->n_marks + 1) * sizeof *s->marks);
		last = &s->marks[s->n_marks++];
	}
	*last = (struct sim_mark){.version = sim->version, .made = made};
}

/* Tokens that lag more than they may where the batch is of this version. */
static double masked_tokens(const struct simulation *sim, const struct sim_sample *s, int64_t version)
{
	double masked = 0;

	for (int i = 0; i < s->n_marks; i++)
		if (version - s->marks[i].version > sim->options.max_staleness)
			masked += (i + 1 < s->n_marks ? s->marks[i + 1].made : s->length) - s->marks[i].made;
	return masked;
}

/* ---- what becomes of them ---- */

void sim_group_deliver(struct simulation *sim, uint64_t id)
{
	struct sim_group *g = sim_groups_find(&sim->groups, id);
	struct sim_sums *sums = &sim->sums;
	int64_t version = sim->version + (sim->trained_at < INFINITY); /* one step off: it will wait for the next */

	for (int i = 0; i < g->n_samples; i++) {
		double lag = (double)(version - g->samples[i].first_version);
		sums->delivered++;
		sums->delivered_tokens += g->samples[i].length;
		sums->masked_tokens += masked_tokens(sim, &g->samples[i], version);
		sums->staleness += lag;
		if (lag > sums->staleness_max) sums->staleness_max = lag;
		sim->batch_tokens += g->samples[i].length;
	}
	sim_groups_remove(&sim->groups, id);
}

void sim_group_drop(struct simulation *sim, struct sim_group *g)
{
	g->gone = true;
	for (int i = 0; i < g->n_samples; i++)
		if (!g->samples[i].held) sim->sums.tokens_dropped += g->samples[i].made;
	if (g->n_held == 0) sim_groups_remove(&sim->groups, g->id);
}

void sim_sample_leave(struct sim_sample *s)
{
	s->cancelled = INFINITY;
	s->held = true;
	s->group->n_held++;
}

void sim_sample_return(struct simulation *sim, struct sim_sample *s)
{
	struct sim_group *g = s->group;

	s->held = false;
	g->n_held--;
	if (!g->gone) return;
	sim->sums.tokens_dropped += s->made;
	if (g->n_held == 0) sim_groups_remove(&sim->groups, g->id);
}

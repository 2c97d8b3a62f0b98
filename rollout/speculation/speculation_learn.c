/* speculation_learn.c - what the controller measures: seconds of calls, relative to the pace of the machine, and
 * acceptance, by drafter, place and session, fading.
 */
#include "rollout/speculation/speculation.h"

#include <math.h>

/* Fading: how many trials a place in the draft, and a session, remember. */
static const double PLACE_MEMORY = 512, SESSION_MEMORY = 128;

/* What a round leaves of what is known of places that it did not try, so that none is given up for good, down to so
 * many trials; what new weights leave. */
static const double UNTRIED_FADE = 0.995, UNTRIED_TRIALS = 16, NEW_WEIGHTS_TRIALS = 4;

/* Of the seconds of calls: what probes may lose (speculation.c), of what may pay, and of what seems not to. */
static const double PROBE_SHARE = 0.008, FAR_SHARE = 0.002;

static void fade(struct drafter_state *d, int place, double factor)
{
	d->tried[place] *= factor;
	d->accepted[place] *= factor;
}

void speculation_forget_acceptance(struct speculation *s)
{
	s->grant_due = true;
	for (int f = 0; f < SPECULATION_DRAFTERS; f++) {
		struct drafter_state *d = &s->drafters[f];
		d->fresh = 0;
		for (int j = 0; j < SPECULATION_LENGTH_MAX; j++) {
			if (d->tried[j] > NEW_WEIGHTS_TRIALS) fade(d, j, NEW_WEIGHTS_TRIALS / d->tried[j]);
		}
	}
}

/* The pace is taken against its own mean over about so many calls. */
static const double PACE_MEMORY = 2000;

/* The median of the last calls: one that was held up says nothing, and a change shows after a few.  Tables hold means,
 * which are above medians, as calls are held up and never hurried: were tables learned relative to the medians
 * themselves, these would fall and the tables rise for ever.  So the mean pace is 1 by definition. */
static void keep_pace(struct speculation *s, double ratio)
{
	double sorted[PACE_CALLS];

	s->paces[s->n_paces++ % PACE_CALLS] = ratio;
	if (s->n_paces < PACE_CALLS) return;
	for (int i = 0; i < PACE_CALLS; i++) {
		int at = i;
		for (; at > 0 && sorted[at - 1] > s->paces[i]; at--) sorted[at] = sorted[at - 1];
		sorted[at] = s->paces[i];
	}
	double median = sorted[PACE_CALLS / 2];
	s->mean_pace += (median - s->mean_pace) / PACE_MEMORY;
	s->pace = median / s->mean_pace;
}

void speculation_observe(struct speculation *s, int drafter, int rows, double positions, double seconds)
{
	struct cost_table *cost = drafter < 0 ? &s->target : &s->drafters[drafter].cost;

	if (seconds <= 0) return;
	double expected = cost_table_seconds(cost, rows, positions);
	s->probe_credit += PROBE_SHARE * seconds;
	s->far_credit += FAR_SHARE * seconds;
	if (s->probe.running) s->probe.seconds += seconds;
	seconds /= s->pace;
	if (expected > 0 && cost_table_weight(cost, rows) >= COST_CONFIRMED) keep_pace(s, seconds * s->pace / expected);
	/* Reading a position's keys and values takes its share of the time that reading the weights takes: that of the
	 * fastest call. */
	double share = s->options.position_share, per_position = share * seconds / (1 + share * positions);
	if (drafter < 0 && (s->target.per_position == 0 || per_position < s->target.per_position))
		s->target.per_position = per_position;
	cost->per_position = s->target.per_position;
	cost_table_observe(cost, rows, positions, seconds);
}

void speculation_hint(struct speculation *s, int rows, double positions, double seconds)
{
	if (seconds > 0) cost_table_hint(&s->target, rows, positions, seconds / s->pace);
}

void speculation_learn(struct speculation *s, int drafter, struct session_acceptance *acceptance, int drafted,
                       int accepted)
{
	struct drafter_state *d = &s->drafters[drafter];
	struct session_acceptance *own = &acceptance[drafter];
	int tried = accepted < drafted ? accepted + 1 : drafted;

	for (int j = 0; j < tried && j < SPECULATION_LENGTH_MAX; j++) {
		if (d->tried[j] > PLACE_MEMORY) fade(d, j, 0.5);
		d->tried[j]++;
		d->accepted[j] += j < accepted;
	}
	for (int j = drafted; j < SPECULATION_LENGTH_MAX; j++)
		if (d->tried[j] > UNTRIED_TRIALS) fade(d, j, UNTRIED_FADE);
	d->fresh += tried;
	if (s->probe.running) s->probe.tokens += accepted;
	own->accepted += (float)accepted;
	own->rejected += (float)(tried - accepted);
	if (own->accepted + own->rejected > (float)SESSION_MEMORY) {
		own->accepted /= 2;
		own->rejected /= 2;
	}
}

/* speculation.c - the choice of drafters and lengths.
 *
 * Cost of a plan: about LONGEST_TRIED * sessions * length steps of arithmetic for each combination of
 * drafters, a few microseconds per session.
 */
#include "rollout/speculation.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "configs/err.h"

/* Before anything is known, a draft is taken to be accepted with this probability. */
static const double PRIOR = 0.7, PRIOR_WEIGHT = 4;

/* A place in the draft is taken to be like the one before, as if that had been seen in so many trials. */
static const double PLACE_PRIOR = 16;

/* Fading: how many trials a place in the draft, and a session, remember. */
static const double PLACE_MEMORY = 512, SESSION_MEMORY = 128;

/* What a round leaves of what is known of places that it did not try, so that none is given up for good; what new
 * weights leave. */
static const double UNTRIED_FADE = 0.995, NEW_WEIGHTS_TRIALS = 4;

/* How many trials of its own a session needs to count as much as all others together. */
static const double SESSION_PRIOR = 16;

/* What is not chosen goes stale: acceptance of a drafter, what its calls cost, or, while all rounds draft, the
 * cost of one that does not.  Now and then a round does something else: soon while a drafter is hardly known,
 * often where the alternative promises nearly as much, else seldom. */
enum { PROBE_ROUNDS_YOUNG = 8, PROBE_ROUNDS = 25, PROBES_PER_FAR_ONE = 8, PROBE_LENGTH = 2, PROBE_SESSIONS = 4 };
static const double YOUNG_TRIALS = 24;
static const double PROBE_CLOSE = 0.8;

enum { DINKELBACH_STEPS = 6 };

/* A session in a plan that is being tried, and in the best so far. */
struct plan_scratch {
	double own[SPECULATION_DRAFTERS]; /* how it does against all, by drafter */
	double reach;
	int drafter, length, best_drafter, best_length;
};

void speculation_open(struct speculation *s, const struct speculation_options *options)
{
	assert(options->length_max >= 1 && options->length_max <= SPECULATION_LENGTH_MAX);
	assert(options->n_made >= 0 && options->n_made <= SPECULATION_DRAFTERS);
	memset(s, 0, sizeof *s);
	s->options = *options;
	s->made = -1;
	s->scratch = xmalloc((size_t)options->sessions_max * sizeof *s->scratch);
}

void speculation_close(struct speculation *s)
{
	free(s->scratch);
}

void speculation_set_costs(struct speculation *s, const struct speculation_costs *costs)
{
	s->target = costs->target;
	for (int i = 0; i < SPECULATION_DRAFTERS; i++) s->drafters[i].cost = costs->drafters[i];
}

static void fade(struct drafter_state *d, int place, double factor)
{
	d->tried[place] *= factor;
	d->accepted[place] *= factor;
}

void speculation_forget_acceptance(struct speculation *s)
{
	for (int f = 0; f < SPECULATION_DRAFTERS; f++) {
		struct drafter_state *d = &s->drafters[f];
		d->fresh = 0;
		for (int j = 0; j < SPECULATION_LENGTH_MAX; j++) {
			if (d->tried[j] > NEW_WEIGHTS_TRIALS) fade(d, j, NEW_WEIGHTS_TRIALS / d->tried[j]);
		}
	}
}

void speculation_observe(struct speculation *s, int drafter, int rows, double positions, double seconds)
{
	struct cost_table *cost = drafter < 0 ? &s->target : &s->drafters[drafter].cost;

	if (seconds <= 0) return;
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
	if (seconds > 0) cost_table_hint(&s->target, rows, positions, seconds);
}

/* Probability, by place, that a draft is accepted if all before it were; later places are rarely reached,
 * so each leans on the one before. */
static void places_of(const struct drafter_state *drafter, int n, double *place)
{
	double before = PRIOR;

	for (int j = 0; j < n; j++) {
		double weight = j == 0 ? PRIOR_WEIGHT : PLACE_PRIOR;
		before = (drafter->accepted[j] + weight * before) / (drafter->tried[j] + weight);
		place[j] = before;
	}
}

double speculation_acceptance(const struct speculation *s, int drafter)
{
	double tried = PRIOR_WEIGHT, accepted = PRIOR_WEIGHT * PRIOR;

	for (int j = 0; j < SPECULATION_LENGTH_MAX; j++) {
		tried += s->drafters[drafter].tried[j];
		accepted += s->drafters[drafter].accepted[j];
	}
	return accepted / tried;
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
	for (int j = drafted; j < SPECULATION_LENGTH_MAX; j++) fade(d, j, UNTRIED_FADE);
	d->fresh += tried;
	own->accepted += (float)accepted;
	own->rejected += (float)(tried - accepted);
	if (own->accepted + own->rejected > (float)SESSION_MEMORY) {
		own->accepted /= 2;
		own->rejected /= 2;
	}
}

/* ---- the plan ---- */

/* What the round offers. */
struct outlook {
	struct speculation *s;
	struct plan_session *sessions;
	int n;
	double positions; /* mean context */
	double place[SPECULATION_DRAFTERS][SPECULATION_LENGTH_MAX];
};

struct prospect {
	double tokens, seconds;
};

static double rate_of(struct prospect p) { return p.seconds > 0 ? p.tokens / p.seconds : 0; }

static double verify_seconds(const struct outlook *o, int rows)
{
	return cost_table_seconds(&o->s->target, rows, o->positions * rows);
}

static double draft_seconds(const struct outlook *o, int made, int rows)
{
	return made < 0 ? 0 : cost_table_seconds(&o->s->drafters[made].cost, rows, o->positions * rows);
}

static int limit_of(const struct outlook *o, int i, int drafter)
{
	const struct plan_session *session = &o->sessions[i];
	int most = session->room < o->s->options.length_max ? session->room : o->s->options.length_max;

	if (drafter < 0) return 0;
	if (drafter < o->s->options.n_made) return most;
	if (session->found != drafter) return 0;
	return session->n_found < most ? session->n_found : most;
}

/* Acceptance at place j of a session: that of the place, shifted by how the session does against all. */
static double chance_of(const struct outlook *o, int i, int drafter, int j)
{
	double p = o->place[drafter][j] * o->s->scratch[i].own[drafter];
	return p < 0.995 ? p : 0.995;
}

/* What a drafter adds to a session under a rate, at most. */
static double value_of(const struct outlook *o, int i, int drafter, double rate)
{
	bool makes = drafter < o->s->options.n_made;
	double row = (verify_seconds(o, 2 * o->n) - verify_seconds(o, o->n)) / o->n, reach = 1, value = 0, best = 0;

	if (makes) row += draft_seconds(o, drafter, o->n) / o->n;
	for (int j = 0; j < limit_of(o, i, drafter); j++) {
		reach *= chance_of(o, i, drafter, j);
		value += reach - rate * row;
		if (value > best) best = value;
	}
	return best;
}

/* Who drafts for whom: the given one, or what was found where that promises more. */
static void assign(const struct outlook *o, int made, bool use_found, double rate)
{
	for (int i = 0; i < o->n; i++) {
		struct plan_scratch *scratch = &o->s->scratch[i];
		int found = o->sessions[i].found;
		scratch->drafter = made;
		if (!use_found || found < 0) continue;
		if (made < 0 || value_of(o, i, found, rate) > value_of(o, i, made, rate)) scratch->drafter = found;
	}
}

/* Drafts of at most `longest` places that are worth their row under a rate. */
static struct prospect try_length(const struct outlook *o, int made, int longest, double rate)
{
	struct prospect p = {.tokens = o->n};
	double draft_row = draft_seconds(o, made, 2) - draft_seconds(o, made, 1);
	int rows = o->n;

	for (int i = 0; i < o->n; i++) {
		o->s->scratch[i].length = 0;
		o->s->scratch[i].reach = 1;
	}
	for (int j = 0; j < longest; j++) {
		double verify_row = fmax(0, verify_seconds(o, rows + 1) - verify_seconds(o, rows));
		int members = 0, makes = 0;
		for (int i = 0; i < o->n; i++) {
			struct plan_scratch *scratch = &o->s->scratch[i];
			if (scratch->length < j || j >= limit_of(o, i, scratch->drafter)) continue;
			double next = scratch->reach * chance_of(o, i, scratch->drafter, j);
			bool to_order = scratch->drafter == made;
			if (next <= rate * (verify_row + (to_order ? draft_row : 0))) continue;
			scratch->reach = next;
			scratch->length = j + 1;
			p.tokens += next;
			members++;
			makes += to_order;
		}
		if (members == 0) break;
		rows += members;
		p.seconds += draft_seconds(o, made, makes);
	}
	p.seconds += verify_seconds(o, rows);
	return p;
}

/* The best plan that beats `least` with one drafter to order, in scratch; no drafts if there is none. */
static struct prospect best_of(const struct outlook *o, int made, bool use_found, struct prospect least)
{
	static const int tried[] = {1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32};
	struct prospect best = least;

	for (int i = 0; i < o->n; i++) {
		o->s->scratch[i].best_drafter = -1;
		o->s->scratch[i].best_length = 0;
	}
	for (int step = 0; step < DINKELBACH_STEPS; step++) {
		double rate = rate_of(best);
		assign(o, made, use_found, rate);
		for (size_t l = 0; l < sizeof tried / sizeof *tried && tried[l] <= o->s->options.length_max; l++) {
			struct prospect p = try_length(o, made, tried[l], rate);
			if (rate_of(p) <= rate_of(best)) continue;
			best = p;
			for (int i = 0; i < o->n; i++) {
				o->s->scratch[i].best_drafter = o->s->scratch[i].drafter;
				o->s->scratch[i].best_length = o->s->scratch[i].length;
			}
		}
		if (rate_of(best) <= rate) break;
	}
	return best;
}

static struct outlook outlook_of(struct speculation *s, struct plan_session *sessions, int n)
{
	struct outlook o = {.s = s, .sessions = sessions, .n = n};

	for (int d = 0; d < SPECULATION_DRAFTERS; d++) {
		double overall = speculation_acceptance(s, d);
		places_of(&s->drafters[d], s->options.length_max, o.place[d]);
		for (int i = 0; i < n; i++) {
			const struct session_acceptance *a = &sessions[i].acceptance[d];
			double own = (a->accepted + SESSION_PRIOR * overall) / (a->accepted + a->rejected + SESSION_PRIOR);
			s->scratch[i].own[d] = own / overall;
		}
	}
	for (int i = 0; i < n; i++) o.positions += sessions[i].positions / (double)n;
	return o;
}

static int plan_fixed(const struct outlook *o)
{
	int made = -1;

	for (int i = 0; i < o->n; i++) {
		struct plan_session *session = &o->sessions[i];
		int drafter = session->found >= 0 ? session->found : o->s->options.n_made > 0 ? 0 : -1;
		int most = limit_of(o, i, drafter);
		session->length = o->s->options.length_fixed < most ? o->s->options.length_fixed : most;
		session->drafter = session->length > 0 ? drafter : -1;
		if (session->drafter == 0) made = 0;
	}
	return made;
}

static void plan_none(const struct outlook *o)
{
	for (int i = 0; i < o->n; i++) {
		o->sessions[i].drafter = -1;
		o->sessions[i].length = 0;
	}
}

static bool is_young(const struct drafter_state *drafter)
{
	return drafter->fresh < YOUNG_TRIALS;
}

static bool probe_is_due(struct speculation *s, int made)
{
	bool young = false;

	for (int f = 0; f < s->options.n_made; f++) young |= f != made && is_young(&s->drafters[f]);
	if (++s->rounds_since_probe < (young ? PROBE_ROUNDS_YOUNG : PROBE_ROUNDS)) return false;
	s->rounds_since_probe = 0;
	s->probes++;
	return true;
}

/* A drafter that makes to order is tried: a token for one session where drafting does not pay, short drafts for
 * a few where it does. */
static void plan_short(const struct outlook *o, int made, bool drafts)
{
	int left = drafts ? PROBE_SESSIONS : 1;

	plan_none(o);
	for (int i = 0; i < o->n && left > 0; i++) {
		int most = limit_of(o, i, made), length = drafts ? PROBE_LENGTH : 1;
		if (most < 1) continue;
		o->sessions[i].drafter = made;
		o->sessions[i].length = length < most ? length : most;
		left--;
	}
}

static void plan_from_scratch(const struct outlook *o)
{
	for (int i = 0; i < o->n; i++) {
		struct plan_session *session = &o->sessions[i];
		session->length = o->s->scratch[i].best_length;
		session->drafter = session->length > 0 ? o->s->scratch[i].best_drafter : -1;
	}
}

/* Instead of what was planned, the next of the alternatives (a drafter that makes to order, or, -1, no draft) that
 * is worth a look; the plan stays where none is.  Returns the drafter that makes to order. */
static int plan_probe(const struct outlook *o, int made, bool drafts, double rate)
{
	struct speculation *s = o->s;
	bool far_too = s->probes % PROBES_PER_FAR_ONE == 0;
	int n = s->options.n_made + 1;

	for (int tries = 0; tries < n; tries++) {
		int f = s->probe_next++ % n - 1;
		if (f < 0) {
			bool close = o->n / verify_seconds(o, o->n) >= PROBE_CLOSE * rate;
			if (!drafts || !(close || far_too)) continue;
			plan_none(o);
			return -1;
		}
		if (drafts && f == made) continue;
		bool close = rate_of(best_of(o, f, false, (struct prospect){0})) >= PROBE_CLOSE * rate;
		if (is_young(&s->drafters[f])) plan_short(o, f, drafts);
		else if (close) plan_from_scratch(o);
		else if (far_too) plan_short(o, f, drafts);
		else continue;
		return f;
	}
	return made;
}

int speculation_plan(struct speculation *s, struct plan_session *sessions, int n)
{
	assert(n <= s->options.sessions_max);
	if (n == 0) return -1;
	struct outlook o = outlook_of(s, sessions, n);
	bool any_found = false;

	plan_none(&o);
	if (s->options.length_fixed > 0) return plan_fixed(&o);
	for (int i = 0; i < n; i++) any_found |= sessions[i].found >= 0;

	struct prospect exact = {n, verify_seconds(&o, n)}, best = exact;
	int made = -1;
	for (int f = -1; f < s->options.n_made; f++) {
		for (int use_found = 0; use_found <= any_found; use_found++) {
			if (f < 0 && !use_found) continue;
			struct prospect hurdle = best;
			if (f >= 0 && f != s->made) hurdle.seconds /= 1 + s->options.hysteresis;
			struct prospect p = best_of(&o, f, use_found, hurdle);
			if (rate_of(p) <= rate_of(hurdle)) continue;
			best = p;
			made = f;
			plan_from_scratch(&o);
		}
	}
	s->planned_tokens = best.tokens;
	s->planned_seconds = best.seconds;
	s->exact_seconds = exact.seconds;
	s->made = made;
	bool drafted = rate_of(best) > rate_of(exact);
	return probe_is_due(s, drafted ? made : -1) ? plan_probe(&o, made, drafted, rate_of(best)) : made;
}

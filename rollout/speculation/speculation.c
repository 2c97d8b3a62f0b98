/* speculation.c - the choice of drafters and lengths.
 *
 * Cost of a plan: about LONGEST_TRIED * sessions * length steps of arithmetic for each combination of
 * drafters, a few microseconds per session.
 */
#include "rollout/speculation/speculation.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "configs/err.h"

/* Before anything is known, a draft is taken to be accepted with this probability. */
static const double PRIOR = 0.7, PRIOR_WEIGHT = 4;

/* A place in the draft is taken to be like the one before, as if that had been seen in so many trials. */
static const double PLACE_PRIOR = 16;

/* How many trials of its own a session needs to count as much as all others together. */
static const double SESSION_PRIOR = 16;

/* Probes (speculation.h).  What may pay: a drafter that is hardly known and would pay if nearly all were accepted, or an
 * alternative that promises nearly as much as the best plan.  The rest is looked at for a smaller share of the time.
 * Credit is limited in rounds, so that a long quiet time is not followed by a burst. */
enum { PROBE_ROUNDS_YOUNG = 4, PROBE_ROUNDS = 25, PROBE_LENGTH = 2, PROBE_BATCH_SMALL = 4 };
static const double CREDIT_ROUNDS = 4, FAR_CREDIT_ROUNDS = 1, GRANT_ROUNDS = 1;
static const double YOUNG_TRIALS = 24, YOUNG_FIRST = 8, YOUNG_HOPE = 0.98;
static const double PROBE_CLOSE = 0.9;

/* Credit grows where the batch has doubled or halved, too, but not more often than once in so many rounds; a probe loses
 * no more than LOSS_ROUNDS and debts end at DEBT_ROUNDS, as a call that was held up is not the probe's fault. */
static const double LOSS_ROUNDS = 1, DEBT_ROUNDS = 1;
enum { GRANT_APART = 40 };

/* A change of drafter must promise so much more. */
static const double CHANGE = 0.01;

enum { DINKELBACH_STEPS = 6 };

/* A session in a plan that is being tried, and in the best so far. */
struct plan_scratch {
	double own[SPECULATION_DRAFTERS]; /* how it does against all, by drafter */
	double reach;
	int drafter, length, best_drafter, best_length, kept_drafter, kept_length;
};

void speculation_open(struct speculation *s, const struct speculation_options *options)
{
	assert(options->length_max >= 1 && options->length_max <= SPECULATION_LENGTH_MAX);
	assert(options->n_made >= 0 && options->n_made <= SPECULATION_DRAFTERS);
	memset(s, 0, sizeof *s);
	s->options = *options;
	s->made = -1;
	s->pace = s->mean_pace = 1;
	s->grant_due = true;
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

/* ---- the plan ---- */

/* What the round offers. */
struct outlook {
	struct speculation *s;
	struct plan_session *sessions;
	int n, riders;
	double positions; /* mean context */
	double best_rate; /* of the plan so far */
	double riders_seconds; /* that prompts in the call add, whatever is drafted */
	double place[SPECULATION_DRAFTERS][SPECULATION_LENGTH_MAX];
};

struct prospect {
	double tokens, seconds;
};

static double rate_of(struct prospect p) { return p.seconds > 0 ? p.tokens / p.seconds : 0; }

static double verify_seconds(const struct outlook *o, int rows)
{
	return o->s->pace * cost_table_seconds(&o->s->target, rows + o->riders, o->positions * rows) - o->riders_seconds;
}

static double draft_seconds(const struct outlook *o, int made, int rows)
{
	if (made < 0) return 0;
	return o->s->pace * cost_table_seconds(&o->s->drafters[made].cost, rows, o->positions * rows);
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

/* What one more session adds to a step of a drafter: half its share at most, as calls of a lesser number may be
 * unknown, and the length as a whole is judged by the whole call. */
static double draft_row_seconds(const struct outlook *o, int made)
{
	int half = (o->n + 1) / 2;

	if (made < 0 || o->n < 2) return 0;
	double all = draft_seconds(o, made, o->n), slope = (all - draft_seconds(o, made, half)) / (o->n - half);
	return fmax(0, fmin(slope, all / (2 * o->n)));
}

/* Drafts of at most `longest` places that are worth their row under a rate. */
static struct prospect try_length(const struct outlook *o, int made, int longest, double rate)
{
	struct prospect p = {.tokens = o->n};
	double draft_row = draft_row_seconds(o, made);
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

static struct outlook outlook_of(struct speculation *s, struct plan_session *sessions, int n, int riders)
{
	struct outlook o = {.s = s, .sessions = sessions, .n = n, .riders = riders};

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
	double alone = s->pace * cost_table_seconds(&s->target, n, o.positions * n);
	o.riders_seconds = fmax(0, verify_seconds(&o, n) - alone);
	return o;
}

/* Whether m sessions with drafts of one length, at the acceptance of the best of them or `hope`, reach a rate for some m
 * and length: cheap, and false in most rounds in which drafts do not pay. */
static bool may_reach(const struct outlook *o, int drafter, double hope, double rate)
{
	int users = 0, longest = 0;
	double own = 0;

	for (int i = 0; i < o->n; i++) {
		int most = limit_of(o, i, drafter);
		users += most > 0;
		if (most > longest) longest = most;
		if (most > 0 && o->s->scratch[i].own[drafter] > own) own = o->s->scratch[i].own[drafter];
	}
	for (int m = users; m > 0; m /= 2) {
		double reach = 1, tokens = o->n, step = drafter < o->s->options.n_made ? draft_seconds(o, drafter, m) : 0;
		for (int j = 0; j < longest; j++) {
			double place = hope > 0 ? hope : fmin(o->place[drafter][j] * own, 0.995);
			reach *= place;
			tokens += m * reach;
			double seconds = step * (j + 1) + verify_seconds(o, o->n + m * (j + 1));
			if (tokens >= rate * seconds) return true;
		}
	}
	return false;
}

static int plan_fixed(const struct outlook *o)
{
	int made = -1;

	for (int i = 0; i < o->n; i++) {
		struct plan_session *session = &o->sessions[i];
		int drafter = session->found >= 0 ? session->found : o->s->options.n_made > 0 ? o->s->options.made_fixed : -1;
		int most = limit_of(o, i, drafter);
		session->length = o->s->options.length_fixed < most ? o->s->options.length_fixed : most;
		session->drafter = session->length > 0 ? drafter : -1;
		if (session->drafter >= 0 && session->drafter < o->s->options.n_made) made = session->drafter;
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

static void plan_from_scratch(const struct outlook *o)
{
	for (int i = 0; i < o->n; i++) {
		struct plan_session *session = &o->sessions[i];
		session->length = o->s->scratch[i].best_length;
		session->drafter = session->length > 0 ? o->s->scratch[i].best_drafter : -1;
	}
}

/* ---- probes ---- */

/* A round at hand is over: what it lost if it was a probe.  One call that was held up must not count for more than
 * the probe could have cost. */
static void settle_probe(struct speculation *s, double round_seconds)
{
	if (!s->probe.running) return;
	s->probe.running = false;
	double planning = 2 * s->overhead; /* of the probe and of the round after it, where a plan would have stood */
	double lost = s->probe.seconds + planning - s->probe.tokens / s->probe.rate, most = LOSS_ROUNDS * round_seconds;
	lost = fmax(-most, fmin(most, lost));
	*s->probe.account = fmax(*s->probe.account - lost, -DEBT_ROUNDS * round_seconds);
	s->probe_seconds += lost;
}

/* What a batch of another size does to the choice was not known when credit was spent. */
static void limit_credit(struct speculation *s, int n, double round_seconds)
{
	s->rounds_since_grant++;
	bool other = s->granted_for > 2 * n || 2 * s->granted_for < n;
	if (round_seconds > 0 && (s->grant_due || (other && s->rounds_since_grant >= GRANT_APART))) {
		s->probe_credit = fmax(s->probe_credit, 0) + (s->grant_due ? GRANT_ROUNDS : 1) * round_seconds;
		s->grant_due = false;
		s->rounds_since_grant = 0;
		s->granted_for = n;
	}
	s->probe_credit = fmin(s->probe_credit, CREDIT_ROUNDS * round_seconds);
	s->far_credit = fmin(s->far_credit, FAR_CREDIT_ROUNDS * round_seconds);
}

static double loss_of(const struct outlook *o, double tokens, double seconds)
{
	return fmax(0, seconds - tokens / o->best_rate);
}

/* Short drafts for all, which tells most for what it costs.  Returns what it loses if none is accepted. */
static double plan_short(const struct outlook *o, int made)
{
	int length = o->n <= PROBE_BATCH_SMALL ? PROBE_LENGTH : 1, drafts = 0, makes[PROBE_LENGTH] = {0};
	double seconds = 0;

	plan_none(o);
	for (int i = 0; i < o->n; i++) {
		int most = limit_of(o, i, made), own = length < most ? length : most;
		if (own < 1) continue;
		o->sessions[i].drafter = made;
		o->sessions[i].length = own;
		drafts += own;
		for (int j = 0; j < own; j++) makes[j]++;
	}
	for (int j = 0; j < length; j++)
		if (makes[j] > 0) seconds += draft_seconds(o, made, makes[j]);
	return loss_of(o, o->n, seconds + verify_seconds(o, o->n + drafts));
}

/* What is lost is a guess itself, and may be far too much where one measurement was held up: an account with more than
 * GRANT_ROUNDS, or as much as fits into it, pays for anything. */
static bool pays(const struct outlook *o, const double *account, double loss)
{
	double enough = account == &o->s->far_credit ? 0.99 * FAR_CREDIT_ROUNDS : 0.99 * GRANT_ROUNDS;
	return loss <= *account || *account >= enough * verify_seconds(o, o->n);
}

/* Of a drafter's acceptance; the first place stands for all that are not reached. */
static bool hardly_tried(const struct drafter_state *d)
{
	return d->fresh < YOUNG_TRIALS || d->tried[0] < YOUNG_FIRST;
}

/* Whether so little is known of a drafter that its next measurement may change everything. */
static bool is_young(const struct outlook *o, int f)
{
	const struct drafter_state *d = &o->s->drafters[f];
	int rows = (o->n <= PROBE_BATCH_SMALL ? 1 + PROBE_LENGTH : 2) * o->n + o->riders;

	return hardly_tried(d) || cost_table_weight(&d->cost, o->n) < COST_CONFIRMED ||
	       cost_table_weight(&o->s->target, rows) < COST_CONFIRMED;
}

/* Whether the plan rests on acceptance or costs that were hardly measured. */
static bool is_guess(const struct outlook *o)
{
	const struct speculation *s = o->s;
	int makes[SPECULATION_DRAFTERS] = {0}, rows = o->n + o->riders;

	for (int i = 0; i < o->n; i++) {
		if (o->sessions[i].length == 0) continue;
		makes[o->sessions[i].drafter]++;
		rows += o->sessions[i].length;
	}
	for (int d = 0; d < SPECULATION_DRAFTERS; d++) {
		if (makes[d] == 0) continue;
		if (hardly_tried(&s->drafters[d])) return true;
		if (d < s->options.n_made && cost_table_weight(&s->drafters[d].cost, makes[d]) < COST_CONFIRMED) return true;
	}
	return cost_table_weight(&s->target, rows) < COST_CONFIRMED;
}

static void begin_probe(const struct outlook *o, double *account)
{
	o->s->probe_rounds++;
	o->s->probe.running = true;
	o->s->probe.rate = o->best_rate;
	o->s->probe.account = account;
	o->s->probe.tokens = o->n;
	o->s->probe.seconds = 0;
}

/* Instead of what was planned, an alternative (a drafter that makes to order, or, -1, no drafts), where an account
 * allows: the one that pays, NULL if none does. */
static double *try_probe(const struct outlook *o, int f, int made, bool drafts)
{
	struct speculation *s = o->s;
	int since = s->rounds_since_probe;
	double *account;

	if (drafts ? f == made : f < 0) return NULL;
	if (f < 0) {
		double seconds = verify_seconds(o, o->n);
		account = o->n >= PROBE_CLOSE * o->best_rate * seconds ? &s->probe_credit : &s->far_credit;
		if (since < PROBE_ROUNDS || !pays(o, account, loss_of(o, o->n, seconds))) return NULL;
		plan_none(o);
		return account;
	}
	bool young = is_young(o, f);
	if (since < (young ? PROBE_ROUNDS_YOUNG : PROBE_ROUNDS)) return NULL;
	bool may = may_reach(o, f, young ? YOUNG_HOPE : 0, (young ? 1 : PROBE_CLOSE) * o->best_rate);
	if (may && !young) {
		struct prospect p = best_of(o, f, false, (struct prospect){0});
		if (rate_of(p) >= PROBE_CLOSE * o->best_rate && pays(o, &s->probe_credit, loss_of(o, p.tokens, p.seconds))) {
			plan_from_scratch(o);
			return &s->probe_credit;
		}
	}
	account = may ? &s->probe_credit : &s->far_credit;
	return pays(o, account, plan_short(o, f)) ? account : NULL;
}

/* The plan stays where no probe is due.  Returns the drafter that makes to order. */
static int plan_probe(const struct outlook *o, int made, bool drafts)
{
	struct speculation *s = o->s;
	int n = s->options.n_made + 1;

	if (++s->rounds_since_probe < PROBE_ROUNDS_YOUNG || fmax(s->probe_credit, s->far_credit) <= 0) return made;
	for (int i = 0; i < o->n; i++) {
		s->scratch[i].kept_drafter = o->sessions[i].drafter;
		s->scratch[i].kept_length = o->sessions[i].length;
	}
	for (int tries = 0; tries < n; tries++) {
		int f = s->probe_next++ % n - 1;
		double *account = try_probe(o, f, made, drafts);
		if (!account) continue;
		s->rounds_since_probe = 0;
		begin_probe(o, account);
		return f;
	}
	for (int i = 0; i < o->n; i++) {
		o->sessions[i].drafter = s->scratch[i].kept_drafter;
		o->sessions[i].length = s->scratch[i].kept_length;
	}
	return made;
}

int speculation_plan(struct speculation *s, struct plan_session *sessions, int n, int riders)
{
	assert(n <= s->options.sessions_max);
	if (n == 0) return -1;
	struct outlook o = outlook_of(s, sessions, n, riders);

	plan_none(&o);
	if (s->options.length_fixed > 0) return plan_fixed(&o);
	struct prospect exact = {n, verify_seconds(&o, n)}, best = exact;
	settle_probe(s, exact.seconds);
	limit_credit(s, n, exact.seconds);
	bool any_found = false;
	for (int f = s->options.n_made; f < SPECULATION_DRAFTERS; f++) any_found |= may_reach(&o, f, 0, rate_of(exact));

	int made = -1;
	bool drafts = false;
	for (int f = -1; f < s->options.n_made; f++) {
		if (f >= 0 && !may_reach(&o, f, 0, rate_of(exact))) continue;
		for (int use_found = 0; use_found <= any_found; use_found++) {
			if (f < 0 && !use_found) continue;
			struct prospect hurdle = best;
			if (!drafts) hurdle.seconds /= 1 + s->options.hysteresis;
			else if (f >= 0 && f != s->made) hurdle.seconds /= 1 + CHANGE;
			struct prospect p = best_of(&o, f, use_found, hurdle);
			if (rate_of(p) <= rate_of(hurdle)) continue;
			if (!drafts && p.tokens <= rate_of(hurdle) * (p.seconds + s->overhead)) continue;
			best = p;
			made = f;
			drafts = true;
			plan_from_scratch(&o);
		}
	}
	if (drafts && is_guess(&o)) {
		if (s->probe_credit > 0) {
			o.best_rate = rate_of(exact);
			begin_probe(&o, &s->probe_credit);
		} else {
			plan_none(&o);
			best = exact;
			made = -1;
			drafts = false;
		}
	}
	s->planned_tokens = best.tokens;
	s->planned_seconds = best.seconds;
	s->exact_seconds = exact.seconds;
	s->made = made;
	o.best_rate = rate_of(best);
	return s->probe.running ? made : plan_probe(&o, made, drafts);
}

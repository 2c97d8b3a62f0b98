/* simulate_costs.c - rounds from the costs of calls: T(rows) of rollout/speculation/cost_table.h, and with speculation the plan of
 * the real controller.
 *
 * Speculation: for so many sessions in contexts of such a length, all alike, speculation_plan() is asked once and
 * what it plans is kept: tokens per session and round by the formula of speculation.h, seconds of the calls in
 * it.  Between batch sizes and context lengths that were asked for, plans are interpolated.
 */
#include "scheduler/simulate/simulate_costs.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "configs/err.h"

/* Contexts for which plans are made: CONTEXT_MIN * 2^i. */
enum { CONTEXTS = 16, CONTEXT_MIN = 32 };

/* Up to so many sessions the controller is asked; larger batches cost and make in proportion. */
enum { SESSIONS_ASKED_MAX = 512 };

/* A stretch of rounds under one plan: until contexts have grown by this share, or by so many rounds. */
static const double STRETCH_SHARE = 0.25, STRETCH_ROUNDS = 16;

struct planned {
	double tokens;              /* of a session */
	double seconds, per_context; /* of the round: seconds + per_context * mean context */
};

struct simulate_costs {
	int max_active;
	double *seconds; /* [max_active + 1] of a call of so many rows, attention aside */
	double per_position, prefill_seconds;
	int n_planned;           /* sessions with plans; 0: no speculation */
	struct planned *planned; /* [n_planned + 1][CONTEXTS] */
};

void simulate_costs_invent(struct speculation_costs *calls, const struct config_simulate *o)
{
	memset(calls, 0, sizeof *calls);
	for (int i = 0; i < COST_KNOTS; i++) {
		calls->target.seconds[i] = o->read_seconds + o->row_seconds * cost_knot_rows[i];
		calls->target.weight[i] = 1;
	}
	calls->target.per_position = o->position_seconds;
}

/* What a cost file does not say of the drafter. */
static void complete_drafter(struct speculation_costs *calls, double draft_share)
{
	struct cost_table *drafter = &calls->drafters[0];

	if (cost_table_known(drafter)) return;
	*drafter = calls->target;
	for (int i = 0; i < COST_KNOTS; i++) drafter->seconds[i] *= draft_share;
}

/* What a row adds to the largest call that is known. */
static double row_seconds(const struct cost_table *table)
{
	int last = COST_KNOTS - 1;

	while (last > 0 && table->weight[last] <= 0) last--;
	if (last == 0) return table->seconds[0];
	double rows = cost_knot_rows[last], half = rows / 2;
	double slope = (table->seconds[last] - cost_table_seconds(table, (int)half, 0)) / (rows - (int)half);
	return slope > 0 ? slope : 0;
}

/* ---- plans ---- */

struct planner {
	struct speculation speculation;
	struct plan_session sessions[SESSIONS_ASKED_MAX];
	struct session_acceptance none[SPECULATION_DRAFTERS];
	double acceptance;
};

static struct planner *planner_open(const struct speculation_costs *calls, const struct config *config)
{
	struct planner *p = xcalloc(1, sizeof *p);
	double many = 1e9; /* trials: what is given outweighs every prior */
	struct speculation_options options = {
		.length_max = (int)config->speculation.draft_length_max, .length_fixed = (int)config->speculation.draft_length,
		.n_made = 1, .sessions_max = SESSIONS_ASKED_MAX,
	};

	if (options.length_fixed > options.length_max) options.length_max = options.length_fixed;
	speculation_open(&p->speculation, &options);
	speculation_set_costs(&p->speculation, calls);
	p->acceptance = config->simulate.acceptance;
	for (int j = 0; j < SPECULATION_LENGTH_MAX; j++) {
		p->speculation.drafters[0].tried[j] = many;
		p->speculation.drafters[0].accepted[j] = many * p->acceptance;
	}
	p->speculation.drafters[0].fresh = many;
	return p;
}

/* Seconds of what the sessions plan, in contexts of this length. */
static double plan_seconds(const struct planner *p, int n, double context)
{
	const struct speculation *s = &p->speculation;
	double seconds = 0;
	int rows = n;

	for (int j = 0; j < SPECULATION_LENGTH_MAX; j++) {
		int drafting = 0;
		for (int i = 0; i < n; i++) drafting += p->sessions[i].length > j;
		seconds += cost_table_seconds(&s->drafters[0].cost, drafting, context * drafting);
		rows += drafting;
	}
	return seconds + cost_table_seconds(&s->target, rows, context * rows);
}

static struct planned plan_of(struct planner *p, int n, double context)
{
	struct planned planned = {.tokens = 1};

	for (int i = 0; i < n; i++)
		p->sessions[i] = (struct plan_session){
			.acceptance = p->none, .room = SPECULATION_LENGTH_MAX, .found = -1, .positions = (int)context};
	p->speculation.rounds_since_probe = 0; /* no experiments */
	speculation_plan(&p->speculation, p->sessions, n, 0);
	for (int i = 0; i < n; i++) {
		double reach = 1;
		for (int j = 0; j < p->sessions[i].length; j++) planned.tokens += (reach *= p->acceptance) / n;
	}
	planned.seconds = plan_seconds(p, n, 0);
	planned.per_context = plan_seconds(p, n, 1) - planned.seconds;
	return planned;
}

static int next_asked(int n, int most)
{
	int next = n < 8 ? n + 1 : n + n / 4;
	return next < most ? next : most;
}

static double between(double a, double b, double share) { return a + share * (b - a); }

static struct planned mix(struct planned a, struct planned b, double share)
{
	return (struct planned){
		.tokens = between(a.tokens, b.tokens, share), .seconds = between(a.seconds, b.seconds, share),
		.per_context = between(a.per_context, b.per_context, share)};
}

static void plan_all(struct simulate_costs *c, struct planner *p)
{
	for (int k = 0; k < CONTEXTS; k++) {
		int n = 1;
		c->planned[CONTEXTS + k] = plan_of(p, n, (double)CONTEXT_MIN * (1 << k));
		while (n < c->n_planned) {
			int next = next_asked(n, c->n_planned);
			struct planned a = c->planned[n * CONTEXTS + k], b = plan_of(p, next, (double)CONTEXT_MIN * (1 << k));
			for (int i = n + 1; i <= next; i++) c->planned[i * CONTEXTS + k] = mix(a, b, (i - n) / (double)(next - n));
			n = next;
		}
	}
}

/* ---- opening, asking ---- */

struct simulate_costs *simulate_costs_open(const struct speculation_costs *calls, const struct config *config,
                                           bool speculation)
{
	struct simulate_costs *c = xcalloc(1, sizeof *c);
	struct speculation_costs complete = *calls;

	c->max_active = (int)config->worker.max_active;
	c->seconds = xcalloc((size_t)c->max_active + 1, sizeof *c->seconds);
	for (int n = 1; n <= c->max_active; n++) c->seconds[n] = cost_table_seconds(&calls->target, n, 0);
	c->per_position = calls->target.per_position;
	c->prefill_seconds = config->simulate.prefill_seconds > 0 ? config->simulate.prefill_seconds : row_seconds(&calls->target);
	if (!speculation) return c;
	complete_drafter(&complete, config->simulate.draft_share);
	c->n_planned = c->max_active < SESSIONS_ASKED_MAX ? c->max_active : SESSIONS_ASKED_MAX;
	c->planned = xcalloc(((size_t)c->n_planned + 1) * CONTEXTS, sizeof *c->planned);
	struct planner *planner = planner_open(&complete, config);
	plan_all(c, planner);
	speculation_close(&planner->speculation);
	free(planner);
	return c;
}

void simulate_costs_close(struct simulate_costs *c)
{
	if (!c) return;
	free(c->seconds);
	free(c->planned);
	free(c);
}

struct simulate_round simulate_costs_round(const struct simulate_costs *c, int n, double positions)
{
	assert(n >= 0 && n <= c->max_active);
	if (n == 0) return (struct simulate_round){.tokens = 1, .seconds = c->seconds[1], .rounds_max = INFINITY};
	if (c->n_planned == 0)
		return (struct simulate_round){.tokens = 1, .seconds = c->seconds[n] + c->per_position * positions,
		                               .growth = c->per_position * n, .rounds_max = INFINITY};
	int asked = n < c->n_planned ? n : c->n_planned;
	double context = positions / n, scale = n / (double)asked;
	double at = context > CONTEXT_MIN ? log2(context / CONTEXT_MIN) : 0;
	if (at > CONTEXTS - 1) at = CONTEXTS - 1;
	int k = at < CONTEXTS - 1 ? (int)at : CONTEXTS - 2;
	const struct planned *row = &c->planned[asked * CONTEXTS];
	struct planned p = mix(row[k], row[k + 1], at - k);
	double rounds = ceil(STRETCH_SHARE * context / p.tokens);
	return (struct simulate_round){.tokens = p.tokens, .seconds = scale * (p.seconds + p.per_context * context),
	                               .growth = scale * p.per_context * p.tokens,
	                               .rounds_max = rounds > STRETCH_ROUNDS ? rounds : STRETCH_ROUNDS};
}

double simulate_costs_prefill(const struct simulate_costs *c, double from, double to)
{
	return to > from ? (to - from) * (c->prefill_seconds + c->per_position * 0.5 * (from + to)) : 0;
}

/* engine_drafts.c - who drafts what in a round: looks drafts up in the suffix memory, asks the controller
 * (speculation.h), reserves KV for what it chose, and tells it what came of it. */
#include <stdlib.h>

#include <xxhash.h>

#include "configs/config.h"
#include "rollout/engine_internal.h"

/* Drafters as the controller knows them: the policy's copies make drafts to order, the others are what the
 * suffix memory found, by how long a match it rests on, since longer ones hold more often. */
enum { SUFFIX_CLASSES = SPECULATION_DRAFTERS - DRAFTER_SUFFIX };

static const int class_match_min[SUFFIX_CLASSES] = {SUFFIX_KEY, 8, 24};

static int class_of(int match)
{
	int class = SUFFIX_CLASSES - 1;

	while (class > 0 && match < class_match_min[class]) class--;
	return DRAFTER_SUFFIX + class;
}

void engine_drafts_open(struct engine *e)
{
	const struct engine_options *o = &e->options;
	struct speculation_options options = {
		.length_max = e->draft_length_max,
		.length_fixed = o->draft_length,
		.made_fixed = o->draft_made,
		.n_made = o->drafter == DRAFTER_KIND_SUFFIX ? 0 : e->workspace.policy->draft_choose ? 2 : 1,
		.sessions_max = o->max_active,
		.hysteresis = 0.03,
		.position_share = (double)kv_cache_page_bytes(e->cache) / KV_TILE / (double)e->workspace.policy->bytes,
	};

	speculation_open(&e->speculation, &options);
	if (o->costs) speculation_set_costs(&e->speculation, o->costs);
	e->workspace.speculation = &e->speculation;
	e->plan = xmalloc((size_t)o->max_active * sizeof *e->plan);
	if (o->drafter != DRAFTER_KIND_QUANT) e->suffix = suffix_open(o->suffix_tokens);
}

void engine_drafts_close(struct engine *e)
{
	if (!e->drafts) return;
	speculation_close(&e->speculation);
	suffix_close(e->suffix);
	free(e->plan);
}

void engine_costs_read(const struct engine *e, struct speculation_costs *costs)
{
	costs->target = e->speculation.target;
	for (int i = 0; i < SPECULATION_DRAFTERS; i++) costs->drafters[i] = e->speculation.drafters[i].cost;
}

/* Continuations of the sample's last words, if there are any. */
static void look_up(struct engine *e, struct session *s, struct plan_session *plan)
{
	const struct trajectory *t = s->trajectory;
	int match;

	if (s->prompt_key == 0) s->prompt_key = XXH3_64bits(t->tokens, (size_t)t->n_prompt * sizeof *t->tokens) | 1;
	suffix_feed(e->suffix, &s->cursor, s->prompt_key, t->tokens, t->n_tokens);
	int most = plan->room < e->draft_length_max ? plan->room : e->draft_length_max;
	plan->n_found = suffix_propose(e->suffix, &s->cursor, s->prompt_key, s->draft, most, &match);
	if (plan->n_found > 0) plan->found = class_of(match);
}

/* KV for what was planned; a draft displaces nobody. */
static void reserve_draft(struct session *s, const struct plan_session *plan)
{
	int32_t n_tokens = s->trajectory->n_tokens;

	s->drafter = plan->drafter;
	s->n_draft = plan->length;
	if (s->n_draft > 0 && kv_seq_reserve(&s->kv, n_tokens - 1, n_tokens + s->n_draft)) s->n_draft = 0;
}

/* Where rounds take no longer than planning them does, as with models of a megabyte, a plan without drafts stands
 * for some rounds: planning may take PLAN_SHARE of the time.  Not while the batch grows or shrinks much. */
static void rest(struct engine *e, double plan_seconds)
{
	static const double PLAN_SHARE = 0.003;
	enum { REST_MAX = 64 };
	double round_seconds = e->speculation.exact_seconds;
	double rounds = round_seconds > 0 ? plan_seconds / (PLAN_SHARE * round_seconds) : 0;

	if (e->options.draft_length == 0 && rounds > 1) e->plan_rest = rounds < REST_MAX ? (int)rounds : REST_MAX;
}

void engine_drafts_plan(struct engine *e, int n)
{
	struct engine_stats *stats = &e->workspace.stats;

	for (int i = 0; i < n; i++) e->decoding[i]->n_draft = 0;
	bool alike = 4 * n > 3 * e->plan_n && 3 * n < 4 * e->plan_n;
	if (!e->drafts || n == 0 || (e->plan_rest-- > 0 && alike)) return;
	e->plan_n = n;
	double start = workspace_now(&e->workspace);
	e->plan_rest = 0;
	for (int i = 0; i < n; i++) {
		struct session *s = e->decoding[i];
		int32_t n_tokens = s->trajectory->n_tokens;
		/* The round makes one token more than it accepts. */
		e->plan[i] = (struct plan_session){
			.acceptance = s->acceptance, .room = s->length_max - n_tokens - 1, .found = -1, .positions = n_tokens,
		};
		if (e->suffix && e->plan[i].room > 0) look_up(e, s, &e->plan[i]);
	}
	int riders = workspace_whole_rows(&e->workspace, e->workspace.n_rows);
	speculation_plan(&e->speculation, e->plan, n, riders);
	bool drafting = false;
	for (int i = 0; i < n; i++) {
		reserve_draft(e->decoding[i], &e->plan[i]);
		drafting |= e->decoding[i]->n_draft > 0;
	}
	bool wanted = e->speculation.planned_tokens > n; /* though a probe may have come in between */
	double seconds = workspace_now(&e->workspace) - start;
	if (!drafting && !wanted) rest(e, seconds);
	e->speculation.overhead += (seconds - e->speculation.overhead) / 8;
	stats->plan_seconds += seconds;
	stats->probe_rounds = e->speculation.probe_rounds;
	stats->probe_seconds = e->speculation.probe_seconds;
	stats->drafting_rounds += drafting;
	stats->planned_tokens += e->speculation.planned_tokens;
	stats->planned_seconds += e->speculation.planned_seconds;
	stats->planned_exact_seconds += e->speculation.exact_seconds;
}

void engine_drafts_learn(struct engine *e, int n)
{
	if (!e->drafts) return;
	for (int i = 0; i < n; i++) {
		struct session *s = e->decoding[i];
		/* A sample that ended with an accepted draft says nothing about the drafts behind it. */
		bool ended = s->trajectory->finish != FINISH_NONE && s->n_accepted == s->n_made;
		int drafted = ended ? s->n_accepted : s->n_draft;
		if (drafted > 0) speculation_learn(&e->speculation, s->drafter, s->acceptance, drafted, s->n_accepted);
	}
}

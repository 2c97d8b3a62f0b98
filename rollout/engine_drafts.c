/* engine_drafts.c - who drafts what in a round: takes drafts that came with their samples (draft_given.c), looks others
 * up in the suffix memory, asks the controller (speculation.h), reserves KV for what it chose, and tells it what came of it. */
#include <stdlib.h>
#include <string.h>

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

	speculation_open(&e->control[0].speculation, &options);
	if (o->costs) speculation_set_costs(&e->control[0].speculation, o->costs);
	options.n_made = 0; /* nobody drafts for the copy but those who have found theirs */
	if (e->explores) speculation_open(&e->control[1].speculation, &options);
	if (e->explores) e->order = xmalloc((size_t)o->max_active * sizeof *e->order);
	e->plan = xmalloc((size_t)o->max_active * sizeof *e->plan);
	if (o->drafter != DRAFTER_KIND_QUANT) e->suffix = suffix_open(o->suffix_tokens);
}

void engine_drafts_close(struct engine *e)
{
	if (!e->drafts) return;
	for (int i = 0; i <= e->explores; i++) speculation_close(&e->control[i].speculation);
	suffix_close(e->suffix);
	free(e->plan);
	free(e->order);
}

void engine_costs_read(const struct engine *e, struct speculation_costs *costs)
{
	const struct speculation *s = &e->control[0].speculation;

	costs->target = s->target;
	for (int i = 0; i < SPECULATION_DRAFTERS; i++) costs->drafters[i] = s->drafters[i].cost;
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
static void rest(const struct engine *e, struct drafting_control *control, double plan_seconds)
{
	static const double PLAN_SHARE = 0.003;
	enum { REST_MAX = 64 };
	double round_seconds = control->speculation.exact_seconds;
	double rounds = round_seconds > 0 ? plan_seconds / (PLAN_SHARE * round_seconds) : 0;

	if (e->options.draft_length == 0 && rounds > 1) control->rest = rounds < REST_MAX ? (int)rounds : REST_MAX;
}

/* Who controls what the part at hand drafts; NULL: nobody drafts. */
static struct drafting_control *control_of(struct engine *e)
{
	if (!e->drafts) return NULL;
	if (e->workspace.part == PART_TARGET) return &e->control[0];
	return e->explores && e->suffix ? &e->control[1] : NULL;
}

void engine_drafts_turn(struct engine *e)
{
	struct drafting_control *control = control_of(e);
	e->workspace.speculation = control ? &control->speculation : NULL;
}

/* Sessions whose draft has come with them move behind the others; returns how many those are, *rows: of the former. */
static int plan_given(struct engine *e, int n, int *rows)
{
	int others = 0;

	*rows = 0;
	for (int i = 0; i < n; i++) {
		struct session *s = e->decoding[i];
		int room = s->length_max - s->trajectory->n_tokens - 1;
		int length = draft_given(s, room < e->explore_chunk ? room : e->explore_chunk);
		reserve_draft(s, &(struct plan_session){.drafter = -1, .length = length});
		s->given = s->n_draft > 0;
		if (s->given) continue;
		e->decoding[i] = e->decoding[others];
		e->decoding[others++] = s;
	}
	draft_given_pair(e->decoding + others, n - others);
	for (int i = others; i < n; i++) *rows += e->decoding[i]->twin ? 0 : 1 + e->decoding[i]->n_draft;
	return others;
}

/* Who has a twin moves behind the others; returns how many those are. */
static int leaders_first(struct engine *e, int n)
{
	int leaders = 0;

	for (int i = 0; i < n; i++) {
		struct session *s = e->decoding[i];
		if (s->twin) continue;
		e->decoding[i] = e->decoding[leaders];
		e->decoding[leaders++] = s;
	}
	return leaders;
}

/* Twins draft what their leaders do, and stand right behind them: they are in the same call. */
static void followers_follow(struct engine *e, int leaders, int n)
{
	int n_order = 0;

	if (leaders == n) return;
	for (int i = 0; i < leaders; i++) {
		e->order[n_order++] = e->decoding[i];
		for (int j = leaders; j < n; j++) {
			struct session *s = e->decoding[j];
			if (s->twin != e->decoding[i]) continue;
			s->drafter = s->twin->drafter;
			s->n_draft = s->twin->n_draft;
			memcpy(s->draft, s->twin->draft, (size_t)s->n_draft * sizeof *s->draft);
			e->order[n_order++] = s;
		}
	}
	memcpy(e->decoding, e->order, (size_t)n * sizeof(struct session *));
}

static void plan_drafts(struct engine *e, struct drafting_control *control, int n, int given_rows)
{
	struct engine_stats *stats = &e->workspace.stats;
	struct speculation *speculation = &control->speculation;
	bool alike = 2 * n >= control->n && n <= 2 * control->n;
	if (n == 0 || (control->rest-- > 0 && alike)) return;
	control->n = n;
	double start = workspace_now(&e->workspace);
	control->rest = 0;
	for (int i = 0; i < n; i++) {
		struct session *s = e->decoding[i];
		int32_t n_tokens = s->trajectory->n_tokens;
		/* The round makes one token more than it accepts. */
		e->plan[i] = (struct plan_session){
			.acceptance = s->acceptance, .room = s->length_max - n_tokens - 1, .found = -1, .positions = n_tokens,
		};
		if (e->suffix && e->plan[i].room > 0) look_up(e, s, &e->plan[i]);
	}
	int riders = workspace_whole_rows(&e->workspace, e->workspace.n_rows) + given_rows;
	speculation_plan(speculation, e->plan, n, riders);
	bool drafting = false;
	for (int i = 0; i < n; i++) {
		reserve_draft(e->decoding[i], &e->plan[i]);
		drafting |= e->decoding[i]->n_draft > 0;
	}
	bool wanted = speculation->planned_tokens > n; /* though a probe may have come in between */
	double seconds = workspace_now(&e->workspace) - start;
	if (!drafting && !wanted) rest(e, control, seconds);
	speculation->overhead += (seconds - speculation->overhead) / 8;
	stats->plan_seconds += seconds;
	stats->probe_rounds = e->control[0].speculation.probe_rounds + e->control[1].speculation.probe_rounds;
	stats->probe_seconds = e->control[0].speculation.probe_seconds + e->control[1].speculation.probe_seconds;
	stats->drafting_rounds += drafting;
	stats->planned_tokens += speculation->planned_tokens;
	stats->planned_seconds += speculation->planned_seconds;
	stats->planned_exact_seconds += speculation->exact_seconds;
}

void engine_drafts_plan(struct engine *e, int n)
{
	struct drafting_control *control = control_of(e);
	int given_rows = 0;

	for (int i = 0; i < n; i++) e->decoding[i]->n_draft = 0;
	if (e->workspace.part == PART_TARGET) {
		if (e->explores) n = plan_given(e, n, &given_rows);
		if (control) plan_drafts(e, control, n, given_rows);
	} else {
		int leaders = leaders_first(e, n);
		if (control) plan_drafts(e, control, leaders, 0);
		followers_follow(e, leaders, n);
	}
}

void engine_drafts_learn(struct engine *e, int n)
{
	struct engine_stats *stats = &e->workspace.stats;
	struct drafting_control *control = control_of(e);

	if (!control) return;
	for (int i = 0; i < n; i++) {
		struct session *s = e->decoding[i];
		if (s->given) {
			stats->proposed += (uint64_t)s->n_draft;
			stats->proposals_accepted += (uint64_t)s->n_accepted;
			continue;
		}
		/* A sample that ended with an accepted draft says nothing about the drafts behind it. */
		bool ended = s->trajectory->finish != FINISH_NONE && s->n_accepted == s->n_made;
		int drafted = ended ? s->n_accepted : s->n_draft;
		if (drafted > 0) speculation_learn(&control->speculation, s->drafter, s->acceptance, drafted, s->n_accepted);
	}
}

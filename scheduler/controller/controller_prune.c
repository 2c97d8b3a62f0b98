/* controller_prune.c - ARRoL (arXiv 2603.24840): samples that promise little are ended in flight.
 *
 * A rank says REACHED when a sample has gone past prune.at_tokens.  When all samples of a group have, or have ended
 * before, the head as it is then says what to expect of each, prune.c draws who goes on, and the others end: their
 * records stop at exactly prune.at_tokens, whatever had come by then, so that they do not depend on timing; so do those
 * of pruned samples that had run to their end.  Decisions, hidden states and heads are stored (store_prune.h).
 *
 * What it depends on: hidden states (a function of the record), the head, and the group's seed.  The head learns when a
 * batch is complete, from the groups scored since the batch before, by group and sample (what a crash finds of those that
 * were dropped is on record: controller_prune_restore_dropped).  Until it has learned from
 * prune.warmup samples nothing is pruned.  A sample that is judged twice, since its rank was lost, counts as it was last.
 *
 * Differences from the paper: who survives is a draw with known probabilities and not the best set, survivors stand for
 * those that were pruned with a weight of 1 / probability, and the baseline is an estimate over all started samples
 * (advantage_pruned.c), so that pruning biases nothing. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "rollout/advantage/advantage_pruned.h"
#include "rollout/quality_head.h"
#include "scheduler/controller/controller_internal.h"
#include "scheduler/store/store_prune.h"

/* Of a group. */
struct pruning {
	bool decided, learned;
	uint64_t head;                          /* that decided */
	struct prune_decision decision;
	struct stored_pruning_sample judged[PRUNE_SAMPLES_MAX];
	bool seen[PRUNE_SAMPLES_MAX];
	float features[];                       /* [n][dim] */
};

struct label {
	uint64_t group;
	int sample;
	float *features; /* owned */
	struct quality_example example;
};

struct prune_desk {
	struct quality_head *head;
	int dim;
	struct label *labels; /* [n_labels] since the last batch */
	int n_labels, labels_capacity;
};

int controller_prune_open(struct controller *c, struct err *err)
{
	const struct config_prune *options = &c->config->prune;
	void *bytes;
	size_t n_bytes;

	if (options->at_tokens == 0) return 0;
	struct prune_desk *desk = c->prune = xcalloc(1, sizeof *desk);
	desk->dim = c->in->model->dim;
	desk->head = quality_head_open(desk->dim, (int)options->hidden, options->learning_rate, (uint64_t)c->config->run.seed);
	int rc = store_prune_open(c->store, err);
	if (!rc && c->in->resume_dir) {
		rc = store_get_quality_head(c->store, 0, &bytes, &n_bytes, err);
		if (!rc && bytes) rc = quality_head_load(desk->head, bytes, n_bytes, err);
		free(bytes);
	}
	return rc;
}

static void labels_forget(struct prune_desk *desk)
{
	for (int i = 0; i < desk->n_labels; i++) free(desk->labels[i].features);
	desk->n_labels = 0;
}

void controller_prune_close(struct controller *c)
{
	if (!c->prune) return;
	labels_forget(c->prune);
	free(c->prune->labels);
	quality_head_close(c->prune->head);
	free(c->prune);
	c->prune = NULL;
}

/* Groups whose prompt a trainer submitted are sent whole. */
static bool takes_part(const struct controller *c, const struct live_group *g)
{
	return c->prune && !g->eval && !g->unscored && !g->submitted && g->n_samples <= PRUNE_SAMPLES_MAX;
}

static struct pruning *pruning_of(const struct controller *c, struct live_group *g)
{
	size_t features = (size_t)g->n_samples * (size_t)c->prune->dim * sizeof(float);

	if (!g->pruning) g->pruning = xcalloc(1, sizeof *g->pruning + features);
	return g->pruning;
}

static float *features_of(const struct controller *c, struct pruning *p, int sample)
{
	return p->features + (size_t)sample * (size_t)c->prune->dim;
}

/* ---- the decision ---- */

/* Only its first tokens are on record, and nobody waits for more of it. */
static int prune_sample(struct controller *c, struct live_group *g, int sample, struct err *err)
{
	struct trajectory *t = g->samples[sample];

	if (t->finish != FINISH_NONE) c->metrics.prune.late++;
	if (g->judging[sample]) {
		verifier_pool_cancel(c->verifiers, trajectory_id(g->id, sample));
		g->judging[sample] = false;
		g->n_judging--;
	}
	trajectory_truncate(t, t->n_prompt + (int32_t)c->config->prune.at_tokens);
	memset(t->loss_mask, 0, (size_t)t->n_tokens * sizeof *t->loss_mask);
	t->finish = FINISH_PRUNED;
	t->has_reward = t->has_advantage = t->pivot = false;
	t->reward = t->reward_answer = t->reward_steps = 0;
	t->advantage = t->baseline = t->scale = t->loss_weight = 0;
	free(t->error);
	t->error = NULL;
	g->moving[sample] = false;
	controller_orphan_settled(c, g, sample);
	scheduler_on_sample_pruned(c->scheduler, g->id, sample);
	g->unsaved[sample] = UNSAVED_ALL;
	return controller_save(c, g, sample, STORE_DONE, err);
}

/* What is known of a sample is all that a decision will know: it was judged, or ended before it could be. */
static bool is_ready(const struct controller *c, const struct live_group *g, int sample)
{
	const struct trajectory *t = g->samples[sample];
	bool judged = g->pruning && g->pruning->seen[sample];

	return judged || t->finish != FINISH_NONE || trajectory_response_length(t) > c->config->prune.at_tokens;
}

static int store_decision(struct controller *c, const struct live_group *g, struct err *err)
{
	const struct pruning *p = g->pruning;
	struct stored_pruning stored = { .head = p->head, .survivors = p->decision.n_survivors, .n = g->n_samples,
		.tilt = p->decision.tilt, .samples = p->judged };

	return store_put_pruning(c->store, g->id, &stored, err);
}

static void judge(struct controller *c, struct live_group *g, struct pruning *p)
{
	const struct config_prune *o = &c->config->prune;
	const struct quality_head *head = c->prune->head;
	struct prune_options options = { .keep = o->keep, .keep_min = (int)o->keep_min, .balance = o->balance, .weight_max = o->weight_max };
	double expected[PRUNE_SAMPLES_MAX];
	bool candidate[PRUNE_SAMPLES_MAX];

	bool warm = quality_head_examples(head) >= (uint64_t)o->warmup;
	if (!warm) options.keep = 1;
	for (int i = 0; i < g->n_samples; i++) {
		double score = p->seen[i] ? quality_head_score(head, features_of(c, p, i)) : 0;
		expected[i] = p->seen[i] ? quality_head_expect(head, score) : 0;
		candidate[i] = p->seen[i];
		p->judged[i] = (struct stored_pruning_sample){ .score = score, .expected = expected[i], .seen = p->seen[i] };
	}
	p->head = quality_head_steps(head);
	prune_decide(&p->decision, expected, candidate, g->n_samples, &options, g->samples[0]->seed);
	for (int i = 0; i < g->n_samples; i++) p->judged[i].fate = p->decision.fate[i];
}

static int decide(struct controller *c, struct live_group *g, struct err *err)
{
	int rc = 0;

	if (!takes_part(c, g) || c->draining || (g->pruning && g->pruning->decided)) return 0;
	for (int i = 0; i < g->n_samples; i++)
		if (!is_ready(c, g, i)) return 0;
	struct pruning *p = pruning_of(c, g);
	p->decided = true;
	judge(c, g, p);
	rc = store_decision(c, g, err);
	for (int i = 0; i < g->n_samples && !rc; i++)
		if (p->decision.fate[i] == PRUNE_PRUNED) rc = prune_sample(c, g, i, err);
	return rc;
}

int controller_prune_settled(struct controller *c, struct live_group *g, struct err *err) { return decide(c, g, err); }

int controller_on_reached(struct controller *c, int rank, const struct message_node *root, struct err *err)
{
	uint64_t id, lease;
	int64_t version;
	const void *hidden;
	size_t n_bytes;

	int rc = message_get_uint(root, "id", &id, err);
	if (!rc) rc = message_get_uint(root, "lease", &lease, err);
	if (!rc) rc = message_get_int(root, "version", 0, INT32_MAX, &version, err);
	if (!rc) rc = message_get_bin(root, "hidden", &hidden, &n_bytes, err);
	if (!rc && c->prune && n_bytes != (size_t)c->prune->dim * sizeof(float))
		rc = err_set(err, ERR_PEER, "a hidden state has %zu bytes, expected %d numbers", n_bytes, c->prune->dim);
	if (rc) return err_context(err, "rank %d", rank);
	struct live_group *g = group_table_find(c->groups, id / TRAJECTORY_SAMPLES_MAX);
	int sample = (int)(id % TRAJECTORY_SAMPLES_MAX);
	if (!g || !takes_part(c, g) || sample >= g->n_samples || g->leases[sample] != lease) return 0; /* S9 */
	struct pruning *p = pruning_of(c, g);
	if (p->decided || trajectory_response_length(g->samples[sample]) < c->config->prune.at_tokens) return 0;
	p->seen[sample] = true;
	memcpy(features_of(c, p, sample), hidden, n_bytes);
	rc = store_put_features(c->store, id, version, features_of(c, p, sample), c->prune->dim, err);
	return rc ? rc : decide(c, g, err);
}

/* ---- rewards ---- */

static void add_label(struct controller *c, const struct live_group *g, int sample)
{
	struct prune_desk *desk = c->prune;
	struct pruning *p = g->pruning;
	const struct trajectory *t = g->samples[sample];
	size_t n_bytes = (size_t)desk->dim * sizeof(float);

	if (desk->n_labels == desk->labels_capacity) {
		desk->labels_capacity = desk->labels_capacity ? 2 * desk->labels_capacity : 256;
		desk->labels = xrealloc(desk->labels, (size_t)desk->labels_capacity * sizeof *desk->labels);
	}
	struct label *label = &desk->labels[desk->n_labels++];
	*label = (struct label){ .group = g->id, .sample = sample, .features = xmalloc(n_bytes) };
	memcpy(label->features, features_of(c, p, sample), n_bytes);
	double reward = t->reward < 0 ? 0 : t->reward > 1 ? 1 : t->reward;
	label->example = (struct quality_example){ .features = label->features, .score = p->judged[sample].score,
		.expected = p->judged[sample].expected, .reward = reward, .weight = 1 / p->decision.probability[sample] };
}

/* As if the pruned had become as long as the survivors are by weight. */
static double tokens_saved(const struct controller *c, const struct live_group *g, const struct prune_decision *d)
{
	double length = 0, weight = 0;
	int pruned = 0;

	for (int i = 0; i < g->n_samples; i++) {
		pruned += d->fate[i] == PRUNE_PRUNED;
		if (d->fate[i] != PRUNE_SURVIVOR) continue;
		length += trajectory_response_length(g->samples[i]) / d->probability[i];
		weight += 1 / d->probability[i];
	}
	return pruned > 0 && weight > 0 ? pruned * (length / weight - (double)c->config->prune.at_tokens) : 0;
}

static void count_pruned(struct controller *c, const struct live_group *g, const struct prune_decision *d)
{
	struct prune_metrics *m = &c->metrics.prune;

	m->groups++;
	m->started += g->n_samples;
	m->tokens_saved += tokens_saved(c, g, d);
	for (int i = 0; i < g->n_samples; i++) {
		m->pruned += d->fate[i] == PRUNE_PRUNED;
		if (d->fate[i] == PRUNE_PRUNED || !g->samples[i]->has_reward) continue;
		m->survivors++;
		m->survivor_reward += g->samples[i]->reward;
		if (1 / d->probability[i] > m->weight_max) m->weight_max = 1 / d->probability[i];
	}
}

/* Also where nothing was pruned: the mean of all. */
static void count_baseline(struct controller *c, const struct live_group *g, bool pruned)
{
	double sum = 0;
	int n = 0;

	for (int i = 0; i < g->n_samples; i++) {
		sum += g->samples[i]->has_reward ? g->samples[i]->reward : 0;
		n += g->samples[i]->has_reward;
	}
	if (!pruned && n == 0) return;
	c->metrics.prune.scored++;
	c->metrics.prune.baseline += pruned ? g->advantage.baseline : sum / n;
}

bool controller_prune_score(struct controller *c, struct live_group *g)
{
	struct pruning *p = g->pruning;
	bool pruned = false;

	if (!takes_part(c, g)) return false;
	c->metrics.prune.on = true;
	for (int i = 0; p && p->decided && i < g->n_samples; i++) {
		pruned |= p->decision.fate[i] == PRUNE_PRUNED;
		if (!p->learned && p->seen[i] && g->samples[i]->has_reward) add_label(c, g, i);
	}
	if (pruned) {
		advantage_pruned(g->samples, &p->decision, &c->config->advantage, &g->advantage);
		count_pruned(c, g, &p->decision);
	}
	count_baseline(c, g, pruned);
	return pruned;
}

static int by_group(const void *a, const void *b)
{
	const struct label *x = a, *y = b;
	return x->group != y->group ? (x->group > y->group) - (x->group < y->group) : (x->sample > y->sample) - (x->sample < y->sample);
}

int controller_prune_learn(struct controller *c, struct err *err)
{
	struct prune_desk *desk = c->prune;
	size_t n_bytes;
	int rc = 0;

	if (!desk) return 0;
	qsort(desk->labels, (size_t)desk->n_labels, sizeof *desk->labels, by_group);
	struct quality_example *examples = xmalloc(((size_t)desk->n_labels + 1) * sizeof *examples);
	for (int i = 0; i < desk->n_labels; i++) examples[i] = desk->labels[i].example;
	quality_head_learn(desk->head, examples, desk->n_labels, &c->metrics.prune.report);
	free(examples);
	uint64_t number = c->metrics.prune.head = quality_head_steps(desk->head);
	c->metrics.prune.on = true;
	for (int i = 0; i < desk->n_labels && !rc; i++) {
		uint64_t id = desk->labels[i].group;
		struct live_group *g = group_table_find(c->groups, id);
		if (i > 0 && desk->labels[i - 1].group == id) continue;
		if (g && g->pruning) g->pruning->learned = true;
		rc = store_pruning_learned(c->store, id, number, err);
	}
	void *bytes = quality_head_save(desk->head, &n_bytes);
	if (!rc) rc = store_put_quality_head(c->store, number, bytes, n_bytes, err);
	free(bytes);
	labels_forget(desk);
	return rc;
}

/* ---- a run that goes on ---- */

struct restoring {
	struct controller *c;
	struct live_group *g;
};

static int restore_features(void *context, int sample, int64_t version, const void *hidden, size_t n_bytes)
{
	const struct restoring *r = context;

	(void)version;
	if (sample >= r->g->n_samples || n_bytes != (size_t)r->c->prune->dim * sizeof(float)) return 0;
	struct pruning *p = pruning_of(r->c, r->g);
	p->seen[sample] = true;
	memcpy(features_of(r->c, p, sample), hidden, n_bytes);
	return 0;
}

static void restore_decision(void *context, const struct stored_pruning *stored)
{
	const struct restoring *r = context;
	struct pruning *p = pruning_of(r->c, r->g);

	if (stored->n != r->g->n_samples) return;
	p->decided = true;
	p->learned = stored->learned > 0;
	p->head = stored->head;
	memcpy(p->judged, stored->samples, (size_t)stored->n * sizeof *p->judged);
	p->decision = (struct prune_decision){ .n = stored->n, .n_survivors = stored->survivors, .tilt = stored->tilt };
	for (int i = 0; i < stored->n; i++) {
		p->decision.fate[i] = (uint8_t)stored->samples[i].fate;
		p->decision.scores[i] = stored->samples[i].expected;
	}
	prune_redo(&p->decision);
}

int controller_prune_restore(struct controller *c, struct live_group *g, struct err *err)
{
	struct restoring r = { c, g };

	if (!takes_part(c, g)) return 0;
	int rc = store_each_features(c->store, g->id, restore_features, &r, err);
	if (!rc) rc = store_get_pruning(c->store, g->id, restore_decision, &r, err);
	return rc < 0 ? rc : 0;
}

/* It was judged and dropped since the last batch; one that was given up before all of it was done was not. */
static int restore_dropped(void *context, uint64_t group_id, int n_samples, struct err *err)
{
	struct controller *c = context;
	struct live_group g = { .id = group_id, .n_samples = n_samples };
	bool done = true;

	if (n_samples < 1 || n_samples > PRUNE_SAMPLES_MAX) return 0;
	g.samples = xcalloc((size_t)n_samples, sizeof *g.samples);
	int rc = store_get_group(c->store, group_id, g.samples, n_samples, err);
	if (!rc) rc = controller_prune_restore(c, &g, err);
	for (int i = 0; i < n_samples; i++) done = done && g.samples[i] && g.samples[i]->finish != FINISH_NONE;
	for (int i = 0; !rc && done && g.pruning && g.pruning->decided && i < n_samples; i++)
		if (g.pruning->seen[i] && g.samples[i]->has_reward) add_label(c, &g, i);
	for (int i = 0; i < n_samples; i++) trajectory_free(g.samples[i]);
	free(g.samples);
	free(g.pruning);
	return rc;
}

int controller_prune_restore_dropped(struct controller *c, struct err *err)
{
	return c->prune ? store_each_unlearned(c->store, restore_dropped, c, err) : 0;
}

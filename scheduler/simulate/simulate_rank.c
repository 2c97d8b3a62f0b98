/* simulate_rank.c - a rank of the simulated cluster, as scheduler/worker/worker.c and rollout/engine.c are: slots and a
 * queue, rounds in which every decoding session makes tokens and a chunk of prefill is computed, messages heard
 * between rounds.
 *
 * Rounds are not simulated one by one.  Between two changes of the batch all sessions advance alike, so the rank
 * keeps one clock of tokens per session; a sample that begins to decode at clock c with r tokens to make ends at
 * clock c + r, and the k-th of a stretch of rounds ends after
 *     k * seconds + growth * k (k - 1) / 2
 * (growth: contexts get longer).  So a rank wakes up only when a sample ends, when a prompt has been computed, or at
 * the end of the round during which a message that changes something arrives; for one token per round all three
 * are exact.
 *
 * Approximations:
 * - Speculation gives every session the mean tokens of its batch's plan in each round, the same for all.
 * - Prefill goes oldest first, worker.prefill_chunk rows a round, as in the engine; its seconds are spread evenly
 *   over the rounds of a stretch.  Siblings share the prompt on the rank that computed it last, for ever; partials
 *   compute their tokens anew, and so do samples that moved to another rank (scheduler.migrate_kv: recompute).
 * - What a sample that is recalled had of its prompt computed is forgotten, also where a sibling waits for it.
 * - Weights that change under samples in flight are there for every rank at one time and taken at the end of its round;
 *   all that is in a slot then computes its prompt and tokens anew, or nothing does (scheduler.kv).
 * - The KV cache has room for worker.max_active samples: no preemption.
 * - Verification happens between rounds, as on a rank; what arrives meanwhile is heard a round later.
 */
#include <math.h>
#include <stdlib.h>

#include "configs/err.h"
#include "scheduler/simulate/simulate_internal.h"

/* Clocks that are sums of fractions differ by less. */
static const double CLOCK_TOLERANCE = 1e-6;

/* ---- queues and slots ---- */

static void queue_push(struct sim_queue *q, struct sim_sample *s)
{
	s->next = NULL;
	if (q->last) q->last->next = s;
	else q->first = s;
	q->last = s;
	q->n++;
}

static struct sim_sample *queue_pop(struct sim_queue *q)
{
	struct sim_sample *first = q->first;

	q->first = first->next;
	if (!q->first) q->last = NULL;
	q->n--;
	return first;
}

static void slots_push(struct sim_rank *r, struct sim_sample *s)
{
	if (r->n_decoding == r->slots_capacity) {
		r->slots_capacity = r->slots_capacity ? 2 * r->slots_capacity : 8;
		r->slots = xrealloc(r->slots, (size_t)r->slots_capacity * sizeof *r->slots);
	}
	int at = r->n_decoding++;
	for (; at > 0 && r->slots[(at - 1) / 2].end > s->end; at = (at - 1) / 2) r->slots[at] = r->slots[(at - 1) / 2];
	r->slots[at] = (struct sim_slot){s->end, s};
}

static struct sim_sample *slots_pop(struct sim_rank *r)
{
	struct sim_sample *first = r->slots[0].sample;
	struct sim_slot last = r->slots[--r->n_decoding];
	int at = 0;

	for (int child; (child = 2 * at + 1) < r->n_decoding; at = child) {
		if (child + 1 < r->n_decoding && r->slots[child + 1].end < r->slots[child].end) child++;
		if (r->slots[child].end >= last.end) break;
		r->slots[at] = r->slots[child];
	}
	r->slots[at] = last;
	return first;
}

/* Positions that a decoding sample attends to at this clock. */
static double positions_of(const struct sim_rank *r, const struct sim_sample *s)
{
	return (double)s->group->n_prompt + s->length + (r->clock - s->end);
}

/* ---- time ---- */

static double least(double a, double b) { return a < b ? a : b; }

static double rounds_seconds(const struct sim_rank *r, double k)
{
	return k * (r->round.seconds + 0.5 * (k - 1) * r->round.growth);
}

/* The first round of the stretch that ends at `time` or later. */
static double rounds_until(const struct sim_rank *r, double time)
{
	double need = time - r->at, half = 0.5 * r->round.growth, linear = r->round.seconds - half;

	if (need <= 0) return 1;
	double k = ceil(2 * need / (linear + sqrt(linear * linear + 4 * half * need)) - 0.5);
	if (k < 1) k = 1;
	while (r->at + rounds_seconds(r, k) < time) k++;
	while (k > 1 && r->at + rounds_seconds(r, k - 1) >= time) k--;
	return k;
}

static void schedule(struct simulation *sim, int rank)
{
	struct sim_rank *r = &sim->ranks[rank];
	double heard = least(least(r->stop_at, r->recall.at), least(r->weights_at, r->cancel_at)), wake;

	if (r->queue.n > 0 && sim_rank_active(r) < sim->max_active && r->queue.first->arrival < heard)
		heard = r->queue.first->arrival;
	if (sim_rank_active(r) == 0) {
		wake = heard > r->at ? heard : r->at;
	} else if (heard < r->end_at) {
		r->rounds = rounds_until(r, heard);
		wake = r->at + rounds_seconds(r, r->rounds);
	} else {
		r->rounds = r->rounds_end;
		wake = r->end_at;
	}
	sim_wakes_set(&sim->wakes, rank, wake > sim->now ? wake : sim->now);
}

static double rounds_for(double amount, double each)
{
	double rounds = ceil(amount / each - CLOCK_TOLERANCE);
	return rounds > 1 ? rounds : 1;
}

static void stretch_begin(struct simulation *sim, struct sim_rank *r)
{
	double chunk = (double)sim->config->worker.prefill_chunk, due = r->rows_due - r->rows_done;

	r->rows = 0;
	if (sim_rank_active(r) == 0) return;
	r->round = simulate_costs_round(sim->costs, r->n_decoding, r->positions);
	r->rounds_end = r->round.rounds_max;
	if (r->n_decoding > 0) r->rounds_end = least(r->rounds_end, rounds_for(r->slots[0].end - r->clock, r->round.tokens));
	if (r->prefill.n > 0) {
		r->rounds_end = least(r->rounds_end, rounds_for(r->prefill.first->ready - r->rows_done, chunk));
		r->rows = least(chunk, due / r->rounds_end);
		if (due > 0) r->round.seconds += r->rows_seconds * r->rows / due;
	}
	r->end_at = r->at + rounds_seconds(r, r->rounds_end);
}

/* ---- what a rank does at the end of a round ---- */

static void advance(struct simulation *sim, struct sim_rank *r)
{
	if (sim_rank_active(r) > 0) {
		double tokens = r->rounds * r->round.tokens, rows = r->rounds * r->rows, due = r->rows_due - r->rows_done;
		r->clock += tokens;
		r->positions += tokens * r->n_decoding;
		sim->sums.session_rounds += r->rounds * r->n_decoding;
		sim->sums.tokens_made += tokens * r->n_decoding;
		if (due > 0) r->rows_seconds *= 1 - least(1, rows / due);
		r->rows_done += rows;
	}
	if (sim->now > r->at) r->at = sim->now;
}

/* Each is verified, then sent. */
static void finish(struct simulation *sim, int rank)
{
	struct sim_rank *r = &sim->ranks[rank];

	while (r->n_decoding > 0 && r->slots[0].end <= r->clock + CLOCK_TOLERANCE) {
		struct sim_sample *s = slots_pop(r);
		r->positions -= positions_of(r, s);
		s->made = s->length;
		r->at += sim->config->simulate.reward_seconds;
		sim_send(sim, SIM_DONE, rank, s, r->at);
	}
}

static void decode(struct sim_rank *r, struct sim_sample *s)
{
	s->end = r->clock + (s->length - s->made);
	r->positions += (double)s->group->n_prompt + s->made;
	slots_push(r, s);
}

/* To a slot: its prompt is computed unless a sibling had it computed here, and so are its tokens. */
static void admit(struct simulation *sim, int rank, struct sim_sample *s)
{
	struct sim_rank *r = &sim->ranks[rank];
	struct sim_group *g = s->group;
	bool known = g->prompt_rank == rank && g->prompt_epoch == r->epoch;
	double from = known ? g->n_prompt - 1 : 0, to = (double)g->n_prompt - 1 + s->made;

	if (s->made == 0) s->first_version = sim->version;
	sim_sample_mark(sim, s, s->made);
	r->rows_seconds += simulate_costs_prefill(sim->costs, from, to);
	if (!known) {
		g->prompt_rank = rank;
		g->prompt_epoch = r->epoch;
		g->prompt_ready = r->rows_due + g->n_prompt - 1;
	}
	r->rows_due += to - from;
	s->ready = r->rows_due;
	if (to <= from && g->prompt_ready <= r->rows_done + CLOCK_TOLERANCE) decode(r, s);
	else queue_push(&r->prefill, s);
}

/* Tokens that a decoding sample has. */
static int32_t made_of(const struct sim_rank *r, const struct sim_sample *s)
{
	return s->length - (int32_t)ceil(s->end - r->clock - CLOCK_TOLERANCE);
}

/* What it has is sent back. */
static void withdraw(struct simulation *sim, int rank, struct sim_sample *s, enum sim_message_type type)
{
	s->leaves = false;
	if (s->made == 0) s->first_version = VERSION_UNSET;
	if (type == SIM_CANCELLED) sim_sample_return(sim, s);
	else sim_send(sim, type, rank, s, sim->ranks[rank].at);
}

static void withdraw_decoding(struct simulation *sim, int rank, enum sim_message_type type)
{
	struct sim_rank *r = &sim->ranks[rank];
	int n = r->n_decoding;

	r->n_decoding = 0;
	r->positions = 0;
	for (int i = 0; i < n; i++) {
		struct sim_sample *s = r->slots[i].sample;
		if (!s->leaves) {
			r->positions += positions_of(r, s);
			slots_push(r, s); /* at or before i */
		} else {
			s->made = made_of(r, s);
			withdraw(sim, rank, s, type);
		}
	}
}

static void withdraw_prefill(struct simulation *sim, int rank, enum sim_message_type type)
{
	struct sim_rank *r = &sim->ranks[rank];
	double before = r->rows_done, due = r->rows_due - r->rows_done;

	r->rows_due = r->rows_done;
	for (int n = r->prefill.n; n > 0; n--) {
		struct sim_sample *s = queue_pop(&r->prefill);
		double rows = s->ready - before;
		before = s->ready;
		if (!s->leaves) {
			s->ready = r->rows_due += rows;
			queue_push(&r->prefill, s);
		} else {
			s->group->prompt_rank = 0; /* if it was computed at all, that is forgotten */
			withdraw(sim, rank, s, type);
		}
	}
	r->rows_seconds *= due > 0 ? (r->rows_due - r->rows_done) / due : 0;
}

/* All that leaves. */
static void withdraw_all(struct simulation *sim, int rank, enum sim_message_type type)
{
	struct sim_queue *queue = &sim->ranks[rank].queue;

	withdraw_decoding(sim, rank, type);
	withdraw_prefill(sim, rank, type);
	for (int n = queue->n; n > 0; n--) {
		struct sim_sample *s = queue_pop(queue);
		if (s->leaves) withdraw(sim, rank, s, type);
		else queue_push(queue, s);
	}
}

static void stop(struct simulation *sim, int rank)
{
	struct sim_rank *r = &sim->ranks[rank];

	for (int i = 0; i < r->n_decoding; i++) r->slots[i].sample->leaves = !r->slots[i].sample->keep;
	for (struct sim_sample *s = r->prefill.first; s; s = s->next) s->leaves = !s->keep;
	for (struct sim_sample *s = r->queue.first; s; s = s->next) s->leaves = !s->keep;
	withdraw_all(sim, rank, SIM_PARTIAL);
	r->stop_at = INFINITY;
	sim_send(sim, SIM_QUIET, rank, NULL, r->at);
}

/* Of those in slots, as engine_least_progress has it: fewest tokens, of equals the last that came. */
static struct sim_sample *least_progress(const struct sim_rank *r)
{
	struct sim_sample *found = NULL;
	int32_t fewest = INT32_MAX;

	for (int i = 0; i < r->n_decoding; i++) {
		struct sim_sample *s = r->slots[i].sample;
		int32_t made = made_of(r, s);
		if (s->leaves || made > fewest || (made == fewest && s->lease < found->lease)) continue;
		found = s;
		fewest = made;
	}
	for (struct sim_sample *s = r->prefill.first; s; s = s->next) {
		if (s->leaves || s->made > fewest || (s->made == fewest && s->lease < found->lease)) continue;
		found = s;
		fewest = s->made;
	}
	return found;
}

/* What it holds beyond what it keeps goes back: what came last of the queue, then what has least. */
static void answer_recall(struct simulation *sim, int rank)
{
	struct sim_rank *r = &sim->ranks[rank];
	int n_queued = 0, stay = r->recall.keep - sim_rank_active(r);

	for (struct sim_sample *s = r->queue.first; s && s->arrival <= r->recall.at; s = s->next) {
		s->leaves = n_queued >= (stay > 0 ? stay : 0);
		n_queued++;
	}
	for (; stay < 0; stay++) least_progress(r)->leaves = true;
	withdraw_all(sim, rank, SIM_RETURNED);
	r->recall.at = INFINITY;
	sim_send(sim, SIM_RECALLED, rank, NULL, r->at);
}

/* Whether it leaves for that; later: the earliest arrival of those that do not yet. */
static void call_off(const struct sim_rank *r, struct sim_sample *s, double *later)
{
	s->leaves = s->cancelled <= r->at;
	if (!s->leaves) *later = least(*later, s->cancelled);
}

/* What is called off by now is thrown away. */
static void cancel(struct simulation *sim, int rank)
{
	struct sim_rank *r = &sim->ranks[rank];
	double later = INFINITY;

	for (int i = 0; i < r->n_decoding; i++) call_off(r, r->slots[i].sample, &later);
	for (struct sim_sample *s = r->prefill.first; s; s = s->next) call_off(r, s, &later);
	for (struct sim_sample *s = r->queue.first; s; s = s->next) call_off(r, s, &later);
	withdraw_all(sim, rank, SIM_CANCELLED);
	r->cancel_at = later;
}

/* Keys and values are the old weights': what is in slots begins again there. */
static void take_weights(struct simulation *sim, int rank)
{
	struct sim_rank *r = &sim->ranks[rank];
	struct sim_queue again = {0};

	r->weights_at = INFINITY;
	for (int i = 0; i < r->n_decoding; i++) sim_sample_mark(sim, r->slots[i].sample, made_of(r, r->slots[i].sample));
	for (struct sim_sample *s = r->prefill.first; s; s = s->next) sim_sample_mark(sim, s, s->made);
	if (sim->config->scheduler.kv == WEIGHTS_KEEP_KV) return;
	for (int i = 0; i < r->n_decoding; i++) {
		r->slots[i].sample->made = made_of(r, r->slots[i].sample);
		queue_push(&again, r->slots[i].sample);
	}
	while (r->prefill.n > 0) queue_push(&again, queue_pop(&r->prefill));
	r->n_decoding = 0;
	r->positions = r->rows_seconds = 0;
	r->rows_due = r->rows_done;
	r->epoch++;
	while (again.n > 0) admit(sim, rank, queue_pop(&again));
}

void sim_rank_wake(struct simulation *sim, int rank)
{
	struct sim_rank *r = &sim->ranks[rank];
	int active = sim_rank_active(r);

	advance(sim, r);
	finish(sim, rank);
	while (r->prefill.n > 0 && r->prefill.first->ready <= r->rows_done + CLOCK_TOLERANCE) decode(r, queue_pop(&r->prefill));
	if (r->weights_at <= r->at) take_weights(sim, rank);
	if (r->cancel_at <= r->at) cancel(sim, rank);
	if (r->recall.at <= r->at) answer_recall(sim, rank);
	if (r->stop_at <= r->at) stop(sim, rank);
	while (r->queue.n > 0 && sim_rank_active(r) < sim->max_active && r->queue.first->arrival <= r->at)
		admit(sim, rank, queue_pop(&r->queue));
	if (r->n_decoding == 0) r->positions = 0;
	if (r->prefill.n == 0) r->rows_due = r->rows_done, r->rows_seconds = 0;
	int now_active = sim_rank_active(r);
	sim_occupancy(sim, now_active - active, (now_active > 0) - (active > 0));
	stretch_begin(sim, r);
	schedule(sim, rank);
}

/* ---- what it is sent ---- */

void sim_rank_lease(struct simulation *sim, int rank, struct sim_sample *s, double arrival)
{
	struct sim_rank *r = &sim->ranks[rank];

	s->arrival = arrival;
	s->keep = false;
	queue_push(&r->queue, s);
	if (r->queue.n == 1 && sim_rank_active(r) < sim->max_active) schedule(sim, rank);
}

void sim_rank_weights(struct simulation *sim, int rank)
{
	sim->ranks[rank].weights_at = sim->now;
	schedule(sim, rank);
}

void sim_rank_cancel(struct simulation *sim, int rank, struct sim_sample *s, double arrival)
{
	struct sim_rank *r = &sim->ranks[rank];

	s->cancelled = arrival;
	r->cancel_at = least(r->cancel_at, arrival);
	schedule(sim, rank);
}

void sim_rank_recall(struct simulation *sim, int rank, struct sim_recall recall)
{
	sim->ranks[rank].recall = recall;
	schedule(sim, rank);
}

void sim_rank_stop(struct simulation *sim, int rank, double arrival)
{
	sim->ranks[rank].stop_at = arrival;
	schedule(sim, rank);
}

/* controller_requests.c - see controller_requests.h and PROTOCOL.md, "Requests".
 *
 * Evaluations run one after the other while no step is open: between steps, and while the run waits for its trainer.
 * So each is drawn under one version, and no training sample sees that there was one. */
#include "scheduler/controller/controller_requests.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/clock.h"
#include "scheduler/controller/controller_internal.h"
#include "trainer_bridge/wire/protocol.h"

struct request_desk {
	struct request_handlers handlers;
	struct prompt_maker maker;
	struct prompt_queue queue;
	uint64_t n_submitted;
	struct evaluation *evaluations;  /* oldest first */
	struct evaluation *running;
	int n_held;                      /* groups named in delivered before it: of a batch that is held back */
	enum phase interrupted;          /* by it; PHASE_EVAL: the run was between two phases */
	struct score_service *scores;    /* NULL: no versions are kept */
};

/* ---- room ---- */

/* What waits, and what evaluations hold until they have been sent. */
static void count_held(const struct request_desk *desk, int *n, size_t *bytes)
{
	*n = desk->queue.n;
	*bytes = desk->queue.bytes;
	for (const struct evaluation *e = desk->evaluations; e; e = e->next) {
		*n += e->prompts ? e->n : 0;
		*bytes += e->bytes;
	}
}

static int room(const struct request_desk *desk)
{
	size_t bytes;
	int n;

	count_held(desk, &n, &bytes);
	return desk->handlers.prompts_max - n;
}

static int no_room(const struct request_desk *desk, int n, struct request_answer *answer, struct err *err)
{
	answer->busy = true;
	return err_set(err, ERR_STATE, "%d prompts are too many: of %d (bridge.prompts_max) there is room for %d now; try again "
	               "when a batch or an evaluation has come", n, desk->handlers.prompts_max, room(desk));
}

/* All or none: *made is owned by the caller, [n]. */
static int make_prompts(const struct request_desk *desk, const struct request_prompt *prompts, int n,
                        struct submitted_prompt ***made, size_t *bytes, struct err *err)
{
	struct submitted_prompt **list = xcalloc((size_t)n, sizeof(struct submitted_prompt *));
	int rc = 0;

	*bytes = 0;
	for (int i = 0; i < n && !rc; i++) {
		rc = submitted_prompt_make(&list[i], &desk->maker, &prompts[i], err);
		if (!rc) *bytes += list[i]->bytes;
	}
	for (int i = 0; rc && i < n; i++) submitted_prompt_free(list[i]);
	if (rc) free(list);
	*made = rc ? NULL : list;
	return rc;
}

/* ---- prompts to sample ---- */

static bool is_generated(const struct controller *c, const char *prompt_id, int64_t epoch)
{
	for (struct live_group *g = group_table_next(c->groups, 0); g; g = group_table_next(c->groups, g->id + 1))
		if (g->submitted && g->submitted->epoch == epoch && strcmp(g->submitted->prompt.id, prompt_id) == 0) return true;
	return false;
}

/* Handed in before, under its epoch: it is taken once, and needs no room. */
static bool is_known(const struct controller *c, const struct submitted_prompt *p)
{
	return p->epoch >= 0 && (prompt_queue_has(&c->desk->queue, p->prompt.id, p->epoch) || is_generated(c, p->prompt.id, p->epoch));
}

static int on_submit(void *context, const struct request_prompt *prompts, int n, struct request_answer *answer,
                     struct err *err)
{
	struct controller *c = context;
	struct request_desk *desk = c->desk;
	struct submitted_prompt **made;
	size_t bytes, held_bytes;
	int held, *sizes, n_new = 0;

	if (c->config->data.source == PROMPTS_FROM_FILE)
		return err_set(err, ERR_UNSUPPORTED, "this run has its prompts from a file: set data.source to trainer or both");
	if (c->phase == PHASE_FINISH || c->phase == PHASE_OVER)
		return err_set(err, ERR_STATE, "the run has made its last batch");
	if (n > desk->handlers.prompts_max) return no_room(desk, n, answer, err);
	int rc = make_prompts(desk, prompts, n, &made, &bytes, err);
	if (rc) return rc;
	count_held(desk, &held, &held_bytes);
	for (int i = 0; i < n; i++)
		if (!is_known(c, made[i])) n_new++;
		else bytes -= made[i]->bytes;
	bool fits = n_new <= room(desk) && held_bytes + bytes <= PROMPTS_BYTES_MAX;
	sizes = xmalloc((size_t)n * sizeof *sizes);
	for (int i = 0; i < n; i++) {
		struct submitted_prompt *p = made[i];
		if (!fits || is_known(c, p)) {
			submitted_prompt_free(p);
			continue;
		}
		if (p->epoch < 0) p->epoch = (int32_t)(desk->n_submitted & INT32_MAX);
		desk->n_submitted++;
		sizes[answer->n_prompts++] = p->n_samples;
		prompt_queue_append(&desk->queue, p);
	}
	free(made);
	if (answer->n_prompts > 0) scheduler_on_prompts_offered(c->scheduler, sizes, answer->n_prompts, false);
	free(sizes);
	if (!fits) return no_room(desk, n, answer, err);
	answer->room = room(desk);
	c->last_progress = clock_seconds();
	return 0;
}

static void open_samples(const struct controller *c, struct live_group *g, const struct prompt *prompt, int32_t epoch,
                         const struct sampling_options *sampling, int32_t max_tokens)
{
	for (int i = 0; i < g->n_samples; i++) {
		g->samples[i] = prompts_open_sample(prompt, g->id, i, g->n_samples, epoch, (uint64_t)c->config->run.seed, sampling,
		                                    max_tokens);
		g->samples[i]->eval = g->eval;
	}
}

int controller_open_submitted(struct controller *c, struct live_group *g, struct err *err)
{
	struct submitted_prompt *p = prompt_queue_take(&c->desk->queue);

	assert(p && p->n_samples == g->n_samples);
	g->submitted = p;
	g->unscored = p->unscored;
	open_samples(c, g, &p->prompt, p->epoch, &p->sampling, p->max_tokens);
	return store_put_group(c->store, g->id, p->prompt.id, p->epoch, g->n_samples, false, STORE_SUBMITTED, err);
}

void controller_return_prompt(struct controller *c, struct live_group *g)
{
	struct submitted_prompt *p = g->submitted;

	if (!p) return;
	g->submitted = NULL;
	/* Behind the others, here and there: groups may have been opened in the same breath, for those in front. */
	prompt_queue_append(&c->desk->queue, p);
	scheduler_on_prompts_offered(c->scheduler, &p->n_samples, 1, false);
}

int controller_prompts_waiting(const struct controller *c) { return c->desk ? c->desk->queue.n : 0; }

bool controller_lacks_prompts(const struct controller *c)
{
	struct scheduler_counts counts;

	if (c->config->data.source != PROMPTS_FROM_TRAINER || controller_prompts_waiting(c) > 0) return false;
	scheduler_counts_read(c->scheduler, &counts);
	return counts.groups_open + counts.groups_complete == 0;
}

/* ---- evaluations ---- */

static void evaluation_free(struct evaluation *e)
{
	for (int i = 0; e->prompts && i < e->n; i++) submitted_prompt_free(e->prompts[i]);
	free(e->prompts);
	free(e);
}

static void remove_evaluation(struct request_desk *desk, struct evaluation *e)
{
	struct evaluation **at = &desk->evaluations;

	while (*at != e) at = &(*at)->next;
	*at = e->next;
	evaluation_free(e);
}

static int on_evaluate(void *context, uint64_t ticket, const struct request_prompt *prompts, int n,
                       const struct request_settings *settings, struct request_answer *answer, struct err *err)
{
	struct controller *c = context;
	struct request_desk *desk = c->desk;
	struct submitted_prompt **made = NULL;
	size_t bytes = 0, held_bytes;
	int held, n_prompts = n ? n : (int)c->in->eval_prompts->n, rc = 0;

	if (c->phase == PHASE_FINISH || c->phase == PHASE_OVER)
		return err_set(err, ERR_STATE, "the run has made its last batch");
	if (n_prompts == 0) return err_set(err, ERR_MISSING, "this run has no held-out prompts (data.eval_prompts)");
	if (n > room(desk)) return no_room(desk, n, answer, err);
	if (n) rc = make_prompts(desk, prompts, n, &made, &bytes, err);
	if (rc) return rc;
	count_held(desk, &held, &held_bytes);
	struct evaluation *e = xcalloc(1, sizeof *e), **end = &desk->evaluations;
	*e = (struct evaluation){ .ticket = ticket, .prompts = made, .n = n_prompts, .n_samples = settings->samples,
		.max_tokens = settings->max_tokens, .sampling = settings->sampling, .bytes = bytes };
	if (held_bytes + bytes > PROMPTS_BYTES_MAX) {
		evaluation_free(e);
		return no_room(desk, n, answer, err);
	}
	while (*end) end = &(*end)->next;
	*end = e;
	*answer = (struct request_answer){ .n_prompts = n_prompts, .room = room(desk) };
	c->last_progress = clock_seconds();
	return 0;
}

/* Sent, or its peer has gone; one that runs is finished first. */
static void on_forget(void *context, uint64_t ticket)
{
	struct controller *c = context;

	for (struct evaluation *e = c->desk->evaluations; e; e = e->next) {
		if (e->ticket != ticket) continue;
		e->ticket = 0;
		if (!e->running) remove_evaluation(c->desk, e);
		return;
	}
}

bool controller_begin_requested(struct controller *c)
{
	struct request_desk *desk = c->desk;
	struct evaluation *e = desk ? desk->evaluations : NULL;

	if (!e || desk->running || !scheduler_is_idle(c->scheduler)) return false;
	while (e && e->answered) e = e->next;
	if (!e) return false;
	e->running = true;
	desk->running = e;
	desk->interrupted = c->phase;
	desk->n_held = c->n_delivered;
	c->requested = true;
	memset(c->lost[true], 0, sizeof c->lost[true]);
	controller_enter(c, PHASE_EVAL);
	scheduler_on_eval_begin_samples(c->scheduler, c->step, e->n, e->n_samples);
	return true;
}

int controller_open_requested(struct controller *c, struct live_group *g, struct err *err)
{
	struct evaluation *e = c->desk->running;
	const struct submitted_prompt *own = e->prompts ? e->prompts[e->n_opened] : NULL;
	const struct prompt *prompt = own ? &own->prompt : &c->in->eval_prompts->items[e->n_opened];
	int32_t epoch = own && own->epoch > 0 ? own->epoch : 0;

	e->n_opened++;
	g->unscored = own && own->unscored;
	open_samples(c, g, prompt, epoch, &e->sampling, e->max_tokens);
	return store_put_group(c->store, g->id, prompt->id, epoch, g->n_samples, true, STORE_SUBMITTED, err);
}

int controller_end_requested(struct controller *c, struct err *err)
{
	struct request_desk *desk = c->desk;
	struct evaluation *e = desk->running;
	struct trajectory **samples = xmalloc((size_t)e->n * (size_t)e->n_samples * sizeof(struct trajectory *));
	int n = 0, rc = 0;

	for (int i = desk->n_held; i < c->n_delivered && !rc; i++) {
		struct live_group *g = group_table_find(c->groups, c->delivered[i]);
		for (int k = 0; k < g->n_samples && !rc; k++) {
			g->samples[k]->loss_weight = 0;
			rc = store_put_trajectory(c->store, g->samples[k], STORE_DELIVERED, err);
			samples[n++] = g->samples[k];
		}
		if (!rc) rc = store_group_state(c->store, g->id, STORE_DELIVERED, c->step, err);
	}
	e->running = false;
	e->answered = true;
	desk->running = NULL;
	c->requested = false;
	c->step_began += clock_seconds() - c->phase_began;
	controller_enter(c, desk->interrupted);
	if (e->ticket) server_answer_evaluation(c->server, e->ticket, c->version, samples, n);
	else remove_evaluation(desk, e);
	free(samples);
	while (c->n_delivered > desk->n_held) controller_forget_group(c, c->delivered[--c->n_delivered]);
	return rc;
}

/* ---- scores ---- */

static int on_score(void *context, uint64_t ticket, int64_t version, const struct request_sequence *sequences, int n,
                    const struct request_settings *settings, struct request_answer *answer, struct err *err)
{
	struct controller *c = context;
	struct request_desk *desk = c->desk;

	(void)answer;
	if (!desk->scores)
		return err_set(err, ERR_UNSUPPORTED, "this run keeps no versions: set weights.keep_versions");
	for (int i = 0; i < n; i++) {
		if (sequences[i].n_tokens > c->in->model->max_context)
			return err_set(err, ERR_TOO_BIG, "sequence %d has %d tokens, the model's context is %d", i,
			               sequences[i].n_tokens, c->in->model->max_context);
		for (int k = 0; k < sequences[i].n_tokens; k++)
			if (sequences[i].tokens[k] < 0 || sequences[i].tokens[k] >= desk->maker.vocab_size)
				return err_set(err, ERR_INVALID, "token %d of sequence %d is %d, expected 0 to %d", k, i,
				               sequences[i].tokens[k], desk->maker.vocab_size - 1);
	}
	score_service_ask(desk->scores, ticket, version, sequences, n, &settings->sampling);
	return 0;
}

void controller_answer_scores(struct controller *c)
{
	struct scored scored;
	struct err err;

	if (!c->desk || !c->desk->scores) return;
	while (score_service_take(c->desk->scores, &scored)) {
		if (scored.rc) server_refuse_scores(c->server, scored.ticket, &scored.err);
		else server_answer_scores(c->server, scored.ticket, scored.version, scored.logprobs, scored.lengths, scored.n);
		scored_free(&scored);
	}
	if (score_service_failed(c->desk->scores, &err)) progress_note("a version could not be kept: %s", err.text);
}

void controller_scores_keep(struct controller *c, int64_t version, const struct weights *weights)
{
	if (c->desk && c->desk->scores) score_service_keep(c->desk->scores, version, weights);
}

bool controller_scores_keeping(const struct controller *c)
{
	return c->desk && c->desk->scores && score_service_keeping(c->desk->scores);
}

/* ---- opening and closing ---- */

bool controller_has_requests(const struct controller *c)
{
	return c->desk && c->desk->scores && score_service_pending(c->desk->scores) > 0;
}

int controller_requests_open(struct controller *c, int positions, struct err *err)
{
	const struct config *config = c->config;
	struct request_desk *desk;
	int longest = positions - (int)config->rollout.max_tokens;

	if (!c->server) return 0;
	desk = c->desk = xcalloc(1, sizeof *desk);
	if (longest < 1) longest = positions - 1;
	desk->maker = (struct prompt_maker){ .tokenizer = c->in->tokenizer, .chat = c->in->chat, .config = config,
		.vocab_size = c->in->model->vocab_size, .tokens_max = longest };
	desk->handlers = (struct request_handlers){ .context = c, .prompts_max = (int)config->bridge.prompts_max,
		.prompt_tokens_max = longest, .max_tokens = (int)config->rollout.max_tokens,
		.keep_versions = (int)config->weights.keep_versions, .submit = on_submit, .evaluate = on_evaluate,
		.score = on_score, .forget = on_forget };
	int rc = config->weights.keep_versions ? score_service_open(&desk->scores, config, c->in->model, c->run_dir, err) : 0;
	if (!rc) server_serve(c->server, &desk->handlers);
	return rc;
}

void controller_requests_close(struct controller *c)
{
	struct request_desk *desk = c->desk;

	if (!desk) return;
	score_service_close(desk->scores);
	prompt_queue_clear(&desk->queue);
	while (desk->evaluations) remove_evaluation(desk, desk->evaluations);
	free(desk);
	c->desk = NULL;
}

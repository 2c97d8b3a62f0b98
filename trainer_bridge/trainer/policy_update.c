/* policy_update.c - see policy_update.h.
 *
 * With one minibatch the weights at the start of the batch are those of the only step, so their logp_old is
 * logp itself and costs no pass of its own (the ratio is 1 and the clip never acts).  Nor is there a pass where
 * all logp_old are recorded.
 */
#include "trainer_bridge/trainer/policy_update.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer_bridge/trainer/objective.h"

/* A batch as sequences, with one slot for every token of theirs. */
struct batch {
	const struct trajectory **members; /* [n] borrowed */
	struct train_sequence *sequences;  /* [n] */
	size_t *slots;                     /* [n] slot of the sequence's token 0 */
	int n;
	float *old, *reference, *entropy;  /* [slots]; old, reference: log-probabilities, or NULL */
	struct objective_result *results;  /* [slots] */
	struct objective_options objective;
	int vocab_size;
	double weight;                     /* of the minibatch's tokens */
};

static bool is_trained(const struct trajectory *t)
{
	return t->has_advantage && t->loss_weight > 0 && !t->eval && t->finish != FINISH_ERROR;
}

/* target_logprobs are the old policy's: of the distribution over the whole vocabulary, as the trainer's own. */
static bool old_is_recorded(const struct trajectory *t)
{
	const struct sampling_options *s = &t->sampling;
	return t->target_logprobs && s->temperature > 0 && s->top_p >= 1 && s->top_k == 0 && s->min_p <= 0;
}

/* First token with loss, or n_tokens. */
static int first_trained(const struct trajectory *t)
{
	int i = 1;
	while (i < t->n_tokens && !t->loss_mask[i]) i++;
	return i;
}

static int check_tokens(const struct trajectory *t, int vocab_size, struct err *err)
{
	for (int i = 0; i < t->n_tokens; i++)
		if (t->tokens[i] < 0 || t->tokens[i] >= vocab_size)
			return err_set(
				err, ERR_PEER,
				"trajectory %llu: expected tokens below %d, found %d at position %d; is model.path the model "
				"that generates?",
				(unsigned long long)t->id, vocab_size, t->tokens[i], i);
	return 0;
}

static int batch_open(struct batch *b, struct trajectory *const *trajectories, int n, int vocab_size,
                      const struct config_trainer *options, struct err *err)
{
	size_t slots = 0;
	bool all_recorded = true;
	*b = (struct batch){ .vocab_size = vocab_size };
	b->objective = (struct objective_options){ (float)options->clip_low, (float)options->clip_high,
		                                       (float)options->tis_clip, (float)options->kl_coef };
	b->members = xcalloc((size_t)n + 1, sizeof *b->members);
	b->sequences = xcalloc((size_t)n + 1, sizeof *b->sequences);
	b->slots = xcalloc((size_t)n + 1, sizeof *b->slots);
	for (int i = 0; i < n; i++) {
		const struct trajectory *t = trajectories[i];
		int first = first_trained(t);
		if (!is_trained(t) || first == t->n_tokens) continue;
		if (check_tokens(t, vocab_size, err)) return err->code;
		all_recorded = all_recorded && old_is_recorded(t);
		b->members[b->n] = t;
		b->sequences[b->n] = (struct train_sequence){ t->tokens, t->n_tokens, first };
		b->slots[b->n++] = slots;
		slots += (size_t)t->n_tokens;
	}
	b->entropy = xcalloc(slots + 1, sizeof(float));
	b->results = xcalloc(slots + 1, sizeof *b->results);
	if (options->minibatches > 1 && !all_recorded) b->old = xcalloc(slots + 1, sizeof(float));
	if (options->kl_coef > 0) b->reference = xcalloc(slots + 1, sizeof(float));
	return 0;
}

static void batch_close(struct batch *b)
{
	free(b->members);
	free(b->sequences);
	free(b->slots);
	free(b->old);
	free(b->reference);
	free(b->entropy);
	free(b->results);
}

static float inverse_temperature(const struct trajectory *t)
{
	return t->sampling.temperature > 0 ? 1.0f / t->sampling.temperature : 1.0f;
}

/* Sequences [from, n) that stand `stride` apart, as a pass sees them. */
struct part {
	struct batch *batch;
	struct train_sequence *sequences; /* [n] */
	int from, stride, n;
	float *logprobs; /* [slots]: where score_row writes */
};

static void part_open(struct part *p, struct batch *b, int from, int stride)
{
	*p = (struct part){ b, xcalloc((size_t)b->n + 1, sizeof *p->sequences), from, stride, 0, NULL };
	for (int i = from; i < b->n; i += stride) p->sequences[p->n++] = b->sequences[i];
}

static void score_row(void *context, int sequence, int token, float *logits)
{
	struct part *p = context;
	struct batch *b = p->batch;
	int member = p->from + sequence * p->stride;
	const struct trajectory *t = b->members[member];
	p->logprobs[b->slots[member] + (size_t)token] =
		objective_softmax(logits, b->vocab_size, inverse_temperature(t), t->tokens[token], NULL);
}

static void score(struct learner *learner, struct batch *b, const float *params, float *logprobs)
{
	struct part all;
	part_open(&all, b, 0, 1);
	all.logprobs = logprobs;
	learner_pass(learner, params, all.sequences, all.n, false, score_row, &all);
	free(all.sequences);
}

static void train_row(void *context, int sequence, int token, float *logits)
{
	struct part *p = context;
	struct batch *b = p->batch;
	int member = p->from + sequence * p->stride;
	const struct trajectory *t = b->members[member];
	size_t slot = b->slots[member] + (size_t)token;
	if (!t->loss_mask[token]) {
		memset(logits, 0, (size_t)b->vocab_size * sizeof *logits);
		return;
	}
	float inverse = inverse_temperature(t);
	float logprob = objective_softmax(logits, b->vocab_size, inverse, t->tokens[token], &b->entropy[slot]);
	float old = old_is_recorded(t) ? t->target_logprobs[token] : b->old ? b->old[slot] : logprob;
	struct objective_token in = {
		.logp = logprob, .logp_old = old, .logp_behaviour = t->logprobs[token],
		.logp_ref = b->reference ? b->reference[slot] : 0, .advantage = t->advantage,
		.weight = (float)(t->loss_weight / b->weight),
	};
	b->results[slot] = objective_evaluate(&b->objective, &in);
	objective_backward(logits, b->vocab_size, inverse, t->tokens[token], b->results[slot].gradient);
}

/* Adds the part's tokens to the sums of the report. */
static void add_up(struct trainer_report *report, const struct part *p)
{
	const struct batch *b = p->batch;
	for (int i = p->from; i < b->n; i += p->stride) {
		const struct trajectory *t = b->members[i];
		for (int j = 0; j < t->n_tokens; j++) {
			const struct objective_result *r = &b->results[b->slots[i] + (size_t)j];
			if (!t->loss_mask[j] || j == 0) continue;
			report->loss += r->loss;
			report->kl += r->kl;
			report->clip_frac += r->clipped;
			report->tis_mean += r->tis;
			report->entropy += b->entropy[b->slots[i] + (size_t)j];
			report->tokens++;
		}
	}
}

static double token_weight(const struct part *p)
{
	double sum = 0;
	for (int i = p->from; i < p->batch->n; i += p->stride) {
		const struct trajectory *t = p->batch->members[i];
		for (int j = 1; j < t->n_tokens; j++) sum += t->loss_mask[j] ? t->loss_weight : 0;
	}
	return sum;
}

static int minibatch(struct learner *learner, struct batch *b, int index,
                     const struct config_trainer *options, int64_t step, struct trainer_report *report,
                     struct err *err)
{
	struct part part;
	part_open(&part, b, index, (int)options->minibatches);
	b->weight = token_weight(&part);
	double warm = step < options->warmup_steps ? (double)(step + 1) / (double)options->warmup_steps : 1;
	struct adamw_options adamw = { (float)(options->learning_rate * warm), (float)options->beta1,
		                           (float)options->beta2, (float)options->weight_decay };
	if (part.n) {
		learner_pass(learner, NULL, part.sequences, part.n, true, train_row, &part);
		double norm = learner_update(learner, &adamw, options->grad_clip);
		report->grad_norm += norm / (double)options->minibatches;
		add_up(report, &part);
		if (!isfinite(norm))
			err_set(err, ERR_INVALID, "step %lld: the gradient is not finite; lower trainer.learning_rate",
			        (long long)step);
	}
	report->learning_rate = adamw.learning_rate;
	free(part.sequences);
	return err->code;
}

int policy_update(struct learner *learner, const struct model_config *model, const float *reference,
                  struct trajectory *const *trajectories, int n, const struct config_trainer *options,
                  int64_t step, struct trainer_report *report, struct err *err)
{
	struct batch b;
	err->code = 0;
	*report = (struct trainer_report){ .step = step };
	int code = batch_open(&b, trajectories, n, model->vocab_size, options, err);
	if (!code && b.old) score(learner, &b, NULL, b.old);
	if (!code && b.reference) score(learner, &b, reference, b.reference);
	for (int i = 0; !code && i < options->minibatches; i++)
		code = minibatch(learner, &b, i, options, step, report, err);
	if (report->tokens) {
		double tokens = (double)report->tokens;
		report->loss /= (double)options->minibatches;
		report->kl /= tokens;
		report->clip_frac /= tokens;
		report->tis_mean /= tokens;
		report->entropy /= tokens;
	}
	batch_close(&b);
	return code;
}

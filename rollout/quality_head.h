/* quality_head.h - what a sample's reward will be, by the policy's hidden state some tokens in (ARRoL, arXiv 2603.24840).
 *
 *     z = b + w.x + v.tanh(U x + c),     x = the hidden state, standardised by running moments, cut at +-FEATURE_LIMIT
 *     score = 1 / (1 + exp(-z)),         q = the posterior mean of rewards seen in the score's bin
 *
 * Owns its parameters, moments and bins: one mutable timeline, changed by quality_head_learn alone, once a step.  Given
 * the same examples in the same order it is the same bits on every machine.
 */
#ifndef ROLLOUT_QUALITY_HEAD_H
#define ROLLOUT_QUALITY_HEAD_H

#include <stddef.h>
#include <stdint.h>

#include "configs/err.h"

enum { QUALITY_BINS = 10, QUALITY_HIDDEN_MAX = 256 };

struct quality_head;

/* dim: of the hidden state; hidden: units of U, 0: logistic regression; seed: of their first values. */
struct quality_head *quality_head_open(int dim, int hidden, double learning_rate, uint64_t seed);
void quality_head_close(struct quality_head *head);

/* features [dim]; in (0, 1). */
double quality_head_score(const struct quality_head *head, const float *features);
/* q of a score: the bin's rewards, with BIN_PRIOR more that agree with the score; in (0, 1). */
double quality_head_expect(const struct quality_head *head, double score);

struct quality_example {
	const float *features; /* [dim], borrowed for the call */
	double score;          /* as the head gave it when the sample came by, or what it says now */
	double expected;       /* q, the same */
	double reward;         /* in [0, 1]; one half and more counts as positive */
	double weight;         /* 1 / probability that the sample was kept: pruned ones have no reward, others stand for them */
};

/* How well what was expected has come true; of the examples of one call, by weight. */
struct quality_report {
	int n;
	double brier;  /* mean of (q - reward)^2 */
	double ece;    /* sum over bins of q of share * |mean q - mean reward| */
	double auc;    /* probability that a positive was scored above a negative; 0.5 where there are none of one kind */
	double positive_ratio; /* mean reward */
};

/* Examples of a step, in an order that does not depend on timing: report (may be NULL) first, then bins, moments and
 * parameters. */
void quality_head_learn(struct quality_head *head, const struct quality_example *examples, int n,
                        struct quality_report *report);
uint64_t quality_head_examples(const struct quality_head *head); /* it has learned from, ever */
uint64_t quality_head_steps(const struct quality_head *head);    /* calls of quality_head_learn: its version */

/* All that it is, as bytes of the machine's own order: owned by the caller. */
void *quality_head_save(const struct quality_head *head, size_t *n_bytes);
/* Refuses bytes of another shape (ERR_INVALID). */
int quality_head_load(struct quality_head *head, const void *bytes, size_t n_bytes, struct err *err);

#endif

/* prune.h - which samples of a group go on, and what the others' absence costs nobody.
 *
 * After ARRoL ("prune rollouts in flight by a quality head", arXiv 2603.24840, 2026): when a group's samples have
 * reached a length, some are ended, so that the rest promises a positive ratio near `balance`.  Here the choice is
 * a random draw of k of m with known inclusion probabilities, for singles and for pairs, so that what is computed
 * of the survivors has exactly the expectation over that draw that nothing pruned would have had (advantage_pruned).
 *
 * The design: conditional Poisson sampling (Hajek 1964; Chen, Dempster, Liu 1994), the one of greatest entropy with
 * k of m and a given expected score:
 *     P(S) ~ prod_{i in S} exp(tilt q_i),  |S| = k,
 * with the tilt for which E[mean of q over S] is nearest to `balance` while no probability is below 1 / weight_max.
 *
 * Owns nothing; pure functions of their arguments: the same bits on any machine.
 */
#ifndef ROLLOUT_PRUNE_H
#define ROLLOUT_PRUNE_H

#include <stdbool.h>
#include <stdint.h>

enum { PRUNE_SAMPLES_MAX = 128 }; /* of a group; the cost of all pairs is O(n^4) */

enum prune_fate {
	PRUNE_SURE,     /* no candidate: it ended before, or nothing is known of it */
	PRUNE_SURVIVOR,
	PRUNE_PRUNED
};

struct prune_options {
	double keep;       /* share of the group's samples that is to be left, (0, 1] */
	int keep_min;      /* and at least so many, those that ended before included */
	double balance;    /* wanted mean score of the survivors */
	double weight_max; /* no candidate's probability to survive is below 1 / weight_max */
};

struct prune_decision {
	int n, n_candidates, n_survivors; /* samples started, m, k; k == m: nobody is pruned */
	double tilt;
	double scores[PRUNE_SAMPLES_MAX];      /* [n] expected reward by the quality head, in [0, 1]; of PRUNE_SURE: 0 */
	double probability[PRUNE_SAMPLES_MAX]; /* [n] of being kept; of PRUNE_SURE: 1 */
	double poisson[PRUNE_SAMPLES_MAX];     /* [n] of each candidate alone, before the condition that they be k */
	uint8_t fate[PRUNE_SAMPLES_MAX];       /* [n] enum prune_fate */
};

/* scores [n] of the candidates, candidate [n]; 1 <= n <= PRUNE_SAMPLES_MAX; key: of the draw, the group's own. */
void prune_decide(struct prune_decision *decision, const double *scores, const bool *candidate, int n,
                  const struct prune_options *options, uint64_t key);

/* The same design with the tilt and k given and no draw: probabilities as they were when it was decided.  fate is
 * read (what is PRUNE_SURE is no candidate), as is scores; all else but n_survivors and tilt is filled in. */
void prune_redo(struct prune_decision *decision);

/* Probability that i and j, i != j, are both kept; > 0. */
double prune_joint(const struct prune_decision *decision, int i, int j);

#endif

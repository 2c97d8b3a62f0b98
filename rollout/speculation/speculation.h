/* speculation.h - how many tokens to draft, for which session, and with which drafter: what maximises
 * expected tokens per second under what was measured so far.
 *
 * Owns the measurements: seconds of target and drafter calls (cost_table.h) and acceptance, by drafter,
 * by place in the draft and by session.  It sees numbers only, so it can be tested against an invented
 * machine.  Under coupled verification nothing it decides can change a token; it decides speed.
 *
 * Drafters 0 .. n_made-1 make drafts to order, in steps that all their sessions share; the others have
 * found theirs already (suffix.h) and cost nothing but verification.  With L_i the length of session i,
 * p_i(j) the probability that its drafts 1..j are all accepted and m_j sessions whose drafter makes at
 * least j:
 *
 *     tokens  = n + sum_i sum_{j <= L_i} p_i(j)          (the target adds one to what it accepts)
 *     seconds = sum_j D(m_j) + T(n + sum_i L_i)
 *
 * (Leviathan et al. 2023, for a batch).  The ratio is maximised by Dinkelbach's iteration: under a rate r
 * a draft is worth its row if p_i(j) > r * (seconds its row adds).
 *
 * What is not chosen goes stale: the acceptance of a drafter, what its calls cost, or, while all rounds draft, the
 * cost of one that does not.  Now and then a round is a probe of something else, paid from an account: each
 * second of calls brings somewhat less than a hundredth of a second, each probe takes what it lost against the best
 * plan (or adds what it won), and so does a plan that rests on what was hardly measured.  So the search costs at most
 * a hundredth of the time, and nothing where even the best acceptance could not make drafts pay.
 *
 * A shared machine is faster now and slower then.  What calls cost is learned relative to the pace of the last few
 * calls, whichever these were: else what was measured in better times would look like the better choice.
 */
#ifndef ROLLOUT_SPECULATION_SPECULATION_H
#define ROLLOUT_SPECULATION_SPECULATION_H

#include <stdbool.h>
#include <stdint.h>

#include "rollout/speculation/cost_table.h"

enum { SPECULATION_DRAFTERS = 5, SPECULATION_LENGTH_MAX = 32, PACE_CALLS = 7 };

/* Acceptance of one drafter in one session: counts that fade. */
struct session_acceptance {
	float accepted, rejected;
};

/* What the plan needs to know of a session, and says of it. */
struct plan_session {
	const struct session_acceptance *acceptance; /* [SPECULATION_DRAFTERS] */
	int room;      /* drafts that can be of use at most */
	int found;     /* drafter that has found a draft already, -1: none */
	int n_found;   /* its length */
	int positions; /* context */
	int drafter;   /* out; -1: none */
	int length;    /* out: drafts to use */
};

struct speculation_options {
	int length_max;   /* longest draft, 1 .. SPECULATION_LENGTH_MAX */
	int length_fixed; /* > 0: always so many (where there is room), found before made */
	int made_fixed;   /* which of those that make to order drafts then */
	int n_made;       /* drafters that make to order: 0 .. n_made-1 */
	int sessions_max;
	double position_share; /* KV bytes of a position, as a share of the bytes of weights that a call reads */
	double hysteresis; /* drafting at all must promise so much more than not drafting: 0.02 is two percent */
};

/* One drafter's measurements. */
struct drafter_state {
	struct cost_table cost; /* of one step, by rows */
	double tried[SPECULATION_LENGTH_MAX], accepted[SPECULATION_LENGTH_MAX]; /* by place, fading */
	double fresh; /* trials since the weights are new */
};

/* What calls cost. */
struct speculation_costs {
	struct cost_table target, drafters[SPECULATION_DRAFTERS];
};

struct speculation {
	struct speculation_options options;
	struct cost_table target;
	struct drafter_state drafters[SPECULATION_DRAFTERS];
	double paces[PACE_CALLS]; /* seconds of the last calls, of what the tables say */
	double mean_pace, pace;   /* mean of their median over many calls; their median relative to it */
	unsigned n_paces;
	int made;             /* last choice among those that make to order, -1: none */
	int rounds_since_probe, probe_next;
	double probe_credit, far_credit; /* seconds that probes may lose: of what may pay; of what seems not to */
	bool grant_due;          /* a little credit, as acceptance has to be learned anew */
	int granted_for, rounds_since_grant; /* sessions when credit was last given, and how long ago */
	struct {
		bool running;
		double rate, tokens, seconds; /* of the best plan; so far */
		double *account;              /* which of the credits pays */
	} probe;
	uint64_t probe_rounds; /* plans that were probes */
	double probe_seconds;  /* what they lost */

	double overhead; /* seconds that a round with drafts takes beside its calls: planning; set by who measures it */

	/* what the last plan promised */
	double planned_tokens, planned_seconds;
	double exact_seconds; /* of the same round without drafts, as predicted */

	struct plan_scratch *scratch; /* [sessions_max] */
};

void speculation_open(struct speculation *speculation, const struct speculation_options *options);
void speculation_close(struct speculation *speculation);

/* Begin from what was measured before. */
void speculation_set_costs(struct speculation *speculation, const struct speculation_costs *costs);

/* A call took so long: of the target (drafter -1), or one step of a drafter.  positions: sum over its rows
 * of what each attends to. */
void speculation_observe(struct speculation *speculation, int drafter, int rows, double positions, double seconds);

/* A call of the target over prompts took so long: about what as many rows of drafts would, but for the
 * vocabulary head.  Counts where nothing better is known. */
void speculation_hint(struct speculation *speculation, int rows, double positions, double seconds);

/* New weights: acceptance is learned anew, from a prior that remembers a little. */
void speculation_forget_acceptance(struct speculation *speculation);

/* Set drafter and length of each of n sessions.  riders: rows of prompts in the same call, as many as whole rows
 * that would cost the same: they are computed in any case and their seconds are left out, but what drafts add depends
 * on how many rows are there.
 * Returns the drafter that makes to order, -1: none. */
int speculation_plan(struct speculation *speculation, struct plan_session *sessions, int n, int riders);

/* What came of a draft of a session with this acceptance [SPECULATION_DRAFTERS]: of `drafted` places the first
 * `accepted` held, and what lies beyond the first rejection was not tried. */
void speculation_learn(struct speculation *speculation, int drafter, struct session_acceptance *acceptance,
                       int drafted, int accepted);

/* Mean acceptance of a draft of a drafter. */
double speculation_acceptance(const struct speculation *speculation, int drafter);

#endif

/* prune.c - k of m by conditional Poisson sampling: its probabilities and its draw.
 *
 * With independent draws of probability p_i = c w_i / (1 + c w_i), w_i = exp(tilt q_i), the number drawn has the
 * Poisson-binomial distribution R(k, S), and given that it is k
 *     P(i)    = p_i R(k - 1, S \ i) / R(k, S),
 *     P(i, j) = p_i p_j R(k - 2, S \ ij) / R(k, S),
 * whatever c is; it is chosen so that k is the expected number, and then nothing here is small.  R by the usual
 * recurrence over members, O(m k), all terms positive.  The draw goes through the members in order and takes each
 * with its probability given what was taken before, R of the members that are left.
 *
 * The expected score of S grows with the tilt (its derivative is a variance), the least P falls: bisection.
 */
#include "rollout/prune.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "quant/exact_math.h"
#include "rollout/sampling/noise.h"

enum { BISECTIONS = 40 };
static const double TILT_MAX = 40;
enum { STREAM_PRUNE = 0x7072756e };

/* The candidates, packed. */
struct design {
	int m, k;
	int index[PRUNE_SAMPLES_MAX];      /* [m] in the group */
	double score[PRUNE_SAMPLES_MAX];   /* [m] */
	double p[PRUNE_SAMPLES_MAX];       /* [m] Poisson */
	double kept[PRUNE_SAMPLES_MAX];    /* [m] inclusion */
};

/* R(k, {from .. m-1} without a and b), -1 for none. */
static double size_probability(const struct design *d, int from, int a, int b, int k)
{
	double r[PRUNE_SAMPLES_MAX + 1] = {1};

	if (k < 0) return 0;
	for (int i = from; i < d->m; i++) {
		if (i == a || i == b) continue;
		for (int s = k; s > 0; s--) r[s] = r[s] * (1 - d->p[i]) + r[s - 1] * d->p[i];
		r[0] *= 1 - d->p[i];
	}
	return r[k];
}

static double poisson_mean(struct design *d, double tilt, double log_c)
{
	double sum = 0;

	for (int i = 0; i < d->m; i++) {
		double odds = (double)exact_exp((float)(tilt * (d->score[i] - 0.5) + log_c));
		sum += d->p[i] = odds / (1 + odds);
	}
	return sum;
}

/* p and kept for a tilt. */
static void design_tilt(struct design *d, double tilt)
{
	double low = -TILT_MAX, high = TILT_MAX;

	for (int i = 0; i < BISECTIONS; i++) {
		double middle = (low + high) / 2;
		if (poisson_mean(d, tilt, middle) < d->k) low = middle;
		else high = middle;
	}
	double whole = size_probability(d, 0, -1, -1, d->k);
	for (int i = 0; i < d->m; i++) d->kept[i] = d->p[i] * size_probability(d, 0, i, -1, d->k - 1) / whole;
}

static double expected_score(const struct design *d)
{
	double sum = 0;

	for (int i = 0; i < d->m; i++) sum += d->kept[i] * d->score[i];
	return sum / d->k;
}

static bool heavy(const struct design *d, double weight_max)
{
	for (int i = 0; i < d->m; i++)
		if (d->kept[i] * weight_max < 1) return true;
	return false;
}

/* The tilt nearest to 0 that brings the expected score to balance, or as near as weight_max lets it come. */
static double steer(struct design *d, double balance, double weight_max)
{
	design_tilt(d, 0);
	double sign = expected_score(d) < balance ? 1 : -1, low = 0, high = TILT_MAX;
	for (int i = 0; i < BISECTIONS; i++) {
		double middle = (low + high) / 2;
		design_tilt(d, sign * middle);
		bool beyond = sign * (expected_score(d) - balance) >= 0;
		if (beyond || heavy(d, weight_max)) high = middle;
		else low = middle;
	}
	return sign * low;
}

static void candidates_of(struct design *d, const struct prune_decision *decision)
{
	d->m = 0;
	for (int i = 0; i < decision->n; i++) {
		if (decision->fate[i] == PRUNE_SURE) continue;
		d->index[d->m] = i;
		d->score[d->m++] = decision->scores[i];
	}
	d->k = decision->n_survivors;
}

/* Of m candidates among n samples. */
static int survivors(int n, int m, const struct prune_options *o)
{
	int wanted = (int)ceil(o->keep * n - 1e-9), least = (int)ceil(m / o->weight_max - 1e-9);

	if (wanted < o->keep_min) wanted = o->keep_min;
	wanted -= n - m;
	if (wanted < least) wanted = least;
	if (wanted < 2) wanted = 2; /* pairs are needed, where one is the other's baseline */
	return wanted < m ? wanted : m;
}

static void write(struct prune_decision *decision, const struct design *d)
{
	decision->n_candidates = d->m;
	for (int i = 0; i < decision->n; i++) decision->probability[i] = decision->poisson[i] = 1;
	for (int i = 0; i < d->m && d->k < d->m; i++) {
		decision->probability[d->index[i]] = d->kept[i];
		decision->poisson[d->index[i]] = d->p[i];
	}
}

static void draw(struct prune_decision *decision, const struct design *d, uint64_t key)
{
	uint64_t stream = noise_stream(key, STREAM_PRUNE, 0, 0);
	int left = d->k;

	for (int i = 0; i < d->m; i++) {
		double take = left == 0 ? 0 : left == d->m - i ? 1
		            : d->p[i] * size_probability(d, i + 1, -1, -1, left - 1) / size_probability(d, i, -1, -1, left);
		bool taken = noise_uniform(stream, d->index[i]).first < take;
		decision->fate[d->index[i]] = taken ? PRUNE_SURVIVOR : PRUNE_PRUNED;
		left -= taken;
	}
	assert(left == 0);
}

void prune_decide(struct prune_decision *decision, const double *scores, const bool *candidate, int n,
                  const struct prune_options *options, uint64_t key)
{
	struct design d;

	assert(n >= 1 && n <= PRUNE_SAMPLES_MAX);
	memset(decision, 0, sizeof *decision);
	decision->n = n;
	for (int i = 0; i < n; i++) {
		decision->fate[i] = candidate[i] ? PRUNE_SURVIVOR : PRUNE_SURE;
		decision->scores[i] = candidate[i] ? scores[i] : 0;
	}
	candidates_of(&d, decision);
	d.k = decision->n_survivors = survivors(n, d.m, options);
	if (d.k < d.m) {
		decision->tilt = steer(&d, options->balance, options->weight_max);
		design_tilt(&d, decision->tilt);
		draw(decision, &d, key);
	}
	write(decision, &d);
}

void prune_redo(struct prune_decision *decision)
{
	struct design d;

	candidates_of(&d, decision);
	if (d.k < d.m) design_tilt(&d, decision->tilt);
	write(decision, &d);
}

double prune_joint(const struct prune_decision *decision, int i, int j)
{
	struct design d = {0};
	int a = 0, b = 0;

	assert(i != j);
	bool sure = decision->fate[i] == PRUNE_SURE || decision->fate[j] == PRUNE_SURE;
	if (sure || decision->n_survivors == decision->n_candidates) return decision->probability[i] * decision->probability[j];
	candidates_of(&d, decision);
	for (int c = 0; c < d.m; c++) {
		d.p[c] = decision->poisson[d.index[c]];
		if (d.index[c] == i) a = c;
		if (d.index[c] == j) b = c;
	}
	return d.p[a] * d.p[b] * size_probability(&d, 0, a, b, d.k - 2) / size_probability(&d, 0, -1, -1, d.k);
}

/* quality_head.c - a logistic regression with a few hidden units beside it, trained online on the step's finished samples.
 *
 * Training: EPOCHS passes over the step's examples in minibatches of BATCH, cross-entropy with the reward as a soft label,
 * examples weighted by 1 / probability kept (else the head would learn of survivors only), AdamW (Loshchilov and Hutter
 * 2019).  Nothing older is seen again, and bins and moments forget by FORGET a step, so that it follows the policy.
 * O(dim * (hidden + 1)) an example and pass.
 *
 * Differences from the paper: it has an MLP; here a linear part beside it, which learns from the first hundred examples,
 * and the output layer of the units begins at 0, so that early on it is a logistic regression.
 */
#include "rollout/quality_head.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "quant/exact_math.h"
#include "rollout/sampling/noise.h"

enum { EPOCHS = 4, BATCH = 32, STREAM_HEAD = 0x68656164 };
static const double FORGET = 0.9, BIN_PRIOR = 4, DECAY = 0.01, BETA1 = 0.9, BETA2 = 0.99, EPSILON = 1e-8;
static const float FEATURE_LIMIT = 4, LOGIT_LIMIT = 8;

/* The scalar part of what is saved; the arrays follow it. */
struct head_state {
	int32_t dim, hidden;
	uint64_t n_examples, n_steps;
	double moments_weight, beta1_power, beta2_power;
	double bin_weight[QUALITY_BINS], bin_reward[QUALITY_BINS]; /* by score */
};

struct quality_head {
	struct head_state s;
	double learning_rate;
	size_t n_parameters;
	float *parameters;    /* [n_parameters]: b, w [dim], v [hidden], c [hidden], U [hidden][dim] */
	float *first, *second; /* [n_parameters] AdamW's moments */
	float *mean, *square;  /* [dim] of features */
	float *x, *units;      /* [dim], [hidden] scratch */
	float *gradient;       /* [n_parameters] */
};

static float *w_of(const struct quality_head *h, float *base) { (void)h; return base + 1; }
static float *v_of(const struct quality_head *h, float *base) { return base + 1 + h->s.dim; }
static float *c_of(const struct quality_head *h, float *base) { return v_of(h, base) + h->s.hidden; }
static float *u_of(const struct quality_head *h, float *base, int unit)
{
	return c_of(h, base) + h->s.hidden + (size_t)unit * (size_t)h->s.dim;
}

struct quality_head *quality_head_open(int dim, int hidden, double learning_rate, uint64_t seed)
{
	struct quality_head *h = xcalloc(1, sizeof *h);

	assert(dim >= 1 && hidden >= 0 && hidden <= QUALITY_HIDDEN_MAX);
	h->s.dim = dim;
	h->s.hidden = hidden;
	h->s.beta1_power = h->s.beta2_power = 1;
	h->learning_rate = learning_rate;
	h->n_parameters = 1 + (size_t)dim + (size_t)hidden * ((size_t)dim + 2);
	h->parameters = xcalloc(h->n_parameters, sizeof(float));
	h->first = xcalloc(h->n_parameters, sizeof(float));
	h->second = xcalloc(h->n_parameters, sizeof(float));
	h->gradient = xcalloc(h->n_parameters, sizeof(float));
	h->mean = xcalloc((size_t)dim, sizeof(float));
	h->square = xcalloc((size_t)dim, sizeof(float));
	h->x = xcalloc((size_t)dim, sizeof(float));
	h->units = xcalloc((size_t)hidden + 1, sizeof(float));
	float spread = 1.7f / sqrtf((float)dim); /* uniform, so that a unit's input has variance about 1 */
	uint64_t key = noise_stream(seed, STREAM_HEAD, 0, 0);
	for (int j = 0; j < hidden; j++)
		for (int i = 0; i < dim; i++) u_of(h, h->parameters, j)[i] = spread * (float)(2 * noise_uniform(key, j * dim + i).first - 1);
	return h;
}

void quality_head_close(struct quality_head *h)
{
	if (!h) return;
	free(h->parameters);
	free(h->first);
	free(h->second);
	free(h->gradient);
	free(h->mean);
	free(h->square);
	free(h->x);
	free(h->units);
	free(h);
}

static float sigmoid(float z) { return 1 / (1 + exact_exp(-z)); }

static void standardise(const struct quality_head *h, const float *features)
{
	for (int i = 0; i < h->s.dim; i++) {
		float deviation = sqrtf(fmaxf(h->square[i] - h->mean[i] * h->mean[i], 0));
		float x = (features[i] - h->mean[i]) / fmaxf(deviation, 1e-4f);
		h->x[i] = h->s.moments_weight > 0 ? fmaxf(-FEATURE_LIMIT, fminf(FEATURE_LIMIT, x)) : 0;
	}
}

static float dot(const float *a, const float *b, int n)
{
	float sum = 0;
	for (int i = 0; i < n; i++) sum += a[i] * b[i];
	return sum;
}

/* Leaves x and units for the way back. */
static float forward(const struct quality_head *h, const float *features)
{
	float *p = h->parameters;

	standardise(h, features);
	float z = p[0] + dot(w_of(h, p), h->x, h->s.dim);
	for (int j = 0; j < h->s.hidden; j++) {
		float input = c_of(h, p)[j] + dot(u_of(h, p, j), h->x, h->s.dim);
		h->units[j] = 2 * sigmoid(2 * input) - 1; /* tanh */
		z += v_of(h, p)[j] * h->units[j];
	}
	return sigmoid(fmaxf(-LOGIT_LIMIT, fminf(LOGIT_LIMIT, z)));
}

double quality_head_score(const struct quality_head *h, const float *features) { return (double)forward(h, features); }

static int bin_of(double p)
{
	int bin = (int)(p * QUALITY_BINS);
	return bin < 0 ? 0 : bin >= QUALITY_BINS ? QUALITY_BINS - 1 : bin;
}

double quality_head_expect(const struct quality_head *h, double score)
{
	int bin = bin_of(score);
	return (BIN_PRIOR * score + h->s.bin_reward[bin]) / (BIN_PRIOR + h->s.bin_weight[bin]);
}

/* ---- what came of it ---- */

struct ranked {
	double score, positive, negative;
};

static int by_score(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;
	return (x->score > y->score) - (x->score < y->score);
}

/* Mann and Whitney; equal scores count half. */
static double auc_of(const struct quality_example *e, int n)
{
	struct ranked *r = xmalloc((size_t)n * sizeof *r);
	double below = 0, wins = 0, positives = 0;

	for (int i = 0; i < n; i++) {
		bool positive = e[i].reward >= 0.5;
		r[i] = (struct ranked){ e[i].score, positive ? e[i].weight : 0, positive ? 0 : e[i].weight };
	}
	qsort(r, (size_t)n, sizeof *r, by_score);
	for (int i = 0, end; i < n; i = end) {
		double positive = 0, negative = 0;
		for (end = i; end < n && r[end].score == r[i].score; end++) {
			positive += r[end].positive;
			negative += r[end].negative;
		}
		wins += positive * (below + negative / 2);
		below += negative;
		positives += positive;
	}
	free(r);
	return positives > 0 && below > 0 ? wins / (positives * below) : 0.5;
}

static void report_on(const struct quality_example *e, int n, struct quality_report *report)
{
	double weight[QUALITY_BINS] = {0}, expected[QUALITY_BINS] = {0}, reward[QUALITY_BINS] = {0}, all = 0, square = 0;

	*report = (struct quality_report){ .n = n, .auc = 0.5 };
	if (n == 0) return;
	for (int i = 0; i < n; i++) {
		int bin = bin_of(e[i].expected);
		double off = e[i].expected - e[i].reward;
		weight[bin] += e[i].weight;
		expected[bin] += e[i].weight * e[i].expected;
		reward[bin] += e[i].weight * e[i].reward;
		square += e[i].weight * off * off;
		all += e[i].weight;
	}
	for (int b = 0; b < QUALITY_BINS; b++) {
		report->ece += fabs(expected[b] - reward[b]) / all;
		report->positive_ratio += reward[b] / all;
	}
	report->brier = square / all;
	report->auc = auc_of(e, n);
}

/* ---- training ---- */

static void bins_learn(struct quality_head *h, const struct quality_example *e, int n)
{
	for (int b = 0; b < QUALITY_BINS; b++) {
		h->s.bin_weight[b] *= FORGET;
		h->s.bin_reward[b] *= FORGET;
	}
	for (int i = 0; i < n; i++) {
		h->s.bin_weight[bin_of(e[i].score)] += e[i].weight;
		h->s.bin_reward[bin_of(e[i].score)] += e[i].weight * e[i].reward;
	}
}

static void moments_learn(struct quality_head *h, const struct quality_example *e, int n)
{
	double before = FORGET * h->s.moments_weight, after = before + n;

	for (int i = 0; i < h->s.dim; i++) {
		double sum = before * (double)h->mean[i], square = before * (double)h->square[i];
		for (int k = 0; k < n; k++) {
			sum += (double)e[k].features[i];
			square += (double)e[k].features[i] * (double)e[k].features[i];
		}
		h->mean[i] = (float)(sum / after);
		h->square[i] = (float)(square / after);
	}
	h->s.moments_weight = after;
}

static void add_gradient(struct quality_head *h, const struct quality_example *e, float weight)
{
	float *p = h->parameters, *g = h->gradient;
	float back = weight * (forward(h, e->features) - (float)e->reward);

	g[0] += back;
	for (int i = 0; i < h->s.dim; i++) w_of(h, g)[i] += back * h->x[i];
	for (int j = 0; j < h->s.hidden; j++) {
		float unit = h->units[j], inner = back * v_of(h, p)[j] * (1 - unit * unit);
		v_of(h, g)[j] += back * unit;
		c_of(h, g)[j] += inner;
		for (int i = 0; i < h->s.dim; i++) u_of(h, g, j)[i] += inner * h->x[i];
	}
}

static void update(struct quality_head *h)
{
	h->s.beta1_power *= BETA1;
	h->s.beta2_power *= BETA2;
	float rate = (float)(h->learning_rate * sqrt(1 - h->s.beta2_power) / (1 - h->s.beta1_power));
	float decay = (float)(1 - h->learning_rate * DECAY), b1 = (float)BETA1, b2 = (float)BETA2;

	for (size_t i = 0; i < h->n_parameters; i++) {
		float g = h->gradient[i];
		h->first[i] = b1 * h->first[i] + (1 - b1) * g;
		h->second[i] = b2 * h->second[i] + (1 - b2) * g * g;
		h->parameters[i] = h->parameters[i] * decay - rate * h->first[i] / (sqrtf(h->second[i]) + (float)EPSILON);
		h->gradient[i] = 0;
	}
}

/* Minibatches are every (n / BATCH)-th example, so that each has samples of many groups. */
static void parameters_learn(struct quality_head *h, const struct quality_example *e, int n)
{
	int n_batches = (n + BATCH - 1) / BATCH;
	double all = 0;

	for (int i = 0; i < n; i++) all += e[i].weight;
	for (int epoch = 0; epoch < EPOCHS; epoch++)
		for (int batch = 0; batch < n_batches; batch++) {
			for (int i = batch; i < n; i += n_batches) add_gradient(h, &e[i], (float)(e[i].weight * n_batches / all));
			update(h);
		}
}

void quality_head_learn(struct quality_head *h, const struct quality_example *examples, int n, struct quality_report *report)
{
	if (report) report_on(examples, n, report);
	h->s.n_steps++;
	if (n == 0) return;
	bins_learn(h, examples, n);
	moments_learn(h, examples, n);
	parameters_learn(h, examples, n);
	h->s.n_examples += (uint64_t)n;
}

uint64_t quality_head_examples(const struct quality_head *h) { return h->s.n_examples; }
uint64_t quality_head_steps(const struct quality_head *h) { return h->s.n_steps; }

/* ---- saved ---- */

enum { HEAD_ARRAYS = 5 };

static void arrays_of(const struct quality_head *h, float *arrays[HEAD_ARRAYS], size_t sizes[HEAD_ARRAYS])
{
	size_t dim = (size_t)h->s.dim, n = h->n_parameters;
	memcpy(arrays, (float *[HEAD_ARRAYS]){ h->parameters, h->first, h->second, h->mean, h->square }, HEAD_ARRAYS * sizeof *arrays);
	memcpy(sizes, (size_t[HEAD_ARRAYS]){ n, n, n, dim, dim }, HEAD_ARRAYS * sizeof *sizes);
}

void *quality_head_save(const struct quality_head *h, size_t *n_bytes)
{
	float *arrays[HEAD_ARRAYS];
	size_t sizes[HEAD_ARRAYS];

	arrays_of(h, arrays, sizes);
	*n_bytes = sizeof h->s;
	for (int i = 0; i < HEAD_ARRAYS; i++) *n_bytes += sizes[i] * sizeof(float);
	char *bytes = xmalloc(*n_bytes), *at = bytes + sizeof h->s;
	memcpy(bytes, &h->s, sizeof h->s);
	for (int i = 0; i < HEAD_ARRAYS; i++) {
		memcpy(at, arrays[i], sizes[i] * sizeof(float));
		at += sizes[i] * sizeof(float);
	}
	return bytes;
}

int quality_head_load(struct quality_head *h, const void *bytes, size_t n_bytes, struct err *err)
{
	float *arrays[HEAD_ARRAYS];
	size_t sizes[HEAD_ARRAYS], expected = sizeof h->s;
	struct head_state s;

	arrays_of(h, arrays, sizes);
	for (int i = 0; i < HEAD_ARRAYS; i++) expected += sizes[i] * sizeof(float);
	if (n_bytes == expected) memcpy(&s, bytes, sizeof s);
	if (n_bytes != expected || s.dim != h->s.dim || s.hidden != h->s.hidden)
		return err_set(err, ERR_INVALID, "a stored quality head has %zu bytes, expected %zu (%d features, %d units): were prune.hidden "
		               "or the model changed?", n_bytes, expected, h->s.dim, h->s.hidden);
	h->s = s;
	const char *at = (const char *)bytes + sizeof s;
	for (int i = 0; i < HEAD_ARRAYS; i++) {
		memcpy(arrays[i], at, sizes[i] * sizeof(float));
		at += sizes[i] * sizeof(float);
	}
	return 0;
}

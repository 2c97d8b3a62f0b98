/* learner.c - see learner.h. */
#include "trainer_bridge/trainer/learner.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/bf16.h"

struct learner {
	struct weights *weights; /* borrowed */
	int n_threads;
	float *params;               /* [n_elements] BF16-rounded */
	float **grads;               /* [n_threads][n_elements] */
	struct model_train **models; /* [n_threads] */
	struct adamw adamw;
};

struct learner *learner_open(struct weights *weights, int n_threads)
{
	struct learner *l = xcalloc(1, sizeof *l);
	size_t n = weights->n_elements;
	l->weights = weights;
	l->n_threads = n_threads;
	l->params = xaligned(n * sizeof(float));
	for (size_t i = 0; i < n; i++) l->params[i] = bf16_to_f32(weights->data[i]);
	l->grads = xcalloc((size_t)n_threads, sizeof *l->grads);
	l->models = xcalloc((size_t)n_threads, sizeof *l->models);
	for (int t = 0; t < n_threads; t++) {
		l->grads[t] = xcalloc(n, sizeof(float));
		l->models[t] = model_train_open(weights, true);
	}
	adamw_open(&l->adamw, weights->data, n);
	return l;
}

void learner_close(struct learner *l)
{
	if (!l) return;
	for (int t = 0; t < l->n_threads; t++) {
		free(l->grads[t]);
		model_train_close(l->models[t]);
	}
	adamw_close(&l->adamw);
	free(l->grads);
	free(l->models);
	free(l->params);
	free(l);
}

const float *learner_params(const struct learner *l)
{
	return l->params;
}

struct adamw *learner_adamw(struct learner *l)
{
	return &l->adamw;
}

void learner_take_master(struct learner *l)
{
	for (size_t i = 0; i < l->weights->n_elements; i++) {
		l->weights->data[i] = bf16_from_f32(l->adamw.master[i]);
		l->params[i] = bf16_to_f32(l->weights->data[i]);
	}
}

/* Index after the last sequence of the micro-batch that begins at `begin`. */
static int micro_end(const struct train_sequence *sequences, int n, int begin)
{
	int end = begin + 1, tokens = sequences[begin].n_tokens;
	while (end < n && tokens + sequences[end].n_tokens <= LEARNER_TOKENS) tokens += sequences[end++].n_tokens;
	return end;
}

static void micro_batch(struct learner *l, int thread, const float *params,
                        const struct train_sequence *sequences, int begin, int end, bool backward,
                        learner_row *row, void *context)
{
	int n_rows, r = 0;
	float *logits = model_train_forward(l->models[thread], params, sequences + begin, end - begin, &n_rows);
	size_t vocab = (size_t)l->weights->config.vocab_size;
	for (int s = begin; s < end; s++)
		for (int i = sequences[s].first; i < sequences[s].n_tokens; i++)
			row(context, s, i, logits + (size_t)r++ * vocab);
	if (backward) model_train_backward(l->models[thread], params, l->grads[thread], logits);
}

void learner_pass(struct learner *l, const float *params, const struct train_sequence *sequences, int n,
                  bool backward, learner_row *row, void *context)
{
	if (!params) params = l->params;
	int *begins = xmalloc((size_t)(n + 1) * sizeof *begins), n_micro = 0;
	for (int i = 0; i < n; i = micro_end(sequences, n, i)) begins[n_micro++] = i;
	begins[n_micro] = n;
#pragma omp parallel for schedule(static, 1) num_threads(l->n_threads)
	for (int t = 0; t < l->n_threads; t++)
		for (int b = t; b < n_micro; b += l->n_threads)
			micro_batch(l, t, params, sequences, begins[b], begins[b + 1], backward, row, context);
	free(begins);
}

/* Adds the threads' gradients into the first; returns the norm. */
static double gather(struct learner *l)
{
	double sum = 0;
	float *g = l->grads[0];
	for (int t = 1; t < l->n_threads; t++)
		for (size_t i = 0; i < l->weights->n_elements; i++) g[i] += l->grads[t][i];
	for (size_t i = 0; i < l->weights->n_elements; i++) sum += (double)g[i] * g[i];
	return sqrt(sum);
}

double learner_update(struct learner *l, const struct adamw_options *options, double grad_clip)
{
	struct weights *w = l->weights;
	double norm = gather(l);
	if (isfinite(norm)) {
		float scale = norm > grad_clip ? (float)(grad_clip / norm) : 1.0f;
		adamw_begin(&l->adamw);
		for (int i = 0; i < w->n_tensors; i++) {
			const struct weight_tensor *t = &w->tensors[i];
			adamw_update(&l->adamw, options, l->grads[0], scale, t->offset,
			             t->offset + (size_t)t->rows * (size_t)t->cols, t->n_dims == 2, w->data, l->params);
		}
	}
	for (int t = 0; t < l->n_threads; t++) memset(l->grads[t], 0, w->n_elements * sizeof(float));
	return norm;
}

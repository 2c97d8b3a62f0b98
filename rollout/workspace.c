/* workspace.c - scratch memory of the decode loop: all of it is taken here. */
#include "rollout/workspace.h"

#include <stdlib.h>

#include "configs/config.h"
#include "rollout/speculation/verify_maximal.h"

enum { DRAW_ENTRIES_MIN = 1 << 16 }; /* below, some 100 us of draws cost less than waking a team */

/* Weights that a row without logits is multiplied with, as a share of all. */
static double prompt_share(const struct model_config *c)
{
	double q_dim = (double)c->n_heads * c->head_dim, kv_dim = (double)c->n_kv_heads * c->head_dim, dim = c->dim;
	double layers = c->n_layers * (dim * (2 * q_dim + 2 * kv_dim) + 3 * dim * c->ffn_dim);
	return layers / (layers + dim * c->vocab_size);
}

void workspace_open(struct workspace *w, const struct policy *policy, const struct engine_options *options,
                    int logits_max)
{
	const struct model_config *config = &policy->config;

	*w = (struct workspace){
		.policy = policy,
		.rows_max = logits_max + options->prefill_chunk,
		.stride = forward_logits_stride(config),
		.n_threads = options->n_threads,
		.prompt_share = prompt_share(config),
		.clock = options->clock,
	};
	w->forward = forward_open(config, w->rows_max, options->n_threads);
	w->rows = xmalloc((size_t)w->rows_max * sizeof *w->rows);
	w->logits = xaligned((size_t)logits_max * w->stride * sizeof *w->logits);
	if (options->mode == ROLLOUT_SPECULATIVE && options->coupling == COUPLING_MAXIMAL)
		w->maximal = maximal_store_open(logits_max, w->stride);
	w->samplers = xmalloc((size_t)w->n_threads * sizeof *w->samplers);
	for (int i = 0; i < w->n_threads; i++) w->samplers[i] = sampler_open(config->vocab_size);
	for (int i = 0; i < config->n_eos && !options->ignore_end; i++) w->stops[w->n_stops++] = config->eos_ids[i];
	if (options->stop_token >= 0) w->stops[w->n_stops++] = options->stop_token;
}

void workspace_close(struct workspace *w)
{
	for (int i = 0; i < w->n_threads; i++) sampler_close(w->samplers[i]);
	free(w->samplers);
	free(w->logits);
	maximal_store_close(w->maximal);
	free(w->rows);
	forward_close(w->forward);
}

int workspace_whole_rows(const struct workspace *w, int prompt_rows)
{
	return (int)(w->prompt_share * prompt_rows + 0.5);
}

int workspace_draw_threads(const struct workspace *w, int n)
{
	if (n < 2 || (int64_t)n * w->policy->config.vocab_size < DRAW_ENTRIES_MIN) return 1;
	return n < w->n_threads ? n : w->n_threads;
}

bool workspace_is_stop(const struct workspace *w, int32_t token)
{
	for (int i = 0; i < w->n_stops; i++)
		if (w->stops[i] == token) return true;
	return false;
}

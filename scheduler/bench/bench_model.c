/* bench_model.c - a model to measure, and the least that its forward calls cost. */
#include "scheduler/bench/bench_model.h"

#include <stdlib.h>
#include <string.h>

#include "policy/grow.h"
#include "scheduler/clock.h"

#define FORMAT(id, name, group, low_bits, min, scale, e2m1) name "|"
const char bench_format_choices[] = FORMATS(FORMAT) "bf16";
#undef FORMAT

const char *bench_format_name(enum format format) { return format == FORMAT_BF16 ? "bf16" : format_info(format)->name; }

int bench_weights_load(struct weights *weights, const char *dir, double grow, struct err *err)
{
	struct weights own;
	struct model_config to;
	int rc = weights_load(&own, dir, err);
	if (rc || !(grow > 0)) {
		if (!rc) *weights = own;
		return rc;
	}
	rc = weights_grow_shape(&to, &own.config, grow, GROW_LAYERS, err);
	if (!rc) weights_grow(weights, &to, &own);
	weights_free(&own);
	return rc;
}

int bench_prompts_load(struct prompts *prompts, const char *dir, const char *file, size_t limit, struct err *err)
{
	struct model_config config;
	struct tokenizer *tokenizer = NULL;
	struct chat *chat = NULL;

	int rc = model_config_read(&config, dir, err);
	if (!rc) rc = tokenizer_open(&tokenizer, dir, err);
	if (!rc) rc = chat_open(&chat, dir, err);
	struct prompts_options options = {.max_context = config.max_context, .limit = limit};
	if (!rc) rc = prompts_load(prompts, file, tokenizer, chat, &options, err);
	if (chat) chat_close(chat);
	if (tokenizer) tokenizer_close(tokenizer);
	return rc;
}

/* ---- what a call costs ---- */

static void add_linear(struct bench_work *work, const struct bench_call *call, const struct linear *linear, int rows)
{
	bool quantized = call->draft && linear->draft.q;
	double ops = 2.0 * linear->n * linear->k * rows;
	if (rows == 0) return;
	work->bytes += quantized ? (double)qmatrix_bytes(linear->draft.format, linear->n, linear->k)
	                         : 2.0 * (double)packed_bf16_elements(linear->n, linear->k);
	if (quantized && !call->policy->draft_fp32) work->int8_ops += ops;
	else work->fma_ops += ops;
}

struct bench_work bench_call_work(const struct bench_call *call)
{
	const struct policy *policy = call->policy;
	const struct model_config *c = &policy->config;
	struct bench_work work = {0};
	for (int i = 0; i < c->n_layers; i++) {
		const struct layer *layer = &policy->layers[i];
		add_linear(&work, call, &layer->qkv, call->rows);
		add_linear(&work, call, &layer->o, call->rows);
		add_linear(&work, call, &layer->gate_up, call->rows);
		add_linear(&work, call, &layer->down, call->rows);
	}
	add_linear(&work, call, &policy->head, call->logits_rows);
	double heads = (double)c->n_layers * c->head_dim;
	work.bytes += 2.0 * heads * c->n_kv_heads * call->positions_read * (double)kv_element_bytes(call->kv_type);
	work.fma_ops += 4.0 * heads * c->n_heads * call->positions_attended;
	return work;
}

/* ---- sequences ---- */

static int32_t made_up_token(const struct policy *policy, int sequence, int position)
{
	uint32_t x = (uint32_t)sequence * 7919u + (uint32_t)position * 104729u + 12345u;
	x = (x ^ (x >> 15)) * 0x2c1b3c6du;
	return (int32_t)((x ^ (x >> 12)) % (uint32_t)policy->config.vocab_size);
}

int bench_sequences_open(struct bench_sequences *s, const struct policy *policy, enum kv_type kv_type, int n,
                         int n_positions, int n_threads, struct err *err)
{
	const struct model_config *c = &policy->config;
	*s = (struct bench_sequences){.policy = policy, .n = n, .rows_max = n > n_positions ? n : n_positions};
	if (n_positions > c->max_context)
		return err_set(err, ERR_TOO_BIG, "%d positions are more than the model's context of %d: lower --context or --new",
		               n_positions, c->max_context);
	int rc = kv_cache_open(&s->cache, c, kv_type, (size_t)n * kv_bytes(c, kv_type, n_positions), err);
	if (rc) return rc;
	s->forward = forward_open(c, s->rows_max, n_threads);
	s->stride = forward_logits_stride(c);
	s->rows = xcalloc((size_t)s->rows_max, sizeof *s->rows);
	s->logits = xaligned((size_t)n * s->stride * sizeof *s->logits);
	s->seqs = xcalloc((size_t)n, sizeof *s->seqs);
	for (int i = 0; i < n; i++) kv_seq_open(&s->seqs[i], s->cache);
	for (int i = 0; !rc && i < n; i++) rc = kv_seq_reserve(&s->seqs[i], 0, n_positions);
	if (!rc) return 0;
	bench_sequences_close(s);
	return err_set(err, ERR_MEMORY, "no memory for the keys and values of %d sequences of %d positions", n, n_positions);
}

void bench_sequences_close(struct bench_sequences *s)
{
	if (!s->cache) return;
	for (int i = 0; i < s->n; i++) kv_seq_close(&s->seqs[i]);
	kv_cache_close(s->cache);
	forward_close(s->forward);
	free(s->seqs);
	free(s->rows);
	free(s->logits);
	*s = (struct bench_sequences){0};
}

/* Bytes of keys and values in a page. */
static size_t page_bytes(const struct bench_sequences *s)
{
	const struct model_config *c = &s->policy->config;
	size_t elements = kv_v_offset(s->cache, c->n_layers - 1, c->n_kv_heads - 1) + (size_t)c->head_dim * KV_TILE;
	return elements * kv_element_bytes(kv_cache_type(s->cache));
}

double bench_sequences_prefill(struct bench_sequences *s, int context)
{
	for (int p = 0; p < context; p++)
		s->rows[p] = (struct forward_row){&s->seqs[0], p, made_up_token(s->policy, 0, p), p == context - 1 ? 0 : -1};
	double start = clock_seconds();
	forward_run(s->forward, s->policy, PART_TARGET, s->rows, context, s->logits, s->stride);
	double end = clock_seconds();
	for (int i = 1; i < s->n; i++)
		for (int page = 0; page * KV_TILE < context; page++)
			memcpy(s->seqs[i].pages[page], s->seqs[0].pages[page], page_bytes(s));
	return end - start;
}

double bench_sequences_step(struct bench_sequences *s, int n, int position, enum policy_part part)
{
	for (int i = 0; i < n; i++)
		s->rows[i] = (struct forward_row){&s->seqs[i], position, made_up_token(s->policy, i, position), i};
	double start = clock_seconds();
	forward_run(s->forward, s->policy, part, s->rows, n, s->logits, s->stride);
	return clock_seconds() - start;
}

/* forward.c - one forward pass over a ragged batch of rows on a team of threads.
 *
 * One team per call, five barriers per layer.  Between barriers a thread owns a range of
 * outputs (columns) for all rows, and takes everything elementwise that follows along with it:
 *
 *     norm, qkv, bias, head norms, rope, K and V to the cache   | whole heads
 *     attention                                                 | (row, KV heads)
 *     o, add to the residual                                    | columns
 *     norm, gate and up, SiLU                                   | columns
 *     down, add to the residual                                 | columns
 *
 * A norm needs whole rows.  With few rows every thread computes all of them for itself, which costs
 * less than a barrier; with many they are shared out and a barrier follows.  No split changes a bit:
 * each output is one chain of operations inside one kernel call, whoever calls it.
 *
 * Cost per row: 2 flops per weight of the linear layers plus 4 * dim per attended position and layer.
 */
#include "policy/forward.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "policy/rope.h"
#include "policy/team.h"

enum { OWN_NORM_ROWS = 8 }; /* up to so many rows each thread norms for itself */

/* The input of a linear layer, in the form that the target or the drafter reads. */
struct input {
	float *x;            /* [rows][x_stride] */
	struct q8_block *q8; /* [rows][q8_stride], filled for the drafter only */
	size_t x_stride, q8_stride;
};

struct own { /* one thread's memory */
	struct input normed; /* [OWN_NORM_ROWS][dim] */
	float *scores;       /* [heads per KV head][max_context padded to KV_TILE] */
};

struct forward {
	struct model_config config;
	const struct kernels *kernels;
	int rows_max, n_threads;
	int q_dim, kv_dim, group; /* group: query heads per KV head */
	int head_unit;            /* columns of qkv that are whole heads and whole panels */
	int span;                 /* KV heads whose outputs are whole INT8 groups */
	struct own *own;          /* [n_threads] */
	float *x, *delta;         /* [rows_max][x_stride] residual stream; what is added to it */
	float *qkv;               /* [rows_max][qkv_stride] */
	float *cos, *sin;         /* [rows_max][head_dim/2] */
	int *head_rows;           /* [rows_max] row of each logits row */
	struct input normed;      /* [rows_max][dim] */
	struct input attended;    /* [rows_max][q_dim] */
	struct input gated;       /* [rows_max][gate: ffn_padded, up: ffn_padded] */
	size_t x_stride, qkv_stride;

	/* The call in progress. */
	const struct policy *policy;
	const struct forward_row *rows;
	int n_rows, n_logits;
	enum policy_part part;
	float *logits;
	size_t logits_stride;
};

static size_t padded(int n) { return (size_t)panels(n) * PANEL; }
static int least(int a, int b) { return a < b ? a : b; }

/* The quantized weights that this call uses; without planes: the target's. */
static struct qmatrix draft_of(const struct forward *f, const struct linear *linear)
{
	if (f->part == PART_TARGET || !linear->draft.q) return (struct qmatrix){0};
	bool nested = f->part == PART_DRAFT_INT4 && linear->draft.low;
	return nested ? qmatrix_int4(&linear->draft) : linear->draft;
}

/* y [n_rows][y_stride] = input times the outputs [begin, end) of the layer, and their biases; begin on a panel. */
static void linear_apply(const struct forward *f, const struct linear *linear, const struct input *input,
                         int n_rows, float *y, size_t y_stride, struct range outputs)
{
	int begin = outputs.begin / PANEL, end = panels(outputs.end);
	if (outputs.begin >= outputs.end || n_rows == 0) return;
	struct qmatrix draft = draft_of(f, linear);
	if (draft.q && f->policy->draft_fp32)
		f->kernels->matmul_q32(y, y_stride, input->x, input->x_stride, n_rows, &draft, begin, end);
	else if (draft.q)
		f->kernels->matmul_q8(y, y_stride, input->q8, input->q8_stride, n_rows, &draft, begin, end);
	else
		f->kernels->matmul_bf16(y, y_stride, input->x, input->x_stride, n_rows, linear->target, linear->k,
		                        begin, end);
	for (int r = 0; r < n_rows && linear->bias; r++)
		f->kernels->add(y + (size_t)r * y_stride + (size_t)outputs.begin, linear->bias + outputs.begin,
		                outputs.end - outputs.begin);
}

/* Columns [begin, end) of a row to INT8; begin on a group. */
static void quantize(const struct forward *f, const struct input *input, int row, struct range columns)
{
	if (f->part == PART_TARGET || f->policy->draft_fp32 || columns.begin >= columns.end) return;
	f->kernels->quantize_q8(input->q8 + (size_t)row * input->q8_stride + columns.begin / Q_BLOCK,
	                        input->x + (size_t)row * input->x_stride + columns.begin,
	                        columns.end - columns.begin);
}

/* The residual stream normed: n rows, the i-th of them row pick[i], or i without pick. */
static const struct input *norm(const struct forward *f, const struct team *team, const uint16_t *weight,
                                const int *pick, int n)
{
	int dim = f->config.dim;
	bool own = n <= OWN_NORM_ROWS;
	const struct input *out = own ? &f->own[team->thread].normed : &f->normed;
	struct range rows = own ? (struct range){0, n} : team_share(team, n, 1);
	for (int i = rows.begin; i < rows.end; i++) {
		const float *x = f->x + (size_t)(pick ? pick[i] : i) * f->x_stride;
		f->kernels->rmsnorm(out->x + (size_t)i * out->x_stride, x, weight, dim, f->config.rms_eps);
		quantize(f, out, i, (struct range){0, dim});
	}
	if (!own) team_wait(team);
	return out;
}

/* x += this thread's columns of the layer applied to input. */
static void add_linear(const struct forward *f, const struct team *team, const struct linear *linear,
                       const struct input *input)
{
	struct range columns = team_share(team, f->config.dim, PANEL);
	linear_apply(f, linear, input, f->n_rows, f->delta, f->x_stride, columns);
	for (int r = 0; r < f->n_rows; r++) {
		size_t at = (size_t)r * f->x_stride + (size_t)columns.begin;
		f->kernels->add(f->x + at, f->delta + at, columns.end - columns.begin);
	}
}

/* Head h of a row's qkv: the head's norm, rotation, and K and V into the cache. */
static void finish_head(const struct forward *f, int layer, int r, int h)
{
	const struct model_config *c = &f->config;
	const struct layer *weights = &f->policy->layers[layer];
	const struct forward_row *row = &f->rows[r];
	float *x = f->qkv + (size_t)r * f->qkv_stride + (size_t)h * (size_t)c->head_dim;
	size_t half = (size_t)c->head_dim / 2;
	int kv_head = (h - c->n_heads) % c->n_kv_heads;
	if (h < c->n_heads + c->n_kv_heads) {
		const uint16_t *head_norm = h < c->n_heads ? weights->q_norm : weights->k_norm;
		if (head_norm) f->kernels->rmsnorm(x, x, head_norm, c->head_dim, c->rms_eps);
		f->kernels->rope(x, f->cos + (size_t)r * half, f->sin + (size_t)r * half, c->head_dim);
	}
	if (h < c->n_heads) return;
	if (h < c->n_heads + c->n_kv_heads) kv_seq_put_key(row->seq, row->position, layer, kv_head, x);
	else kv_seq_put_value(row->seq, row->position, layer, kv_head, x);
}

static void project_heads(const struct forward *f, const struct team *team, int layer)
{
	const struct layer *weights = &f->policy->layers[layer];
	struct range columns = team_share(team, weights->qkv.n, f->head_unit);
	const struct input *input = norm(f, team, weights->attention_norm, NULL, f->n_rows);
	linear_apply(f, &weights->qkv, input, f->n_rows, f->qkv, f->qkv_stride, columns);
	for (int r = 0; r < f->n_rows; r++) {
		for (int h = columns.begin / f->config.head_dim; h < columns.end / f->config.head_dim; h++)
			finish_head(f, layer, r, h);
	}
}

/* KV heads attended together: only the drafter needs whole INT8 groups. */
static int span_of(const struct forward *f) { return f->part == PART_TARGET ? 1 : f->span; }
static int spans_of(const struct forward *f) { return (f->config.n_kv_heads + span_of(f) - 1) / span_of(f); }

/* units: those of this thread, each a row and a span of KV heads. */
static void attend(const struct forward *f, const struct team *team, int layer, struct range units)
{
	const struct model_config *c = &f->config;
	int span = span_of(f), spans = spans_of(f), group_dim = f->group * c->head_dim;
	float scale = (float)(1.0 / sqrt((double)c->head_dim));
	for (int unit = units.begin; unit < units.end; unit++) {
		int r = unit / spans, first = unit % spans * span, end = least(first + span, c->n_kv_heads);
		const struct forward_row *row = &f->rows[r];
		float *out = f->attended.x + (size_t)r * f->attended.x_stride;
		const float *q = f->qkv + (size_t)r * f->qkv_stride;
		const struct kv_cache *cache = row->seq->cache;
		for (int h = first; h < end; h++)
			f->kernels->attend[kv_cache_type(cache)](
				out + h * group_dim, q + h * group_dim, f->group, c->head_dim,
				(const void *const *)row->seq->pages, kv_k_offset(cache, layer, h), kv_v_offset(cache, layer, h),
				row->position + 1, scale, f->own[team->thread].scores);
		quantize(f, &f->attended, r, (struct range){first * group_dim, end * group_dim});
	}
}

static void gate_up(const struct forward *f, const struct team *team, int layer)
{
	const struct layer *weights = &f->policy->layers[layer];
	int ffn = f->config.ffn_dim, up_at = policy_ffn_padded(&f->config);
	const struct input *input = norm(f, team, weights->ffn_norm, NULL, f->n_rows);
	struct range gate = team_share(team, ffn, Q_BLOCK), up = {gate.begin + up_at, gate.end + up_at};
	linear_apply(f, &weights->gate_up, input, f->n_rows, f->gated.x, f->gated.x_stride, gate);
	linear_apply(f, &weights->gate_up, input, f->n_rows, f->gated.x, f->gated.x_stride, up);
	for (int r = 0; r < f->n_rows; r++) {
		float *x = f->gated.x + (size_t)r * f->gated.x_stride;
		f->kernels->silu_mul(x + gate.begin, x + gate.begin, x + up.begin, gate.end - gate.begin);
		quantize(f, &f->gated, r, gate);
	}
}

/* Embeddings and rotation angles of this thread's rows. */
static void embed(const struct forward *f, const struct team *team)
{
	const struct model_config *c = &f->config;
	struct range rows = team_share(team, f->n_rows, 1);
	for (int r = rows.begin; r < rows.end; r++) {
		policy_embed(f->policy, f->rows[r].token, f->x + (size_t)r * f->x_stride);
		size_t half = (size_t)c->head_dim / 2;
		rope_angles(f->cos + (size_t)r * half, f->sin + (size_t)r * half, f->policy->rope_frequency,
		            f->policy->rope_scale, (int)half, f->rows[r].position);
	}
}

/* The unit before which `wanted` of the attention's cost lies; a unit costs its positions and a
 * constant. */
static int attend_bound(const struct forward *f, long wanted)
{
	int spans = spans_of(f);
	for (int r = 0; r < f->n_rows; r++) {
		long cost = f->rows[r].position + KV_TILE;
		if (wanted < cost * spans) return r * spans + (int)(wanted / cost);
		wanted -= cost * spans;
	}
	return f->n_rows * spans;
}

static struct range attend_share(const struct forward *f, const struct team *team)
{
	long total = 0;
	for (int r = 0; r < f->n_rows; r++) total += (f->rows[r].position + KV_TILE) * (long)spans_of(f);
	return (struct range){
		attend_bound(f, total * team->thread / team->n_threads),
		attend_bound(f, total * (team->thread + 1) / team->n_threads),
	};
}

/* What every thread of the team runs; arg: the struct forward. */
static void run_thread(const struct team *team, void *arg)
{
	const struct forward *f = arg;
	const struct policy *policy = f->policy;
	int n_layers = f->config.n_layers;
	struct range units = attend_share(f, team);
	embed(f, team);
	team_wait(team);
	for (int i = 0; i < n_layers; i++) {
		project_heads(f, team, i);
		if (i == n_layers - 1 && f->n_logits == 0) return; /* the last K and V are all that was wanted */
		team_wait(team);
		attend(f, team, i, units);
		team_wait(team);
		add_linear(f, team, &policy->layers[i].o, &f->attended);
		team_wait(team);
		gate_up(f, team, i);
		team_wait(team);
		add_linear(f, team, &policy->layers[i].down, &f->gated);
		team_wait(team);
	}
	const struct input *input = norm(f, team, policy->final_norm, f->head_rows, f->n_logits);
	linear_apply(f, &policy->head, input, f->n_logits, f->logits, f->logits_stride,
	             team_share(team, policy->head.n, PANEL));
}

/* Bugs of the caller end here, before memory is touched. */
static void check_rows(struct forward *f)
{
	f->n_logits = 0;
	for (int r = 0; r < f->n_rows; r++) f->n_logits += f->rows[r].logits_row >= 0;
	for (int i = 0; i < f->n_logits; i++) f->head_rows[i] = -1;
	for (int r = 0; r < f->n_rows; r++) {
		const struct forward_row *row = &f->rows[r];
		assert(row->token >= 0 && row->token < f->config.vocab_size);
		assert(row->position >= 0 && row->position < f->config.max_context);
		assert(row->position < row->seq->n_pages * KV_TILE && "kv_seq_reserve first");
		if (row->logits_row < 0) continue;
		assert(row->logits_row < f->n_logits && f->head_rows[row->logits_row] < 0);
		f->head_rows[row->logits_row] = r;
	}
}

void forward_run(struct forward *f, const struct policy *policy, enum policy_part part,
                 const struct forward_row *rows, int n_rows, float *logits, size_t stride)
{
	assert(n_rows >= 0 && n_rows <= f->rows_max);
	assert(model_config_same_shape(&f->config, &policy->config));
	assert(part == PART_TARGET || policy->drafts);
	if (n_rows == 0) return;
	f->policy = policy;
	f->part = part;
	f->rows = rows;
	f->n_rows = n_rows;
	f->logits = logits;
	f->logits_stride = stride;
	check_rows(f);
	assert(f->n_logits == 0 || stride >= forward_logits_stride(&f->config));
	team_run(f->n_threads, run_thread, f);
}

const float *forward_hidden(const struct forward *f, int logits_row)
{
	const struct input *input = f->n_logits <= OWN_NORM_ROWS ? &f->own[0].normed : &f->normed;

	assert(logits_row >= 0 && logits_row < f->n_logits);
	return input->x + (size_t)logits_row * input->x_stride;
}

size_t forward_logits_stride(const struct model_config *config) { return padded(config->vocab_size); }

void forward_set_kernels(struct forward *forward, const struct kernels *kernels)
{
	forward->kernels = kernels;
}

static int common_divisor(int a, int b) { return b == 0 ? a : common_divisor(b, a % b); }

static struct input input_take(int rows, int columns, int k)
{
	size_t groups = (size_t)(k + Q_BLOCK - 1) / Q_BLOCK;
	struct input input = {.x_stride = padded(columns), .q8_stride = groups};
	input.x = xaligned((size_t)rows * input.x_stride * sizeof *input.x);
	input.q8 = xaligned((size_t)rows * input.q8_stride * sizeof *input.q8);
	return input;
}

static void input_free(struct input *input)
{
	free(input->x);
	free(input->q8);
}

static float *floats(int rows, size_t columns) { return xaligned((size_t)rows * columns * sizeof(float)); }

struct forward *forward_open(const struct model_config *config, int rows_max, int n_threads)
{
	assert(rows_max >= 1 && n_threads >= 1);
	struct forward *f = xcalloc(1, sizeof *f);
	f->config = *config;
	f->kernels = kernels_best();
	f->rows_max = rows_max;
	f->n_threads = n_threads;
	f->q_dim = config->n_heads * config->head_dim;
	f->kv_dim = config->n_kv_heads * config->head_dim;
	f->group = config->n_heads / config->n_kv_heads;
	f->head_unit = config->head_dim / common_divisor(config->head_dim, PANEL) * PANEL;
	f->span = Q_BLOCK / common_divisor(f->group * config->head_dim, Q_BLOCK);
	f->x_stride = padded(config->dim);
	f->qkv_stride = padded(f->q_dim + 2 * f->kv_dim);
	f->x = floats(rows_max, f->x_stride);
	f->delta = floats(rows_max, f->x_stride);
	f->qkv = floats(rows_max, f->qkv_stride);
	f->cos = floats(rows_max, (size_t)config->head_dim / 2);
	f->sin = floats(rows_max, (size_t)config->head_dim / 2);
	f->head_rows = xcalloc((unsigned long)rows_max, sizeof *f->head_rows);
	f->normed = input_take(rows_max, config->dim, config->dim);
	f->attended = input_take(rows_max, f->q_dim, f->q_dim);
	f->gated = input_take(rows_max, 2 * policy_ffn_padded(config), config->ffn_dim);
	f->own = xcalloc((unsigned long)n_threads, sizeof *f->own);
	for (int t = 0; t < n_threads; t++) {
		f->own[t].normed = input_take(OWN_NORM_ROWS, config->dim, config->dim);
		/* Untouched, so not yet memory, beyond the longest context seen. */
		f->own[t].scores = floats(f->group, padded(config->max_context));
	}
	return f;
}

void forward_close(struct forward *f)
{
	if (!f) return;
	for (int t = 0; t < f->n_threads; t++) {
		input_free(&f->own[t].normed);
		free(f->own[t].scores);
	}
	input_free(&f->normed);
	input_free(&f->attended);
	input_free(&f->gated);
	free(f->x);
	free(f->delta);
	free(f->qkv);
	free(f->cos);
	free(f->sin);
	free(f->head_rows);
	free(f->own);
	free(f);
}

/* bench_subjects.c - the loops that are timed, and the list of them. */
#include "scheduler/bench/bench_subjects.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/bench/bench_data.h"

const int subject_rows[SUBJECT_ROWS] = {1, 2, 4, 8, 16, 32, 64};

/* ---- what is timed ---- */

/* This thread's panels of one layer; outputs of a layer are shared out as in a forward pass. */
struct piece {
	int layer;
	struct range own;
};

/* Takes what lies in one layer off units; false if nothing is left. */
static bool next_piece(struct range *units, int per_layer, const struct team *team, struct piece *piece)
{
	if (units->begin >= units->end) return false;
	int begin = units->begin % per_layer, n = units->end - units->begin;
	if (n > per_layer - begin) n = per_layer - begin;
	struct range share = team_share(team, n, 1);
	piece->layer = units->begin / per_layer;
	piece->own = (struct range){begin + share.begin, begin + share.end};
	units->begin += n;
	return true;
}

static struct range share_of(const struct team *team, struct range units)
{
	struct range share = team_share(team, units.end - units.begin, 1);
	return (struct range){units.begin + share.begin, units.begin + share.end};
}

static const struct stack *stack_of(const struct bench_subject *s)
{
	return s->cached ? &s->data->cached[s->part] : &s->data->stacks[s->part];
}

static void run_bf16(const struct bench_subject *s, const struct team *team, struct range units)
{
	const struct stack *stack = stack_of(s);
	size_t layer = packed_bf16_elements(s->n, s->k);
	for (struct piece piece; next_piece(&units, panels(s->n), team, &piece);)
		s->data->kernels->matmul_bf16(s->data->own[team->thread].y, (size_t)s->n, s->data->x, STACK_K, s->m,
		                              stack->packed + (size_t)(piece.layer % stack->layers) * layer, s->k,
		                              piece.own.begin, piece.own.end);
}

static void run_q8(const struct bench_subject *s, const struct team *team, struct range units)
{
	const struct stack *stack = stack_of(s);
	for (struct piece piece; next_piece(&units, panels(s->n), team, &piece);)
		s->data->kernels->matmul_q8(s->data->own[team->thread].y, (size_t)s->n, s->data->q8, STACK_K / Q_BLOCK,
		                            s->m, &stack->quantized[piece.layer % stack->layers], piece.own.begin,
		                            piece.own.end);
}

static void run_q32(const struct bench_subject *s, const struct team *team, struct range units)
{
	const struct stack *stack = stack_of(s);
	for (struct piece piece; next_piece(&units, panels(s->n), team, &piece);)
		s->data->kernels->matmul_q32(s->data->own[team->thread].y, (size_t)s->n, s->data->x, STACK_K, s->m,
		                             &stack->quantized[piece.layer % stack->layers], piece.own.begin,
		                             piece.own.end);
}

static void run_head(const struct bench_subject *s, const struct team *team, struct range units)
{
	struct range own = share_of(team, units);
	s->data->kernels->matmul_bf16(s->data->own[team->thread].y, (size_t)panels(s->n) * PANEL, s->data->x, STACK_K, 1,
	                              s->data->head, HEAD_K, own.begin, own.end);
}

/* A unit is one KV head of one sequence.  Its pages lie scattered: their number is a power of two, so an
 * odd factor permutes them. */
static void run_attend(const struct bench_subject *s, const struct team *team, struct range units)
{
	enum { PAGES = ATTEND_POSITIONS / KV_TILE };
	const struct bench_own *own = &s->data->own[team->thread];
	struct range heads = share_of(team, units);
	size_t page_bytes = 2 * KV_TILE * (size_t)s->k * kv_element_bytes((enum kv_type)s->part);
	for (int i = heads.begin; i < heads.end; i++) {
		const void *pages[PAGES];
		for (size_t p = 0; p < PAGES; p++)
			pages[p] = s->data->kv[s->part] +
			           ((size_t)i * PAGES + p) * 40503u % (s->data->kv_bytes / page_bytes) * page_bytes;
		s->data->kernels->attend[s->part](own->y, s->data->x, s->m, s->k, pages, 0, (size_t)s->k * KV_TILE,
		                                  ATTEND_POSITIONS, 0.125f, own->scores);
	}
}

static void quantize(const struct bench_subject *s, const struct team *team, struct range units,
                     enum quantizer quantizer)
{
	size_t chunk = packed_bf16_elements(CHUNK_N, HEAD_K);
	for (struct piece piece; next_piece(&units, panels(CHUNK_N), team, &piece);)
		s->data->kernels->quantize(&s->data->chunk[s->part], s->data->head + (size_t)piece.layer * chunk, quantizer,
		                           NULL, piece.own.begin, piece.own.end);
}

static void run_rtn(const struct bench_subject *s, const struct team *team, struct range units)
{
	quantize(s, team, units, QUANTIZE_RTN);
}

static void run_search(const struct bench_subject *s, const struct team *team, struct range units)
{
	quantize(s, team, units, QUANTIZE_SEARCH);
}

static void run_pack(const struct bench_subject *s, const struct team *team, struct range units)
{
	struct range own = share_of(team, units);
	pack_bf16(s->data->repacked, s->data->rows, STACK_N, STACK_K, own.begin, own.end);
}

static void run_quantize_q8(const struct bench_subject *s, const struct team *team, struct range units)
{
	struct range own = share_of(team, units);
	for (int r = own.begin; r < own.end; r++)
		s->data->kernels->quantize_q8(s->data->own[team->thread].q8, s->data->q8_rows + (size_t)r * STACK_K, STACK_K);
}

static void run_sampling(const struct bench_subject *s, const struct team *team, struct range units)
{
	static const struct sampling_options options = {.temperature = 1.0f, .top_p = 1.0f};
	struct range own = share_of(team, units);
	const float *logits = s->data->logits + (size_t)team->thread * (size_t)s->n;
	for (int i = own.begin; i < own.end; i++) {
		float logprob;
		sampler_draw(s->data->own[team->thread].sampler, logits, &options, 1, i, &logprob);
	}
}

/* ---- the list ---- */

static struct bench_subject *add(struct bench_subjects *subjects, struct bench_subject subject)
{
	assert(subjects->n < SUBJECTS_MAX);
	struct bench_subject *s = &subjects->list[subjects->n++];
	*s = subject;
	s->data = subjects->data;
	s->cursor = &s->own_cursor;
	return s;
}

static const char *format_text(enum format format) { return format == FORMAT_BF16 ? "bf16" : format_info(format)->name; }

/* A product of m rows with a format's stack, or with the matrix of it that stays in the cache. */
static void add_matmul(struct bench_subjects *subjects, enum format format, int m, bool cached, bool fp32)
{
	const struct stack *stack = &(cached ? subjects->data->cached : subjects->data->stacks)[format];
	bool bf16 = format == FORMAT_BF16;
	double ops = 2.0 * PANEL * stack->k * m;
	add(subjects, (struct bench_subject){
		.kernel = bf16 ? "matmul_bf16" : fp32 ? "matmul_q32" : "matmul_q8", .format = format_text(format),
		.m = m, .n = stack->n, .k = stack->k, .cached = cached, .units = panels(stack->n) * stack->layers,
		.work = {.bytes = (double)stack_layer_bytes(format, stack->n, stack->k) / panels(stack->n),
		         .fma_ops = bf16 || fp32 ? ops : 0, .int8_ops = bf16 || fp32 ? 0 : ops},
		.run = bf16 ? run_bf16 : fp32 ? run_q32 : run_q8, .part = (int)format,
	});
}

static void add_attend(struct bench_subjects *subjects, enum kv_type type, int query_heads, int head_dim)
{
	double elements = 2.0 * ATTEND_POSITIONS * head_dim, bytes = elements * (double)kv_element_bytes(type);
	add(subjects, (struct bench_subject){
		.kernel = "attend", .format = type == KV_BF16 ? "bf16" : "f32", .m = query_heads, .n = ATTEND_POSITIONS,
		.k = head_dim, .units = (int)((double)subjects->data->kv_bytes / bytes),
		.work = {.bytes = bytes, .fma_ops = 2.0 * elements * query_heads}, .run = run_attend, .part = (int)type,
	});
}

/* All of them read the head, each another part of it. */
static void add_quantize(struct bench_subjects *subjects, enum format format, bool search)
{
	int chunks = subjects->vocabulary / CHUNK_N;
	struct bench_subject *s = add(subjects, (struct bench_subject){
		.kernel = search ? "quantize_search" : "quantize_rtn", .format = format_text(format), .n = CHUNK_N,
		.k = HEAD_K, .units = chunks * panels(CHUNK_N), .work = {.bytes = 2.0 * PANEL * HEAD_K},
		.run = search ? run_search : run_rtn, .part = (int)format,
	});
	s->cursor = &subjects->data->head_cursor;
}

static void add_others(struct bench_subjects *subjects)
{
	int n = subjects->vocabulary;
	add(subjects, (struct bench_subject){
		.kernel = "pack_bf16", .format = "bf16", .n = STACK_N, .k = STACK_K, .units = panels(STACK_N),
		.work = {.bytes = 2.0 * PANEL * STACK_K}, .run = run_pack});
	add(subjects, (struct bench_subject){
		.kernel = "quantize_q8", .format = "f32", .m = 1, .k = STACK_K, .units = Q8_ROWS,
		.work = {.bytes = 4.0 * STACK_K}, .run = run_quantize_q8});
	add(subjects, (struct bench_subject){
		.kernel = "head_bf16", .format = "bf16", .m = 1, .n = n, .k = HEAD_K, .units = panels(n),
		.work = {.bytes = 2.0 * PANEL * HEAD_K, .fma_ops = 2.0 * PANEL * HEAD_K}, .run = run_head});
	add(subjects, (struct bench_subject){
		.kernel = "sampling", .format = "f32", .m = 1, .n = n, .units = 64 * subjects->data->n_threads, .cached = true,
		.work = {.bytes = 4.0 * n}, .run = run_sampling});
}

/* Products by rows, each round of formats reading all stacks once; attention, whose keys and values are
 * in buffers of their own, between them. */
static void add_products(struct bench_subjects *subjects, bool quick)
{
	static const struct { int query_heads, head_dim; } groups[SUBJECT_ROWS] = {
		{1, 64}, {2, 64}, {4, 64}, {7, 64}, {8, 64}, {1, 128}, {4, 128},
	};
	static const enum format fp32_formats[] = {FORMAT_INT4, FORMAT_INT8, FORMAT_NVFP4};
	for (int i = 0; i < SUBJECT_ROWS; i += quick ? 3 : 1) {
		add_matmul(subjects, FORMAT_BF16, subject_rows[i], false, false);
		for (enum format format = 0; format < N_FORMATS; format++)
			add_matmul(subjects, format, subject_rows[i], false, false);
		for (int type = 0; type < N_KV_TYPES; type++)
			add_attend(subjects, (enum kv_type)type, groups[i].query_heads, groups[i].head_dim);
		for (int f = 0; i % 3 == 0 && f < 3; f++) add_matmul(subjects, fp32_formats[f], subject_rows[i], false, true);
	}
}

struct bench_subjects *bench_subjects_open(const struct kernels *kernels, const struct kernels *fill, int n_threads,
                                           bool quick, size_t weights_min)
{
	struct bench_subjects *subjects = xcalloc(1, sizeof *subjects);
	subjects->vocabulary = quick ? 32000 : 151936;
	subjects->data = bench_data_open(kernels, fill, n_threads, subjects->vocabulary, weights_min / STACKS,
	                                 quick ? 8 << 20 : 64 << 20);
	for (enum format format = 0; format <= FORMAT_BF16; format++)
		subjects->weight_bytes += (size_t)subjects->data->stacks[format].layers *
		                          stack_layer_bytes(format, STACK_N, STACK_K);
	add_products(subjects, quick);
	for (enum format format = 0; format < N_FORMATS; format++) {
		add_quantize(subjects, format, false);
		add_quantize(subjects, format, true);
	}
	add_others(subjects);
	for (int m = 16; m <= 64; m += 48) {
		for (enum format format = 0; format <= FORMAT_BF16; format++) add_matmul(subjects, format, m, true, false);
		add_matmul(subjects, FORMAT_INT4, m, true, true);
	}
	return subjects;
}

void bench_subjects_close(struct bench_subjects *subjects)
{
	if (!subjects) return;
	bench_data_close(subjects->data);
	free(subjects);
}

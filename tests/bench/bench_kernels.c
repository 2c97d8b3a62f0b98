/* bench_kernels.c - what one thread reaches with each table of kernels, beside what the machine gives.
 *
 *     bench_kernels [MiB of weights for the streaming rows, default 256]
 *
 * Few rows are bound by reading the weights: GB/s of weights beside a plain read.  Many
 * rows are bound by arithmetic: GFLOP/s beside fused multiply-adds from registers.  All in one run,
 * interleaved, the median of REPEATS, in seconds of this thread's processor time, since the machine may
 * be shared. */
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "configs/err.h"
#include "quant/bf16.h"
#include "quant/format_int4.h"

enum { REPEATS = 11, STREAM_K = 2048, GEMM_K = 2048, GEMM_N = 3072, ROWS_MAX = 64 };
enum { HEAD_DIM = 64, CONTEXT = 1024, ATTEND_REPEATS = 20 };

static volatile float sink;

static double seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One thing to measure: run() does `work` units (bytes or operations). */
struct subject {
	char name[64];
	const char *unit; /* of work / 1e9 / second */
	double work;
	void (*run)(const struct subject *);
	const struct kernels *kernels;
	int m;
	double samples[REPEATS];
};

static struct {
	int stream_n;
	uint16_t *stream;        /* packed [stream_n][STREAM_K] bf16 */
	struct int4_block *int4; /* the same shape */
	uint16_t *gemm;          /* packed [GEMM_N][GEMM_K] bf16 */
	struct int4_block *gemm_int4;
	float *x, *y; /* [ROWS_MAX][K], [ROWS_MAX][N] */
	struct q8_block *q8;
	const uint16_t **pages;
	float *scores;
} data;

/* Four streams with prefetching, as the kernels read. */
__attribute__((target("avx2"))) static void read_stream(const struct subject *s)
{
	enum { STREAMS = 4, AHEAD = 1024 / 32 };
	const __m256i *p = (const __m256i *)(const void *)data.stream;
	size_t quarter = (size_t)s->work / 32 / STREAMS;
	__m256i acc[STREAMS] = {_mm256_setzero_si256()};
	for (size_t i = 0; i < quarter; i++) {
		for (size_t c = 0; c < STREAMS; c++) {
			_mm_prefetch((const char *)(p + c * quarter + i + AHEAD), _MM_HINT_T0);
			acc[c] = _mm256_xor_si256(acc[c], p[c * quarter + i]);
		}
	}
	for (int c = 1; c < STREAMS; c++) acc[0] = _mm256_xor_si256(acc[0], acc[c]);
	sink = (float)_mm256_extract_epi32(acc[0], 0);
}

__attribute__((target("avx2,fma"))) static void fma_registers(const struct subject *s)
{
	enum { CHAINS = 12 };
	__m256 acc[CHAINS], x = _mm256_set1_ps(sink), w = _mm256_set1_ps(0.5f);
	for (int c = 0; c < CHAINS; c++) acc[c] = _mm256_set1_ps((float)c);
	for (long i = 0; i < (long)(s->work / (2 * 8 * CHAINS)); i++)
		for (int c = 0; c < CHAINS; c++) acc[c] = _mm256_fmadd_ps(acc[c], w, x);
	for (int c = 1; c < CHAINS; c++) acc[0] = _mm256_add_ps(acc[0], acc[c]);
	sink = _mm256_cvtss_f32(acc[0]);
}

__attribute__((target("avx2"))) static void int8_registers(const struct subject *s)
{
	enum { CHAINS = 8 };
	__m256i acc[CHAINS], x = _mm256_set1_epi8((char)(sink > 0.0f)), w = _mm256_set1_epi8(3);
	for (int c = 0; c < CHAINS; c++) acc[c] = _mm256_set1_epi16((short)c);
	for (long i = 0; i < (long)(s->work / (2 * 32 * CHAINS)); i++)
		for (int c = 0; c < CHAINS; c++)
			acc[c] = _mm256_add_epi16(acc[c], _mm256_maddubs_epi16(w, _mm256_xor_si256(acc[c], x)));
	for (int c = 1; c < CHAINS; c++) acc[0] = _mm256_add_epi16(acc[0], acc[c]);
	sink = (float)_mm256_extract_epi16(acc[0], 0);
}

static void stream_bf16(const struct subject *s)
{
	s->kernels->matmul_bf16(data.y, (size_t)data.stream_n, data.x, STREAM_K, s->m, data.stream, STREAM_K, 0,
	                        panels(data.stream_n));
}

static void stream_int4(const struct subject *s)
{
	s->kernels->matmul_int4(data.y, (size_t)data.stream_n, data.q8, STREAM_K / INT4_GROUP, s->m, data.int4,
	                        STREAM_K, 0, panels(data.stream_n));
}

static void gemm_bf16(const struct subject *s)
{
	s->kernels->matmul_bf16(data.y, GEMM_N, data.x, GEMM_K, s->m, data.gemm, GEMM_K, 0, panels(GEMM_N));
}

static void gemm_int4(const struct subject *s)
{
	s->kernels->matmul_int4(data.y, GEMM_N, data.q8, GEMM_K / INT4_GROUP, s->m, data.gemm_int4, GEMM_K, 0,
	                        panels(GEMM_N));
}

static void attend_heads(const struct subject *s)
{
	for (int i = 0; i < ATTEND_REPEATS; i++)
		s->kernels->attend(data.y, data.x, s->m, HEAD_DIM, data.pages, 0, HEAD_DIM * KV_TILE, CONTEXT, 0.1f,
		                   data.scores);
}

static void quantize_int4(const struct subject *s)
{
	(void)s;
	int4_quantize(data.gemm_int4, data.stream, GEMM_N, GEMM_K, 0, panels(GEMM_N));
}

static void pack_gemm(const struct subject *s)
{
	(void)s;
	pack_bf16(data.gemm, data.stream, GEMM_N, GEMM_K, 0, panels(GEMM_N));
}

static void quantize_activations(const struct subject *s)
{
	for (int r = 0; r < ROWS_MAX; r++)
		s->kernels->quantize_q8(data.q8 + r * (GEMM_K / INT4_GROUP), data.x + r * GEMM_K, GEMM_K);
}

static void sum_exp(const struct subject *s)
{
	sink = s->kernels->sum_exp(data.x, ROWS_MAX * GEMM_K, 4.0f, 1.0f);
}

static void argmax(const struct subject *s)
{
	float max;
	int index;
	s->kernels->argmax(data.x, ROWS_MAX * GEMM_K, &max, &index);
	sink = max;
}

static void silu_mul(const struct subject *s)
{
	s->kernels->silu_mul(data.y, data.x, data.x, ROWS_MAX * GEMM_K);
}

static void prepare(int mib)
{
	size_t elements = (size_t)mib << 19;
	data.stream_n = (int)(elements / STREAM_K) / PANEL * PANEL;
	data.stream = xaligned(elements * 2);
	data.int4 = xaligned(int4_bytes(data.stream_n, STREAM_K));
	data.gemm = xaligned(packed_bf16_elements(GEMM_N, GEMM_K) * 2);
	data.gemm_int4 = xaligned(int4_bytes(GEMM_N, GEMM_K));
	data.x = xaligned(sizeof(float) * ROWS_MAX * GEMM_K);
	size_t y_stream = (size_t)data.stream_n * 6, y_gemm = ROWS_MAX * GEMM_N;
	data.y = xaligned(sizeof(float) * (y_stream > y_gemm ? y_stream : y_gemm));
	data.q8 = xaligned(sizeof(struct q8_block) * ROWS_MAX * GEMM_K / INT4_GROUP);
	data.scores = xaligned(sizeof(float) * 8 * CONTEXT);
	data.pages = xaligned(sizeof *data.pages * CONTEXT / KV_TILE);

	uint32_t state = 1;
	for (size_t i = 0; i < elements; i++) {
		state = state * 1664525u + 1013904223u;
		data.stream[i] = (uint16_t)((state >> 31 << 15) | (0x3c00u + (state >> 16 & 0x1ff)));
	}
	for (size_t i = 0; i < ROWS_MAX * GEMM_K; i++) data.x[i] = bf16_to_f32(data.stream[i]) * 64.0f;
	memset(data.int4, 0x3c, int4_bytes(data.stream_n, STREAM_K));
	pack_bf16(data.gemm, data.stream, GEMM_N, GEMM_K, 0, panels(GEMM_N));
	for (int p = 0; p < CONTEXT / KV_TILE; p++)
		data.pages[p] = data.stream + (size_t)p * 2 * HEAD_DIM * KV_TILE;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static struct subject subjects[64];
static int n_subjects;

static void subject_add(const char *name, const char *unit, double work, void (*run)(const struct subject *),
                        const struct kernels *kernels, int m)
{
	struct subject *s = &subjects[n_subjects++];
	snprintf(s->name, sizeof s->name, "%s%s%s", kernels ? kernels->name : "", kernels ? " " : "", name);
	s->unit = unit;
	s->work = work;
	s->run = run;
	s->kernels = kernels;
	s->m = m;
}

static void subjects_of(const struct kernels *k)
{
	static const int few[] = {1, 2, 4, 6}, many[] = {8, 16, 32, 64};
	double stream = 2.0 * STREAM_K * data.stream_n, stream4 = (double)int4_bytes(data.stream_n, STREAM_K);
	double gemm = 2.0 * GEMM_K * GEMM_N;
	char name[32];
	for (int i = 0; i < 4; i++) {
		snprintf(name, sizeof name, "bf16 streamed, M=%d", few[i]);
		subject_add(name, "GB/s", stream, stream_bf16, k, few[i]);
	}
	for (int i = 0; i < 4; i++) {
		snprintf(name, sizeof name, "int4 streamed, M=%d", few[i]);
		subject_add(name, "GB/s", stream4, stream_int4, k, few[i]);
	}
	for (int i = 0; i < 4; i++) {
		snprintf(name, sizeof name, "bf16, M=%d", many[i]);
		subject_add(name, "GFLOP/s", gemm * many[i], gemm_bf16, k, many[i]);
	}
	for (int i = 0; i < 4; i++) {
		snprintf(name, sizeof name, "int4, M=%d", many[i]);
		subject_add(name, "GOP/s", gemm * many[i], gemm_int4, k, many[i]);
	}
	for (int heads = 1; heads <= 4; heads++) {
		snprintf(name, sizeof name, "attend, %d head%s", heads, heads > 1 ? "s" : "");
		subject_add(name, "GFLOP/s", 4.0 * CONTEXT * HEAD_DIM * heads * ATTEND_REPEATS, attend_heads, k,
		            heads);
	}
	subject_add("quantize_q8", "Gvalue/s", ROWS_MAX * GEMM_K, quantize_activations, k, 0);
	subject_add("sum_exp", "Gvalue/s", ROWS_MAX * GEMM_K, sum_exp, k, 0);
	subject_add("argmax", "Gvalue/s", ROWS_MAX * GEMM_K, argmax, k, 0);
	subject_add("silu_mul", "Gvalue/s", ROWS_MAX * GEMM_K, silu_mul, k, 0);
}

int main(int argc, char **argv)
{
	int mib = argc > 1 ? atoi(argv[1]) : 256;
	if (mib < 32) {
		fprintf(stderr, "bench_kernels: expected at least 32 MiB of weights, got '%s'\n", argv[1]);
		return 1;
	}
	if (!kernels_named("avx2")) {
		printf("skipped: this CPU has no AVX2, and the scalar table is a definition, not a competitor\n");
		return 0;
	}
	prepare(mib);
	subject_add("read, four streams", "GB/s", (double)mib * 1048576, read_stream, NULL, 0);
	subject_add("FMA from registers", "GFLOP/s", 1e9, fma_registers, NULL, 0);
	subject_add("maddubs + add16 from registers", "GOP/s", 2e9, int8_registers, NULL, 0);
	subjects_of(kernels_named("avx2"));
	if (kernels_named("avx512")) subjects_of(kernels_named("avx512"));
	subject_add("pack_bf16", "Gweight/s", (double)GEMM_N * GEMM_K, pack_gemm, NULL, 0);
	subject_add("int4_quantize", "Gweight/s", (double)GEMM_N * GEMM_K, quantize_int4, NULL, 0);

	for (int r = 0; r < REPEATS; r++) {
		for (int i = 0; i < n_subjects; i++) {
			double start = seconds();
			subjects[i].run(&subjects[i]);
			subjects[i].samples[r] = subjects[i].work / (seconds() - start) * 1e-9;
		}
	}
	for (int i = 0; i < n_subjects; i++) {
		struct subject *s = &subjects[i];
		qsort(s->samples, REPEATS, sizeof *s->samples, compare);
		printf("%-34s %8.2f %s\n", s->name, s->samples[REPEATS / 2], s->unit);
	}
	return 0;
}

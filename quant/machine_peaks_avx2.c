/* machine_peaks_avx2.c - the loops of machine_peaks.c in 256-bit vectors. */
#include <immintrin.h>

#include "quant/machine_peaks_loops.h"

enum { INT8_CHAINS = 6, FMA_ROUND = 8 * PEAK_CHAINS, INT8_ROUND = 32 * INT8_CHAINS * PEAK_PRODUCTS };

/* The compiler must take v for a new value each time. */
#define RENEW(v) __asm__ volatile("" : "+x"(v))

static inline __attribute__((always_inline)) uint32_t read_all(const char *buffer, size_t bytes, const int ahead)
{
	__m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
	for (size_t i = 0; i < bytes; i += sizeof sum) {
		for (size_t j = 0; ahead && j < sizeof sum; j += 64) _mm_prefetch(buffer + i + j + ahead, _MM_HINT_T0);
		for (int j = 0; j < 4; j++)
			sum[j] = _mm256_add_epi32(sum[j], _mm256_load_si256((const __m256i *)(const void *)(buffer + i) + j));
	}
	sum[0] = _mm256_add_epi32(_mm256_add_epi32(sum[0], sum[1]), _mm256_add_epi32(sum[2], sum[3]));
	return (uint32_t)_mm256_extract_epi32(sum[0], 0) ^ (uint32_t)_mm256_extract_epi32(sum[0], 7);
}

static uint32_t read_plain(const char *buffer, size_t bytes) { return read_all(buffer, bytes, 0); }
static uint32_t read_ahead(const char *buffer, size_t bytes) { return read_all(buffer, bytes, PEAK_READ_BYTES / 2); }

static float fma_rounds(long rounds)
{
	__m256 acc[PEAK_CHAINS], half = _mm256_set1_ps(0.5f);
	for (int c = 0; c < PEAK_CHAINS; c++) acc[c] = _mm256_set1_ps((float)c);
	for (; rounds > 0; rounds--) {
		RENEW(half);
		for (int c = 0; c < PEAK_CHAINS; c++) acc[c] = _mm256_fmadd_ps(acc[c], half, half);
	}
	for (int c = 1; c < PEAK_CHAINS; c++) acc[0] = _mm256_add_ps(acc[0], acc[c]);
	return _mm256_cvtss_f32(acc[0]);
}

static uint32_t int8_rounds(long rounds)
{
	__m256i acc[INT8_CHAINS], w = _mm256_set1_epi8(3), x = _mm256_set1_epi8(1);
	for (int c = 0; c < INT8_CHAINS; c++) acc[c] = _mm256_setzero_si256();
	for (; rounds > 0; rounds--) {
		__m256i by16[INT8_CHAINS];
		for (int p = 0; p < PEAK_PRODUCTS; p++) {
			RENEW(w);
			for (int c = 0; c < INT8_CHAINS; c++) {
				RENEW(x);
				__m256i pair = _mm256_maddubs_epi16(w, x);
				by16[c] = p ? _mm256_add_epi16(by16[c], pair) : pair;
			}
		}
		for (int c = 0; c < INT8_CHAINS; c++)
			acc[c] = _mm256_add_epi32(acc[c], _mm256_madd_epi16(by16[c], _mm256_set1_epi16(1)));
	}
	for (int c = 1; c < INT8_CHAINS; c++) acc[0] = _mm256_add_epi32(acc[0], acc[c]);
	return (uint32_t)_mm256_extract_epi32(acc[0], 0);
}

const struct peak_loops peak_loops_avx2 = {read_plain, read_ahead, fma_rounds, int8_rounds, FMA_ROUND, INT8_ROUND};

/* machine_peaks_avx512.c - the loops of machine_peaks.c in 512-bit vectors, without and with VNNI. */
#include <immintrin.h>

#include "quant/machine_peaks_loops.h"

enum { FMA_ROUND = 16 * PEAK_CHAINS, INT8_ROUND = 64 * PEAK_CHAINS * PEAK_PRODUCTS };

/* The compiler must take v for a new value each time. */
#define RENEW(v) __asm__ volatile("" : "+v"(v))

/* _mm512_reduce_add_epi32 adds signed numbers, which must not overflow. */
static uint32_t lane_sum(__m512i v)
{
	uint32_t lanes[16], sum = 0;
	_mm512_storeu_si512(lanes, v);
	for (int i = 0; i < 16; i++) sum += lanes[i];
	return sum;
}

static inline __attribute__((always_inline)) uint32_t read_all(const char *buffer, size_t bytes, const int ahead)
{
	__m512i sum[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
	for (size_t i = 0; i < bytes; i += sizeof sum) {
		for (size_t j = 0; ahead && j < sizeof sum; j += 64) _mm_prefetch(buffer + i + j + ahead, _MM_HINT_T0);
		for (int j = 0; j < 4; j++) sum[j] = _mm512_add_epi32(sum[j], _mm512_load_si512(buffer + i + 64 * j));
	}
	return lane_sum(_mm512_add_epi32(_mm512_add_epi32(sum[0], sum[1]), _mm512_add_epi32(sum[2], sum[3])));
}

static uint32_t read_plain(const char *buffer, size_t bytes) { return read_all(buffer, bytes, 0); }
static uint32_t read_ahead(const char *buffer, size_t bytes) { return read_all(buffer, bytes, PEAK_READ_BYTES / 2); }

static float fma_rounds(long rounds)
{
	__m512 acc[PEAK_CHAINS], half = _mm512_set1_ps(0.5f);
	for (int c = 0; c < PEAK_CHAINS; c++) acc[c] = _mm512_set1_ps((float)c);
	for (; rounds > 0; rounds--) {
		RENEW(half);
		for (int c = 0; c < PEAK_CHAINS; c++) acc[c] = _mm512_fmadd_ps(acc[c], half, half);
	}
	for (int c = 1; c < PEAK_CHAINS; c++) acc[0] = _mm512_add_ps(acc[0], acc[c]);
	return _mm512_cvtss_f32(acc[0]);
}

static uint32_t int8_rounds(long rounds)
{
	__m512i acc[PEAK_CHAINS], w = _mm512_set1_epi8(3), x = _mm512_set1_epi8(1);
	for (int c = 0; c < PEAK_CHAINS; c++) acc[c] = _mm512_setzero_si512();
	for (; rounds > 0; rounds--) {
		__m512i by16[PEAK_CHAINS];
		for (int p = 0; p < PEAK_PRODUCTS; p++) {
			RENEW(w);
			for (int c = 0; c < PEAK_CHAINS; c++) {
				RENEW(x);
				__m512i pair = _mm512_maddubs_epi16(w, x);
				by16[c] = p ? _mm512_add_epi16(by16[c], pair) : pair;
			}
		}
		for (int c = 0; c < PEAK_CHAINS; c++)
			acc[c] = _mm512_add_epi32(acc[c], _mm512_madd_epi16(by16[c], _mm512_set1_epi16(1)));
	}
	for (int c = 1; c < PEAK_CHAINS; c++) acc[0] = _mm512_add_epi32(acc[0], acc[c]);
	return lane_sum(acc[0]);
}

__attribute__((target("avx512vnni"))) static uint32_t vnni_rounds(long rounds)
{
	__m512i acc[PEAK_CHAINS], w = _mm512_set1_epi8(3), x = _mm512_set1_epi8(1);
	for (int c = 0; c < PEAK_CHAINS; c++) acc[c] = _mm512_setzero_si512();
	for (; rounds > 0; rounds--)
		for (int p = 0; p < PEAK_PRODUCTS; p++)
			for (int c = 0; c < PEAK_CHAINS; c++) acc[c] = _mm512_dpbusd_epi32(acc[c], w, x);
	for (int c = 1; c < PEAK_CHAINS; c++) acc[0] = _mm512_add_epi32(acc[0], acc[c]);
	return lane_sum(acc[0]);
}

const struct peak_loops peak_loops_avx512 = {read_plain, read_ahead, fma_rounds, int8_rounds, FMA_ROUND, INT8_ROUND};
const struct peak_loops peak_loops_avx512vnni = {read_plain, read_ahead, fma_rounds, vnni_rounds, FMA_ROUND, INT8_ROUND};

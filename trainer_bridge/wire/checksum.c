/* checksum.c - XXH3 through the library's own dispatch: inlined it would be compiled for the oldest CPU, and a
 * checksum that is slower than the socket would be what a push waits for. */
#include "trainer_bridge/wire/checksum.h"

#include <assert.h>
#if defined(__x86_64__)
#include <immintrin.h>
#include <xxh_x86dispatch.h>

__attribute__((target("avx"))) static void clear_upper_halves(void)
{
	_mm256_zeroupper();
}

/* The library's AVX code may return with the upper halves of the vector registers in use (0.8.1), and then all that
 * is compiled for SSE runs slower from there on: a loop of fmaf on Emerald Rapids 56 times. */
static void leave_library(void)
{
	if (__builtin_cpu_supports("avx"))
		clear_upper_halves();
}
#else
#include <xxhash.h>

static void leave_library(void)
{
}
#endif

uint64_t checksum(const void *bytes, size_t n_bytes)
{
	uint64_t sum = XXH3_64bits(bytes, n_bytes);

	leave_library();
	return sum;
}

struct checksum *checksum_open(void)
{
	union { XXH3_state_t *state; struct checksum *sum; } opaque = {.state = XXH3_createState()};

	assert(opaque.state);
	checksum_begin(opaque.sum);
	return opaque.sum;
}

static XXH3_state_t *state_of(struct checksum *sum)
{
	union { XXH3_state_t *state; struct checksum *sum; } opaque = {.sum = sum};
	return opaque.state;
}

void checksum_close(struct checksum *sum)
{
	if (sum)
		XXH3_freeState(state_of(sum));
}

void checksum_begin(struct checksum *sum)
{
	XXH3_64bits_reset(state_of(sum));
}

void checksum_add(struct checksum *sum, const void *bytes, size_t n_bytes)
{
	XXH3_64bits_update(state_of(sum), bytes, n_bytes);
	leave_library();
}

uint64_t checksum_end(const struct checksum *sum)
{
	union { const struct checksum *sum; const XXH3_state_t *state; } opaque = {.sum = sum};
	uint64_t digest = XXH3_64bits_digest(opaque.state);

	leave_library();
	return digest;
}

/* ugly.h - seeded test data with the values that break kernels: zeros of both signs, denormals,
 * outliers and tiny numbers among ordinary ones; and exactly sized buffers, so that the address
 * sanitizer sees every read beyond an end. */
#ifndef TESTS_SUPPORT_UGLY_H
#define TESTS_SUPPORT_UGLY_H

#include <stddef.h>
#include <stdint.h>

struct ugly {
	uint64_t state;
};

uint32_t ugly_next(struct ugly *u);
int ugly_below(struct ugly *u, int n);

float ugly_normal(struct ugly *u); /* mean 0, variance 1, tails to 6 */
float ugly_float(struct ugly *u);  /* finite; products of two of them do not overflow */

/* Owned by the caller; free(). */
float *ugly_floats(struct ugly *u, size_t n);
uint16_t *ugly_bf16(struct ugly *u, size_t n);
float *normal_floats(struct ugly *u, size_t n);
uint16_t *normal_bf16(struct ugly *u, size_t n, float scale);

/* Bytes of a recognisable pattern: what a kernel must not touch stays equal. */
void *canary_bytes(size_t size);

#endif

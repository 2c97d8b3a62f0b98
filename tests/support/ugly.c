/* ugly.c - see ugly.h.  Generator: splitmix64 (Steele, Lea, Flood 2014). */
#include "tests/support/ugly.h"

#include <stdlib.h>
#include <string.h>

#include "quant/bf16.h"

uint32_t ugly_next(struct ugly *u)
{
	uint64_t z = u->state += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return (uint32_t)((z ^ (z >> 31)) >> 32);
}

int ugly_below(struct ugly *u, int n) { return (int)((uint64_t)ugly_next(u) * (uint64_t)n >> 32); }

/* Twelve uniform variables: close enough to normal, and no libm. */
float ugly_normal(struct ugly *u)
{
	float sum = -6.0f;
	for (int i = 0; i < 12; i++) sum += (float)(ugly_next(u) >> 8) * 0x1p-24f;
	return sum;
}

float ugly_float(struct ugly *u)
{
	float v = ugly_normal(u);
	switch (ugly_below(u, 16)) {
	case 0: return 0.0f;
	case 1: return -0.0f;
	case 2: return v * 0x1p-140f; /* denormal */
	case 3: return v * 1e-20f;
	case 4: return v * 3000.0f;
	default: return v;
	}
}

static float *floats(struct ugly *u, size_t n, float (*draw)(struct ugly *))
{
	float *x = malloc(n * sizeof *x);
	for (size_t i = 0; i < n; i++) x[i] = draw(u);
	return x;
}

static uint16_t *halves(struct ugly *u, size_t n, float (*draw)(struct ugly *), float scale)
{
	uint16_t *x = malloc(n * sizeof *x);
	for (size_t i = 0; i < n; i++) x[i] = bf16_from_f32(scale * draw(u));
	return x;
}

float *ugly_floats(struct ugly *u, size_t n) { return floats(u, n, ugly_float); }
float *normal_floats(struct ugly *u, size_t n) { return floats(u, n, ugly_normal); }
uint16_t *ugly_bf16(struct ugly *u, size_t n) { return halves(u, n, ugly_float, 1.0f); }
uint16_t *normal_bf16(struct ugly *u, size_t n, float scale) { return halves(u, n, ugly_normal, scale); }

void *canary_bytes(size_t size)
{
	void *bytes = malloc(size);
	memset(bytes, 0xa5, size);
	return bytes;
}

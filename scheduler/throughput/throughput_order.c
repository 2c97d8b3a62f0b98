/* throughput_order.c - a seeded shuffle, counterbalanced by its mirror image. */
#include "scheduler/throughput/throughput_order.h"

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* From 0 to below n, each equally likely. */
static int draw(uint64_t *state, int n)
{
	uint64_t limit = UINT64_MAX - UINT64_MAX % (uint64_t)n, x;
	do x = next_random(state);
	while (x >= limit);
	return (int)(x % (uint64_t)n);
}

static void swap(int *a, int *b)
{
	int was = *a;
	*a = *b;
	*b = was;
}

void throughput_order(int *order, int n, int repetition, uint64_t seed)
{
	uint64_t state = seed;
	uint64_t pair = next_random(&state) ^ (uint64_t)(repetition / 2);

	for (int i = 0; i < n; i++) order[i] = i;
	for (int i = n - 1; i > 0; i--) swap(&order[i], &order[draw(&pair, i + 1)]);
	for (int i = 0; repetition % 2 == 1 && i < n / 2; i++) swap(&order[i], &order[n - 1 - i]);
}

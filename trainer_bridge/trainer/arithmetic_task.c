/* arithmetic_task.c - see arithmetic_task.h. */
#include "trainer_bridge/trainer/arithmetic_task.h"

#include <stdio.h>
#include <string.h>

#include <xxhash.h>

#include "rollout/sampling/noise.h"

/* Random numbers of one problem: one Philox block per draw. */
struct draws {
	uint64_t seed, index;
	uint32_t n;
};

/* Uniform in 0 .. n - 1 (up to a bias of n / 2^32). */
static int below(struct draws *draws, int n)
{
	const uint32_t key[2] = { (uint32_t)draws->seed, (uint32_t)(draws->seed >> 32) };
	const uint32_t low = (uint32_t)draws->index, high = (uint32_t)(draws->index >> 32);
	const uint32_t counter[4] = { low, high, draws->n++, 0x61726974u };
	uint32_t out[4];
	philox4x32(out, counter, key);
	return (int)((uint64_t)out[0] * (uint64_t)n >> 32);
}

static void write_texts(struct arithmetic_problem *p)
{
	char step[ARITHMETIC_STEP_MAX];
	int at = 0;
	for (int i = 0; i < p->n_operands; i++)
		at += snprintf(p->prompt + at, sizeof p->prompt - (size_t)at, i ? "%+d" : "%d", p->operands[i]);
	snprintf(p->prompt + at, sizeof p->prompt - (size_t)at, "=\n");
	at = 0;
	for (int i = 0; i + 1 < p->n_operands; i++) {
		arithmetic_step(p, i, step);
		at += snprintf(p->response + at, sizeof p->response - (size_t)at, "%s\n", step);
	}
	snprintf(p->response + at, sizeof p->response - (size_t)at, "#%d", p->answer);
}

void arithmetic_generate(struct arithmetic_problem *p, uint64_t seed, uint64_t index)
{
	struct draws draws = { seed, index, 0 };
	int range = ARITHMETIC_OPERANDS_MAX - ARITHMETIC_OPERANDS_MIN + 1;
	int a = below(&draws, range), b = below(&draws, range); /* the smaller: short chains are commoner */
	memset(p, 0, sizeof *p);
	p->n_operands = ARITHMETIC_OPERANDS_MIN + (a < b ? a : b);
	p->habit = below(&draws, 100);
	p->answer = p->operands[0] = 1 + below(&draws, ARITHMETIC_TOTAL_MAX);
	for (int i = 1; i < p->n_operands; i++) {
		int room = ARITHMETIC_TOTAL_MAX - p->answer;
		bool add = p->answer == 0 || (room > 0 && below(&draws, 2));
		p->operands[i] = add ? 1 + below(&draws, room) : -1 - below(&draws, p->answer);
		p->answer += p->operands[i];
	}
	write_texts(p);
}

void arithmetic_step(const struct arithmetic_problem *p, int i, char text[ARITHMETIC_STEP_MAX])
{
	int before = 0;
	for (int j = 0; j <= i; j++) before += p->operands[j];
	snprintf(text, ARITHMETIC_STEP_MAX, "%d%+d=%d", before, p->operands[i + 1], before + p->operands[i + 1]);
}

const char *arithmetic_demonstration(const struct arithmetic_problem *p, int at_once_percent)
{
	return p->habit < at_once_percent ? strchr(p->response, '#') : p->response;
}

bool arithmetic_is_held_out(const struct arithmetic_problem *p)
{
	return XXH3_64bits(p->prompt, strlen(p->prompt)) % ARITHMETIC_HELD_OUT_SHARE == 0;
}

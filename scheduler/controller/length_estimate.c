/* length_estimate.c - running means, from the particular to the general.
 *
 * The mean over everything counts as one sample of the prompt, the prompt's own mean as up to PROMPT_WEIGHT
 * samples beside the finished siblings.  A sample that is longer than expected is expected to make half as
 * much again: long tails go on. */
#include "scheduler/controller/length_estimate.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

enum { PROMPT_WEIGHT = 4, MEMORY = 4096 }; /* MEMORY: samples that the mean over everything goes back */

struct prompt_lengths {
	uint64_t key;
	float mean;
	uint32_t n;
};

struct length_estimate {
	double mean;
	int n;
	struct prompt_lengths prompts[LENGTH_ESTIMATE_PROMPTS];
};

struct length_estimate *length_estimate_open(void)
{
	return xcalloc(1, sizeof(struct length_estimate));
}

void length_estimate_close(struct length_estimate *estimate)
{
	free(estimate);
}

static uint64_t key_of(const struct trajectory *t)
{
	const char *id = t->prompt_id ? t->prompt_id : "";
	return XXH3_64bits(id, strlen(id)) | 1;
}

void length_estimate_add(struct length_estimate *e, uint64_t key, int response_length)
{
	double length = response_length;
	struct prompt_lengths *p = &e->prompts[key / 2 % LENGTH_ESTIMATE_PROMPTS];

	if (p->key != key) *p = (struct prompt_lengths){.key = key};
	/* Half of what is remembered is at most as old as the last two groups or so: policies move. */
	p->n += p->n < 16;
	p->mean += (float)(length - (double)p->mean) / (float)p->n;
	e->n += e->n < MEMORY;
	e->mean += (length - e->mean) / e->n;
}

void length_estimate_learn(struct length_estimate *e, const struct trajectory *t)
{
	length_estimate_add(e, key_of(t), trajectory_response_length(t));
}

double length_estimate_expected(const struct length_estimate *e, uint64_t key, int n_ended, double ended)
{
	const struct prompt_lengths *p = &e->prompts[key / 2 % LENGTH_ESTIMATE_PROMPTS];
	double weight = (e->n > 0) + n_ended, sum = e->mean + ended;

	if (p->key == key) {
		double n = p->n < PROMPT_WEIGHT ? p->n : PROMPT_WEIGHT;
		weight += n;
		sum += n * (double)p->mean;
	}
	return weight > 0 ? sum / weight : 0;
}

static double length_expected(const struct length_estimate *e, const struct live_group *g)
{
	double sum = 0;
	int n = 0;

	for (int i = 0; i < g->n_samples; i++) {
		if (g->samples[i]->finish == FINISH_NONE || g->samples[i]->finish == FINISH_ERROR) continue;
		n++;
		sum += trajectory_response_length(g->samples[i]);
	}
	return length_estimate_expected(e, key_of(g->samples[0]), n, sum);
}

int length_estimate_left(double expected, int length, int max_tokens)
{
	double rest = expected - length, most = max_tokens - length;

	if (rest < length / 2.0) rest = length / 2.0;
	return (int)(rest < most ? rest : most);
}

int length_estimate_group(const struct length_estimate *e, const struct live_group *g)
{
	return (int)length_expected(e, g);
}

int length_estimate_rest(const struct length_estimate *e, const struct live_group *g, int i)
{
	const struct trajectory *t = g->samples[i];
	return length_estimate_left(length_expected(e, g), trajectory_response_length(t), t->max_tokens);
}

/* simulate_lengths.c - lengths drawn by group and sample, correlated within a group.
 *
 * Distributions: a Gaussian copula.  With rho the correlation and z_g, z_gi standard normal,
 *     z = sqrt(rho) z_g + sqrt(1 - rho) z_gi,   q = P(Z > z),   length = the value exceeded with probability q:
 *     lognormal   exp(ln mean - sigma^2 / 2 + sigma z)
 *     pareto      mean (alpha - 1) / alpha * q^(-1 / alpha)
 *     uniform     on 1 .. 2 mean - 1
 * rounded, at least 1, cut at rollout.max_tokens.
 *
 * Store: each group takes a prompt of the run, its samples draw from that prompt's finished ones, with
 * replacement; within-group correlation is that of the prompts.  Samples that the run left unfinished are
 * not among them, so a run that ended with many partials shows too few long ones.
 */
#include "scheduler/simulate/simulate_lengths.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "rollout/sampling/noise.h"
#include "scheduler/store/store.h"

/* A finished sample of the run. */
struct recorded {
	uint64_t prompt; /* hash of its id */
	int32_t n_prompt, n_response;
};

struct simulate_lengths {
	const struct config_simulate *options;
	int64_t max_tokens;
	struct recorded *recorded; /* [n_recorded], by prompt */
	size_t n_recorded, capacity;
	size_t *prompts;           /* [n_prompts + 1]: where each prompt begins */
	size_t n_prompts;
};

/* What a number is drawn for, besides samples 0, 1, ... */
enum { DRAW_GROUP = -1, DRAW_PROMPT = -2 };

/* 128 bits that are a function of the seed, the group, and what for. */
static void draw(uint32_t bits[4], const struct simulate_lengths *l, uint64_t group, int what)
{
	uint64_t seed = (uint64_t)l->options->seed;
	const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
	const uint32_t counter[4] = {(uint32_t)group, (uint32_t)(group >> 32), (uint32_t)what, 0};

	philox4x32(bits, counter, key);
}

static double uniform_of(uint32_t high, uint32_t low)
{
	return ((double)high + (double)low * 0x1p-32) * 0x1p-32;
}

double simulate_lengths_uniform(const struct simulate_lengths *l, uint64_t group, int what)
{
	uint32_t bits[4];

	draw(bits, l, group, what);
	return uniform_of(bits[0], bits[1] & ~0x7ffu);
}

/* Box and Muller's first one. */
static double normal(const struct simulate_lengths *l, uint64_t group, int what)
{
	uint32_t bits[4];

	draw(bits, l, group, what);
	double u = 1 - uniform_of(bits[0], bits[1] & ~0x7ffu), angle = 6.283185307179586 * uniform_of(bits[2], bits[3]);
	return sqrt(-2 * log(u)) * cos(angle);
}

static double distribution(const struct config_simulate *o, double z)
{
	double beyond = 0.5 * erfc(z * 0.7071067811865476);

	switch (o->lengths) {
	case LENGTHS_PARETO: return o->length_mean * (o->length_alpha - 1) / o->length_alpha * pow(beyond, -1 / o->length_alpha);
	case LENGTHS_UNIFORM: return 0.5 + (1 - beyond) * (2 * o->length_mean - 1);
	default: return exp(log(o->length_mean) - 0.5 * o->length_sigma * o->length_sigma + o->length_sigma * z);
	}
}

static size_t prompt_of(const struct simulate_lengths *l, uint64_t group)
{
	return (size_t)(simulate_lengths_uniform(l, group, DRAW_PROMPT) * (double)l->n_prompts);
}

int32_t simulate_lengths_prompt(const struct simulate_lengths *l, uint64_t group)
{
	return l->n_prompts ? l->recorded[l->prompts[prompt_of(l, group)]].n_prompt : (int32_t)l->options->prompt_tokens;
}

uint64_t simulate_lengths_key(const struct simulate_lengths *l, uint64_t group)
{
	return l->n_prompts ? l->recorded[l->prompts[prompt_of(l, group)]].prompt | 1 : group;
}

int32_t simulate_lengths_response(const struct simulate_lengths *l, uint64_t group, int sample)
{
	const struct config_simulate *o = l->options;
	double length;

	if (l->n_prompts) {
		const size_t *range = &l->prompts[prompt_of(l, group)];
		double u = simulate_lengths_uniform(l, group, sample);
		length = l->recorded[range[0] + (size_t)(u * (double)(range[1] - range[0]))].n_response;
	} else {
		double z = sqrt(1 - o->correlation) * normal(l, group, sample);
		if (o->correlation > 0) z += sqrt(o->correlation) * normal(l, group, DRAW_GROUP);
		length = distribution(o, z);
	}
	if (!(length < (double)l->max_tokens)) return (int32_t)l->max_tokens; /* an infinite one too */
	return length < 1 ? 1 : (int32_t)(length + 0.5);
}

/* ---- a run's store ---- */

static int take_recorded(void *context, const struct trajectory *t, enum store_state state)
{
	struct simulate_lengths *l = context;

	if (t->eval || state == STORE_PARTIAL || (t->finish != FINISH_STOP && t->finish != FINISH_LENGTH)) return 0;
	if (l->n_recorded == l->capacity) {
		l->capacity = 2 * l->capacity + 256;
		l->recorded = xrealloc(l->recorded, l->capacity * sizeof *l->recorded);
	}
	const char *id = t->prompt_id ? t->prompt_id : "";
	l->recorded[l->n_recorded++] = (struct recorded){
		.prompt = XXH3_64bits(id, strlen(id)), .n_prompt = t->n_prompt, .n_response = trajectory_response_length(t),
	};
	return 0;
}

static int by_prompt(const void *a, const void *b)
{
	const struct recorded *x = a, *y = b;

	if (x->prompt != y->prompt) return x->prompt < y->prompt ? -1 : 1;
	return (x->n_response > y->n_response) - (x->n_response < y->n_response);
}

static void index_prompts(struct simulate_lengths *l)
{
	qsort(l->recorded, l->n_recorded, sizeof *l->recorded, by_prompt);
	l->prompts = xmalloc((l->n_recorded + 1) * sizeof *l->prompts);
	for (size_t i = 0; i < l->n_recorded; i++)
		if (i == 0 || l->recorded[i].prompt != l->recorded[i - 1].prompt) l->prompts[l->n_prompts++] = i;
	l->prompts[l->n_prompts] = l->n_recorded;
}

static int read_run(struct simulate_lengths *l, struct err *err)
{
	const char *run = l->options->run;
	struct store *store;
	struct err ignored;

	int rc = store_open_existing(&store, run, err);
	if (rc) return rc;
	rc = store_each_trajectory(store, take_recorded, l, err);
	store_close(store, &ignored);
	if (!rc && l->n_recorded == 0)
		rc = err_set(err, ERR_MISSING, "the run in %s has no finished training sample: name one that has made a step", run);
	if (!rc) index_prompts(l);
	return rc;
}

int simulate_lengths_open(struct simulate_lengths **out, const struct config *config, struct err *err)
{
	const struct config_simulate *o = &config->simulate;
	int rc = 0;

	if (o->lengths == LENGTHS_STORE && !o->run[0])
		return err_set(err, ERR_CONFIG, "simulate.lengths is store, but simulate.run is empty: name a run directory");
	if (o->lengths != LENGTHS_STORE && o->run[0])
		return err_set(err, ERR_CONFIG, "simulate.run is %s, but simulate.lengths is a distribution: set simulate.lengths to store, or take the run out", o->run);
	struct simulate_lengths *l = xcalloc(1, sizeof *l);
	l->options = o;
	l->max_tokens = config->rollout.max_tokens;
	if (o->lengths == LENGTHS_STORE) rc = read_run(l, err);
	if (rc) {
		simulate_lengths_close(l);
		return err_context(err, "simulate.run");
	}
	*out = l;
	return 0;
}

void simulate_lengths_close(struct simulate_lengths *l)
{
	if (!l) return;
	free(l->recorded);
	free(l->prompts);
	free(l);
}

void simulate_lengths_describe(const struct simulate_lengths *l, char *text, size_t size)
{
	static const char *const names[] = {"lognormal", "pareto", "uniform"};
	const struct config_simulate *o = l->options;

	if (l->n_prompts) {
		snprintf(text, size, "%zu samples of %zu prompts from %s", l->n_recorded, l->n_prompts, o->run);
		return;
	}
	int n = snprintf(text, size, "%s, mean %g", names[o->lengths], o->length_mean);
	if (o->lengths == LENGTHS_LOGNORMAL) n += snprintf(text + n, size - (size_t)n, ", sigma %g", o->length_sigma);
	if (o->lengths == LENGTHS_PARETO) n += snprintf(text + n, size - (size_t)n, ", alpha %g", o->length_alpha);
	snprintf(text + n, size - (size_t)n, ", at most %lld, correlation %g within a group", (long long)l->max_tokens, o->correlation);
}

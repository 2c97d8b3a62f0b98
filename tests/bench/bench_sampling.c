/* bench_sampling.c - one draw with its log-probability by kind of row and options, beside the
 * matrix-vector product of the head that made the row: 151936 x 896 in BF16 (Qwen2.5-0.5B), from
 * memory; the fastest of 21 and of 15 runs.  `bench_sampling [threads]`: rows are shared out over
 * threads as in a round of the engine. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "policy/team.h"
#include "quant/kernels.h"
#include "rollout/sampling/sampling.h"
#include "rollout/speculation/verify_maximal.h"
#include "tests/support/random_model.h"

enum { VOCAB = 151936, DIM = 896, ROWS_MAX = 32, THREADS_MAX = 64, HEADS = 2, KINDS = 4, RUNS = 15 };

static double seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The fastest run: what the machine does when nobody else is on it. */
static double fastest(const double *x, int n)
{
	double least = x[0];
	for (int i = 1; i < n; i++) least = x[i] < least ? x[i] : least;
	return least;
}

/* ---- the head ---- */

struct head {
	uint16_t *packed[HEADS]; /* used in turn, so that none stays in a cache */
	float *x, *y;            /* [ROWS_MAX][DIM], [ROWS_MAX][VOCAB + PANEL] */
	int turn, m;
};

static void head_share(const struct team *team, void *arg)
{
	const struct head *h = arg;
	struct range r = team_share(team, panels(VOCAB), 1);
	if (r.begin < r.end)
		kernels_best()->matmul_bf16(h->y, VOCAB + PANEL, h->x, DIM, h->m, h->packed[h->turn], DIM, r.begin, r.end);
}

static void head_open(struct head *h)
{
	uint16_t *rows = xaligned((size_t)VOCAB * DIM * sizeof *rows);
	uint64_t rng = 7;

	*h = (struct head){0};
	for (size_t i = 0; i < (size_t)VOCAB * DIM; i++) rows[i] = (uint16_t)(0x3c00 + (random_bits(&rng) & 0x80ff));
	for (int i = 0; i < HEADS; i++) {
		h->packed[i] = xaligned(packed_bf16_elements(VOCAB, DIM) * sizeof *rows);
		pack_bf16(h->packed[i], rows, VOCAB, DIM, 0, panels(VOCAB));
	}
	free(rows);
	h->x = xaligned(sizeof(float) * ROWS_MAX * DIM);
	h->y = xaligned(sizeof(float) * ROWS_MAX * (VOCAB + PANEL));
	for (int i = 0; i < ROWS_MAX * DIM; i++) h->x[i] = (float)(random_bits(&rng) % 2001) * 1e-3f - 1.0f;
}

static double head_seconds(struct head *h, int m, int n_threads)
{
	double t[RUNS];

	h->m = m;
	for (int i = 0; i < RUNS; i++) {
		h->turn = i % HEADS;
		double start = seconds();
		team_run(n_threads, head_share, h);
		t[i] = seconds() - start;
	}
	return fastest(t, RUNS);
}

/* ---- rows ---- */

static float normal(uint64_t *rng)
{
	double u = ((double)(random_bits(rng) >> 11) + 0.5) * 0x1p-53, v = (double)(random_bits(rng) >> 11) * 0x1p-53;
	return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

static const struct kind {
	const char *name;
	float spread; /* standard deviation of the bulk */
	float top;    /* above the bulk's centre: the first of a power law's entries; 0: none */
} kinds[KINDS] = {
	{"peaked", 2.0f, 26.0f}, {"realistic", 2.5f, 19.0f}, {"flat", 3.0f, 0.0f}, {"untrained", 0.5f, 0.0f},
};

/* Some two hundred entries fall off as rank^-1.5 above a bulk; peaked ones as rank^-4. */
static void fill_row(float *logits, const struct kind *kind, uint64_t *rng)
{
	for (int i = 0; i < VOCAB; i++) logits[i] = kind->spread * normal(rng);
	for (int rank = 1; kind->top > 0 && rank <= 200; rank++)
		logits[random_bits(rng) % VOCAB] = kind->top - (kind->top > 20 ? 4.0f : 1.5f) * logf((float)rank);
}

static double entropy_nats(const float *logits)
{
	double max = -INFINITY, sum = 0, mean = 0;
	for (int i = 0; i < VOCAB; i++) max = fmax(max, (double)logits[i]);
	for (int i = 0; i < VOCAB; i++) {
		double p = exp((double)logits[i] - max);
		sum += p;
		mean += p * ((double)logits[i] - max);
	}
	return log(sum) - mean / sum;
}

/* ---- draws ---- */

struct draws {
	const float *rows;         /* [m][VOCAB] */
	struct sampler **samplers; /* [threads] */
	const struct sampling_options *options;
	int m;
	int32_t position;
};

static void draw_share(const struct team *team, void *arg)
{
	const struct draws *d = arg;
	float logprob;
	for (int i = team->thread; i < d->m; i += team->n_threads)
		sampler_draw(d->samplers[team->thread], d->rows + (size_t)i * VOCAB, d->options, (uint64_t)i, d->position,
		             &logprob);
}

static double draw_seconds(struct draws *d, int n_threads)
{
	enum { POSITIONS = 21 };
	double t[POSITIONS];

	for (int p = 0; p < POSITIONS; p++) {
		d->position = p;
		double start = seconds();
		team_run(d->m < n_threads ? d->m : n_threads, draw_share, d);
		t[p] = seconds() - start;
	}
	return fastest(t, POSITIONS);
}

/* One verification under maximal coupling at temperature 1, of a draft from the row itself (it stands) or from
 * the row behind it (of these, those that are rejected). */
static double maximal_seconds(struct sampler *sampler, const float *row, bool rejected)
{
	enum { POSITIONS = 21 };
	const struct sampling_options options = {1.0f, 1.0f, 0};
	const float *other = rejected ? row + VOCAB : row;
	struct distribution q;
	double t[POSITIONS];
	float logprob;

	for (int32_t position = 0, n = 0; n < POSITIONS; position++) {
		sampler_distribution(sampler, other, &options, &q);
		struct proposal draft = {sampler_draw_from(sampler, other, &q, 1, position), other, &q};
		double start = seconds();
		int32_t token = maximal_draw(sampler, row, &options, 2, position, &draft, &logprob);
		if ((token == draft.token) != rejected) t[n++] = seconds() - start;
	}
	return fastest(t, POSITIONS);
}

int main(int argc, char **argv)
{
	static const int batches[] = {1, 8, 32};
	static const struct {
		const char *name;
		struct sampling_options options;
	} cases[] = {
		{"temperature 0", {0.0f, 1.0f, 0}},       {"temperature 0.01", {0.01f, 1.0f, 0}},
		{"temperature 1", {1.0f, 1.0f, 0}},       {"top_k 50", {1.0f, 1.0f, 50}},
		{"top_k 2000", {1.0f, 1.0f, 2000}},       {"top_p 0.95", {1.0f, 0.95f, 0}},
		{"top_k 50, top_p 0.95", {1.0f, 0.95f, 50}}, {"top_p 0.95, T 0.6", {0.6f, 0.95f, 0}},
		{"min_p 0.05", {1.0f, 1.0f, 0, 0.05f}},   {"top_p 0.95, min_p 0.05", {1.0f, 0.95f, 0, 0.05f}},
	};
	enum { BATCHES = sizeof batches / sizeof *batches, CASES = sizeof cases / sizeof *cases };
	int n_threads = argc > 1 ? atoi(argv[1]) : 1;
	double head_ms[BATCHES], worst[BATCHES] = {0};
	struct sampler *samplers[THREADS_MAX];
	struct head head;

	if (n_threads < 1 || n_threads > THREADS_MAX) {
		fprintf(stderr, "threads: expected 1 to %d, found %s\n", THREADS_MAX, argv[1]);
		return 2;
	}
	for (int i = 0; i < n_threads; i++) samplers[i] = sampler_open(VOCAB);
	head_open(&head);
	printf("kernels %s, %d thread%s; head %d x %d bf16:", kernels_best()->name, n_threads,
	       n_threads > 1 ? "s" : "", VOCAB, DIM);
	for (int b = 0; b < BATCHES; b++) {
		head_ms[b] = 1e3 * head_seconds(&head, batches[b], n_threads);
		printf(" %.2f ms at %d row%s%s", head_ms[b], batches[b], batches[b] > 1 ? "s" : "",
		       b + 1 < BATCHES ? "," : "\n");
	}
	printf("%-10s %5s  %-22s", "row", "nats", "options");
	for (int b = 0; b < BATCHES; b++) printf("  M=%-2d ms   of head", batches[b]);
	printf("\n");
	for (int k = 0; k < KINDS; k++) {
		uint64_t rng = (uint64_t)k + 3;
		float *rows = head.y;
		for (int i = 0; i < ROWS_MAX; i++) fill_row(rows + (size_t)i * VOCAB, &kinds[k], &rng);
		double nats = entropy_nats(rows);
		for (int c = 0; c < CASES; c++) {
			printf("%-10s %5.2f  %-22s", kinds[k].name, nats, cases[c].name);
			for (int b = 0; b < BATCHES; b++) {
				struct draws draws = {.rows = rows, .samplers = samplers, .options = &cases[c].options, .m = batches[b]};
				double ms = 1e3 * draw_seconds(&draws, n_threads);
				worst[b] = ms / head_ms[b] > worst[b] ? ms / head_ms[b] : worst[b];
				printf("  %7.3f  %6.2f %%", ms, 100 * ms / head_ms[b]);
			}
			printf("\n");
		}
	}
	for (int k = 0; k < KINDS; k++) {
		uint64_t rng = (uint64_t)k + 3;
		for (int i = 0; i < 2; i++) fill_row(head.y + (size_t)i * VOCAB, &kinds[k], &rng);
		printf("%-10s maximal coupling: %.3f ms where the draft stands, %.3f ms where it does not\n", kinds[k].name,
		       1e3 * maximal_seconds(samplers[0], head.y, false), 1e3 * maximal_seconds(samplers[0], head.y, true));
	}
	printf("largest share of the head:");
	for (int b = 0; b < BATCHES; b++)
		printf(" %.2f %% at M=%d%s", 100 * worst[b], batches[b], b + 1 < BATCHES ? "," : "\n");
	return 0;
}

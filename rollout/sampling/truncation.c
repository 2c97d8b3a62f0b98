/* truncation.c - where a prefix of the order ends, by narrowing an interval of logits around it.
 *
 * top-k (Fan et al. 2018) and top-p (Holtzman et al. 2020) are one question: at which entry does the
 * weight of a prefix reach a wanted weight (an entry weighs 1, or its mass)?  As weights are whole
 * numbers, the answer is exact in whatever order they are added, so the way to it is free:
 *   1. an interval is guessed, from the peaks of the chunks where the prefix is likely to be short, or
 *      from a sorted sample of the entries;
 *   2. one pass adds up what is above the interval, and the total if it is not yet known, and gathers
 *      what is inside; then again on these;
 *   3. the last thousand are sorted, and the end is found by halving.
 * min-p (Nguyen et al. 2024) is a bound on the logit, so it only needs the mass of what it keeps.
 * A wrong guess costs a pass; in the end intervals are halved in the order of floats, so there are at
 * most some tens.  O(n) expected: 1.3 passes over a flat row, little more than the total of a peaked one.
 */
#include "rollout/sampling/truncation.h"

#include <assert.h>
#include <float.h>
#include <stdlib.h>

#include "configs/err.h"
#include "rollout/sampling/row_kernels.h"

enum {
	SORTED_MAX = 1024, /* entries that are sorted at once */
	SAMPLE = 256,
	TOP_PEAKS = 256,   /* of these entries or little more the end is looked for first */
	DIGIT_BITS = 8, RADIX = 1 << DIGIT_BITS /* of the sort */
};

struct truncation {
	const struct row_kernels *kernels;
	float *band[2]; /* [n_max + ROW_PAD] */
};

struct truncation *truncation_open(const struct row_kernels *kernels, int32_t n_max)
{
	struct truncation *t = xcalloc(1, sizeof *t);

	t->kernels = kernels;
	for (int i = 0; i < 2; i++) t->band[i] = xmalloc((size_t)(n_max + ROW_PAD) * sizeof(float));
	return t;
}

void truncation_close(struct truncation *t)
{
	if (!t) return;
	free(t->band[0]);
	free(t->band[1]);
	free(t);
}

/* ---- floats as integers in the same order, the two zeros one ---- */

static uint32_t key_of(float x)
{
	uint32_t bits;

	x += 0.0f; /* -0 becomes 0 */
	memcpy(&bits, &x, sizeof bits);
	return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static float float_of_key(uint32_t key)
{
	uint32_t bits = key & 0x80000000u ? key & 0x7fffffffu : ~key;
	float x;

	memcpy(&x, &bits, sizeof x);
	return x;
}

static float next_above(float x) { return float_of_key(key_of(x) + 1); }

/* Largest first, 0 < n <= SORTED_MAX: a radix sort from the lowest digit up, of as many digits as tell
 * the entries apart; by the first 16 bits only if `roughly`. */
static void sort_descending(float *x, int32_t n, bool roughly)
{
	uint32_t orders[2][SORTED_MAX], least = UINT32_MAX, most = 0;
	int now = 0;

	for (int32_t i = 0; i < n; i++) {
		uint32_t key = orders[0][i] = key_of(x[i]);
		least = key < least ? key : least;
		most = key > most ? key : most;
	}
	for (int32_t i = 0; i < n; i++) orders[0][i] = most - orders[0][i];
	int bits = most > least ? 32 - __builtin_clz(most - least) : 0;
	for (int shift = roughly && bits > 16 ? bits - 16 : 0; shift < bits; shift += DIGIT_BITS, now = !now) {
		uint32_t at[RADIX + 1] = {0};
		for (int32_t i = 0; i < n; i++) at[(orders[now][i] >> shift & (RADIX - 1)) + 1]++;
		for (int r = 1; r < RADIX; r++) at[r] += at[r - 1];
		for (int32_t i = 0; i < n; i++) {
			uint32_t order = orders[now][i];
			orders[!now][at[order >> shift & (RADIX - 1)]++] = order;
		}
	}
	for (int32_t i = 0; i < n; i++) x[i] = float_of_key(most - orders[now][i]);
}

/* ---- the end of a prefix ---- */

/* Entries, ids forgotten: of equal logits one is as good as another until the cut is named. */
struct set {
	const float *x;     /* [n] */
	const float *peaks; /* of x, or NULL */
	int32_t n;
	uint64_t weight;    /* of all (of a count, as if all were above -INFINITY); 0: not known */
};

struct prefix_end {
	float logit;     /* of the last entry of the prefix */
	int32_t n_equal; /* entries of the prefix with this logit, at least 1 */
	int32_t n_left;  /* entries with this logit after the prefix */
	uint64_t weight; /* of the prefix */
};

struct interval { float low, high; }; /* low <= x < high */

/* Entries weigh the same: the question is top-k. */
static bool is_count(struct row_scale scale) { return scale.log2_scale == 0.0f; }

static uint64_t weight_of(const struct truncation *t, const float *x, int32_t n, struct row_scale scale)
{
	return t->kernels->mass(x, NULL, n, scale);
}

/* The least m with weight(x[0..m)) >= wanted, x sorted; *before: the weight of x[0..m-1). */
static int32_t least_prefix(const struct truncation *t, const float *x, int32_t n, struct row_scale scale,
                            uint64_t wanted, uint64_t *before)
{
	int32_t first = 0, left = n;

	*before = 0;
	while (left > 1) {
		uint64_t half = weight_of(t, x + first, left / 2, scale);
		if (*before + half >= wanted) {
			left /= 2;
		} else {
			*before += half;
			first += left / 2;
			left -= left / 2;
		}
	}
	return first + 1;
}

static struct prefix_end end_in_sorted(const struct truncation *t, const float *x, int32_t n,
                                       struct row_scale scale, uint64_t wanted)
{
	uint64_t before;
	int32_t m = least_prefix(t, x, n, scale, wanted, &before), first = m - 1, end = m;
	float logit = x[m - 1];

	while (first > 0 && x[first - 1] == logit) first--;
	while (end < n && x[end] == logit) end++;
	return (struct prefix_end){logit, m - first, end - m, before + weight_of(t, &logit, 1, scale)};
}

/* From the largest peaks down to one whose rank promises enough weight; false if none does. */
static bool interval_of_peaks(const struct truncation *t, struct interval *interval, const struct set *set,
                              struct row_scale scale, uint64_t wanted)
{
	int32_t chunks = row_chunks(set->n), stride = (chunks + SORTED_MAX - 1) / SORTED_MAX, n = 0;
	float peaks[SORTED_MAX];

	for (int32_t c = 0; c < chunks; c += stride) peaks[n++] = set->peaks[c];
	int64_t rank = is_count(scale) ? ((int64_t)(wanted >> MASS_BITS) + stride - 1) / stride : 2 * (int64_t)n / 3;
	if (rank < 1 || rank > n) return false;
	sort_descending(peaks, n, true);
	*interval = (struct interval){peaks[rank - 1], INFINITY};
	return is_count(scale) || weight_of(t, peaks, (int32_t)rank, scale) >= wanted / (uint64_t)stride;
}

/* Of the set as a whole: the peaks' own, and what a part of the rest suggests for the rest. */
static uint64_t estimated_weight(const struct truncation *t, const struct set *set, struct row_scale scale)
{
	enum { PART = 8 };
	int32_t chunks = row_chunks(set->n), n = 0;
	float *part = t->band[0];

	for (int32_t c = 0; c < chunks; c++)
		for (int32_t i = c * ROW_CHUNK; i < c * ROW_CHUNK + PART && i < set->n; i++)
			part[n++] = set->x[i] < set->peaks[c] ? set->x[i] : -INFINITY;
	return weight_of(t, set->peaks, chunks, scale) +
	       (uint64_t)((double)weight_of(t, part, n, scale) * set->n / n);
}

/* Where a sample of the set has the rest of the weight below it, within n_sigma deviations: those of
 * as many entries as would make up the rest if all weighed what its largest does. */
static struct interval interval_of_sample(const struct truncation *t, const struct set *set,
                                          struct row_scale scale, uint64_t wanted, double n_sigma)
{
	struct interval interval = {-FLT_MAX, INFINITY};
	float sample[SAMPLE];
	uint64_t rest = (uint64_t)((double)(set->weight - wanted) * SAMPLE / (double)set->n), before;

	for (int32_t i = 0; i < SAMPLE; i++) sample[i] = set->x[(int64_t)i * set->n / SAMPLE];
	sort_descending(sample, SAMPLE, true);
	uint64_t all = weight_of(t, sample, SAMPLE, scale);
	int32_t r = least_prefix(t, sample, SAMPLE, scale, all > rest ? all - rest : 0, &before) - 1;
	uint64_t own = weight_of(t, sample + r, 1, scale);
	if (own == 0) return interval;
	double entries = (double)(all - before) / (double)own;
	if (is_count(scale) && entries > SAMPLE / 2) entries = SAMPLE - entries;
	int32_t margin = 2 + (int32_t)(n_sigma * sqrt(entries));
	if (r - margin >= 0) interval.high = sample[r - margin];
	if (r + margin < SAMPLE) interval.low = sample[r + margin];
	return interval;
}

static struct interval interval_halved(struct interval limit)
{
	uint32_t low = key_of(limit.low), high = key_of(limit.high);

	return (struct interval){float_of_key(low + (high - low) / 2), limit.high};
}

static bool interval_is_one_value(struct interval i) { return i.high == next_above(i.low); }

/* ---- the search ---- */

enum attempt { BY_PEAKS, BY_SAMPLE, BY_WIDER_SAMPLE, BY_HALVING };

struct search {
	struct truncation *scratch;
	struct set set;          /* holds the end */
	struct row_scale scale;
	uint64_t wanted;         /* weight of the prefix's entries in the set */
	uint64_t above;          /* weight of its entries that are not */
	float share;             /* wanted, as a share of the set's weight while that is estimated */
	bool estimated;
	struct interval limit;   /* around the end */
	enum attempt attempt;
};

/* As a weight: at least 1, so that the likeliest entry is always kept. */
static uint64_t share_of(float share, uint64_t weight)
{
	uint64_t part = (uint64_t)ceil((double)share * (double)weight);

	return part < 1 ? 1 : part < weight ? part : weight;
}

/* Part of limit, in which the end lies. */
static struct interval next_interval(struct search *s)
{
	const struct truncation *t = s->scratch;
	struct interval next = s->limit, limit = s->limit;
	double n_sigma = s->set.peaks ? 3 : 2; /* a miss costs more on the whole row */

	if (s->attempt == BY_PEAKS && !(s->set.peaks && interval_of_peaks(t, &next, &s->set, s->scale, s->wanted)))
		s->attempt = BY_SAMPLE;
	if (s->attempt == BY_SAMPLE) next = interval_of_sample(t, &s->set, s->scale, s->wanted, n_sigma);
	if (s->attempt == BY_WIDER_SAMPLE) next = interval_of_sample(t, &s->set, s->scale, s->wanted, 4 * n_sigma);
	if (!(next.low > limit.low)) next.low = limit.low;
	if (!(next.high < limit.high)) next.high = limit.high;
	return s->attempt < BY_HALVING && next.low < next.high ? next : interval_halved(limit);
}

static struct prefix_end end_among_equals(const struct search *s, float logit, int32_t n, uint64_t weight,
                                          uint64_t over)
{
	uint64_t each = weight / (uint64_t)n;
	int32_t n_equal = (int32_t)((s->wanted - over + each - 1) / each);

	return (struct prefix_end){logit, n_equal, n - n_equal, s->above + over + (uint64_t)n_equal * each};
}

/* Narrow the set or the limit; true if this found the end. */
static bool search_step(struct search *s, struct prefix_end *end)
{
	struct truncation *t = s->scratch;
	float *band = s->set.x == t->band[0] ? t->band[1] : t->band[0];
	struct interval next = next_interval(s);
	uint64_t over, total, inside = 0;
	int32_t n = t->kernels->split(band, &over, s->estimated ? &total : NULL, s->set.x, s->set.peaks, s->set.n,
	                              s->scale, next.low, next.high);

	if (s->estimated) {
		s->estimated = false;
		s->set.weight = total;
		s->wanted = share_of(s->share, total);
	}
	bool too_low = over >= s->wanted;
	if (!too_low) inside = weight_of(t, band, n, s->scale);
	bool too_high = !too_low && over + inside < s->wanted;
	if (too_low || too_high) {
		if (too_low) s->limit.low = next.high;
		else s->limit.high = next.low;
		if (s->attempt < BY_HALVING) s->attempt++;
		*end = (struct prefix_end){.logit = -INFINITY};
		return too_high && next.low == -FLT_MAX;
	}
	if (interval_is_one_value(next)) {
		*end = end_among_equals(s, next.low, n, inside, over);
		return true;
	}
	s->attempt = n > s->set.n / 2 ? BY_HALVING : BY_SAMPLE;
	s->set = (struct set){band, NULL, n, inside};
	s->wanted -= over;
	s->above += over;
	s->limit = next;
	return false;
}

/* The end of the shortest prefix with the wanted weight, or if this is 0 that share of the set's weight;
 * at -INFINITY if the set weighs less than it is said to. */
static struct prefix_end prefix_end_of(struct truncation *t, struct set set, struct row_scale scale,
                                       uint64_t wanted, float share)
{
	struct search s = {.scratch = t, .set = set, .scale = scale, .wanted = wanted, .share = share,
	                   .limit = {-FLT_MAX, INFINITY}, .attempt = BY_PEAKS};
	struct prefix_end end;
	float sorted[SORTED_MAX];

	if (!set.weight) {
		s.estimated = set.n > SORTED_MAX;
		s.set.weight = s.estimated ? estimated_weight(t, &set, scale) : weight_of(t, set.x, set.n, scale);
	}
	if (!wanted) s.wanted = share_of(share, s.set.weight);
	while (s.set.n > SORTED_MAX)
		if (search_step(&s, &end)) return end;
	memcpy(sorted, s.set.x, (size_t)s.set.n * sizeof *sorted);
	sort_descending(sorted, s.set.n, false);
	end = end_in_sorted(t, sorted, s.set.n, scale, s.wanted);
	end.weight += s.above;
	return end;
}

/* ---- cuts ---- */

/* The id of the n-th entry with this logit. */
static int32_t id_of_equal(const struct truncation_row *row, float logit, int32_t n)
{
	for (int32_t c = 0; c < row_chunks(row->n); c++) {
		int32_t begin = c * ROW_CHUNK, end = begin + ROW_CHUNK < row->n ? begin + ROW_CHUNK : row->n, found = 0;
		if (!(row->peaks[c] >= logit)) continue;
		for (int32_t i = begin; i < end; i++) found += row->logits[i] == logit;
		if (found < n) {
			n -= found;
			continue;
		}
		for (int32_t i = begin; i < end; i++)
			if (row->logits[i] == logit && --n == 0) return i;
	}
	return INT32_MAX;
}

static struct ranked cut_of(const struct truncation_row *row, struct prefix_end end)
{
	return (struct ranked){end.logit, end.n_left ? id_of_equal(row, end.logit, end.n_equal) : INT32_MAX};
}

/* What a prefix holds, as a set; to band. */
static struct set prefix_gather(struct truncation *t, float *band, const struct truncation_row *row,
                                struct row_scale scale, struct prefix_end end)
{
	uint64_t over;
	int32_t n = t->kernels->split(band, &over, NULL, row->logits, row->peaks, row->n, scale, end.logit, INFINITY);

	for (int32_t i = n - 1, left = end.n_left; left > 0; i--)
		if (band[i] == end.logit) band[i] = band[--n], left--;
	return (struct set){band, NULL, n, weight_of(t, band, n, scale)};
}

/* The k largest, unless no more than k are above -INFINITY. */
static void keep_largest(struct truncation *t, const struct truncation_row *row, struct row_scale scale,
                         int32_t k, struct set *kept, struct ranked *cut)
{
	struct set all = {row->logits, row->peaks, row->n, (uint64_t)row->n << MASS_BITS};
	struct prefix_end end = prefix_end_of(t, all, (struct row_scale){scale.max, 0.0f}, (uint64_t)k << MASS_BITS, 0);

	if (end.logit == -INFINITY) return;
	*cut = cut_of(row, end);
	*kept = prefix_gather(t, t->band[0], row, scale, end);
}

/* The cut of top-k and top-p. */
static struct ranked cut_of_prefix(struct truncation *t, const struct truncation_row *row,
                                   const struct row_scale *scale, int32_t k, float top_p, uint64_t *mass)
{
	struct set kept = {row->logits, row->peaks, row->n, 0};
	struct ranked cut = CUT_NONE;

	if (k > 0 && k < row->n) keep_largest(t, row, *scale, k, &kept, &cut);
	if (!(top_p < 1.0f)) {
		*mass = kept.weight ? kept.weight : t->kernels->mass(kept.x, kept.peaks, kept.n, *scale);
		return cut;
	}
	struct prefix_end end = prefix_end_of(t, kept, *scale, 0, top_p);
	struct ranked end_cut = cut_of(row, end);
	*mass = end.weight;
	return ranked_before(end_cut, cut) ? end_cut : cut;
}

struct ranked truncation_cut(struct truncation *t, const struct truncation_row *row, const struct row_scale *scale,
                             int32_t k, float top_p, float least, uint64_t *mass)
{
	bool prefix = (k > 0 && k < row->n) || top_p < 1.0f || least == -INFINITY;
	struct ranked cut = prefix ? cut_of_prefix(t, row, scale, k, top_p, mass) : CUT_NONE;

	if (cut.logit >= least) return cut;
	t->kernels->split(t->band[0], mass, NULL, row->logits, row->peaks, row->n, *scale, least, least);
	return (struct ranked){least, INT32_MAX};
}

/* quantize_scalar.c - the definition of the quantizers, whose rules are in quantize_weights.h: one group
 * of one output at a time. */
#include <math.h>

#include "quant/bf16.h"
#include "quant/exact_math.h"
#include "quant/kernels_tables.h"
#include "quant/quantize_weights.h"

/* One group's weights and what they become. */
struct group {
	const struct format_info *info;
	bool search;
	int n;
	float w[GROUP_MAX], importance[GROUP_MAX];
	float x[GROUP_MAX]; /* weights in steps */
	uint8_t code[GROUP_MAX];
};

static float rounded(float x) { return x + EXACT_ROUND - EXACT_ROUND; }
static float to_bf16(float x) { return bf16_to_f32(bf16_from_f32(x)); }

static float clamped(float v, float least, float most)
{
	v = v < most ? v : most;
	return v > least ? v : least;
}

/* The largest of sign * w, and 0. */
static float reach_of(const struct group *g, float sign)
{
	float most = 0.0f;
	for (int i = 0; i < g->n; i++) most = sign * g->w[i] > most ? sign * g->w[i] : most;
	return most;
}

static float largest_of(const struct group *g)
{
	float positive = reach_of(g, 1.0f), negative = reach_of(g, -1.0f);
	return positive > negative ? positive : negative;
}

/* Integers. */

static float int_scale_rtn(const struct group *g)
{
	float positive = reach_of(g, 1.0f), negative = reach_of(g, -1.0f);
	struct int_reach reach = int_reach_of(g->info->low_bits, g->info->zero);
	bool turn = positive > negative;
	float largest = turn ? positive : negative, opposite = turn ? negative : positive;
	if (largest < Q8_TINY) return 0.0f;
	float a = largest * reach.largest, b = opposite * reach.opposite;
	float scale = to_bf16(a > b ? a : b);
	return turn ? -scale : scale;
}

static float int_level(const struct group *g, float x)
{
	return clamped(rounded(x), (float)-g->info->zero, (float)((16 << g->info->low_bits) - 1 - g->info->zero));
}

/* What the scale is to be multiplied by. */
static float int_fit(const struct group *g)
{
	bool low = g->info->low_bits > 0;
	const float *factors = low ? low_factors : int4_factors;
	float best = 1.0f, most = 0.0f;
	for (int c = 0; c < (low ? N_LOW_FACTORS : N_INT4_FACTORS); c++) {
		float xv = 0.0f, vv = 0.0f;
		for (int i = 0; i < g->n; i++) {
			float v = int_level(g, fmaf(g->x[i], factors[c], EXACT_ROUND) - EXACT_ROUND);
			xv = fmaf(g->x[i], g->importance[i] * v, xv);
			vv = fmaf(v, g->importance[i] * v, vv);
		}
		float fit = vv > 0.0f ? xv / vv : 0.0f, gain = xv * fit;
		best = gain > most ? fit : best;
		most = gain > most ? gain : most;
	}
	return best;
}

static uint16_t quantize_ints(struct group *g)
{
	float scale = int_scale_rtn(g), unit = (float)(1 << g->info->low_bits);
	float inverse = scale != 0.0f ? unit / scale : 0.0f;
	if (g->search && scale != 0.0f) {
		for (int i = 0; i < g->n; i++) g->x[i] = g->w[i] * inverse;
		scale = to_bf16(scale * int_fit(g));
		inverse = unit / scale;
	}
	for (int i = 0; i < g->n; i++) g->code[i] = (uint8_t)((int)int_level(g, g->w[i] * inverse) + g->info->zero);
	return bf16_from_f32(scale);
}

/* Minimums. */

/* x = slope u + intercept. */
struct line {
	float slope, intercept, gain;
};

/* The line through the integers u = round(x * factor + offset); gain 0 where there is none. */
static struct line line_fit(const struct group *g, float factor, float offset)
{
	float n = 0.0f, u1 = 0.0f, x1 = 0.0f, uu = 0.0f, xu = 0.0f;
	for (int i = 0; i < g->n; i++) {
		float h = g->importance[i], x = g->x[i];
		float u = clamped(rounded(fmaf(x, factor, offset)), 0.0f, (float)MIN_LEVELS), hu = h * u;
		n += h;
		u1 += hu;
		x1 = fmaf(h, x, x1);
		uu = fmaf(u, hu, uu);
		xu = fmaf(x, hu, xu);
	}
	float mean = n > 0.0f ? u1 / n : 0.0f;
	float varies = fmaf(-mean, u1, uu), together = fmaf(-mean, x1, xu);
	if (!(varies > LINE_VARIES * uu)) return (struct line){1.0f, 0.0f, 0.0f};
	float slope = together / varies;
	return (struct line){slope, fmaf(-slope, u1, x1) / n, together * slope};
}

static struct line line_search(const struct group *g)
{
	struct line best = {1.0f, 0.0f, 0.0f};
	for (int c = 0; c <= N_MIN_FACTORS; c++) {
		bool again = c == N_MIN_FACTORS;
		float factor = again ? 1.0f / best.slope : min_factors[c];
		float middle = 0.5f * (float)MIN_LEVELS;
		struct line line = line_fit(g, factor, again ? -best.intercept * factor : fmaf(-middle, factor, middle));
		if (line.gain > best.gain) best = line;
	}
	return best;
}

static uint16_t quantize_with_minimum(struct group *g, uint16_t *minimum)
{
	float least = INFINITY, most = -INFINITY, part = 1.0f / (float)MIN_LEVELS;
	for (int i = 0; i < g->n; i++) {
		least = g->w[i] < least ? g->w[i] : least;
		most = g->w[i] > most ? g->w[i] : most;
	}
	least += 0.0f; /* -0 becomes 0 */
	float scale = to_bf16(most * part - least * part), from = least;
	if (scale < Q8_TINY) scale = 0.0f;
	float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
	if (g->search && scale != 0.0f) {
		for (int i = 0; i < g->n; i++) g->x[i] = fmaf(g->w[i], inverse, -from * inverse);
		struct line line = line_search(g);
		from = to_bf16(fmaf(scale, line.intercept, from));
		scale = to_bf16(scale * line.slope);
		inverse = 1.0f / scale;
	}
	for (int i = 0; i < g->n; i++)
		g->code[i] = (uint8_t)clamped(rounded(fmaf(g->w[i], inverse, -from * inverse)), 0.0f, (float)MIN_LEVELS);
	*minimum = bf16_from_f32(from);
	return bf16_from_f32(scale);
}

/* E2M1. */

/* Code of the value nearest to half of x, ties to the even code. */
static uint8_t e2m1_of(float x)
{
	float a = fabsf(x);
	int low = a <= 0.5f ? 0 : a < 1.5f ? 1 : a <= 2.5f ? 2 : 3, high = a <= 5.0f ? 4 : a < 7.0f ? 5 : a <= 10.0f ? 6 : 7;
	int code = a < 3.5f ? low : high;
	return (uint8_t)(x < 0.0f && code ? code | 8 : code);
}

static void e2m1_codes(struct group *g, float inverse)
{
	for (int i = 0; i < g->n; i++) g->code[i] = e2m1_of(g->w[i] * inverse);
}

/* Squared error of x under a scale; inverse is 2 / scale. */
static float e2m1_error(const struct group *g, float half_scale, float inverse)
{
	float sum = 0.0f;
	for (int i = 0; i < g->n; i++) {
		float d = fmaf((float)-e2m1_doubled[e2m1_of(g->x[i] * inverse)], half_scale, g->x[i]);
		sum = fmaf(d, g->importance[i] * d, sum);
	}
	return sum;
}

static uint8_t quantize_mxfp4(struct group *g)
{
	float largest = largest_of(g), least = INFINITY;
	if (largest < Q8_TINY) {
		e2m1_codes(g, 0.0f);
		return 0;
	}
	int rtn = (int)(float_bits(largest) >> 23) - 2, best = rtn;
	float inverse = ldexpf(2.0f, 127 - rtn);
	for (int i = 0; i < g->n; i++) g->x[i] = g->w[i] * (0.5f * inverse);
	for (int c = 0; c < (g->search ? N_E8M0_CANDIDATES : 0); c++) {
		float error = e2m1_error(g, ldexpf(0.5f, c), ldexpf(2.0f, -c));
		best = error < least ? rtn + c : best;
		least = error < least ? error : least;
	}
	e2m1_codes(g, ldexpf(2.0f, 127 - best));
	return (uint8_t)best;
}

/* Nearest E4M3 of a finite x >= 0, ties to even, at most 448, at least the smallest. */
static int e4m3_of(float x)
{
	uint32_t bits = float_bits(x);
	int small = (int)rounded(x * 512.0f);
	if (x >= 448.0f) return E4M3_LARGEST;
	if (x < 0.015625f) return small > 1 ? small : 1;
	bits += 0x7ffff + (bits >> 20 & 1);
	return (int)((bits >> 20) - (120 << 3));
}

static uint8_t quantize_nvfp4(struct group *g, float tensor_scale)
{
	float inverse = tensor_scale > Q8_TINY ? 1.0f / tensor_scale : 0.0f, least = INFINITY;
	int rtn = e4m3_of(largest_of(g) * inverse * (1.0f / 6)), best = rtn;
	for (int i = 0; i < g->n; i++) g->x[i] = g->w[i] * inverse;
	for (int c = 0; c < (g->search ? N_E4M3_CANDIDATES : 0); c++) {
		int byte = (int)clamped((float)(rtn + e4m3_candidates[c]), 1.0f, (float)E4M3_LARGEST);
		float scale = e4m3_to_f32((uint8_t)byte), error = e2m1_error(g, 0.5f * scale, 2.0f / scale);
		best = error < least ? byte : best;
		least = error < least ? error : least;
	}
	e2m1_codes(g, 2.0f / e4m3_to_f32((uint8_t)best) * inverse);
	return (uint8_t)best;
}

static void group_quantize(struct qmatrix *dst, const uint16_t *packed, enum quantizer quantizer,
                           const float *importance, int output, int first)
{
	const struct format_info *info = format_info(dst->format);
	struct group g = {.info = info, .search = quantizer == QUANTIZE_SEARCH, .n = info->group};
	size_t at = format_group_at(dst, output, first / info->group);
	for (int i = 0; i < g.n; i++) {
		bool inside = first + i < dst->k;
		g.w[i] = inside ? bf16_to_f32(packed[packed_bf16_at(dst->k, output, first + i)]) : 0.0f;
		g.importance[i] = !inside ? 0.0f : importance ? importance[first + i] : 1.0f;
	}
	switch (info->scale) {
	case SCALE_BF16:
		((uint16_t *)dst->scale)[at] = info->min ? quantize_with_minimum(&g, &dst->min[at]) : quantize_ints(&g);
		break;
	case SCALE_E8M0: ((uint8_t *)dst->scale)[at] = quantize_mxfp4(&g); break;
	case SCALE_E4M3: ((uint8_t *)dst->scale)[at] = quantize_nvfp4(&g, dst->tensor_scale); break;
	}
	for (int i = 0; i < g.n; i++) format_set_code(dst, output, first + i, g.code[i]);
}

void quantize_scalar(struct qmatrix *dst, const uint16_t *packed, enum quantizer quantizer,
                     const float *importance, int panel_begin, int panel_end)
{
	const struct format_info *info = format_info(dst->format);
	for (int o = panel_begin * PANEL; o < panel_end * PANEL; o++)
		for (int first = 0; first < format_blocks(info, dst->k) * Q_BLOCK; first += info->group)
			group_quantize(dst, packed, quantizer, importance, o, first);
}

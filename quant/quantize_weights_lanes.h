/* quantize_weights_lanes.h - the quantizers of quantize_scalar.c for the 16 outputs of a panel at a time.
 *
 * Included by quantize_weights_avx2.c and quantize_weights_avx512.c, which define before:
 *
 *     f32s    16 floats, one per output;  f32s_...
 *     mask    of 16
 *     words   64 bytes;  the number behind an operation is the size of its elements in bits;
 *             pack, shuffle: within each 16 bytes, as the instructions do
 *
 * A packed row of BF16 holds two inputs of 16 outputs, so the range of a group is taken on 16-bit
 * integers, and widening is a shift or a mask.  Rounded weights are packed 32 -> 16 -> 8 bits, which
 * clamps them, and one shuffle puts 4 inputs of an output side by side as the planes want it.  Planes q
 * and low bypass the caches: what is requantized is next read whole matrices later.
 */
#include "quant/quantize_weights.h"

enum { AHEAD_BYTES = 4096 };

enum rule { RULE_INTS, RULE_MINIMUMS, RULE_E8M0, RULE_E4M3 };

/* What is constant in each copy of the code. */
struct kind {
	enum rule rule;
	int low_bits;
};

/* Inputs of a panel: pairs [n/2][PANEL][2] bf16; importance [n] or NULL. */
struct inputs {
	const uint16_t *pairs;
	const float *importance;
	int n;
};

/* How weights become integers: w * inverse + offset.  E2M1: inverse is 2 / scale. */
struct steps {
	f32s inverse, offset;
};

/* The weights of a group in steps, for searches. */
struct scaled {
	float x[GROUP_MAX][PANEL];
};

INLINE words row_load(const uint16_t *pairs, int row) { return words_load(pairs + row * 2 * PANEL); }
INLINE f32s even_of(words pairs) { return f32s_cast(shl32(pairs, 16)); }
INLINE f32s odd_of(words pairs) { return f32s_cast(words_and(pairs, set32(0xffff0000u))); }
INLINE f32s f32s_clamp(f32s x, f32s least, f32s most) { return f32s_max(f32s_min(x, most), least); }
INLINE f32s round_f32s(f32s x) { return f32s_sub(f32s_add(x, f32s_set(EXACT_ROUND)), f32s_set(EXACT_ROUND)); }

/* bf16_to_f32(bf16_from_f32(x)) for finite x. */
INLINE f32s round_bf16(f32s x)
{
	words u = words_cast(x), odd = words_and(shr32(u, 16), set32(1));
	return f32s_cast(words_and(add32(u, add32(odd, set32(0x7fff))), set32(0xffff0000u)));
}

/* x by inverse and offset into the scratch of a search. */
INLINE void scale_inputs(struct scaled *s, const struct inputs *in, struct steps steps)
{
	for (int i = 0; i < in->n; i += 2) {
		words row = row_load(in->pairs, i / 2);
		f32s_store(s->x[i], f32s_fma(even_of(row), steps.inverse, steps.offset));
		f32s_store(s->x[i + 1], f32s_fma(odd_of(row), steps.inverse, steps.offset));
	}
}

/* Integers. */

struct range {
	f32s positive, negative; /* magnitudes */
};

INLINE struct range range_of(const struct inputs *in)
{
	words positive = set32(0), negative = set32(0x80008000u);
	for (int i = 0; i < in->n / 2; i++) {
		words row = row_load(in->pairs, i);
		prefetch(in->pairs + i * 2 * PANEL, AHEAD_BYTES);
		positive = max_s16(positive, row);
		negative = max_u16(negative, row);
	}
	negative = words_and(negative, set32(0x7fff7fffu));
	return (struct range){f32s_max(even_of(positive), odd_of(positive)), f32s_max(even_of(negative), odd_of(negative))};
}

INLINE f32s largest_of(const struct inputs *in)
{
	struct range range = range_of(in);
	return f32s_max(range.positive, range.negative);
}

/* Two factors at once: the chains of one alone would wait for themselves. */
INLINE void int_try(const struct scaled *s, const struct inputs *in, const float *factors, float bottom, float top,
                    const bool weighed, f32s *best, f32s *most)
{
	f32s xv[2] = {f32s_set(0.0f), f32s_set(0.0f)}, vv[2] = {f32s_set(0.0f), f32s_set(0.0f)};
	for (int i = 0; i < in->n; i++) {
		f32s x = f32s_load(s->x[i]);
		for (int c = 0; c < 2; c++) {
			f32s v = f32s_fma(x, f32s_set(factors[c]), f32s_set(EXACT_ROUND));
			v = f32s_clamp(f32s_sub(v, f32s_set(EXACT_ROUND)), f32s_set(bottom), f32s_set(top));
			f32s hv = weighed ? f32s_mul(f32s_set(in->importance[i]), v) : v;
			xv[c] = f32s_fma(x, hv, xv[c]);
			vv[c] = f32s_fma(v, hv, vv[c]);
		}
	}
	for (int c = 0; c < 2; c++) {
		f32s fit = f32s_select(f32s_less(f32s_set(0.0f), vv[c]), f32s_div(xv[c], vv[c]), f32s_set(0.0f));
		f32s gain = f32s_mul(xv[c], fit);
		mask better = f32s_less(*most, gain);
		*best = f32s_select(better, fit, *best);
		*most = f32s_select(better, gain, *most);
	}
}

INLINE f32s int_fit(const struct scaled *s, const struct inputs *in, int low_bits, int zero, const bool weighed)
{
	f32s best = f32s_set(1.0f), most = f32s_set(0.0f);
	const float *factors = low_bits ? low_factors : int4_factors;
	float bottom = (float)-zero, top = (float)((16 << low_bits) - 1 - zero);
	for (int c = 0; c < (low_bits ? N_LOW_FACTORS : N_INT4_FACTORS); c += 2)
		int_try(s, in, factors + c, bottom, top, weighed, &best, &most);
	return best;
}

INLINE struct steps quantize_ints(const struct inputs *in, int low_bits, int zero, bool search, uint16_t *to)
{
	struct int_reach reach = int_reach_of(low_bits, zero);
	struct range range = range_of(in);
	f32s largest = f32s_max(range.positive, range.negative), opposite = f32s_min(range.positive, range.negative);
	f32s scale = f32s_max(f32s_mul(largest, f32s_set(reach.largest)), f32s_mul(opposite, f32s_set(reach.opposite)));
	scale = round_bf16(scale);
	scale = f32s_select(f32s_less(range.negative, range.positive), f32s_sub(f32s_set(-0.0f), scale), scale);
	mask tiny = f32s_less(largest, f32s_set(Q8_TINY));
	scale = f32s_select(tiny, f32s_set(0.0f), scale);
	f32s unit = f32s_set((float)(1 << low_bits)), zeros = f32s_set(0.0f);
	struct steps steps = {f32s_select(tiny, zeros, f32s_div(unit, scale)), zeros};
	if (search) {
		struct scaled scaled;
		scale_inputs(&scaled, in, steps);
		f32s fit = in->importance ? int_fit(&scaled, in, low_bits, zero, true)
		                          : int_fit(&scaled, in, low_bits, zero, false);
		scale = round_bf16(f32s_mul(scale, fit));
		steps.inverse = f32s_select(tiny, zeros, f32s_div(unit, scale));
	}
	store_upper16(to, scale);
	return steps;
}

/* Minimums. */

/* BF16 bits that compare like integers, and back. */
INLINE words ordered16(words bits)
{
	return words_xor(bits, words_and(sra16(bits, 15), set32(0x7fff7fffu)));
}

INLINE void least_and_most(const struct inputs *in, f32s *least, f32s *most)
{
	words low = ordered16(row_load(in->pairs, 0)), high = low;
	for (int i = 1; i < in->n / 2; i++) {
		prefetch(in->pairs + i * 2 * PANEL, AHEAD_BYTES);
		words row = ordered16(row_load(in->pairs, i));
		low = min_s16(low, row);
		high = max_s16(high, row);
	}
	low = ordered16(low);
	high = ordered16(high);
	*least = f32s_add(f32s_min(even_of(low), odd_of(low)), f32s_set(0.0f));
	*most = f32s_max(even_of(high), odd_of(high));
}

struct line {
	f32s slope, intercept, gain;
};

INLINE void line_try(const struct scaled *s, const struct inputs *in, f32s factor, f32s offset, const bool weighed,
                     struct line *best)
{
	f32s zero = f32s_set(0.0f), u1 = zero, x1 = zero, uu = zero, xu = zero;
	float n = 0.0f;
	for (int i = 0; i < in->n; i++) {
		f32s x = f32s_load(s->x[i]);
		f32s u = f32s_clamp(round_f32s(f32s_fma(x, factor, offset)), zero, f32s_set((float)MIN_LEVELS));
		f32s h = f32s_set(weighed ? in->importance[i] : 1.0f), hu = weighed ? f32s_mul(h, u) : u;
		n += weighed ? in->importance[i] : 1.0f;
		u1 = f32s_add(u1, hu);
		x1 = weighed ? f32s_fma(h, x, x1) : f32s_add(x, x1);
		uu = f32s_fma(u, hu, uu);
		xu = f32s_fma(x, hu, xu);
	}
	f32s mean = n > 0.0f ? f32s_div(u1, f32s_set(n)) : zero;
	f32s varies = f32s_fnma(mean, u1, uu), together = f32s_fnma(mean, x1, xu);
	mask fits = f32s_less(f32s_mul(f32s_set(LINE_VARIES), uu), varies);
	f32s slope = f32s_div(together, varies);
	struct line line = {slope, f32s_div(f32s_fnma(slope, u1, x1), f32s_set(n)),
	                    f32s_select(fits, f32s_mul(together, slope), zero)};
	mask better = f32s_less(best->gain, line.gain);
	best->slope = f32s_select(better, line.slope, best->slope);
	best->intercept = f32s_select(better, line.intercept, best->intercept);
	best->gain = f32s_select(better, line.gain, best->gain);
}

INLINE struct line line_search(const struct scaled *s, const struct inputs *in, const bool weighed)
{
	struct line best = {f32s_set(1.0f), f32s_set(0.0f), f32s_set(0.0f)};
	f32s middle = f32s_set(0.5f * (float)MIN_LEVELS);
	for (int c = 0; c <= N_MIN_FACTORS; c++) {
		bool again = c == N_MIN_FACTORS;
		f32s factor = again ? f32s_div(f32s_set(1.0f), best.slope) : f32s_set(min_factors[again ? 0 : c]);
		f32s offset = again ? f32s_mul(f32s_sub(f32s_set(-0.0f), best.intercept), factor)
		                    : f32s_fnma(middle, factor, middle);
		line_try(s, in, factor, offset, weighed, &best);
	}
	return best;
}

INLINE f32s minimum_offset(f32s from, f32s inverse) { return f32s_mul(f32s_sub(f32s_set(-0.0f), from), inverse); }

INLINE struct steps quantize_with_minimum(const struct inputs *in, bool search, uint16_t *to, uint16_t *minimum)
{
	f32s from, most, part = f32s_set(1.0f / (float)MIN_LEVELS), zeros = f32s_set(0.0f), one = f32s_set(1.0f);
	least_and_most(in, &from, &most);
	f32s scale = round_bf16(f32s_sub(f32s_mul(most, part), f32s_mul(from, part)));
	mask tiny = f32s_less(scale, f32s_set(Q8_TINY));
	scale = f32s_select(tiny, zeros, scale);
	f32s inverse = f32s_select(tiny, zeros, f32s_div(one, scale));
	if (search) {
		struct scaled scaled;
		scale_inputs(&scaled, in, (struct steps){inverse, minimum_offset(from, inverse)});
		struct line line = in->importance ? line_search(&scaled, in, true) : line_search(&scaled, in, false);
		from = f32s_select(tiny, from, round_bf16(f32s_fma(scale, line.intercept, from)));
		scale = round_bf16(f32s_mul(scale, line.slope));
		inverse = f32s_select(tiny, zeros, f32s_div(one, scale));
	}
	store_upper16(to, scale);
	store_upper16(minimum, from);
	return (struct steps){inverse, minimum_offset(from, inverse)};
}

/* E2M1. */

/* Twice the value nearest to x / 2, not yet clamped: rounds at half of x's power of two, at least at 1. */
INLINE f32s round_e2m1(f32s x)
{
	f32s power = f32s_max(f32s_cast(words_and(words_cast(x), set32(0x7f800000u))), f32s_set(2.0f));
	f32s round = f32s_cast(add32(words_cast(power), set32((22u << 23) + (1u << 22))));
	return f32s_sub(f32s_add(x, round), round);
}

/* Squared errors under two scales. */
INLINE void e2m1_errors(const struct scaled *s, const struct inputs *in, const f32s half_scale[2],
                        const f32s inverse[2], const bool weighed, f32s error[2])
{
	error[0] = error[1] = f32s_set(0.0f);
	for (int i = 0; i < in->n; i++) {
		f32s x = f32s_load(s->x[i]);
		for (int c = 0; c < 2; c++) {
			f32s v = round_e2m1(f32s_mul(x, inverse[c]));
			f32s d = f32s_fnma(f32s_clamp(v, f32s_set(-E2M1_TOP), f32s_set(E2M1_TOP)), half_scale[c], x);
			f32s hd = weighed ? f32s_mul(f32s_set(in->importance[i]), d) : d;
			error[c] = f32s_fma(d, hd, error[c]);
		}
	}
}

INLINE f32s power_of(words biased) { return f32s_cast(shl32(biased, 23)); }

INLINE struct steps quantize_e8m0(const struct inputs *in, bool search, uint8_t *to)
{
	f32s largest = largest_of(in), zeros = f32s_set(0.0f);
	mask tiny = f32s_less(largest, f32s_set(Q8_TINY));
	words byte = sub32(shr32(words_cast(largest), 23), set32(2));
	if (search) {
		struct scaled scaled;
		f32s error[2], half_scale[2] = {f32s_set(0.5f), f32s_set(1.0f)}, inverse[2] = {f32s_set(2.0f), f32s_set(1.0f)};
		f32s unit = f32s_select(tiny, zeros, power_of(sub32(set32(254), byte)));
		scale_inputs(&scaled, in, (struct steps){unit, zeros});
		if (in->importance) e2m1_errors(&scaled, in, half_scale, inverse, true, error);
		else e2m1_errors(&scaled, in, half_scale, inverse, false, error);
		byte = words_select(f32s_less(error[1], error[0]), add32(byte, set32(1)), byte);
	}
	byte = words_select(tiny, set32(0), byte);
	store_lower8(to, byte);
	return (struct steps){f32s_select(tiny, zeros, power_of(sub32(set32(255), byte))), zeros};
}

/* Nearest E4M3 as an integer in a float, 1 .. E4M3_LARGEST. */
INLINE f32s e4m3_of(f32s x)
{
	words bits = words_cast(x), odd = words_and(shr32(bits, 20), set32(1));
	words normal = sub32(shr32(add32(bits, add32(odd, set32(0x7ffff))), 20), set32(120 << 3));
	f32s small = f32s_max(round_f32s(f32s_mul(x, f32s_set(512.0f))), f32s_set(1.0f));
	f32s code = f32s_select(f32s_less(x, f32s_set(0.015625f)), small, f32s_of(normal));
	return f32s_select(f32s_less(x, f32s_set(448.0f)), code, f32s_set(E4M3_LARGEST));
}

INLINE f32s e4m3_value(f32s code)
{
	f32s normal = f32s_cast(add32(shl32(words_of(code), 20), set32(120u << 23)));
	return f32s_select(f32s_less(code, f32s_set(8.0f)), f32s_mul(code, f32s_set(0x1p-9f)), normal);
}

INLINE f32s e4m3_search(const struct inputs *in, f32s rtn, f32s inverse, const bool weighed)
{
	struct scaled scaled;
	f32s best = rtn, least = f32s_set(INFINITY);
	scale_inputs(&scaled, in, (struct steps){inverse, f32s_set(0.0f)});
	for (int c = 0; c < N_E4M3_CANDIDATES; c += 2) {
		f32s code[2], half_scale[2], to_steps[2], error[2];
		for (int t = 0; t < 2; t++) {
			code[t] = f32s_add(rtn, f32s_set((float)e4m3_candidates[c + t]));
			code[t] = f32s_clamp(code[t], f32s_set(1.0f), f32s_set(E4M3_LARGEST));
			half_scale[t] = f32s_mul(f32s_set(0.5f), e4m3_value(code[t]));
			to_steps[t] = f32s_div(f32s_set(2.0f), e4m3_value(code[t]));
		}
		e2m1_errors(&scaled, in, half_scale, to_steps, weighed, error);
		for (int t = 0; t < 2; t++) {
			mask better = f32s_less(error[t], least);
			best = f32s_select(better, code[t], best);
			least = f32s_select(better, error[t], least);
		}
	}
	return best;
}

INLINE struct steps quantize_e4m3(const struct inputs *in, float tensor_scale, bool search, uint8_t *to)
{
	f32s inverse = f32s_set(tensor_scale > Q8_TINY ? 1.0f / tensor_scale : 0.0f);
	f32s code = e4m3_of(f32s_mul(f32s_mul(largest_of(in), inverse), f32s_set(1.0f / 6)));
	if (search)
		code = in->importance ? e4m3_search(in, code, inverse, true) : e4m3_search(in, code, inverse, false);
	store_lower8(to, words_of(code));
	return (struct steps){f32s_mul(f32s_div(f32s_set(2.0f), e4m3_value(code)), inverse), f32s_set(0.0f)};
}

/* Codes. */

INLINE words rounded_of(const struct kind kind, f32s w, const struct steps *steps)
{
	if (kind.rule == RULE_MINIMUMS) return words_of(f32s_fma(w, steps->inverse, steps->offset));
	f32s x = f32s_mul(w, steps->inverse);
	return words_of(kind.rule == RULE_INTS ? x : round_e2m1(x));
}

/* u, or the E2M1 code, of inputs 4 s .. 4 s + 3: byte 4 o + i. */
INLINE words codes_of(const struct kind kind, const uint16_t *pairs, int s, int zero, const struct steps *steps)
{
	words row[2] = {row_load(pairs, 2 * s), row_load(pairs, 2 * s + 1)}, halves[2], bytes;
	for (int r = 0; r < 2; r++)
		halves[r] = pack_s16(rounded_of(kind, even_of(row[r]), steps), rounded_of(kind, odd_of(row[r]), steps));
	if (kind.rule == RULE_INTS)
		for (int r = 0; r < 2; r++) halves[r] = adds_s16(halves[r], set16((uint16_t)zero));
	if (kind.rule == RULE_INTS || kind.rule == RULE_MINIMUMS) {
		bytes = pack_u8(halves[0], halves[1]);
		if (kind.low_bits < 4) bytes = min_u8(bytes, set8((uint8_t)((16 << kind.low_bits) - 1)));
	} else {
		words v = pack_s8(halves[0], halves[1]);
		words magnitude = shuffle8(e2m1_code_table(), min_u8(abs8(v), set8(E2M1_TOP)));
		bytes = words_or(magnitude, shr16(words_and(v, set8(0x80)), 4));
	}
	return shuffle8(bytes, side_by_side());
}

/* The planes of one block of Q_BLOCK inputs; steps of each half of it. */
INLINE void block_store(const struct kind kind, const uint16_t *pairs, int zero, const struct steps steps[2],
                        uint8_t *q, uint8_t *low)
{
	enum { VECTOR = 4 * PANEL };
	const int bits = kind.low_bits, fields = bits ? 8 / bits : 1;
	words field = set8((uint8_t)((1 << bits) - 1)), below = set32(0);
	for (int p = 0; p < 4; p++) {
		words a = codes_of(kind, pairs, 2 * p, zero, &steps[p / 2]);
		words b = codes_of(kind, pairs, 2 * p + 1, zero, &steps[p / 2]);
		if (!bits) {
			words_stream(q + p * VECTOR, words_or(a, shl16(b, 4)));
			continue;
		}
		words upper = words_or(words_and(shr16(a, bits), set8(0x0f)), words_and(shl16(b, 4 - bits), set8(0xf0)));
		words_stream(q + p * VECTOR, upper);
		int at = 2 * p % fields;
		words pair = words_or(words_and(a, field), shl16(words_and(b, field), bits));
		below = at ? words_or(below, shl16(pair, bits * at)) : pair;
		if (at + 2 == fields) words_stream(low + 2 * p / fields * VECTOR, below);
	}
}

INLINE struct steps group_quantize(const struct kind kind, struct qmatrix *dst, const struct format_info *info,
                                   const struct inputs *in, bool search, size_t group)
{
	size_t at = group * PANEL;
	switch (kind.rule) {
	case RULE_INTS: return quantize_ints(in, kind.low_bits, info->zero, search, (uint16_t *)dst->scale + at);
	case RULE_MINIMUMS: return quantize_with_minimum(in, search, (uint16_t *)dst->scale + at, dst->min + at);
	case RULE_E8M0: return quantize_e8m0(in, search, (uint8_t *)dst->scale + at);
	default: return quantize_e4m3(in, dst->tensor_scale, search, (uint8_t *)dst->scale + at);
	}
}

/* A span of inputs: whole groups and whole blocks, the first of them counted over all panels. */
INLINE void span_quantize(const struct kind kind, struct qmatrix *dst, const struct format_info *info,
                          const struct inputs *in, bool search, size_t block)
{
	struct steps steps[2];
	size_t group = block * Q_BLOCK / (size_t)info->group;
	steps[0] = group_quantize(kind, dst, info, &(struct inputs){in->pairs, in->importance, info->group}, search, group);
	steps[1] = steps[0];
	if (kind.rule == RULE_E4M3) {
		struct inputs second = {in->pairs + info->group * PANEL,
		                        in->importance ? in->importance + info->group : NULL, info->group};
		steps[1] = group_quantize(kind, dst, info, &second, search, group + 1);
	}
	for (int b = 0; b < in->n / Q_BLOCK; b++, block++)
		block_store(kind, in->pairs + b * Q_BLOCK * PANEL, info->zero, steps, dst->q + block * 4 * 4 * PANEL,
		            kind.low_bits ? dst->low + block * (size_t)kind.low_bits * 4 * PANEL : NULL);
}

/* The last span of a panel where K ends within it, padded. */
struct padded {
	uint16_t pairs[GROUP_MAX * PANEL];
	float importance[GROUP_MAX];
};

static struct inputs pad(struct padded *padded, const struct inputs *in, int left)
{
	size_t bytes = (size_t)(left + left % 2) * PANEL * sizeof *in->pairs;
	memcpy(padded->pairs, in->pairs, bytes);
	memset((char *)padded->pairs + bytes, 0, sizeof padded->pairs - bytes);
	for (int i = 0; i < in->n; i++)
		padded->importance[i] = i >= left ? 0.0f : in->importance ? in->importance[i] : 1.0f;
	return (struct inputs){padded->pairs, padded->importance, in->n};
}

INLINE void panels_quantize(const struct kind kind, struct qmatrix *dst, const uint16_t *packed, bool search,
                            const float *importance, int panel_begin, int panel_end)
{
	const struct format_info *info = format_info(dst->format);
	int span = info->group > Q_BLOCK ? info->group : Q_BLOCK, blocks = format_blocks(info, dst->k);
	for (int panel = panel_begin; panel < panel_end; panel++) {
		const uint16_t *pairs = packed + (size_t)panel * packed_panel_elements(dst->k);
		for (int first = 0; first < dst->k; first += span) {
			struct inputs in = {pairs + (size_t)first * PANEL, importance ? importance + first : NULL, span};
			struct padded padded;
			if (first + span > dst->k) in = pad(&padded, &in, dst->k - first);
			span_quantize(kind, dst, info, &in, search, (size_t)panel * (size_t)blocks + (size_t)(first / Q_BLOCK));
		}
	}
}

#define PANELS_QUANTIZE(rule, low_bits) \
	panels_quantize((struct kind){rule, low_bits}, dst, packed, search, importance, panel_begin, panel_end)

static void quantize(struct qmatrix *dst, const uint16_t *packed, enum quantizer quantizer, const float *importance,
                     int panel_begin, int panel_end)
{
	const struct format_info *info = format_info(dst->format);
	bool search = quantizer == QUANTIZE_SEARCH;
	if (info->min) PANELS_QUANTIZE(RULE_MINIMUMS, 0);
	else if (info->scale == SCALE_E8M0) PANELS_QUANTIZE(RULE_E8M0, 0);
	else if (info->scale == SCALE_E4M3) PANELS_QUANTIZE(RULE_E4M3, 0);
	else if (info->low_bits == 0) PANELS_QUANTIZE(RULE_INTS, 0);
	else if (info->low_bits == 1) PANELS_QUANTIZE(RULE_INTS, 1);
	else if (info->low_bits == 2) PANELS_QUANTIZE(RULE_INTS, 2);
	else PANELS_QUANTIZE(RULE_INTS, 4);
	_mm_sfence();
}

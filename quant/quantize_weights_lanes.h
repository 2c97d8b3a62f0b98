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

/* How weights become integers: w * inverse + offset. */
struct steps {
	f32s inverse, offset;
};

/* How they become E2M1 codes: e2m1_count; each limit stands in both halves of a word. */
struct limits {
	words half, three_halves, quarters, sevenths;
};

/* One or the other, by rule. */
struct rounding {
	struct steps steps;
	struct limits limits;
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

/* Codes count the bounds 0.5, 1.5, 2.5, 3.5, 5, 7, 10 that x = |w| * inverse has passed.  The product rises with
 * |w|, so each bound is one of BF16 magnitudes, compared as integers, and doubling it adds 1 to the exponent:
 * limits are the last magnitudes that do not pass 0.5 and 1.5, and for 2.5, 5, .. and 3.5, 7, .. what to subtract
 * so that the exponent counts.  Ties go to the even code. */
enum { EXPONENT_ONE = 0x80, LARGEST_BF16 = 0x7f7f };

INLINE words both16(int x) { return set32((uint32_t)(x * 0x10001)); }

/* The last magnitude that does not pass, less some.  inverse is 1 / unit within 2^-21, or 0 where the unit is
 * infinite.  The bound is put a little too high and cut to BF16: that magnitude passes or the next one does. */
INLINE words e2m1_limit(f32s inverse, f32s unit, float bound, const bool passes_when_equal, int less)
{
	f32s above = f32s_mul(unit, f32s_set(bound * (1.0f + 0x1p-20f)));
	words bits = words_and(words_cast(above), set32(0xffff0000u)), both = words_or(bits, shr32(bits, 16));
	f32s x = f32s_mul(f32s_cast(bits), inverse);
	if (passes_when_equal) return sub32_where(f32s_less(x, f32s_set(bound)), sub32(both, both16(less + 1)), both16(-1));
	return sub32_where(f32s_less(f32s_set(bound), x), less ? sub32(both, both16(less)) : both, both16(1));
}

INLINE struct limits e2m1_limits(f32s inverse, f32s unit)
{
	const int one = EXPONENT_ONE - 1;
	return (struct limits){e2m1_limit(inverse, unit, 0.5f, false, 0), e2m1_limit(inverse, unit, 1.5f, true, 0),
	                       e2m1_limit(inverse, unit, 2.5f, false, one), e2m1_limit(inverse, unit, 3.5f, true, one)};
}

/* The same where the unit is a power of two, given its exponent; none: where all codes are 0. */
INLINE struct limits e2m1_limits_of_power(words biased, mask none)
{
	const int one = EXPONENT_ONE - 1;
	words high = shl32(biased, 7), unit = words_or(high, shl32(high, 16));
	words half = sub32(unit, both16(0x80)), three_halves = add32(unit, both16(0x40 - 1));
	words quarters = add32(unit, both16(0xa0 - one)), sevenths = add32(unit, both16(0xe0 - 1 - one));
	words all = both16(LARGEST_BF16), most = both16(LARGEST_BF16 - one);
	return (struct limits){words_select(none, all, half), words_select(none, all, three_halves),
	                       words_select(none, most, quarters), words_select(none, most, sevenths)};
}

/* Magnitudes of E2M1 codes, not yet clamped, as 16-bit integers. */
INLINE words e2m1_count(words pairs, const struct limits *limits)
{
	words u = words_and(pairs, set32(0x7fff7fffu));
	words sum = add16(shr16(subs_u16(u, limits->quarters), 7), shr16(subs_u16(u, limits->sevenths), 7));
	return count_more16(count_more16(sum, u, limits->half), u, limits->three_halves);
}

INLINE f32s power_of(words biased) { return f32s_cast(shl32(biased, 23)); }

INLINE struct limits quantize_e8m0(const struct inputs *in, bool search, uint8_t *to)
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
	return e2m1_limits_of_power(sub32(byte, set32(1)), tiny);
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

INLINE struct limits quantize_e4m3(const struct inputs *in, float tensor_scale, bool search, uint8_t *to)
{
	f32s inverse = f32s_set(tensor_scale > Q8_TINY ? 1.0f / tensor_scale : 0.0f);
	f32s code = e4m3_of(f32s_mul(f32s_mul(largest_of(in), inverse), f32s_set(1.0f / 6)));
	if (search)
		code = in->importance ? e4m3_search(in, code, inverse, true) : e4m3_search(in, code, inverse, false);
	store_lower8(to, words_of(code));
	f32s scale = e4m3_value(code), unit = f32s_set(tensor_scale > Q8_TINY ? 0.5f * tensor_scale : INFINITY);
	return e2m1_limits(f32s_mul(f32s_div(f32s_set(2.0f), scale), inverse), f32s_mul(scale, unit));
}

/* Codes. */

INLINE words rounded_of(const struct kind kind, f32s w, const struct steps *steps)
{
	if (kind.rule == RULE_MINIMUMS) return words_of(f32s_fma(w, steps->inverse, steps->offset));
	return words_of(f32s_mul(w, steps->inverse));
}

/* u of two pairs of inputs a, b and c, d: within each 16 bytes a0 a1 a2 a3 b0 .. d3. */
INLINE words integers_of(const struct kind kind, const words row[2], int zero, const struct steps *steps)
{
	words halves[2];
	for (int r = 0; r < 2; r++)
		halves[r] = pack_s16(rounded_of(kind, even_of(row[r]), steps), rounded_of(kind, odd_of(row[r]), steps));
	if (kind.rule == RULE_INTS)
		for (int r = 0; r < 2; r++) halves[r] = adds_s16(halves[r], set16((uint16_t)zero));
	words bytes = pack_u8(halves[0], halves[1]);
	return kind.low_bits < 4 ? min_u8(bytes, set8((uint8_t)((16 << kind.low_bits) - 1))) : bytes;
}

/* E2M1 codes: within each 16 bytes a0 b0 a1 b1 .. b3 c0 d0 .. d3. */
INLINE words e2m1_codes_of(const words row[2], const struct limits *limits)
{
	words magnitude = min_u8(pack_u8(e2m1_count(row[0], limits), e2m1_count(row[1], limits)), set8(7));
	words sign = shr16(words_and(pack_s8(row[0], row[1]), set8(0x80)), 4);
	return shuffle8(no_negative_zero(), words_or(magnitude, sign));
}

/* u, or the E2M1 code, of inputs 4 s .. 4 s + 3: byte 4 o + i. */
INLINE words codes_of(const struct kind kind, const uint16_t *pairs, int s, int zero,
                     const struct rounding *rounding)
{
	words row[2] = {row_load(pairs, 2 * s), row_load(pairs, 2 * s + 1)};
	if (kind.rule == RULE_INTS || kind.rule == RULE_MINIMUMS)
		return shuffle8(integers_of(kind, row, zero, &rounding->steps), side_by_side());
	return shuffle8(e2m1_codes_of(row, &rounding->limits), pairs_side_by_side());
}

/* The planes of one block of Q_BLOCK inputs; rounding of its halves. */
INLINE void block_store(const struct kind kind, const uint16_t *pairs, int zero, const struct rounding *const rounding[2],
                        uint8_t *q, uint8_t *low)
{
	enum { VECTOR = 4 * PANEL };
	const int bits = kind.low_bits, fields = bits ? 8 / bits : 1;
	words field = set8((uint8_t)((1 << bits) - 1)), below = set32(0);
	for (int p = 0; p < 4; p++) {
		words a = codes_of(kind, pairs, 2 * p, zero, rounding[p / 2]);
		words b = codes_of(kind, pairs, 2 * p + 1, zero, rounding[p / 2]);
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

INLINE void group_quantize(struct rounding *rounding, const struct kind kind, struct qmatrix *dst,
                           const struct format_info *info, const struct inputs *in, bool search, size_t group)
{
	size_t at = group * PANEL;
	switch (kind.rule) {
	case RULE_INTS:
		rounding->steps = quantize_ints(in, kind.low_bits, info->zero, search, (uint16_t *)dst->scale + at);
		break;
	case RULE_MINIMUMS:
		rounding->steps = quantize_with_minimum(in, search, (uint16_t *)dst->scale + at, dst->min + at);
		break;
	case RULE_E8M0: rounding->limits = quantize_e8m0(in, search, (uint8_t *)dst->scale + at); break;
	default: rounding->limits = quantize_e4m3(in, dst->tensor_scale, search, (uint8_t *)dst->scale + at); break;
	}
}

/* A span of inputs: whole groups and whole blocks, the first of them counted over all panels. */
INLINE void span_quantize(const struct kind kind, struct qmatrix *dst, const struct format_info *info,
                          const struct inputs *in, bool search, size_t block)
{
	struct rounding first, second;
	size_t group = block * Q_BLOCK / (size_t)info->group;
	group_quantize(&first, kind, dst, info, &(struct inputs){in->pairs, in->importance, info->group}, search, group);
	if (kind.rule == RULE_E4M3) {
		struct inputs rest = {in->pairs + info->group * PANEL,
		                      in->importance ? in->importance + info->group : NULL, info->group};
		group_quantize(&second, kind, dst, info, &rest, search, group + 1);
	}
	const struct rounding *const rounding[2] = {&first, kind.rule == RULE_E4M3 ? &second : &first};
	for (int b = 0; b < in->n / Q_BLOCK; b++, block++)
		block_store(kind, in->pairs + b * Q_BLOCK * PANEL, info->zero, rounding, dst->q + block * 4 * 4 * PANEL,
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

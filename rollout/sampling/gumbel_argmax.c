/* gumbel_argmax.c - the definition of the draw.
 *
 * Begins with the likeliest entry, whose score bounds what can still win: an entry lower by more
 * than NOISE_GUMBEL_MAX is passed over without noise.
 */
#include "rollout/sampling/gumbel_argmax.h"

int32_t gumbel_argmax_scalar(const struct gumbel_row *row)
{
	struct gumbel_best best = {noise_gumbel(row->key, row->position, row->max_at), row->max_at};

	for (int32_t i = 0; i < row->n; i++) {
		float scaled = (row->logits[i] - row->max) * row->inv_t;
		if (!cut_keeps(row->cut, row->logits[i], i) || scaled + NOISE_GUMBEL_MAX < best.score) continue;
		gumbel_offer(&best, scaled + noise_gumbel(row->key, row->position, i), i);
	}
	return best.token;
}

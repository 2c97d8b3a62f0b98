/* kv_parcel.h - the keys and values of an unfinished sample on their way to another engine.
 *
 * Whole pages of policy/kv_cache.h, made under one version by one mode: where they fit, the sample goes on
 * without a prefill and with the same bits; where they do not, they are ignored and computed again.
 */
#ifndef ROLLOUT_KV_PARCEL_H
#define ROLLOUT_KV_PARCEL_H

#include <stddef.h>
#include <stdint.h>

struct kv_parcel {
	void *bytes;         /* owned; NULL: none */
	size_t n_bytes;
	int32_t n_positions; /* [0, n_positions) are in it */
	int64_t version;     /* of the policy that made them */
	int32_t mode;        /* enum rollout_mode: in quantized mode they are the quantized copy's */
};

void kv_parcel_free(struct kv_parcel *parcel); /* and empty it */
struct kv_parcel kv_parcel_copy(const struct kv_parcel *parcel);

#endif

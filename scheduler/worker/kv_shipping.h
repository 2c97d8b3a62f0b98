/* kv_shipping.h - whether a sample's keys and values travel with it, or are computed again where it goes on.
 *
 * A parcel travels twice, to the controller and on; the rate is that of the first transfers from this rank,
 * which are made to know it, and for large parcels until then one that a 1 Gb/s network has.  Against it stands what the engine's prefill has cost so far. */
#ifndef SCHEDULER_WORKER_KV_SHIPPING_H
#define SCHEDULER_WORKER_KV_SHIPPING_H

#include <stdbool.h>
#include <stddef.h>

enum { KV_SHIP_BYTES_MAX = 256 << 20 }; /* of one sample */

struct kv_shipping {
	int mode;                /* enum migrate_kv */
	int n_measured;
	double bytes_per_second; /* of the transfers measured, 0: none yet */
};

/* A parcel of n_bytes for n_positions, which the engine would prefill at prefill_seconds each (0: not known,
 * then it is not worth it). */
bool kv_shipping_pays(const struct kv_shipping *shipping, size_t n_bytes, int n_positions, double prefill_seconds);

/* A transfer should be made and timed; this long did one of n_bytes take, in one or many messages. */
bool kv_shipping_wants_rate(const struct kv_shipping *shipping);
void kv_shipping_observe(struct kv_shipping *shipping, size_t n_bytes, double seconds);

#endif

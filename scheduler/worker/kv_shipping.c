/* kv_shipping.c - bytes over a rate against positions over a rate. */
#include "scheduler/worker/kv_shipping.h"

#include "configs/config.h"

/* Of fewer bytes the time is mostly that until the other side looks, which costs nobody anything. */
enum { MEASURED_ENOUGH = 4, MEASURED_BYTES_MIN = 256 << 10, MEASURED_BYTES_MAX = 16 << 20, WAYS = 2 };
static const double BYTES_PER_SECOND_ASSUMED = 1e8;

bool kv_shipping_wants_rate(const struct kv_shipping *s)
{
	return s->mode == MIGRATE_KV_AUTO && s->n_measured < MEASURED_ENOUGH;
}

bool kv_shipping_pays(const struct kv_shipping *s, size_t n_bytes, int n_positions, double prefill_seconds)
{
	double rate = s->bytes_per_second > 0 ? s->bytes_per_second : BYTES_PER_SECOND_ASSUMED;

	if (n_positions == 0 || n_bytes > KV_SHIP_BYTES_MAX || s->mode == MIGRATE_KV_RECOMPUTE) return false;
	return s->mode == MIGRATE_KV_SHIP || (kv_shipping_wants_rate(s) && n_bytes <= MEASURED_BYTES_MAX) ||
	       WAYS * (double)n_bytes / rate < n_positions * prefill_seconds;
}

void kv_shipping_observe(struct kv_shipping *s, size_t n_bytes, double seconds)
{
	double rate = (double)n_bytes / (seconds > 1e-9 ? seconds : 1e-9);

	if (n_bytes < MEASURED_BYTES_MIN) return;
	s->bytes_per_second = (s->n_measured * s->bytes_per_second + rate) / (s->n_measured + 1);
	s->n_measured++;
}

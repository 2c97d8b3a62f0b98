/* leases.h - what a worker holds: the samples in its engine, and under which leases. */
#ifndef SCHEDULER_WORKER_LEASES_H
#define SCHEDULER_WORKER_LEASES_H

#include <stdbool.h>
#include <stdint.h>

struct lease {
	uint64_t trajectory_id, lease;
	bool keep;     /* runs to its end in spite of STOP */
	bool unscored; /* no verifier is asked */
	int32_t told;  /* tokens that the controller has */
};

struct leases {
	struct lease *items; /* [n], in no order; owned */
	int n, capacity;
};

/* NULL if there is none; good until the next add or end. */
struct lease *leases_find(const struct leases *leases, uint64_t trajectory_id);
void leases_add(struct leases *leases, uint64_t trajectory_id, uint64_t lease, int32_t n_tokens);
/* Remove and return its number, 0 if there is none. */
uint64_t leases_end(struct leases *leases, uint64_t trajectory_id);

#endif

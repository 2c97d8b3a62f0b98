/* scheduler_internal.h - what the scheduler_*.c files share: the live state and its containers.
 *
 * Every event costs O(log groups + log ranks) at most: samples are linked into the one list that
 * their state says, groups and ranks into binary heaps that know each member's place.  Memory is
 * linear in the samples of groups not yet delivered.
 */
#ifndef SCHEDULER_SCHEDULER_INTERNAL_H
#define SCHEDULER_SCHEDULER_INTERNAL_H

#include <stddef.h>

#include "scheduler/scheduler.h"

/* Binary min-heap of nodes that are embedded in their owners; at == 0: in no heap. */
struct heap_node {
	uint64_t key;
	size_t at;
	void *owner;
};

struct heap {
	struct heap_node **nodes; /* [1 .. n], nodes[0] unused */
	size_t n, capacity;
};

void heap_insert(struct heap *heap, struct heap_node *node, uint64_t key, void *owner);
void heap_remove(struct heap *heap, struct heap_node *node);
void heap_rekey(struct heap *heap, struct heap_node *node, uint64_t key);
void *heap_first(const struct heap *heap); /* owner of the smallest key, NULL if empty */
void heap_free(struct heap *heap);

enum sample_state { SAMPLE_WAITING, SAMPLE_LEASED, SAMPLE_ASIDE, SAMPLE_DONE, SAMPLE_STATES };

#define VERSION_NONE INT64_MIN /* a sample that never came back with tokens */

struct sample {
	struct group *group;
	struct sample *previous, *next; /* in group->pending[due] (waiting, aside) or rank->leased */
	uint64_t lease;                 /* current one while leased */
	int64_t oldest_version;         /* of its first token, VERSION_NONE if it has none */
	int index, rank, deferrals;
	enum sample_state state;
	bool due;                       /* S7: must be done before the step ends */
};

struct sample_list {
	struct sample *first, *last;
	int n;
};

void sample_list_push_front(struct sample_list *list, struct sample *sample);
void sample_list_push_back(struct sample_list *list, struct sample *sample);
void sample_list_remove(struct sample_list *list, struct sample *sample);

enum group_state { GROUP_OPEN, GROUP_SCORING, GROUP_KEPT };
enum { ORDINARY, DUE, DUE_KINDS };

struct group {
	uint64_t id;
	enum group_state state;
	bool eval;
	int home;                                /* rank of its latest lease (its prompt's KV is there), or -1 */
	struct sample_list pending[DUE_KINDS];   /* samples to lease */
	struct heap_node pending_node[DUE_KINDS]; /* in pool->pending[] while the list has members */
	struct heap_node kept_node;
	int n_samples, n_done;
	struct sample samples[];                 /* [n_samples] */
};

/* Groups by ascending id.  A freed group leaves a hole; the table is packed when half are holes. */
struct group_map {
	struct group_slot {
		uint64_t id;
		struct group *group; /* NULL: hole */
	} *slots;
	size_t n_slots, n_live, capacity;
};

struct group *group_map_find(const struct group_map *table, uint64_t id);
void group_map_insert(struct group_map *table, struct group *group);
void group_map_remove(struct group_map *table, uint64_t id);
void group_map_free(struct group_map *table); /* and the groups */

struct rank {
	int number;
	bool alive, stopping; /* stopping: STOP was sent, quiet has not come */
	int capacity;
	struct sample_list leased;
	struct heap_node room_node; /* in scheduler->room while alive and not stopping */
};

struct action_queue {
	struct action *items; /* ring of `capacity`, a power of two */
	size_t first, n, capacity;
};

void action_queue_push(struct action_queue *queue, const struct action *action);
bool action_queue_pop(struct action_queue *queue, struct action *action);

/* Groups of one kind: training or evaluation. */
struct pool {
	struct heap pending[DUE_KINDS]; /* groups with samples to lease, oldest first */
	struct heap kept;               /* complete, scored and kept, oldest first */
	int n_open, n_scoring;
};

enum step_phase { PHASE_IDLE, PHASE_FILLING, PHASE_CLOSING };

struct scheduler {
	struct scheduler_options options;
	struct group_map groups;
	struct pool pools[2]; /* [eval] */
	uint64_t next_group, next_lease;

	struct rank **ranks; /* [n_ranks], by rank number; NULL: never joined */
	int n_ranks, n_stopping;
	struct heap room; /* ranks that take leases, most free capacity first, then lowest number */

	enum step_phase phase;
	int64_t step, version;
	bool eval;
	int wanted, limit; /* groups to deliver, groups that may exist */
	int n_due;         /* samples with due set */

	int n_samples[SAMPLE_STATES];
	uint64_t resumed, deferred, groups_dropped, groups_delivered;
	struct action_queue actions;
};

/* scheduler_step.c */

/* Into the queue of its group, partials before samples without tokens; and out of it. */
void sample_enqueue(struct scheduler *scheduler, struct sample *sample);
void sample_dequeue(struct scheduler *scheduler, struct sample *sample);

struct rank *rank_find(const struct scheduler *scheduler, int number); /* NULL if it is not alive */
uint64_t rank_key(const struct rank *rank);                            /* in scheduler->room */
void rank_stopping_set(struct scheduler *scheduler, struct rank *rank, bool stopping);

/* The sample if the lease is current (S9), else NULL. */
struct sample *lease_find(const struct scheduler *scheduler, uint64_t group_id, int index, uint64_t lease);
/* Off its rank; the caller says where it goes. */
void lease_end(struct scheduler *scheduler, struct sample *sample);

struct group *group_add(struct scheduler *scheduler, uint64_t id, int n_samples, bool eval);
void group_sample_done(struct scheduler *scheduler, struct sample *sample);
void group_remove(struct scheduler *scheduler, struct group *group); /* a complete one: delivered or dropped */

void step_begin(struct scheduler *scheduler, int64_t step, bool eval, int wanted, int limit);
/* Partials that this step must finish (S7) go to the queue of those that are due. */
void step_mark_due(struct scheduler *scheduler);
void step_advance(struct scheduler *scheduler);

static inline int rank_free(const struct rank *rank)
{
	return rank->capacity - rank->leased.n;
}

static inline int pool_groups(const struct pool *pool)
{
	return pool->n_open + pool->n_scoring + (int)pool->kept.n;
}

#endif

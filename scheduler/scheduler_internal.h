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

#define VERSION_NONE SCHEDULER_NO_TOKENS /* a sample that never came back with tokens */

/* sample.to: where it is leased to, a rank's number or one of these. */
enum { TO_HOME = -1, TO_ROOMIEST = -2 };

struct sample {
	struct group *group;
	struct sample *previous, *next; /* in group->pending[due] (waiting, aside) or rank->leased */
	uint64_t lease;                 /* current one while leased */
	int64_t oldest_version;         /* of its first token, VERSION_NONE if it has none */
	int index, rank, deferrals, to;
	uint32_t expected;              /* tokens to come (scheduler_order.c) */
	struct heap_node order_node;    /* in pool->longest[due] */
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

enum group_state { GROUP_OPEN, GROUP_HELD /* all done, judged after older ones */, GROUP_SCORING, GROUP_KEPT };
enum { ORDINARY, DUE, DUE_KINDS };

struct group {
	uint64_t id;
	enum group_state state;
	bool eval;
	bool known;                              /* something is expected of it (ORDER_LONGEST) */
	int home;                                /* rank of its latest lease (its prompt's KV is there), or -1 */
	struct sample_list pending[DUE_KINDS];   /* samples to lease */
	struct heap_node pending_node[DUE_KINDS]; /* in pool->pending[] while the list has members */
	struct heap_node kept_node;
	int64_t version;                         /* it was opened under; VERSION_NONE: restored, not known */
	bool aged;                               /* counted in scheduler->ages */
	bool settled;                            /* its number of samples is final (scheduler_extend.c) */
	struct heap_node unsettled_node;
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
/* The same group with room for n_samples, where nothing but the table points to it; those it had say so. */
struct group *group_map_resize(struct group_map *table, struct group *group, int n_samples);
void group_map_free(struct group_map *table); /* and the groups */

struct rank {
	int number;
	bool alive, stopping; /* stopping: STOP was sent, quiet has not come */
	int capacity, active; /* samples it may hold; of those, decoded together */
	struct sample_list leased;
	struct heap_node room_node; /* in scheduler->room while alive and not stopping */
	/* scheduler_migrate.c */
	struct heap_node load_node; /* in scheduler->load while it can be recalled from */
	uint64_t recall;            /* number of the one in flight, 0: none */
	bool barren;                /* the last one brought nothing, and nothing has changed since */
	int receiver, n_promised;   /* of that recall: for whom (-1: gone), and samples still to come */
	int n_expected;             /* samples that recalls are bringing to this rank */
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
	struct heap longest[DUE_KINDS]; /* samples to lease by ORDER_LONGEST */
	struct heap kept;               /* complete, scored and kept, oldest first */
	int n_open, n_scoring;          /* those that are held count as open */
};

/* Prompts that were offered and wait: their numbers of samples. */
struct offers {
	int *sizes; /* ring of `capacity`, n from first on */
	int first, n, capacity;
};

/* Samples of the next one, 0 if there is none. */
int offers_take(struct offers *offers);

enum step_phase { PHASE_IDLE, PHASE_FILLING, PHASE_CLOSING };

struct scheduler {
	struct scheduler_options options;
	struct group_map groups;
	struct pool pools[2]; /* [eval] */
	uint64_t next_group, next_lease, next_recall;

	struct rank **ranks; /* [n_ranks], by rank number; NULL: never joined */
	int n_ranks, n_stopping;
	struct heap room; /* ranks that take leases, most free slots first, then lowest number */
	struct heap load; /* ranks to recall from, most queued first, then most held */

	enum step_phase phase;
	int64_t step, version;
	bool eval;
	int wanted, limit; /* groups to deliver, groups that may exist */
	int eval_samples;   /* of the evaluation that is open */
	struct offers offers;
	int training_limit; /* of training groups, by over_sampling */
	int n_due;         /* samples with due set */
	bool running;      /* async: leases are also given between steps */
	bool scores_are_late; /* every GROUP_COMPLETE has been taken, and all actions after it: what was said at once is here */
	enum scheduler_stream stream;
	int n_streamed;    /* groups of the open step that have been delivered */
	int outstanding;   /* batches delivered for which no version has come */
	struct age {       /* training groups by the version that they were opened under, ascending */
		int64_t version;
		int n_live, n_kept;
	} *ages;           /* [n_ages], where they matter */
	int n_ages, ages_capacity;
	struct heap unsettled; /* training groups that may still be extended, oldest first */
	int n_held, n_extra;   /* groups GROUP_HELD; samples of extensions since the last training batch */
	bool restoring;        /* groups are being restored, in any order: those that may be extended are held */
	int n_unknown;     /* groups of which nothing is expected yet (ORDER_LONGEST) */

	int n_samples[SAMPLE_STATES];
	uint64_t resumed, deferred, groups_dropped, groups_delivered, groups_given_up, recalls, migrated, pruned;
	struct action_queue actions;
};

/* scheduler_step.c */

/* Into the queue of its group, partials before samples without tokens; and out of it. */
void sample_enqueue(struct scheduler *scheduler, struct sample *sample);
void sample_dequeue(struct scheduler *scheduler, struct sample *sample);
/* While it is in no queue. */
void sample_due_set(struct scheduler *scheduler, struct sample *sample, bool due);

struct rank *rank_find(const struct scheduler *scheduler, int number); /* NULL if it is not alive */
/* Open to leases: alive and not stopping; call after either changed, or what decides its place did. */
void rank_room_changed(struct scheduler *scheduler, struct rank *rank);
void rank_stopping_set(struct scheduler *scheduler, struct rank *rank, bool stopping);

/* The sample if the lease is current (S9), else NULL. */
struct sample *lease_find(const struct scheduler *scheduler, uint64_t group_id, int index, uint64_t lease);
/* Off its rank; the caller says where it goes. */
void lease_end(struct scheduler *scheduler, struct sample *sample);

struct group *group_add(struct scheduler *scheduler, uint64_t id, int n_samples, bool eval);
struct group *group_open(struct scheduler *scheduler); /* the next one of the step that is open */
/* The samples from `first` on, fresh, into their queue. */
void group_add_samples(struct scheduler *scheduler, struct group *group, int first);
void group_sample_done(struct scheduler *scheduler, struct sample *sample);
void group_judge(struct scheduler *scheduler, struct group *group); /* all are done: ask for its score */
void group_deliver(struct scheduler *scheduler, struct group *group); /* a kept one */
void group_remove(struct scheduler *scheduler, struct group *group); /* a complete one: delivered or dropped */

void sample_action(struct scheduler *scheduler, enum action_type type, const struct sample *sample);
void group_action(struct scheduler *scheduler, enum action_type type, const struct group *group);
void step_action(struct scheduler *scheduler, enum action_type type, int rank);
void sample_state_set(struct scheduler *scheduler, struct sample *sample, enum sample_state state);
void sample_due_set(struct scheduler *scheduler, struct sample *sample, bool due);

void step_begin(struct scheduler *scheduler, int64_t step, bool eval, int wanted, int limit);
/* Partials that this step must finish (S7) go to the queue of those that are due. */
void step_mark_due(struct scheduler *scheduler);
void step_advance(struct scheduler *scheduler);
bool step_fills(const struct scheduler *scheduler); /* ordinary work is leased, not only what is due */

/* scheduler_staleness.c */

/* S7, seen from the step that is open. */
bool sample_must_finish(const struct scheduler *scheduler, const struct sample *sample);
bool group_is_expired(const struct scheduler *scheduler, const struct group *group);
/* With the version after this batch it will lag more than max_staleness. */
bool group_is_at_limit(const struct scheduler *scheduler, const struct group *group);
/* A group has been opened, is kept, is about to be removed. */
void group_age_begin(struct scheduler *scheduler, struct group *group);
void group_age_kept(struct scheduler *scheduler, const struct group *group);
void group_age_end(struct scheduler *scheduler, const struct group *group);
/* Enough groups are kept, but the others could not all be delivered in time. */
bool staleness_holds_batch(const struct scheduler *scheduler);
bool staleness_may_open(const struct scheduler *scheduler); /* one more group, of the kind that is generated */
void staleness_version_set(struct scheduler *scheduler, int64_t version);
void staleness_batch_out(struct scheduler *scheduler);
/* Called back if it is leased, taken out of its queue if it waits. */
void sample_leave(struct scheduler *scheduler, struct sample *sample);
/* Call back what is leased, forget the rest. */
void group_give_up(struct scheduler *scheduler, struct group *group);
/* Everything on the ranks is put aside. */
void staleness_rest(struct scheduler *scheduler);

static inline bool is_async(const struct scheduler *scheduler)
{
	return scheduler->options.asynchrony == ASYNCHRONOUS;
}

/* scheduler_extend.c */

/* A group is there: it may be extended, unless it is of a kind that never is. */
void group_unsettle(struct scheduler *scheduler, struct group *group);
void group_settle(struct scheduler *scheduler, struct group *group);
/* About to be judged: with the budget spent its size is final whatever the verdict, also in the step after. */
void group_settle_unless_room(struct scheduler *scheduler, struct group *group);
/* It may not be judged yet (S19). */
bool group_is_held(const struct scheduler *scheduler, const struct group *group);
/* Groups that were held and may be judged now. */
void groups_judge(struct scheduler *scheduler);

/* scheduler_migrate.c */
void rank_load_changed(struct scheduler *scheduler, struct rank *rank);
/* The rank's last recall is answered, or will not be. */
void recall_end(struct scheduler *scheduler, struct rank *donor);
/* What recalls were bringing to a lost rank goes elsewhere. */
void recall_forget_receiver(struct scheduler *scheduler, struct rank *lost);
/* Samples that donor could give so that receiver has work, 0 if it is not worth it. */
int migration_size(const struct rank *donor, const struct rank *receiver);
/* Nothing is left to lease: recall from loaded ranks for idle ones. */
void step_migrate(struct scheduler *scheduler);

/* scheduler_stream.c */
void step_stream(struct scheduler *scheduler);

/* scheduler_order.c */
void order_enqueue(struct scheduler *scheduler, struct sample *sample);
void order_dequeue(struct scheduler *scheduler, struct sample *sample);
struct sample *order_next_sample(struct scheduler *scheduler);

static inline int rank_free(const struct rank *rank)
{
	return rank->capacity - rank->leased.n;
}

/* Slots that decode and have no sample yet, nor will by a recall; below 0: samples queue. */
static inline int rank_slots(const struct rank *rank)
{
	return rank->active - rank->leased.n - rank->n_expected;
}

static inline int pool_groups(const struct pool *pool)
{
	return pool->n_open + pool->n_scoring + (int)pool->kept.n;
}

#endif

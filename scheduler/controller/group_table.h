/* group_table.h - the controller's memory of groups that are not yet delivered or dropped.
 *
 * Group ids come from one ascending counter, so the table is a window of it: O(1) by id. */
#ifndef SCHEDULER_CONTROLLER_GROUP_TABLE_H
#define SCHEDULER_CONTROLLER_GROUP_TABLE_H

#include "rollout/advantage/advantage.h"
#include "rollout/kv_parcel.h"
#include "scheduler/controller/prompt_queue.h"

/* What the store does not know of a sample yet, and is told before the next commit. */
enum unsaved { SAVED, UNSAVED_FIELDS /* tokens and segments are there */, UNSAVED_ALL };

struct live_group {
	uint64_t id;
	bool eval;
	bool unscored;               /* no verifier is asked */
	struct submitted_prompt *submitted; /* what it was opened for, owned; NULL: a prompt of the run's */
	uint64_t completed;          /* counts up as groups are complete */
	int n_samples;
	int n_first;                 /* it began with so many; fewer than n_samples once it was extended */
	int first_shipped;           /* explore mode: n_first once it was chosen from the pool; those before are not delivered */
	struct trajectory **samples; /* [n_samples], owned: each as last known */
	uint64_t *leases;            /* [n_samples], current lease number, 0: none */
	int *holders;                /* [n_samples], rank of that lease, or of the last one */
	int *orphans;                /* [n_samples], the rank that was given up with it; 0: none, or answered since */
	struct kv_parcel *kv;        /* [n_samples], owned: what came back with one that is put aside */
	unsigned char *unsaved;      /* [n_samples], enum unsaved */
	bool *moving;                /* [n_samples], recalled from one rank and not leased to another yet */
	bool *judging;               /* [n_samples], with an external verifier (controller_rewards.c) */
	int n_judging;
	bool complete;               /* all are done: it is scored as soon as none is judged any more */
	int *ranks;                  /* [n_ranks], ranks that have had its prompt */
	int n_ranks;
	struct group_advantage advantage; /* once complete */
	struct pruning *pruning;     /* owned, one allocation (controller_prune.c); NULL: nothing of it has been judged */
	bool kept;                   /* it was scored and kept before the run was resumed */
};

struct group_table;

struct group_table *group_table_open(void);
void group_table_close(struct group_table *table);

/* id above all before it; samples and leases zeroed. */
struct live_group *group_table_add(struct group_table *table, uint64_t id, int n_samples, bool eval);
/* n_more samples without trajectories yet. */
void group_table_extend(struct live_group *g, int n_more);
struct live_group *group_table_find(const struct group_table *table, uint64_t id); /* NULL if not live */
void group_table_remove(struct group_table *table, uint64_t id);                   /* frees its samples */

/* Live groups in order of id: the first with id >= from, or NULL. */
struct live_group *group_table_next(const struct group_table *table, uint64_t from);

#endif

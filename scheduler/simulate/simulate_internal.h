/* simulate_internal.h - what the simulate*.c files share: samples, ranks, messages on their way.
 *
 * Memory is linear in live samples and ranks: a group is freed when it is delivered or dropped.
 */
#ifndef SCHEDULER_SIMULATE_SIMULATE_INTERNAL_H
#define SCHEDULER_SIMULATE_SIMULATE_INTERNAL_H

#include "scheduler/controller/length_estimate.h"
#include "scheduler/scheduler.h"
#include "scheduler/simulate/simulate.h"

#define VERSION_UNSET INT64_MIN

/* From token `made` on, tokens were made under this version. */
struct sim_mark {
	int64_t version;
	int32_t made;
};

struct sim_sample {
	struct sim_group *group;
	struct sim_sample *next; /* in one of its rank's queues */
	uint64_t lease;
	double arrival;          /* of the lease at the rank */
	double ready;            /* in prefill: count of the rank's prefill rows when it can decode */
	double end;              /* decoding: the rank's clock when it is complete */
	double cancelled;        /* arrival of CANCEL at the rank, INFINITY: none */
	int64_t first_version;   /* of its first token, VERSION_UNSET if it has none */
	struct sim_mark *marks;  /* [n_marks], where ages of tokens are asked for (scheduler.stale_action: mask) */
	int32_t n_marks;
	int32_t length, made;    /* tokens: all it will have; had when it last came to or left a slot */
	int32_t index;
	bool keep;               /* goes on in spite of STOP */
	bool leaves;             /* is about to be sent back unfinished */
	bool held;               /* by a rank, or on its way to one or back */
};

struct sim_group {
	uint64_t id;
	int32_t n_prompt, n_samples;
	int32_t n_held;              /* samples */
	int32_t n_ended;
	double ended_tokens;         /* of those */
	bool gone;                   /* dropped, and kept here until nothing of it is held */
	int prompt_rank;             /* the rank that has computed the prompt last, 0: none */
	int prompt_epoch;            /* of that rank */
	double prompt_ready;         /* count of its prefill rows when it had */
	struct sim_sample samples[]; /* [n_samples] */
};

/* Groups by id, ascending from base. */
struct sim_groups {
	struct sim_group **window; /* [n]; NULL: gone, or not ours */
	uint64_t base;
	size_t n, capacity;
};

struct sim_group *sim_groups_add(struct sim_groups *groups, uint64_t id, int n_samples);
struct sim_group *sim_groups_find(const struct sim_groups *groups, uint64_t id);
void sim_groups_remove(struct sim_groups *groups, uint64_t id);
void sim_groups_free(struct sim_groups *groups);

struct sim_queue {
	struct sim_sample *first, *last;
	int n;
};

/* A decoding sample by the rank's clock at its end. */
struct sim_slot {
	double end;
	struct sim_sample *sample;
};

/* A rank, as of the round that ended at `at`.  Its clock counts the tokens that a session would have made here. */
struct sim_rank {
	double at, clock;
	struct sim_slot *slots;     /* [n_decoding], binary heap, earliest end first */
	int n_decoding, slots_capacity;
	struct sim_queue prefill;   /* in slots as well, and computed one after the other */
	struct sim_queue queue;     /* by arrival: without a slot, or still on their way */
	double positions;           /* sum of the contexts of what decodes */
	double rows_done, rows_due; /* of prefill, since the beginning */
	double rows_seconds;        /* that those between the two take */
	double stop_at;             /* arrival of STOP, INFINITY: none */
	double cancel_at;           /* earliest arrival of a CANCEL, INFINITY: none */
	struct sim_recall {
		double at;              /* arrival, INFINITY: none */
		uint64_t number;
		int keep;               /* samples that stay */
	} recall;                   /* the next comes when this one is answered */
	double weights_at;          /* arrival of weights that change under samples in flight, INFINITY: none */
	int epoch;                  /* how often such weights came, if keys and values are computed anew */
	/* the stretch of rounds from `at` on */
	struct simulate_round round; /* prefill included */
	double rows;                /* of prefill in each */
	double rounds_end, end_at;  /* rounds until the batch changes of itself, and when that is */
	double rounds;              /* until the wake-up that is planned */
};

static inline int sim_rank_active(const struct sim_rank *rank) { return rank->n_decoding + rank->prefill.n; }

enum sim_message_type {
	SIM_DONE, SIM_PARTIAL, SIM_QUIET, SIM_RETURNED /* by a recall */, SIM_RECALLED,
	SIM_CANCELLED /* no message: that is not answered */
};

/* To the controller. */
struct sim_message {
	double time;
	uint64_t order; /* of sending: messages of one time arrive in it */
	struct sim_sample *sample;
	int rank;
	enum sim_message_type type;
};

/* Messages by time: those sent in order wait in a ring, others in a binary heap. */
struct sim_messages {
	struct sim_message *ring, *heap;
	size_t first, n, ring_capacity, n_heap, heap_capacity;
	uint64_t order;
};

void sim_messages_push(struct sim_messages *messages, struct sim_message message);
const struct sim_message *sim_messages_first(const struct sim_messages *messages); /* NULL: none */
struct sim_message sim_messages_pop(struct sim_messages *messages);
void sim_messages_free(struct sim_messages *messages);

/* Ranks by the time of their next wake-up: binary heap that knows each one's place. */
struct sim_wakes {
	struct sim_wake {
		double time;
		int rank;
	} *heap; /* [1 .. n] */
	int *place; /* [n_ranks + 1], 0: asleep */
	int n;
};

void sim_wakes_open(struct sim_wakes *wakes, int n_ranks);
void sim_wakes_free(struct sim_wakes *wakes);
void sim_wakes_set(struct sim_wakes *wakes, int rank, double time); /* INFINITY: asleep until told otherwise */

/* What is summed up; from the warm-up's end on, where it says so. */
struct sim_sums {
	/* of the time since the warm-up */
	double since, until;
	double slot_seconds, rank_seconds, tail_seconds, rollout_seconds, controller_seconds;
	double tokens_made, session_rounds, tokens_dropped;
	double delivered, delivered_tokens, masked_tokens, given_up, staleness, staleness_max, staleness_end_max, put_aside, migrated, events;
	/* since the first step */
	double opened, opened_tokens, events_all;
};

struct simulation {
	const struct config *config;
	const struct simulate_inputs *in;
	const struct simulate_mode *mode;
	struct scheduler *scheduler;
	struct scheduler_options options;
	struct simulate_costs *costs;
	struct length_estimate *expected; /* NULL: nobody asks (scheduler.order) */
	struct err *err;
	int rc;

	struct sim_rank *ranks; /* [n_ranks + 1], [0] unused: rank 0 is the controller */
	int n_ranks, max_active;
	struct sim_wakes wakes;
	struct sim_messages messages;
	struct sim_groups groups;
	uint64_t next_group;

	double now;
	double begin_at;        /* of the next step, INFINITY while one is open */
	double controller_free; /* when it has handled all that has arrived */
	double step_began;
	double trained_at;      /* one step off: when the trainer is done with the batch that is out, INFINITY: none is */
	int64_t step, version;
	int dropped;            /* groups, in this step */
	double batch_tokens;    /* delivered in this step */
	bool rollouts;          /* a step is open */

	int active, busy;       /* samples in slots; ranks with any */
	double counted_at;      /* sums hold until then */
	struct sim_sums sums;
	double *step_seconds;   /* [steps] */
};

/* simulate_rank.c: a rank hears of things at the end of its round, and acts. */
void sim_rank_lease(struct simulation *sim, int rank, struct sim_sample *sample, double arrival);
void sim_rank_stop(struct simulation *sim, int rank, double arrival);
void sim_rank_recall(struct simulation *sim, int rank, struct sim_recall recall);
void sim_rank_cancel(struct simulation *sim, int rank, struct sim_sample *sample, double arrival);
void sim_rank_weights(struct simulation *sim, int rank); /* async: they are there now */
void sim_rank_wake(struct simulation *sim, int rank); /* at sim->now */

/* simulate_groups.c: what becomes of groups and samples, whoever has them. */
void sim_group_open(struct simulation *sim, uint64_t id, int n_samples);
void sim_group_deliver(struct simulation *sim, uint64_t id);
/* Its tokens were made for nothing; it is forgotten when all that ranks hold of it has come back. */
void sim_group_drop(struct simulation *sim, struct sim_group *group);
/* It is leased; it is with the controller again, or nowhere: then its group may be gone after the call. */
void sim_sample_leave(struct sim_sample *sample);
void sim_sample_return(struct simulation *sim, struct sim_sample *sample);
/* From token `made` on, it is sim->version that makes them. */
void sim_sample_mark(struct simulation *sim, struct sim_sample *sample, int32_t made);
/* ORDER_LONGEST: what is known of this sample by now tells something of its siblings. */
void sim_sample_tell(struct simulation *sim, struct sim_sample *sample, bool ended);

/* simulate_controller.c */
void sim_open_scheduler(struct simulation *sim);
void sim_begin_step(struct simulation *sim); /* at sim->begin_at */
void sim_take_message(struct simulation *sim, const struct sim_message *message);
/* From a rank to the controller, at this time. */
void sim_send(struct simulation *sim, enum sim_message_type type, int rank, struct sim_sample *sample, double time);

/* simulate.c */
void sim_occupancy(struct simulation *sim, int active, int busy); /* changes of both, now */
void sim_count_until(struct simulation *sim, double time);        /* slots and ranks in use */
void sim_sums_restart(struct simulation *sim);                    /* the warm-up is over: what was summed is left out */

#endif

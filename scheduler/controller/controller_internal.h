/* controller_internal.h - the controller's state, shared by its files:
 * controller.c (phases and the loop), controller_samples.c (groups, leases, results),
 * controller_batches.c (batches on their way out), controller_requests.c (what a trainer asks for),
 * controller_allocation.c (how many samples a group gets), controller_explore.c (pools, and what is drawn again),
 * controller_weights.c (a new version from the trainer to the ranks), controller_rewards.c (external verifiers),
 * controller_ranks.c (ranks that come, fall silent and come back), controller_waits.c (what is waited for),
 * controller_resume.c (a run that goes on), controller_drain.c (signals), controller_keep.c (what must survive),
 * controller_trainer.c (the reference trainer), controller_live.c (what one sees of it),
 * controller_status.c (where), controller_prune.c (samples ended in flight). */
#ifndef SCHEDULER_CONTROLLER_CONTROLLER_INTERNAL_H
#define SCHEDULER_CONTROLLER_CONTROLLER_INTERNAL_H

#include <sys/types.h>

#include "rollout/reward/reward.h"
#include "scheduler/controller/controller.h"
#include "scheduler/controller/controller_requests.h"
#include "scheduler/controller/group_table.h"
#include "scheduler/controller/length_estimate.h"
#include "scheduler/controller/patience.h"
#include "scheduler/controller/progress.h"
#include "scheduler/ranks/rank_messages.h"
#include "scheduler/ranks/weights_stream.h"
#include "scheduler/scheduler.h"
#include "scheduler/status/timeline.h"
#include "scheduler/store/run_directory.h"
#include "scheduler/store/store_read.h"
#include "scheduler/store/weights_keeper.h"
#include "scheduler/verifier/verifier_pool.h"
#include "trainer_bridge/server/server.h"
#include "trainer_bridge/server/server_http.h"

enum phase {
	PHASE_START,     /* ranks load the model */
	PHASE_EVAL,      /* held-out prompts */
	PHASE_STEP,      /* rollouts of a training step */
	PHASE_WANTED,    /* async: generation goes on until the trainer asks for a batch; else: the trainer has prompts, and none came */
	PHASE_TRAIN,     /* the batch is out, new weights are awaited */
	PHASE_BROADCAST, /* new weights are on their way to the ranks, and nothing else happens */
	PHASE_FINISH,    /* acknowledgements are awaited */
	PHASE_OVER
};

/* ABSENT -> SERVING <-> SILENT -> RESETTING -> [CATCHING_UP] -> SERVING; any -> ENDED */
enum rank_life {
	RANK_IS_ABSENT,      /* it loads the model */
	RANK_IS_SERVING,     /* it has the current weights, and samples may be leased to it */
	RANK_IS_SILENT,      /* given up: others have its samples */
	RANK_IS_RESETTING,   /* it spoke again, and is to throw away what it held */
	RANK_IS_CATCHING_UP, /* it gets the current weights */
	RANK_IS_ENDED        /* it failed, or was told to end */
};

struct rank_state {
	enum rank_life life;
	double heard;       /* as the controller's patience counts, when it last spoke */
	double silent_since; /* clock_seconds() when it was given up */
	uint64_t epoch;     /* of its last RESET: what it said before its READY to it is late */
	uint64_t rounds;    /* of its engine, as its last ALIVE said */
	int losses;         /* times it was given up */
	int orphans;        /* samples it was given up with that nobody has answered yet */
	int capacity, active;
	int64_t version;    /* of its weights, as READY and UPDATED said */
	double pack_seconds; /* that it takes to make a policy of weights, and does nothing else */
	struct weights_stream *catch_up; /* of the current version, to it alone; NULL: none */
	bool updated;       /* has the version that is being broadcast */
	int holding;        /* samples leased to it */
	uint64_t *keep;     /* [n_keep] trajectory ids for the next STOP */
	int n_keep, keep_capacity;
	struct rank_stats stats; /* what it has told of itself, since the run began or was resumed */
	struct rank_stats mark;  /* the same an interval ago, or less; from there to the interval's end: */
	double tokens_per_sec, acceptance /* < 0: nothing drafted */, draft_length;
	char cpu[16];
};

static inline bool rank_serves(const struct rank_state *rank) { return rank->life == RANK_IS_SERVING; }

struct controller {
	const struct controller_inputs *in;
	const struct config *config;
	struct transport *transport;
	struct message_writer *writer;
	struct scheduler *scheduler;
	struct group_table *groups;
	struct length_estimate *lengths; /* how long samples get */
	size_t kv_held;                  /* bytes of parcels in groups */
	struct store *store;
	struct server *server;           /* NULL with trainer.kind none */
	pid_t trainer;                   /* 0: none of ours */
	struct verifier_pool *verifiers; /* NULL unless reward.kind is program */
	int lost[2][2];                  /* [of an evaluation][bad data]: samples without a verdict, since the batch before, in this evaluation */
	struct prune_desk *prune;        /* NULL unless prune.at_tokens is set */
	struct rank_state *ranks;        /* [size]; [0] unused */
	int n_ranks;
	char run_dir[RUN_PATH_MAX], run_id[64];

	enum phase phase;
	double stop_began;               /* the first STOP of the step, 0: none yet */
	double phase_began, run_began, steps_began, step_began, last_progress, last_alive, last_flush;
	int64_t step, version;
	int asynchrony;                  /* enum scheduler_asynchrony, sync without a trainer */
	bool batch_is_out;               /* no weights have reached the ranks since the last batch was put */
	bool batch_is_held;              /* one step off: complete, and put once the weights of the one before are here */
	bool line_waits;                 /* of the batch before, for the trainer's report */
	double store_mark;               /* store_seconds() when the last batch was put */
	double batch_put;                /* when the last was, or a new version arrived for it */
	struct step_metrics metrics;     /* of the step in the making */
	struct step_metrics out;         /* of the batch that is with the trainer, until its line is written; step 0: none */
	struct run_summary summary;

	uint64_t next_train, next_eval;  /* ordinals of the prompts to open next */

	struct request_desk *desk;       /* NULL without a server */
	bool requested;                  /* the evaluation that runs is a trainer's */
	uint64_t n_completed;            /* groups */
	bool streams;                    /* groups go out as soon as they are certain to be in the batch */
	double slots_clock;              /* when sessions at work were last counted; 0: not yet */
	double loop_clock;               /* when generation was last seen to wait for the trainer; 0: it does not */

	uint64_t *delivered;             /* [n_delivered] group ids of the batch, in order */
	int n_streamed;                  /* of them, groups that are with the server already */
	int n_delivered, delivered_capacity;

	/* Versions on their way, as logs of what has come of them; their memory is the bridge's (intake.h). */
	struct weights_log *growing;     /* being pushed; NULL: none */
	struct weights_log *arriving;    /* complete and waiting for its moment; NULL: none */
	struct weights_log *next;        /* complete before `arriving` was in use everywhere; NULL: none */
	struct weights_log *current;     /* the ranks' weights, for those that come back; NULL: the model's own, or overwritten */
	struct weights_stream *stream;   /* of arriving, else of growing, to the ranks that serve; NULL: none */
	uint64_t n_streams;
	bool broadcasting;               /* arriving is committed to the ranks, and generation waits for them (but async) */
	bool summed;
	uint64_t arriving_xxh3;
	double broadcast_began, requantize_seconds;

	struct patience patience;        /* how long ranks have been silent is counted by it */
	double alone_since;              /* of patience, since when no rank serves; < 0: one does */
	double reported;                 /* clock_seconds() when a wait was last spoken of */
	double report_after;             /* seconds of waiting after which it is spoken of again */

	struct weights_keeper *keeper;   /* NULL: no weights are kept */
	struct store_progress stored;    /* as the run was resumed; evaluated is kept up to date */
	bool restoring;                  /* the kept weights are on their way to ranks that have just started */
	struct timeline *timeline;       /* NULL: none is kept */
	struct http_server *http;        /* NULL: none */
	char *last_line;                 /* of metrics, of the last step; owned, NULL: none yet */
	double status_written, http_polled;
	bool status_lost;                /* it cannot be written */
	char *out_line;                  /* what was stored of the line of `out`, owned; NULL: it is all here */
	int trainer_restarts;            /* since the last version */
	struct err failed;               /* the first thing that a callback of the server could not store; code 0: nothing */
	bool draining;                   /* what comes back now goes to the store and nowhere else */
};

/* controller_samples.c */
int controller_do_actions(struct controller *c, struct err *err);
/* DONE, PARTIAL, RETURNED */
int controller_on_result(struct controller *c, int rank, const struct message_node *root, enum rank_message type,
                         struct err *err);
int controller_on_recalled(struct controller *c, int rank, const struct message_node *root, struct err *err);
/* Those samples of g that are not there yet, fresh. */
void controller_open_samples(struct controller *c, struct live_group *g, const struct prompt *prompt, int32_t epoch);
void controller_drop_kv(struct controller *c); /* the weights have changed */
void controller_forget_group(struct controller *c, uint64_t id); /* it leaves the table, with all that it holds */

/* The group's members have all that they will get: advantages, and whether it is worth sending. */
int controller_score_group(struct controller *c, struct live_group *g, struct err *err);

/* controller_allocation.c */
int controller_samples_max(const struct controller *c); /* of a group that is extended; 0: none is */

/* n_more samples of the same prompt, 1 to scheduler_extension_room(): made, on record, and told to the scheduler. */
int controller_extend_group(struct controller *c, struct live_group *g, int n_more, struct err *err);
int controller_store_extra(struct controller *c, struct err *err); /* a batch is out: the budget of the next begins */
/* All members are judged: whether the group gets more of them first, by allocation.kind. */
int controller_allocate(struct controller *c, struct live_group *g, bool *extended, struct err *err);
/* The group is complete: what was decided about it, into its members' meta. */
int controller_record_allocation(struct controller *c, struct live_group *g, struct err *err);
/* A group that was stored as it is now: its members are as large a group as it is, and it is not extended again. */
void controller_restore_allocation(struct controller *c, struct live_group *g);

/* controller_explore.c */

/* Samples that a training group begins with: in explore mode those of the pool. */
int controller_first_samples(const struct controller *c);
/* The pool is rewarded: what is chosen of it begins again, and the group goes on.  False where it does not. */
int controller_explore(struct controller *c, struct live_group *g, bool *extended, struct err *err);
/* The group has only its pool, which is never delivered. */
bool controller_is_pool(const struct controller *c, const struct live_group *g);
/* What a lease says of a sample of explore mode; borrows the pool's. */
void controller_explore_cargo(const struct controller *c, const struct live_group *g, int sample, struct rank_cargo *cargo);
/* The group is complete: its samples' notes, and what the pool was worth. */
int controller_record_exploration(struct controller *c, struct live_group *g, struct err *err);

/* controller_rewards.c */
int controller_rewards_open(struct controller *c, struct err *err);
/* A sample is done and not scored: ask for its reward, if there is anybody to ask. */
void controller_rewards_ask(struct controller *c, struct live_group *g, int sample);
/* All of a group are done: true if verdicts are awaited, whose last one has it scored. */
bool controller_rewards_awaited(struct controller *c, struct live_group *g);
void controller_rewards_forget(struct controller *c, const struct live_group *g); /* the group is given up */
int controller_rewards_turn(struct controller *c, struct err *err); /* never waits */

/* controller_batches.c */

/* The group is kept: stored as it would go out now, so that mostly its state is all that is left to write when it does. */
int controller_save_group(struct controller *c, struct live_group *g, struct err *err);
/* Store what is named in delivered, then hand it to the socket; its line of metrics goes to `out`. */
int controller_put_batch(struct controller *c, struct err *err);
void controller_release_delivered(struct controller *c);
/* The version with which a batch that is made now goes out. */
int64_t controller_batch_version(const struct controller *c);
/* Tell the scheduler whether a peer takes micro-batches now. */
void controller_watch_streams(struct controller *c);
void controller_stream_group(struct controller *c, uint64_t id); /* the last of delivered, where a peer takes it now */

/* Called by controller_samples.c when a step's or evaluation's last action is done. */
int controller_step_ready(struct controller *c, bool eval, struct err *err);

/* controller_weights.c */
struct intake_observer controller_weights_observer(struct controller *c);
int controller_weights_arrived(void *context, int64_t version, const struct weights *weights, struct err *err);
/* What has arrived is committed to the ranks. */
void controller_broadcast_begin(struct controller *c);
/* Every rank has it: it is the current version now. */
void controller_broadcast_end(struct controller *c);
int controller_broadcast_pump(struct controller *c, struct err *err);
int controller_on_updated(struct controller *c, int rank, const struct message_node *root, struct err *err);
int controller_on_first(struct controller *c, const struct message_node *root, struct err *err);
/* A rank serves no more: the others get what is on its way around it. */
void controller_broadcast_lost(struct controller *c, int rank);
/* As if a trainer had pushed what is on disk; takes the weights. */
void controller_restore_weights(struct controller *c, int64_t version, struct weights *weights);
/* The current version to a rank that lacks it. */
int controller_catch_up(struct controller *c, int rank, struct err *err);
void controller_weights_close(struct controller *c);

/* controller_ranks.c */

/* A rank has spoken: true if what it said is to be acted upon, false if it is late. */
bool controller_rank_heard(struct controller *c, int rank, enum rank_message type, const struct message_node *root,
                           int *rc, struct err *err);
int controller_on_ready(struct controller *c, int rank, const struct message_node *root, struct err *err);
int controller_on_failed(struct controller *c, int rank, const struct message_node *root, struct err *err);
/* UPDATED of a rank that catches up. */
int controller_on_caught_up(struct controller *c, int rank, int64_t version, struct err *err);
/* Once a turn: who has fallen silent, who gets weights again, who is told that we live. */
int controller_ranks_turn(struct controller *c, struct err *err);
/* Are all there that will be? */
bool controller_ranks_are_ready(const struct controller *c);
int controller_ranks_serving(const struct controller *c);
void controller_ranks_dismiss(struct controller *c);
/* A sample has been answered, or is wanted no more. */
void controller_orphan_settled(struct controller *c, struct live_group *g, int sample);

/* controller_waits.c: ERR_TIMEOUT if nothing has happened for too long; says now and then what is waited for. */
int controller_waits_check(struct controller *c, struct err *err);

/* controller_keep.c */
int controller_open_directory(struct controller *c, struct err *err); /* a new one, and its store */
int controller_keep_open(struct controller *c, struct err *err);
/* A sample with what is known of it now.  Those that were marked in `unsaved` alone are saved by the next flush: most are
 * scored before, and so written once. */
int controller_save(struct controller *c, struct live_group *g, int sample, enum store_state state, struct err *err);
int controller_flush(struct controller *c, struct err *err); /* commits */
/* The current version, which the ranks have just got: on record, and its weights are kept. */
int controller_keep_version(struct controller *c, struct err *err);
/* Its number is on record from here on: async, ranks draw with a version before the last of them has it. */
int controller_announce_version(struct controller *c, struct err *err);
/* Now and then: commit, and hear of weights that have been written. */
int controller_keep_poll(struct controller *c, struct err *err);
/* The last version is kept, unless somebody is in a hurry. */
void controller_keep_close(struct controller *c, bool well);
int controller_on_progress(struct controller *c, int rank, const struct message_node *root, struct err *err);

/* controller_prune.c; all but the first do nothing where pruning is off. */
int controller_prune_open(struct controller *c, struct err *err); /* once the store is open */
void controller_prune_close(struct controller *c);
int controller_on_reached(struct controller *c, int rank, const struct message_node *root, struct err *err);
/* A sample of the group is done: that may be what a decision waited for. */
int controller_prune_settled(struct controller *c, struct live_group *g, struct err *err);
/* The group's rewards are here: false if none of it was pruned, and its advantages are to be computed as always. */
bool controller_prune_score(struct controller *c, struct live_group *g);
/* A batch is complete: the head learns from all groups scored since the last one. */
int controller_prune_learn(struct controller *c, struct err *err);
int controller_prune_restore(struct controller *c, struct live_group *g, struct err *err);
/* What the head is to learn from groups that were dropped since the last batch. */
int controller_prune_restore_dropped(struct controller *c, struct err *err);

/* controller_resume.c */
int controller_resume_open(struct controller *c, struct err *err); /* instead of a new directory and store */
int controller_resume(struct controller *c, struct err *err);      /* once there are a scheduler, a table and a server */

/* The line of the batch that went out before. */
int controller_write_old_step(struct controller *c, struct err *err);

/* controller_trainer.c */
int controller_start_trainer(struct controller *c, struct err *err);
int controller_watch_trainer(struct controller *c, struct err *err);

/* controller_live.c: nothing of it changes what a run does */
int controller_live_open(struct controller *c, struct err *err);
void controller_live_close(struct controller *c, const char *status);
int controller_on_stats(struct controller *c, int rank, const struct message_node *root, struct err *err);
/* fields: as timeline_event's. */
void controller_event(struct controller *c, const char *event, const char *fields, ...) __attribute__((format(printf, 3, 4)));
void controller_live_step(struct controller *c); /* a batch is out */
void controller_live_turn(struct controller *c);
void controller_watch_backpressure(struct controller *c);
enum rank_shown controller_rank_shown(const struct controller *c, int rank);

/* controller_status.c */
int controller_status_open(struct controller *c, struct err *err);
void controller_status_close(struct controller *c, const char *state);
void controller_status_turn(struct controller *c);
void controller_status_metrics(struct controller *c, const char *json); /* a line of metrics */

/* controller_drain.c */
void controller_catch_signals(void);
int controller_signals(int *signal_number); /* how many have come, and which last */
/* After the first: everything in flight is put aside and stored, within run.drain_seconds or until a second one.
 * Returns the error with which the run ends. */
int controller_drain(struct controller *c, struct err *err);

/* controller.c */
int controller_write_metrics(struct controller *c, const char *json, struct err *err);
/* The line of the batch that is out, once weights have come for it or another batch goes out. */
int controller_write_step(struct controller *c, struct err *err);
int controller_on_message(struct controller *c, const struct transport_message *m, struct err *err);
void controller_enter(struct controller *c, enum phase phase);

/* controller_bridge.c */
int controller_bridge_open(struct controller *c, struct err *err); /* and the reference trainer, where it is wanted */

#endif

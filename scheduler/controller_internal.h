/* controller_internal.h - the controller's state, shared by its files:
 * controller.c (phases and the loop), controller_samples.c (groups, leases, results),
 * controller_batches.c (batches on their way out), controller_weights.c (a new version from the trainer to the ranks). */
#ifndef SCHEDULER_CONTROLLER_INTERNAL_H
#define SCHEDULER_CONTROLLER_INTERNAL_H

#include <sys/types.h>

#include "rollout/reward.h"
#include "scheduler/controller.h"
#include "scheduler/group_table.h"
#include "scheduler/length_estimate.h"
#include "scheduler/progress.h"
#include "scheduler/rank_messages.h"
#include "scheduler/run_directory.h"
#include "scheduler/scheduler.h"
#include "scheduler/store.h"
#include "trainer_bridge/server.h"

enum phase {
	PHASE_START,     /* ranks load the model */
	PHASE_EVAL,      /* held-out prompts */
	PHASE_STEP,      /* rollouts of a training step */
	PHASE_WANTED,    /* async: generation goes on until the trainer asks for a batch */
	PHASE_TRAIN,     /* the batch is out, new weights are awaited */
	PHASE_BROADCAST, /* new weights are on their way to the ranks, and nothing else happens */
	PHASE_FINISH,    /* acknowledgements are awaited */
	PHASE_OVER
};

struct rank_state {
	bool ready;
	bool updated;       /* has the version that is being broadcast */
	size_t sent;        /* bytes of it that were queued */
	int holding;        /* samples leased to it */
	uint64_t *keep;     /* [n_keep] trajectory ids for the next STOP */
	int n_keep, keep_capacity;
	char cpu[16];
};

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
	struct rank_state *ranks;        /* [size]; [0] unused */
	int n_ranks;
	char run_dir[RUN_PATH_MAX], run_id[64];

	enum phase phase;
	double phase_began, run_began, steps_began, step_began, last_progress, last_alive, last_flush;
	int64_t step, version;
	int asynchrony;                  /* enum scheduler_asynchrony, sync without a trainer */
	bool batch_is_out;               /* no weights have reached the ranks since the last batch was put */
	bool batch_is_held;              /* one step off: complete, and put once the weights of the one before are here */
	double batch_put;                /* when the last was, or a new version arrived for it */
	struct step_metrics metrics;     /* of the step in the making */
	struct step_metrics out;         /* of the batch that is with the trainer, until its line is written; step 0: none */
	struct run_summary summary;

	uint64_t next_train, next_eval;  /* ordinals of the prompts to open next */

	uint64_t *delivered;             /* [n_delivered] group ids of the batch, in order */
	int n_delivered, delivered_capacity;

	struct weights arriving;         /* a complete version waiting for its broadcast; data NULL: none */
	int64_t arriving_version;
	uint64_t arriving_xxh3;
	bool broadcasting;               /* it is on its way to the ranks */
	double broadcast_began;
};

/* controller_samples.c */
int controller_do_actions(struct controller *c, struct err *err);
/* DONE, PARTIAL, RETURNED */
int controller_on_result(struct controller *c, int rank, const struct message_node *root, enum rank_message type,
                         struct err *err);
int controller_on_recalled(struct controller *c, int rank, const struct message_node *root, struct err *err);
void controller_drop_kv(struct controller *c); /* the weights have changed */

/* controller_batches.c */

/* Store what is named in delivered, then hand it to the socket; its line of metrics goes to `out`. */
int controller_put_batch(struct controller *c, struct err *err);
void controller_release_delivered(struct controller *c);

/* Called by controller_samples.c when a step's or evaluation's last action is done. */
int controller_step_ready(struct controller *c, bool eval, struct err *err);

/* controller_weights.c */
int controller_weights_arrived(void *context, int64_t version, struct weights *weights, struct err *err);
void controller_broadcast_begin(struct controller *c);
int controller_broadcast_pump(struct controller *c, struct err *err);
int controller_on_updated(struct controller *c, int rank, const struct message_node *root, struct err *err);

/* controller.c */
void controller_enter(struct controller *c, enum phase phase);

#endif

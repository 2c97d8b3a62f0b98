/* replay_serve.h - `drumroll replay RUN_DIR --serve CONFIG`: the recorded batches to a trainer, without generating.
 *
 * The bridge of a run (trainer_bridge/server/server.h), with batches from the store in place of ranks: in the recorded order,
 * with credits, acknowledgements, redelivery to a peer that comes back.  What the trainer pushes is taken in, checked,
 * numbered and, as in a run, kept; nothing is drawn with it.  The lag of a batch is the recorded one.  How far it has come
 * is in its directory (serving_state.h), so that it can be killed and resumed as a run can.
 */
#ifndef SCHEDULER_REPLAY_REPLAY_SERVE_H
#define SCHEDULER_REPLAY_REPLAY_SERVE_H

#include "configs/config.h"
#include "scheduler/store/step_range.h"

struct replay_serve_options {
	const char *run_dir;         /* of the recording; borrowed, as all of it */
	const struct config *config; /* socket, trainer, weights, and run.dir for what this leaves: a run's files */
	struct step_range steps;     /* resuming: those that the serving began with */
	const char *resume;          /* directory of a serving that goes on where the trainer acknowledged last; NULL: a new one */
};

/* Ends when every batch has been acknowledged and the trainer has been told that it is over. */
int replay_serve(const struct replay_serve_options *options, struct err *err);

#endif

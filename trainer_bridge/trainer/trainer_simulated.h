/* trainer_simulated.h - trainer.kind simulated: what `drumroll trainer` does then. */
#ifndef TRAINER_BRIDGE_TRAINER_TRAINER_SIMULATED_H
#define TRAINER_BRIDGE_TRAINER_TRAINER_SIMULATED_H

#include "configs/config.h"
#include "policy/weights.h"

struct client;

struct trainer_simulated {
	const struct config *config;
	const struct weights *weights; /* those of model.path, which the run has too, whatever their version */
	struct client *client;         /* connected */
};

/* Until the run says that it is over. */
int trainer_simulated_serve(const struct trainer_simulated *s, struct err *err);

#endif

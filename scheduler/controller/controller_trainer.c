/* controller_trainer.c - the reference trainer beside the run: started, and started again where a signal ended it, since it
 * goes on from its checkpoint.  That it gave up by itself is an error. */
#include <stdlib.h>
#include <string.h>

#include "scheduler/controller/controller_internal.h"
#include "scheduler/controller/trainer_process.h"

enum { TRAINER_RESTARTS_MAX = 3 }; /* without a new version */

int controller_start_trainer(struct controller *c, struct err *err)
{
	bool keeps = c->config->run.durability != DURABILITY_OFF;
	char *checkpoint = run_directory_expand(keeps ? c->config->trainer.checkpoint : "", c->run_dir);
	int rc = trainer_process_start(&c->trainer, c->run_dir, server_address(c->server), checkpoint, err);

	free(checkpoint);
	return rc;
}

int controller_watch_trainer(struct controller *c, struct err *err)
{
	int rc = trainer_process_check(&c->trainer, c->run_dir, err);
	bool killed = rc && strstr(err->text, "by signal"), finishing = c->phase == PHASE_FINISH || c->phase == PHASE_OVER;

	if (!killed || finishing || c->trainer_restarts == TRAINER_RESTARTS_MAX || c->config->run.durability == DURABILITY_OFF) return rc;
	c->trainer_restarts++;
	progress_note("%s; it is started again", err->text);
	return controller_start_trainer(c, err);
}

/* run_check.h - what `drumroll run` (cmd_run.c) refuses of a config that is right key by key. */
#ifndef SCHEDULER_COMMANDS_RUN_CHECK_H
#define SCHEDULER_COMMANDS_RUN_CHECK_H

#include "configs/config.h"

/* ERR_CONFIG for options that contradict each other or name nothing; reads no file. */
int run_check_config(const struct config *config, struct err *err);

#endif

/* prune_check.h - what pruning cannot be combined with. */
#ifndef SCHEDULER_COMMANDS_PRUNE_CHECK_H
#define SCHEDULER_COMMANDS_PRUNE_CHECK_H

#include "configs/config.h"

/* ERR_CONFIG with the reason; 0 where prune.at_tokens is 0. */
int prune_check_config(const struct config *config, struct err *err);

#endif

/* model_memory.h - does a model fit the memory budget of one rank?  Asked before anything is loaded. */
#ifndef SCHEDULER_COMMANDS_MODEL_MEMORY_H
#define SCHEDULER_COMMANDS_MODEL_MEMORY_H

#include "configs/config.h"
#include "policy/model_config.h"

/* 0, or ERR_MEMORY with what is needed, what there is and what to change. */
int model_memory_check(const struct model_config *model, const struct config *config, struct err *err);

#endif

/* trainer_process.h - the reference trainer as a process of its own beside the controller. */
#ifndef SCHEDULER_CONTROLLER_TRAINER_PROCESS_H
#define SCHEDULER_CONTROLLER_TRAINER_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

#include "configs/err.h"

/* Start `drumroll trainer run_dir/config.yaml --connect ADDRESS`, output to run_dir/trainer.log.  checkpoint: its file,
 * which it goes on from; "": none.  It ends when this process does, however that ends. */
int trainer_process_start(pid_t *pid, const char *run_dir, const char *address, const char *checkpoint, struct err *err);

/* 0 while it runs or after it ended well (*pid becomes 0), or an error that says how it ended. */
int trainer_process_check(pid_t *pid, const char *run_dir, struct err *err);

/* It lives, but a signal has stopped it. */
bool trainer_process_is_stopped(pid_t pid);

/* Wait up to `seconds` for it to end by itself, then end it. */
void trainer_process_stop(pid_t *pid, double seconds);

#endif

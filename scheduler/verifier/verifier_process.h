/* verifier_process.h - one external process: lines to its standard input, lines from its standard output, its
 * standard error to the log.  Nothing here waits: each call does what can be done now.
 *
 * The command is the shell's (`sh -c`), in a process group of its own: Ctrl-C in a terminal does not reach it, and what
 * it started ends with it.  The kernel kills it when the controller dies, however that dies.  It gets no descriptor of
 * ours.  Not libuv: its uv_spawn has no hook for that signal, and a run without a trainer has no loop of its. */
#ifndef SCHEDULER_VERIFIER_VERIFIER_PROCESS_H
#define SCHEDULER_VERIFIER_VERIFIER_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "scheduler/verifier/verifier_log.h"

struct verifier_process;

/* number: its name in the log.  line_bytes_max: of its output; a longer line ends the process. */
int verifier_process_start(struct verifier_process **process, const char *command, int number, size_t line_bytes_max,
                           struct verifier_log *log, struct err *err);

void verifier_process_send(struct verifier_process *process, const char *bytes, size_t n_bytes); /* copied */

/* Move what the pipes of [n] processes (NULL: none there) take and give; now: seconds, for the log. */
void verifier_processes_turn(struct verifier_process *const *processes, int n, double now);

/* The next line that it has written, without the newline, valid until the next call; NULL: none yet. */
const char *verifier_process_line(struct verifier_process *process, size_t *n_bytes);

/* True once it is of no more use, with the reason, a sentence's end such as "ended with status 3"; its last lines may
 * still be there.  not_runnable: the shell has found no such program. */
bool verifier_process_ended(struct verifier_process *process, double now, const char **why, bool *not_runnable);

/* Kill it and all in its group at once, and forget it; returns its pid until waitpid has it, or 0. */
pid_t verifier_process_kill(struct verifier_process *process);

/* Its input ends: a decent one goes by itself. */
void verifier_process_hang_up(struct verifier_process *process);

#endif

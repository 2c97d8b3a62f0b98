/* launch.h - the command line with which mpirun starts a run. */
#ifndef SCHEDULER_RANKS_LAUNCH_H
#define SCHEDULER_RANKS_LAUNCH_H

#include <stdint.h>

#include "configs/err.h"

struct launch {
	int64_t ranks;
	const char *hostfile, *hosts; /* "" or NULL: this machine, or the allocation that mpirun finds */
	char *const *arguments;       /* [n] of `drumroll run`, borrowed */
	int n;
};

/* "mpirun ... -n RANKS drumroll run ARGUMENTS", ended by NULL; free with launch_words_free.  NULL with err set where the
 * path of this program cannot be found. */
char **launch_words(const struct launch *launch, struct err *err);
void launch_words_free(char **words);

#endif

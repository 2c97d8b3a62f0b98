/* launch.c - the words for MPICH's mpirun, with the options that a cluster wants.
 *
 * The ranks live through each other's deaths under any line with mpirun (rank_guard.h).  -disable-auto-cleanup is for
 * the rest: should a guard itself be killed, mpirun then lets the others go on. */
#include "scheduler/ranks/launch.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { WORDS_OF_ITS_OWN = 16 };

char **launch_words(const struct launch *launch, struct err *err)
{
	char program[PATH_MAX], number[32];
	const char *own[WORDS_OF_ITS_OWN];
	ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
	int n = 0;

	if (length < 0) {
		err_set_errno(err, ERR_IO, "cannot find the path of this program");
		return NULL;
	}
	program[length] = '\0';
	snprintf(number, sizeof number, "%lld", (long long)launch->ranks);
	own[n++] = "mpirun";
	own[n++] = "-disable-auto-cleanup";
	if (launch->hostfile && *launch->hostfile) {
		own[n++] = "-f";
		own[n++] = launch->hostfile;
	}
	if (launch->hosts && *launch->hosts) {
		own[n++] = "-hosts";
		own[n++] = launch->hosts;
	}
	own[n++] = "-n";
	own[n++] = number;
	own[n++] = program;
	own[n++] = "run";
	char **words = xcalloc((unsigned long)(n + launch->n + 1), sizeof *words);
	for (int i = 0; i < n; i++) words[i] = xstrdup(own[i]);
	for (int i = 0; i < launch->n; i++) words[n + i] = xstrdup(launch->arguments[i]);
	return words;
}

void launch_words_free(char **words)
{
	for (int i = 0; words && words[i]; i++) free(words[i]);
	free(words);
}

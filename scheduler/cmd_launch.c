/* cmd_launch.c - `drumroll launch`: `drumroll run` under MPICH's mpirun, with the options that a cluster wants.
 *
 * The ranks live through each other's deaths under any line with mpirun (rank_guard.h).  -disable-auto-cleanup is for
 * the rest: should a guard itself be killed, mpirun then lets the others go on. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "configs/config.h"
#include "scheduler/arguments.h"
#include "scheduler/commands.h"

enum { OWN_OPTIONS = 3, WORDS_OF_ITS_OWN = 16 };

static const char usage[] = "drumroll launch -n RANKS [--hostfile FILE | --hosts A,B] CONFIG [--set section.key=value]";

/* Options of its own come first; the rest is for `run`. */
static int own_arguments(int argc, char **argv)
{
	int n = 1;

	while (n + 1 < argc && (strcmp(argv[n], "-n") == 0 || strcmp(argv[n], "--hostfile") == 0 || strcmp(argv[n], "--hosts") == 0))
		n += 2;
	return n;
}

static int launch(int64_t ranks, char *hostfile, char *hosts, int argc, char **argv, struct err *err)
{
	char program[PATH_MAX], number[32];
	char mpirun[] = "mpirun", n_option[] = "-n", cleanup[] = "-disable-auto-cleanup", f_option[] = "-f", h_option[] = "-hosts", run[] = "run";
	ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
	char **words = xcalloc((size_t)argc + WORDS_OF_ITS_OWN, sizeof *words);
	int n = 0;

	if (length < 0) {
		free(words);
		return err_set_errno(err, ERR_IO, "cannot find the path of this program");
	}
	program[length] = '\0';
	snprintf(number, sizeof number, "%lld", (long long)ranks);
	words[n++] = mpirun;
	words[n++] = cleanup;
	if (*hostfile) {
		words[n++] = f_option;
		words[n++] = hostfile;
	}
	if (*hosts) {
		words[n++] = h_option;
		words[n++] = hosts;
	}
	words[n++] = n_option;
	words[n++] = number;
	words[n++] = program;
	words[n++] = run;
	for (int i = 0; i < argc; i++) words[n++] = argv[i];
	execvp(mpirun, words);
	free(words);
	return err_set_errno(err, ERR_IO, "cannot start mpirun; install MPICH (Debian: mpich)");
}

int launch_command(int argc, char **argv)
{
	int64_t ranks = 0;
	const char *hostfile = "", *hosts = "";
	struct argument table[OWN_OPTIONS] = {
		{ .name = "-n", .type = ARGUMENT_INT, .value = &ranks, .help = "ranks", .required = true, .min = 2, .max = 1000000 },
		{ .name = "--hostfile", .type = ARGUMENT_FILE, .value = &hostfile, .help = "a line HOST:RANKS per host (mpirun -f)" },
		{ .name = "--hosts", .type = ARGUMENT_TEXT, .value = &hosts, .help = "the same as a list, HOST:RANKS,HOST:RANKS" },
	};
	struct err err;

	if (arguments_want_help(argc, argv)) {
		arguments_print_help(table, OWN_OPTIONS, "launch", "a run under mpirun; RANKS counts the controller and the workers", stdout);
		printf("\nusage: %s\n", usage);
		return 0;
	}
	int own = own_arguments(argc, argv);
	int rc = arguments_parse(table, OWN_OPTIONS, own, argv, &err);
	if (!rc && own == argc) rc = err_set(&err, ERR_USAGE, "which config? usage: %s", usage);
	if (!rc) {
		char *file = xstrdup(hostfile), *list = xstrdup(hosts);
		rc = launch(ranks, file, list, argc - own, argv + own, &err);
		free(file);
		free(list);
	}
	fprintf(stderr, "drumroll: %s\n", err.text);
	return rc == ERR_USAGE ? EXIT_USAGE : EXIT_FAILURE;
}

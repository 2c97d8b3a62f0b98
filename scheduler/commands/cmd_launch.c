/* cmd_launch.c - `drumroll launch`: `drumroll run` under MPICH's mpirun (launch.c). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "configs/config.h"
#include "scheduler/commands/arguments.h"
#include "scheduler/commands/commands.h"
#include "scheduler/ranks/launch.h"

enum { OWN_OPTIONS = 3 };

static const char usage[] = "drumroll launch -n RANKS [--hostfile FILE | --hosts A,B] CONFIG [--set section.key=value]";

/* Options of its own come first; the rest is for `run`. */
static int own_arguments(int argc, char **argv)
{
	int n = 1;

	while (n + 1 < argc && (strcmp(argv[n], "-n") == 0 || strcmp(argv[n], "--hostfile") == 0 || strcmp(argv[n], "--hosts") == 0))
		n += 2;
	return n;
}

static int launch(const struct launch *launch, struct err *err)
{
	char **words = launch_words(launch, err);

	if (!words) return err->code;
	execvp(words[0], words);
	launch_words_free(words);
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
		rc = launch(&(struct launch){ .ranks = ranks, .hostfile = hostfile, .hosts = hosts, .arguments = argv + own, .n = argc - own }, &err);
	}
	fprintf(stderr, "drumroll: %s\n", err.text);
	return rc == ERR_USAGE ? EXIT_USAGE : EXIT_FAILURE;
}

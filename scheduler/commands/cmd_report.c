/* cmd_report.c - `drumroll report DIR... [--out FILE.html]`: runs and sweeps as one HTML file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/commands/arguments.h"
#include "scheduler/commands/commands.h"
#include "scheduler/ranks/transport.h"
#include "scheduler/report/report.h"

#define USAGE "drumroll report DIR... [--out FILE.html]"

struct report_options {
	const char **dirs; /* [n] */
	int n;
	const char *out;
	char own_out[4096];
};

static void help(void)
{
	printf("drumroll report DIR... [--out FILE]: one HTML file of what runs and sweeps did\n\n"
	       "  DIR     the directory of a run, also of one that goes on or was killed, or of a sweep (drumroll throughput);\n"
	       "          several runs are compared with the first\n"
	       "  --out   the file; -: standard output [report.html in the first DIR]\n\n"
	       "The file needs nothing else to be read: no network, no scripts. Plots are drawn by gnuplot (Debian: gnuplot-nox).\n");
}

static int parse_arguments(struct report_options *o, int argc, char **argv, struct err *err)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--out") == 0) {
			if (i + 1 == argc) return err_set(err, ERR_USAGE, "--out needs a value after it: " USAGE);
			o->out = argv[++i];
		} else if (argv[i][0] == '-') return err_set(err, ERR_USAGE, "unknown option %s: " USAGE, argv[i]);
		else o->dirs[o->n++] = argv[i];
	}
	if (o->n == 0) return err_set(err, ERR_USAGE, "no directory is given: " USAGE);
	if (!o->out) {
		size_t n = strlen(o->dirs[0]);
		snprintf(o->own_out, sizeof o->own_out, "%s%sreport.html", o->dirs[0], o->dirs[0][n ? n - 1 : 0] == '/' ? "" : "/");
		o->out = o->own_out;
	}
	return 0;
}

int report_command(int argc, char **argv)
{
	struct report_options options = {.dirs = xcalloc((size_t)argc, sizeof *options.dirs)};
	struct err err;
	int code = 0;

	if (arguments_want_help(argc, argv)) help();
	else if (!transport_is_follower()) { /* under mpirun one rank is enough */
		code = parse_arguments(&options, argc, argv, &err);
		if (!code) code = report_write(options.dirs, options.n, options.out, &err);
		if (!code && strcmp(options.out, "-") != 0) printf("report: %s\n", options.out);
	}
	free(options.dirs);
	if (code) fprintf(stderr, "drumroll report: %s\n", err.text);
	return code == ERR_USAGE ? EXIT_USAGE : code ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* cmd_throughput.c - `drumroll throughput CONFIG`: everything that `sweep:` and `variants:` of a config vary, run and compared. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/config_arguments.h"
#include "scheduler/commands/commands.h"
#include "scheduler/report/report.h"
#include "scheduler/throughput/throughput.h"
#include "scheduler/throughput/throughput_run.h"

enum { STOPPED = 130, REPETITIONS_MAX = 10000, COMMAND_MAX = 2048 };

static const char usage[] =
	"usage: drumroll throughput CONFIG [--set section.key=value ...] [--repeat N] [--out DIR] [--json]   run a sweep\n"
	"       drumroll throughput CONFIG ... --list                     print its runs in their order, start nothing\n"
	"       drumroll throughput --resume DIR [--repeat N] [--json]    what an interrupted one left out, and what failed\n"
	"configs/experiments/README.md says what CONFIG may hold and what DIR will.\n";

struct request {
	const char *repeat, *out, *resume; /* NULL: not given */
	bool json, list;
	struct config_arguments arguments;
	char base[4096], sweep[4096];      /* files */
	char command[COMMAND_MAX];
};

/* Under an mpirun of its own: `mpirun -n 5 drumroll throughput` stands for throughput.ranks 5.  Returns these, 0 without mpirun, or
 * -1 in all but one of the processes, which have nothing to do.  What mpirun told us must not reach the mpirun of a run. */
static long leave_mpirun(void)
{
	static const char *const told[] = { "PMI_RANK", "PMI_FD", "PMI_SIZE", "PMI_PORT", "PMI_ID", "PMI_SPAWNED", "MPI_LOCALNRANKS", "MPI_LOCALRANKID" };
	const char *rank = getenv("PMI_RANK"), *size = getenv("PMI_SIZE");
	long ranks = rank && size ? strtol(size, NULL, 10) : 0;

	if (rank && strcmp(rank, "0") != 0) return -1;
	for (size_t i = 0; i < sizeof told / sizeof *told; i++) unsetenv(told[i]);
	return ranks;
}

static void set_ranks(struct throughput *t, long ranks)
{
	if (ranks == 0 || sweep_varies(&t->sweep, "throughput.ranks")) return;
	t->base.throughput.ranks = ranks;
	for (int p = 0; p < t->points.n; p++) t->ranks[p] = ranks;
}

static void note_command(struct request *r, int argc, char **argv)
{
	size_t n = (size_t)snprintf(r->command, sizeof r->command, "drumroll");
	for (int i = 0; i < argc && n < sizeof r->command; i++)
		n += (size_t)snprintf(r->command + n, sizeof r->command - n, strpbrk(argv[i], " \t\"'") ? " '%s'" : " %s", argv[i]);
}

/* Own options are taken out, the rest is a config with its sets. */
static int read_words(struct request *r, int argc, char **argv, char **rest, int *n_rest, struct err *err)
{
	const struct { const char *name; const char **value; } options[] = {
		{ "--repeat", &r->repeat }, { "--out", &r->out }, { "--resume", &r->resume } };
	enum { OPTIONS = sizeof options / sizeof *options };

	for (int i = 0; i < argc; i++) {
		int o = 0;
		while (o < OPTIONS && strcmp(argv[i], options[o].name) != 0) o++;
		if (strcmp(argv[i], "--json") == 0) r->json = true;
		else if (strcmp(argv[i], "--list") == 0) r->list = true;
		else if (o == OPTIONS) {
			rest[(*n_rest)++] = argv[i];
			if (strcmp(argv[i], "--set") == 0 && i + 1 < argc) rest[(*n_rest)++] = argv[++i];
		} else if (++i == argc) return err_set(err, ERR_USAGE, "%s: expected a value after it", options[o].name);
		else *options[o].value = argv[i];
	}
	return 0;
}

static int read_request(struct request *r, int argc, char **argv, struct err *err)
{
	char **rest = xcalloc((size_t)argc + 2, sizeof *rest);
	int n = 0;

	note_command(r, argc, argv);
	int rc = read_words(r, argc, argv, rest, &n, err);
	if (!rc && r->resume && (n > 1 || r->out))
		rc = err_set(err, ERR_USAGE, "--resume goes on with what %s holds: leave CONFIG, --set and --out out, or begin a new sweep", r->resume);
	if (!rc && r->resume) {
		snprintf(r->base, sizeof r->base, "%s/base.yaml", r->resume);
		snprintf(r->sweep, sizeof r->sweep, "%s/sweep.yaml", r->resume);
	} else if (!rc) {
		rc = config_arguments_read(&r->arguments, n, rest, NULL, NULL, err);
		if (!rc) snprintf(r->base, sizeof r->base, "%s", r->arguments.path);
		if (!rc) snprintf(r->sweep, sizeof r->sweep, "%s", r->arguments.path);
	}
	free(rest);
	return rc;
}

static int set_repetitions(struct throughput *t, const char *text, struct err *err)
{
	char set[128];

	if (!text) return 0;
	snprintf(set, sizeof set, "throughput.repetitions=%.64s", text);
	return config_set(&t->base, set, err) ? err_set(err, ERR_USAGE, "--repeat: expected a whole number from 1 to %d, found \"%s\"", REPETITIONS_MAX, text) : 0;
}

static bool any_failed(const struct throughput *t)
{
	for (int i = 0; i < t->results.n; i++)
		if (t->results.items[i].exit != 0) return true;
	return false;
}

/* A sweep is as good without it: only said. */
static void write_report(const struct throughput *t, bool quiet)
{
	const char *dirs[] = { t->dir };
	char out[RUN_PATH_MAX + 32];
	struct err err;

	snprintf(out, sizeof out, "%s/report.html", t->dir);
	if (report_write(dirs, 1, out, &err)) fprintf(stderr, "drumroll: no report: %s\n", err.text);
	else if (!quiet) printf("report: %s\n", out);
}

/* The exit status. */
static int conclude(const struct throughput *t, const struct request *r)
{
	const struct config_throughput *c = &t->base.throughput;
	bool stopped = throughput_signals() > 0;

	if (stopped) fprintf(stderr, "\ndrumroll: stopped with %d runs done; go on with: drumroll throughput --resume %s\n", t->results.n, t->dir);
	if (r->json) throughput_print_json(&t->results, &t->points, c->metric);
	else if (t->results.n > 0) {
		printf("\n");
		throughput_print(&t->results, &t->points, c->metric, c->higher_is_better, stdout);
	}
	if (t->results.n > 0) write_report(t, r->json);
	if (!r->json) printf("sweep directory: %s\n", t->dir);
	fflush(stdout);
	return stopped ? STOPPED : any_failed(t) ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* A negative code, or the exit status. */
static int run_sweep(struct throughput *t, const struct request *r, struct err *err)
{
	int rc = set_repetitions(t, r->repeat, err);

	if (!rc && r->list) {
		throughput_list(t, stdout);
		return EXIT_SUCCESS;
	}
	if (!rc) rc = r->resume ? throughput_resume(t, r->resume, err) : throughput_begin(t, r->sweep, r->out, r->command, err);
	if (!rc) rc = throughput_go(t, err);
	return rc ? rc : conclude(t, r);
}

int throughput_command(int argc, char **argv)
{
	struct request request = { 0 };
	struct throughput t;
	struct err err;

	if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		fputs(usage, stdout);
		return EXIT_SUCCESS;
	}
	long ranks = leave_mpirun();
	if (ranks < 0) return EXIT_SUCCESS;
	int rc = ranks == 1 ? err_set(&err, ERR_USAGE, "a run needs a controller and at least one worker: mpirun -n 3, or no mpirun and throughput.ranks")
	                    : read_request(&request, argc, argv, &err);
	if (rc == ERR_USAGE) {
		fprintf(stderr, "drumroll: %s\n%s", err.text, usage);
		return EXIT_USAGE;
	}
	if (!rc) rc = throughput_open(&t, request.base, request.sweep, request.arguments.sets, request.arguments.n_sets, &err);
	if (!rc) {
		t.quiet = request.json;
		set_ranks(&t, ranks);
		rc = run_sweep(&t, &request, &err);
		throughput_close(&t);
	}
	if (rc >= 0) return rc;
	fprintf(stderr, "drumroll: %s\n", err.text);
	return rc == ERR_USAGE || rc == ERR_CONFIG ? EXIT_USAGE : EXIT_FAILURE;
}

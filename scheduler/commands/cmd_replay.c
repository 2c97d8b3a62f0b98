/* cmd_replay.c - `drumroll replay RUN_DIR`: recorded trajectories drawn again and compared, on one process or under mpirun;
 * or with --serve their batches delivered to a trainer again.
 *
 * Exit status 0: all that could be compared is equal, 1: something differs, nothing could be compared, or it failed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scheduler/clock.h"
#include "scheduler/commands/arguments.h"
#include "scheduler/commands/commands.h"
#include "scheduler/replay/replay_ranks.h"
#include "scheduler/replay/replay_report.h"
#include "scheduler/replay/replay_serve.h"

enum { SETS_MAX = 64 };
#define MODES "recorded|exact|speculative"

struct request {
	const char *run_dir, *serve, *resume, *model, *ids, *steps;
	const char *sets[SETS_MAX];
	int n_sets;
	int mode, drafter;
	int64_t draft_length, threads, max_active, kv_memory_mb, sample, seed;
	bool drafter_given, draft_length_given, json;
	uint64_t *id_list;      /* [n_ids] ascending, owned */
	size_t n_ids;
	struct step_range range;
};

/* ---- the command line ---- */

static int order_ids(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

/* Numbers with commas between; the same one twice counts once. */
static int read_ids(struct request *r, struct err *err)
{
	size_t n = 0;

	for (const char *at = r->ids; at && *at;) {
		char *end;
		errno = 0;
		unsigned long long id = strtoull(at, &end, 10);
		if (end == at || errno || *at == '-' || (*end && *end != ','))
			return err_set(err, ERR_USAGE, "--ids: expected trajectory ids with commas between, found '%s'", at);
		r->id_list = xrealloc(r->id_list, (n + 1) * sizeof *r->id_list);
		r->id_list[n++] = id;
		at = *end ? end + 1 : end;
	}
	if (r->ids && n == 0) return err_set(err, ERR_USAGE, "--ids: expected trajectory ids, found none");
	if (n) qsort(r->id_list, n, sizeof *r->id_list, order_ids);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || r->id_list[i] != r->id_list[i - 1]) r->id_list[r->n_ids++] = r->id_list[i];
	return 0;
}

/* Each --set is taken out, which may be there many times; what is left of argv is for the table. */
static int take_sets(struct request *r, int *argc, char **argv, struct err *err)
{
	int n = 0;

	for (int i = 0; i < *argc; i++) {
		if (strcmp(argv[i], "--set") != 0) {
			argv[n++] = argv[i];
			continue;
		}
		if (++i == *argc) return err_set(err, ERR_USAGE, "--set: expected section.key=value after it");
		if (r->n_sets == SETS_MAX) return err_set(err, ERR_USAGE, "more than %d times --set", SETS_MAX);
		r->sets[r->n_sets++] = argv[i];
	}
	*argc = n;
	return 0;
}

static int read_request(struct request *r, int argc, char **argv, struct err *err)
{
	enum { DRAFTER = 1, DRAFT_LENGTH, N = 14 };
	struct argument table[N] = {
		{"--mode", ARGUMENT_CHOICE, &r->mode, "to draw what the target drew; the quantized copy's tokens are always drawn by it",
		 .choices = MODES},
		[DRAFTER] = {"--drafter", ARGUMENT_CHOICE, &r->drafter, "instead of the run's", .choices = "quant|suffix|combined"},
		[DRAFT_LENGTH] = {"--draft-length", ARGUMENT_INT, &r->draft_length, "instead of the run's; 0: chosen every round", .max = 32},
		{"--threads", ARGUMENT_INT, &r->threads, "of each process; 0: all cores, under mpirun worker.threads", .max = 1024},
		{"--max-active", ARGUMENT_INT, &r->max_active, "samples drawn together; 0: worker.max_active", .max = 65536},
		{"--kv-memory-mb", ARGUMENT_INT, &r->kv_memory_mb, "budget of the KV cache; 0: worker.kv_memory_mb", .max = 16777216},
		{"--model", ARGUMENT_FILE, &r->model, "model directory of version 0, where it is not the run's model.path"},
		{"--steps", ARGUMENT_TEXT, &r->steps, "A-B, A-, -B or A: what was delivered, evaluated or dropped in these steps"},
		{"--ids", ARGUMENT_TEXT, &r->ids, "only these trajectories, with commas between"},
		{"--sample", ARGUMENT_INT, &r->sample, "so many of them, drawn by --seed; 0: all", .max = INT64_MAX / 2},
		{"--seed", ARGUMENT_INT, &r->seed, "which ones", .max = 9007199254740991},
		{"--serve", ARGUMENT_FILE, &r->serve, "a run's config: deliver the batches to a trainer instead, over its bridge.listen"},
		{"--resume", ARGUMENT_TEXT, &r->resume, "the directory that --serve made: go on where the trainer acknowledged last"},
		{"--json", ARGUMENT_FLAG, &r->json, "one JSON object on standard output"},
	};
	char **rest = xcalloc((size_t)argc + 1, sizeof *rest);

	if (arguments_want_help(argc, argv)) {
		arguments_print_help(table, N, "replay RUN_DIR",
		                     "recorded trajectories drawn again and compared bit for bit (also under mpirun);\n  --set "
		                     "section.key=value changes the run's config, or with --serve that one", stdout);
		exit(EXIT_SUCCESS);
	}
	int rc = take_sets(r, &argc, argv, err);
	if (!rc) rc = arguments_take_word(table, N, &argc, argv, rest, &r->run_dir, "run directory", err);
	if (!rc) rc = arguments_parse(table, N, argc, rest, err);
	free(rest);
	r->drafter_given = table[DRAFTER].given;
	r->draft_length_given = table[DRAFT_LENGTH].given;
	if (!rc) rc = step_range_parse(&r->range, r->steps, err);
	return rc ? rc : read_ids(r, err);
}

/* ---- drawing again ---- */

/* More than one process was started by mpirun. */
static bool is_parallel(void)
{
	const char *size = getenv("PMI_SIZE");
	return size && strtol(size, NULL, 10) > 1;
}

/* The run's config, with what is asked for over it. */
static int load_config(const struct request *r, struct config *c, struct err *err)
{
	char path[4200];
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	snprintf(path, sizeof path, "%.4096s/config.yaml", r->run_dir);
	int rc = config_load(c, path, r->sets, r->n_sets, err);
	if (rc) return err_context(err, "%s: expected the directory of a run", r->run_dir);
	if (r->model) {
		free(c->model.path);
		c->model.path = xstrdup(r->model);
	}
	if (r->drafter_given) c->speculation.drafter = r->drafter;
	if (r->draft_length_given) c->speculation.draft_length = r->draft_length;
	if (r->threads) c->worker.threads = r->threads;
	else if (!is_parallel()) c->worker.threads = cores > 0 ? cores : 1;
	if (r->max_active) c->worker.max_active = r->max_active;
	if (r->kv_memory_mb) c->worker.kv_memory_mb = r->kv_memory_mb;
	return 0;
}

static int report(const struct request *r, const struct config *c, const struct replay_result *result, int ranks,
                  double seconds, struct err *err)
{
	static const char *const modes[] = { "recorded", "exact", "speculative" };
	struct replay_report report = { .run_dir = r->run_dir, .mode = modes[r->mode], .ranks = ranks,
	                                .threads = (int)c->worker.threads, .seconds = seconds, .result = result };

	if (r->json) replay_report_json(&report, stdout);
	else replay_report_text(&report, stdout);
	if (fflush(stdout)) return err_set_errno(err, ERR_IO, "cannot write");
	if (result->different) return EXIT_FAILURE;
	if (result->equal) return 0;
	return err_set(err, ERR_STATE, "nothing could be compared: no token of these trajectories can be drawn again");
}

/* A negative code with err set, or the exit status. */
static int replay(const struct request *r, const struct config *c, struct transport *transport, struct err *err)
{
	struct replay_options options = { .run_dir = r->run_dir, .config = c, .mode = (enum replay_mode)r->mode,
	                                  .rank = transport ? transport_rank(transport) : 0 };
	struct replay_selection selection = { .steps = r->range, .ids = r->id_list,
	                                      .n_ids = r->n_ids, .sample = (size_t)r->sample, .seed = (uint64_t)r->seed };
	struct replay_team team = { .transport = transport, .options = &options, .selection = &selection, .quiet = false };
	struct replay_result result;
	double began = clock_seconds();

	if (options.rank > 0) return replay_follow(&team, err);
	replay_result_open(&result);
	int rc = replay_lead(&team, &result, err);
	if (!rc) rc = report(r, c, &result, transport ? transport_size(transport) : 1, clock_seconds() - began, err);
	replay_result_close(&result);
	return rc;
}

static int replay_ranks(const struct request *r, struct err *err)
{
	static const double CLOSE_SECONDS = 10;
	struct transport *transport = NULL;
	struct config config;

	int rc = load_config(r, &config, err);
	if (rc) return rc;
	if (is_parallel()) rc = transport_open(&transport, err);
	if (!rc) rc = replay(r, &config, transport, err);
	bool follower = transport && transport_rank(transport) > 0;
	if (transport) transport_close(transport, CLOSE_SECONDS);
	config_free(&config);
	return follower && rc < 0 ? EXIT_FAILURE : rc; /* rank 0 says why */
}

/* ---- serving ---- */

static int serve(const struct request *r, struct err *err)
{
	struct config config;
	char path[4200];

	if (is_parallel()) return err_set(err, ERR_USAGE, "--serve is one process: leave mpirun out");
	if (r->ids || r->sample)
		return err_set(err, ERR_USAGE, "--serve delivers whole batches: choose them by --steps, not by --ids or --sample");
	if (r->resume && (r->serve || r->steps))
		return err_set(err, ERR_USAGE, "--resume goes on with the config and the steps that the serving began with: leave %s out",
		               r->serve ? "--serve" : "--steps");
	if (r->resume) snprintf(path, sizeof path, "%.4096s/config.yaml", r->resume);
	int rc = config_load(&config, r->resume ? path : r->serve, r->sets, r->n_sets, err);
	if (rc) return rc;
	if (r->model) {
		free(config.model.path);
		config.model.path = xstrdup(r->model);
	}
	struct replay_serve_options options = { .run_dir = r->run_dir, .config = &config, .steps = r->range,
	                                        .resume = r->resume };
	rc = replay_serve(&options, err);
	config_free(&config);
	return rc;
}

int replay_command(int argc, char **argv)
{
	struct request request = { .drafter = DRAFTER_KIND_COMBINED, .seed = 1 };
	struct err err;

	int rc = read_request(&request, argc, argv, &err);
	if (!rc) rc = request.serve || request.resume ? serve(&request, &err) : replay_ranks(&request, &err);
	free(request.id_list);
	if (rc >= 0) return rc;
	if (!transport_is_follower()) fprintf(stderr, "drumroll replay: %s\n", err.text);
	return rc == ERR_USAGE || rc == ERR_CONFIG ? EXIT_USAGE : EXIT_FAILURE;
}

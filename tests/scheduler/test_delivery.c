/* test_delivery.c - a real run and a trainer that is killed, slow, or wants its batches in pieces.
 *
 * Kills: the trainer is a process of its own that dies by SIGKILL at seeded times: anywhere in its life, or within a
 * few milliseconds of pulling, acknowledging or pushing.
 * It writes what it has made its own into a ledger before it acknowledges, as a real one would with its checkpoint.
 * Over the whole run the ledger must have every trajectory that the run says it delivered, once; and every version that
 * the run took must be whole.
 *
 *   KILLS=50 build/release/tests/scheduler/test_delivery      more of them (5)
 *   KILLS_SEED=7 ...                                          at other times
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "policy/weights.h"
#include "scheduler/store/store.h"
#include "scheduler/store/weight_history.h"
#include "tests/support/bridge_fixture.h"
#include "tests/support/live_run.h"

enum { WAIT_SECONDS = 150, KILLS_DEFAULT = 5, STEPS_PER_KILL = 6, LIFE_US_MAX = 150000, STAGE_US_MAX = 5000, CHUNK_BYTES = 16384 };
static struct weights model;
static uint16_t *original; /* model's numbers; version v is these with v added to their last bits */

#define good(call) \
	do { \
		if (call) \
			fail_msg("%s: %s", #call, err.text); \
	} while (0)

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void nap(double seconds)
{
	struct timespec t = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};

	nanosleep(&t, NULL);
}

/* Every number of a version is another one than in the versions around it. */
static uint16_t number_of(int64_t version, size_t i)
{
	return (uint16_t)(original[i] ^ (uint16_t)(version & 3));
}

static void make_version(int64_t version)
{
	for (size_t i = 0; i < model.n_elements; i++)
		model.data[i] = number_of(version, i);
}

/* ---- the trainer that is killed ---- */

/* A line per batch that is its own: batch_id, then ids; and one per version that was taken: v and its number. */
static void write_line(const char *path, const char *line)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);

	if (fd < 0 || write(fd, line, strlen(line)) != (ssize_t)strlen(line))
		_exit(9);
	close(fd);
}

/* The last batch that was written down, 0 if none; and whether a version was taken after it. */
static uint64_t read_ledger(const char *path, bool *pushed)
{
	FILE *file = fopen(path, "r");
	char *line = NULL;
	size_t capacity = 0;
	uint64_t last = 0;

	*pushed = true;
	while (file && getline(&line, &capacity, file) > 0) {
		if (!strchr(line, '\n'))
			break; /* it died while it wrote: the batch was never acknowledged */
		*pushed = line[0] == 'v';
		if (line[0] != 'v')
			last = strtoull(line, NULL, 10);
	}
	free(line);
	if (file)
		fclose(file);
	return last;
}

struct owned {
	char *text;
	size_t n, capacity;
};

static void own(struct owned *o, const char *before, uint64_t id, const char *behind)
{
	if (o->n + 32 > o->capacity) {
		o->capacity = 2 * o->capacity + 4096;
		o->text = realloc(o->text, o->capacity);
	}
	o->n += (size_t)snprintf(o->text + o->n, 32, "%s%llu%s", before, (unsigned long long)id, behind);
}

/* Again while the version before is on its way to the ranks. */
static int push(struct client *client, int64_t version, struct err *err)
{
	make_version(version);
	while (client_push_weights(client, version, &model, CHUNK_BYTES, err)) {
		if (err->code != ERR_STATE)
			return err->code;
		nap(0.01);
	}
	return 0;
}

/* What it is at, for whoever asks when it is dead. */
enum stage { STAGE_CONNECT, STAGE_PULL, STAGE_ACK, STAGE_PUSH, STAGES };
static volatile enum stage *stage; /* shared with the parent */

/* When this life ends: at the n-th time of a stage or, STAGE_CONNECT, some time after its beginning. */
static struct { timer_t timer; bool mortal; enum stage stage; int n; long us; } doom;

static void doom_draw(uint64_t seed)
{
	struct sigevent death = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
	uint64_t random = seed * 7919;

	doom.mortal = true;
	doom.stage = (enum stage)(bridge_random(&random) % STAGES);
	doom.n = 1 + (int)(bridge_random(&random) % 3);
	doom.us = (long)(bridge_random(&random) % (doom.stage == STAGE_CONNECT ? LIFE_US_MAX : STAGE_US_MAX));
	if (doom.stage == STAGE_ACK) /* which is over in no time: half of them before it is begun */
		doom.us = doom.us % 2 ? 0 : doom.us % 40;
	if (timer_create(CLOCK_MONOTONIC, &death, &doom.timer))
		_exit(8);
}

static void enter(enum stage next)
{
	struct itimerspec when = {.it_value = {.tv_nsec = doom.us * 1000 + 1}};

	*stage = next;
	if (!doom.mortal || next != doom.stage || --doom.n > 0)
		return;
	if (doom.us == 0)
		raise(SIGKILL);
	if (timer_settime(doom.timer, 0, &when, NULL))
		_exit(8);
}

static void push_next(struct client *client, const char *ledger)
{
	char line[64];
	struct err err;
	int64_t version = client_version(client) + 1;

	enter(STAGE_PUSH);
	while (push(client, version, &err)) {
		if (err.code != ERR_INVALID)
			_exit(6);
		version++; /* it took this one when this trainer last died */
	}
	snprintf(line, sizeof line, "v%lld\n", (long long)version);
	write_line(ledger, line);
}

/* One life: to the end of the run (exit 0) or of its own. */
static void be_trainer(const struct live_run *run, const char *ledger, uint64_t seed, bool mortal)
{
	struct client_options options = {.address = run->address, .name = "mortal", .connect_seconds = 60,
		.timeout_seconds = 100, .micro_groups = seed % 3 == 0 ? 0 : (int)(seed % 3), .by_completion = seed % 2};
	struct owned owned = {0};
	struct client_batch batch;
	struct client *client;
	struct err err;
	bool pushed;

	if (mortal)
		doom_draw(seed);
	if (doom.stage == STAGE_CONNECT)
		doom.n = 1;
	enter(STAGE_CONNECT);
	if (client_open_with(&client, &options, &err))
		_exit(4);
	uint64_t last = read_ledger(ledger, &pushed);
	if (last && client_ack(client, last, &err))
		_exit(5);
	if (!pushed)
		push_next(client, ledger);
	for (;;) {
		enter(STAGE_PULL);
		if (client_pull(client, &batch, 100, &err))
			_exit(3);
		if (batch.n == 0 && !batch.ended)
			break;
		if (owned.n == 0)
			own(&owned, "", batch.batch_id, "");
		for (int i = 0; i < batch.n; i++)
			own(&owned, " ", batch.trajectories[i]->id, "");
		bool whole = batch.micro < 0 || batch.ended;
		uint64_t id = batch.batch_id;
		client_batch_free(&batch);
		if (!whole)
			continue;
		own(&owned, " ", 0, "\n"); /* no trajectory has id 0 */
		write_line(ledger, owned.text);
		owned.n = 0;
		enter(STAGE_ACK);
		if (client_ack(client, id, &err))
			_exit(5);
		push_next(client, ledger);
	}
	client_close(client);
	_exit(0);
}

/* ---- what must be true of all of it ---- */

struct ids {
	uint64_t *items;
	size_t n, capacity;
};

static void ids_add(struct ids *ids, uint64_t id)
{
	if (ids->n == ids->capacity) {
		ids->capacity = ids->capacity ? 2 * ids->capacity : 1024;
		ids->items = realloc(ids->items, ids->capacity * sizeof *ids->items);
	}
	ids->items[ids->n++] = id;
}

static int id_compare(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

static int add_delivered(void *context, const struct trajectory *t, enum store_state state)
{
	if (state == STORE_DELIVERED && !t->eval)
		ids_add(context, t->id);
	return 0;
}

static void check_ledger(const struct live_run *run, const char *ledger)
{
	struct ids own_ids = {0}, delivered = {0};
	FILE *file = fopen(ledger, "r");
	struct store *store;
	char *line = NULL, dir[300];
	size_t capacity = 0;
	struct err err;

	assert_non_null(file);
	while (getline(&line, &capacity, file) > 0) {
		char *at = line;
		if (line[0] == 'v')
			continue;
		strtoull(line, &at, 10);
		for (uint64_t id; (id = strtoull(at, &at, 10)) > 0;)
			ids_add(&own_ids, id);
	}
	free(line);
	fclose(file);
	snprintf(dir, sizeof dir, "%s/run", run->dir);
	good(store_open_existing(&store, dir, &err));
	good(store_each_trajectory(store, add_delivered, &delivered, &err));
	store_close(store, &err);
	qsort(own_ids.items, own_ids.n, sizeof(uint64_t), id_compare);
	qsort(delivered.items, delivered.n, sizeof(uint64_t), id_compare);
	for (size_t i = 1; i < own_ids.n; i++)
		if (own_ids.items[i] == own_ids.items[i - 1])
			fail_msg("trajectory %llu was delivered twice", (unsigned long long)own_ids.items[i]);
	assert_int_equal(own_ids.n, delivered.n);
	assert_memory_equal(own_ids.items, delivered.items, own_ids.n * sizeof(uint64_t));
	print_message("%zu trajectories, each once\n", own_ids.n);
	free(own_ids.items);
	free(delivered.items);
}

static void check_versions(const struct live_run *run)
{
	struct weight_history *history;
	struct weights weights;
	char dir[300];
	struct err err;

	snprintf(dir, sizeof dir, "%s/run", run->dir);
	good(weight_history_open(&history, dir, &model.config, &err));
	for (int64_t v = weight_history_newest(history); v > 0; v--) {
		if (!weight_history_has(history, v))
			continue;
		good(weight_history_load(history, v, &weights, &err));
		for (size_t i = 0; i < weights.n_elements; i++)
			if (weights.data[i] != number_of(v, i))
				fail_msg("version %lld is not what was pushed at number %zu", (long long)v, i);
		weights_free(&weights);
	}
	print_message("%d versions, the newest is %lld, each whole\n", weight_history_count(history),
	              (long long)weight_history_newest(history));
	weight_history_close(history);
}

static long environment(const char *name, long otherwise)
{
	const char *text = getenv(name);
	return text ? strtol(text, NULL, 10) : otherwise;
}

static void kill_trainers(const char *asynchrony, long n_kills, uint64_t seed)
{
	char steps[64], mode[64], ledger[300];
	const char *const settings[] = {steps, mode, "scheduler.groups_per_step=4", "rollout.group_size=3",
	                                "rollout.max_tokens=40", "weights.keep_versions=20", NULL};
	struct live_run run;
	long n_killed = 0, n_lives = 0, at_stage[STAGES] = {0};
	int status = -1;

	snprintf(steps, sizeof steps, "run.steps=%ld", STEPS_PER_KILL * n_kills + 10);
	snprintf(mode, sizeof mode, "scheduler.asynchrony=%s", asynchrony);
	live_run_start(&run, settings);
	snprintf(ledger, sizeof ledger, "%s/ledger", run.dir);
	for (bool over = false; !over; n_lives++) {
		bool mortal = n_killed < n_kills;
		fflush(NULL);
		pid_t child = fork();
		if (child == 0)
			be_trainer(&run, ledger, seed + (uint64_t)n_lives, mortal);
		waitpid(child, &status, 0);
		bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
		n_killed += killed;
		at_stage[*stage] += killed;
		over = !WIFSIGNALED(status);
	}
	print_message("%s: %ld of %ld lives ended by SIGKILL: %ld connecting, %ld pulling, %ld acknowledging, %ld pushing\n",
	              asynchrony, n_killed, n_lives, at_stage[STAGE_CONNECT], at_stage[STAGE_PULL], at_stage[STAGE_ACK],
	              at_stage[STAGE_PUSH]);
	if (WEXITSTATUS(status) != 0) {
		live_run_wait(&run, 5);
		fail_msg("a trainer ended with status %d", WEXITSTATUS(status));
	}
	assert_int_equal(n_killed, n_kills);
	assert_int_equal(live_run_wait(&run, WAIT_SECONDS), 0);
	check_ledger(&run, ledger);
	check_versions(&run);
	live_run_remove(&run);
}

static void test_killed_trainers_lose_and_repeat_nothing(void **state)
{
	long n_kills = environment("KILLS", KILLS_DEFAULT), seed = environment("KILLS_SEED", 1);

	(void)state;
	kill_trainers("sync", n_kills - n_kills / 2, (uint64_t)seed);
	kill_trainers("async", n_kills / 2, (uint64_t)seed + 1000);
}

/* ---- a slow trainer ---- */

static int count_all(void *context, const struct trajectory *t, enum store_state state)
{
	(void)state;
	*(long *)context += t->n_tokens;
	return 0;
}

/* Tokens that the run has on record. */
static long tokens_of(const struct live_run *run)
{
	struct store *store;
	char dir[300];
	struct err err;
	long n = 0;

	snprintf(dir, sizeof dir, "%s/run", run->dir);
	good(store_open_existing(&store, dir, &err));
	good(store_each_trajectory(store, count_all, &n, &err));
	store_close(store, &err);
	return n;
}

/* It has taken all the batches that it may hold and acknowledges none: generation rests, and goes on when it does. */
static void test_a_slow_trainer_stops_generation(void **state)
{
	const char *const settings[] = {"run.steps=6", "scheduler.asynchrony=async", "scheduler.max_staleness=1",
	                                "scheduler.groups_per_step=4", "rollout.max_tokens=40", "bridge.credits=2", NULL};
	struct client_batch batch;
	struct live_run run;
	struct err err;
	long before = -1, after = -2;

	(void)state;
	live_run_start(&run, settings);
	struct client *client = live_run_connect(&run, NULL);
	for (int i = 0; i < 2; i++) {
		good(client_pull(client, &batch, WAIT_SECONDS, &err));
		client_batch_free(&batch);
	}
	for (int i = 0; i < 40 && before != after; i++) { /* until nothing more is made for 2.5 s, flushes included */
		before = tokens_of(&run);
		nap(2.5);
		after = tokens_of(&run);
	}
	assert_int_equal(before, after);
	nap(1.5);
	assert_int_equal(tokens_of(&run), after);
	for (uint64_t id = 1; id <= 6; id++) {
		if (id > 2) {
			good(client_pull(client, &batch, WAIT_SECONDS, &err));
			assert_int_equal(batch.batch_id, id);
			client_batch_free(&batch);
		}
		good(client_ack(client, id, &err));
		good(push(client, (int64_t)id, &err));
	}
	client_close(client);
	assert_int_equal(live_run_wait(&run, WAIT_SECONDS), 0);
	assert_true(tokens_of(&run) > after);
	live_run_remove(&run);
}

/* The time is in the metrics: a trainer that thinks for a second per batch. */
static void test_backpressure_is_in_the_metrics(void **state)
{
	const char *const settings[] = {"run.steps=2", "scheduler.groups_per_step=4", "rollout.max_tokens=40", NULL};
	struct client_batch batch;
	struct live_run run;
	struct err err;

	(void)state;
	live_run_start(&run, settings);
	struct client *client = live_run_connect(&run, NULL);
	for (int64_t step = 1; step <= 2; step++) {
		good(client_pull(client, &batch, WAIT_SECONDS, &err));
		client_batch_free(&batch);
		nap(1);
		good(client_ack(client, (uint64_t)step, &err));
		good(client_push_weights(client, step, &model, CHUNK_BYTES, &err));
	}
	client_close(client);
	assert_int_equal(live_run_wait(&run, WAIT_SECONDS), 0);
	assert_true(live_run_metric(&run, "bridge/blocked_seconds") > 0.9);
	assert_true(live_run_metric(&run, "bridge/unacknowledged") >= 0);
	live_run_remove(&run);
}

/* ---- micro-batches ---- */

struct taken {
	uint64_t sum;      /* of checksums of trajectories, whatever their order */
	int n, n_pieces;
	double seconds;    /* of the steps after the first */
	double early;      /* mean of the time between a step's first piece and its end */
};

/* A trainer that needs group_seconds for each group and a push for each batch. */
static struct taken take_steps(int micro_groups, double group_seconds, int64_t n_steps)
{
	char steps[64];
	const char *const settings[] = {steps, "scheduler.groups_per_step=16", "scheduler.over_sampling=1",
	                                "rollout.mode=exact", "worker.max_active=6", NULL};
	struct client_options options = {.micro_groups = micro_groups, .by_completion = true};
	struct taken taken = {0};
	struct client_batch batch;
	struct live_run run;
	struct err err;
	double start = 0, first = 0;

	snprintf(steps, sizeof steps, "run.steps=%lld", (long long)n_steps);
	live_run_start(&run, settings);
	struct client *client = live_run_connect(&run, &options);
	for (int64_t step = 1; step <= n_steps;) {
		good(client_pull(client, &batch, WAIT_SECONDS, &err));
		first = first > 0 ? first : now();
		assert_int_equal(batch.batch_id, step);
		for (int i = 0; i < batch.n; i++)
			taken.sum += trajectory_checksum(batch.trajectories[i]);
		taken.n += batch.n;
		taken.n_pieces += batch.n > 0;
		bool whole = batch.ended || batch.micro < 0;
		nap(group_seconds * batch.n / 9);
		client_batch_free(&batch);
		if (!whole)
			continue;
		taken.early += (now() - first) / (double)n_steps;
		first = 0;
		good(client_ack(client, (uint64_t)step, &err));
		good(client_push_weights(client, step, &model, 1 << 20, &err));
		if (step++ == 1)
			start = now();
	}
	taken.seconds = now() - start;
	client_close(client);
	assert_int_equal(live_run_wait(&run, WAIT_SECONDS), 0);
	live_run_remove(&run);
	return taken;
}

static void test_micro_batches_are_the_batch_sooner(void **state)
{
	long steps = environment("MICRO_STEPS", 4);
	double group_seconds = (double)environment("MICRO_GROUP_MS", 20) / 1000;

	(void)state;
	make_version(0);
	struct taken whole = take_steps(0, group_seconds, steps), micro = take_steps(1, group_seconds, steps);
	assert_int_equal(whole.n_pieces, steps);
	assert_int_equal(micro.n_pieces, 16 * steps);
	assert_int_equal(micro.n, whole.n);
	assert_true(micro.sum == whole.sum); /* the same samples to the bit */
	print_message("a trainer of %.0f ms a group, batches of 16: %.3f s a step whole, %.3f s in micro-batches\n",
	              group_seconds * 1000, whole.seconds / (double)(steps - 1), micro.seconds / (double)(steps - 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_killed_trainers_lose_and_repeat_nothing),
		cmocka_unit_test(test_a_slow_trainer_stops_generation),
		cmocka_unit_test(test_backpressure_is_in_the_metrics),
		cmocka_unit_test(test_micro_batches_are_the_batch_sooner),
	};
	struct err err;

	if (weights_load(&model, "configs/quickstart", &err)) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	FILE *shared = tmpfile();
	if (!shared || ftruncate(fileno(shared), sizeof *stage))
		return 1;
	void *memory = mmap(NULL, sizeof *stage, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(shared), 0);
	if (memory == MAP_FAILED)
		return 1;
	stage = memory;
	original = malloc(2 * model.n_elements);
	memcpy(original, model.data, 2 * model.n_elements);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	weights_free(&model);
	free(original);
	return failed;
}

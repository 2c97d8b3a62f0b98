/* test_verifier_pool.c - real processes that behave, crash, hang, flood, lie: every request has one verdict, and no
 * error is a reward. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scheduler/clock.h"
#include "scheduler/verifier/verifier_log.h"
#include "scheduler/verifier/verifier_pool.h"

enum { TASKS_MAX = 256 };
static const double HANG_SECONDS = 120; /* then the pool itself hangs */

/* A verifier in shell: `body` sees $id and $line, and says ok or whatever it wants. */
#define VERIFIER(body) \
	"ok() { echo \"{\\\"id\\\":$id,\\\"reward\\\":0.5}\"; }; " \
	"while read -r line; do id=${line#*:}; id=${id%%,*}; " body "; done"

struct rig {
	char dir[64], log[96];
	struct verifier_pool_options options;
	struct verifier_pool *pool;
	struct verifier_verdict verdicts[TASKS_MAX];
	int seen[TASKS_MAX], place[TASKS_MAX], n; /* place: of its verdict among all */
	struct verifier_counts counts;
	const uint64_t *order; /* [TASKS_MAX], by request; NULL: as they come */
	struct err err;
};

static void rig_open(struct rig *rig, const char *command)
{
	memset(rig, 0, sizeof *rig);
	snprintf(rig->dir, sizeof rig->dir, "/tmp/verifier_pool_XXXXXX");
	assert_non_null(mkdtemp(rig->dir));
	snprintf(rig->log, sizeof rig->log, "%s/verifier.log", rig->dir);
	rig->options = (struct verifier_pool_options){ .command = command, .log_path = rig->log, .processes = 2, .in_flight = 1,
		.retries = 2, .backoff = 0.01, .timeout = 60, .start_timeout = 60, .reply_bytes_max = 4096 };
	signal(SIGPIPE, SIG_IGN);
}

/* The same body for all but the one that is poison. */
static void submit(struct rig *rig, int n, int poison, size_t body_bytes)
{
	for (int i = 0; i < n; i++) {
		const char *text = i == poison ? "poison" : "food";
		char *body = malloc(body_bytes + 64);
		int head = sprintf(body, ",\"response\":\"%s", text);
		memset(body + head, 'x', body_bytes);
		strcpy(body + head + body_bytes, "\"}\n");
		verifier_pool_submit(rig->pool, (uint64_t)i, rig->order ? rig->order[i] : 0, body, strlen(body));
	}
	rig->n = n;
}

static void take_verdicts(struct rig *rig, int *taken)
{
	struct verifier_verdict v;

	while (verifier_pool_take(rig->pool, &v)) {
		assert_true(v.trajectory < (uint64_t)rig->n);
		assert_int_equal(rig->seen[v.trajectory]++, 0);
		assert_true(v.verdict == VERDICT_JUDGED ? !v.error[0] : v.error[0] && v.reward == 0);
		rig->verdicts[v.trajectory] = v;
		rig->place[v.trajectory] = (*taken)++;
	}
}

/* Turn until every request has its verdict, or the pool gives up. */
static int turn(struct rig *rig)
{
	double start = clock_seconds();
	int taken = 0, rc = 0;

	while (!rc && taken < rig->n) {
		rc = verifier_pool_turn(rig->pool, clock_seconds(), &rig->err);
		take_verdicts(rig, &taken);
		if (clock_seconds() - start > HANG_SECONDS) {
			char text[256];
			verifier_pool_describe(rig->pool, text, sizeof text);
			fail_msg("%d of %d verdicts: %s", taken, rig->n, text);
		}
		clock_sleep_ms(1);
	}
	if (!rc) assert_int_equal(verifier_pool_waiting(rig->pool), 0);
	verifier_pool_counts(rig->pool, &rig->counts);
	return rc;
}

static void rig_close(struct rig *rig)
{
	char command[128];

	verifier_pool_close(rig->pool);
	snprintf(command, sizeof command, "rm -r %s", rig->dir);
	assert_int_equal(system(command), 0);
}

static void run(struct rig *rig, int n, int poison, size_t body_bytes)
{
	assert_int_equal(verifier_pool_open(&rig->pool, &rig->options, &rig->err), 0);
	submit(rig, n, poison, body_bytes);
	if (turn(rig)) fail_msg("%s", rig->err.text);
}

static void assert_judged(const struct rig *rig, int but)
{
	for (int i = 0; i < rig->n; i++) {
		if (i == but) continue;
		if (rig->verdicts[i].verdict != VERDICT_JUDGED) fail_msg("%d: %s", i, rig->verdicts[i].error);
		assert_true(rig->verdicts[i].reward == 0.5 && rig->verdicts[i].reward_answer == 0);
	}
}

static void assert_failed(const struct rig *rig, int i, enum verdict verdict, const char *said)
{
	assert_int_equal(rig->verdicts[i].verdict, verdict);
	if (!strstr(rig->verdicts[i].error, said)) fail_msg("expected \"%s\" in \"%s\"", said, rig->verdicts[i].error);
}

static void test_decent(void **state)
{
	struct rig rig;

	(void)state;
	for (int in_flight = 1; in_flight <= 16; in_flight += 15) {
		rig_open(&rig, VERIFIER("ok"));
		rig.options.in_flight = in_flight;
		run(&rig, 200, -1, 100);
		assert_judged(&rig, -1);
		assert_int_equal(rig.counts.asked, 200);
		assert_int_equal(rig.counts.restarts + rig.counts.retried + rig.counts.strays + rig.counts.failed, 0);
		rig_close(&rig);
	}
}

/* Each of these costs its own request and no other, however many share the process. */
static void poisoned(const char *command, double timeout, enum verdict verdict, const char *said)
{
	for (int in_flight = 1; in_flight <= 8; in_flight += 7) {
		struct rig rig;
		rig_open(&rig, command);
		rig.options.in_flight = in_flight;
		rig.options.timeout = rig.options.start_timeout = timeout;
		run(&rig, 40, 7, 10);
		assert_judged(&rig, 7);
		assert_failed(&rig, 7, verdict, said);
		assert_int_equal(rig.counts.judged, 39);
		rig_close(&rig);
	}
}

#define POISON(what) VERIFIER("case $line in *poison*) " what ";; *) ok;; esac")

static void test_one_that_crashes(void **state)
{
	(void)state;
	poisoned(POISON("exit 3"), 60, VERDICT_FAILED, "ended with status 3 (asked 3 times)");
	poisoned(POISON("kill -SEGV $$"), 60, VERDICT_FAILED, "was ended by signal 11");
}

static void test_one_that_hangs(void **state)
{
	(void)state;
	poisoned(POISON("trap '' TERM INT; while :; do sleep 1; done"), 0.7, VERDICT_FAILED, "did not answer within");
}

static void test_one_that_answers_late(void **state)
{
	(void)state;
	poisoned(POISON("sleep 3; ok"), 0.7, VERDICT_FAILED, "did not answer within");
}

static void test_one_that_closes_its_output(void **state)
{
	(void)state;
	poisoned(POISON("exec >/dev/null; sleep 1000"), 60, VERDICT_FAILED, "closed its output");
}

static void test_one_that_writes_without_end(void **state)
{
	(void)state;
	poisoned(POISON("yes | tr -d '\\n'"), 60, VERDICT_FAILED, "wrote a line of more than 4096 bytes");
}

static void test_one_that_answers_nonsense(void **state)
{
	(void)state;
	poisoned(POISON("echo hello"), 60, VERDICT_FAILED, "found \"hello\"");
	poisoned(POISON("printf '\\377\\001\\033[2J\\n'"), 60, VERDICT_FAILED, "found \"???[2J\"");
	poisoned(POISON("yes"), 60, VERDICT_FAILED, "answered nonsense");
	poisoned(POISON("echo \"{\\\"id\\\":$id}\""), 60, VERDICT_FAILED, "found neither");
	poisoned(POISON("echo \"{\\\"id\\\":$id,\\\"reward\\\":\\\"1\\\"}\""), 60, VERDICT_FAILED, "expected a number");
	poisoned(POISON("echo \"{\\\"id\\\":$id,\\\"reward\\\":NaN}\""), 60, VERDICT_FAILED, "answered nonsense");
	poisoned(POISON("echo \"{\\\"id\\\":$id,\\\"reward\\\":1e300}\""), 60, VERDICT_FAILED, "at most 1e+09");
	poisoned(POISON("echo \"{\\\"id\\\":$id,\\\"reward\\\":1,\\\"error\\\":\\\"x\\\"}\""), 60, VERDICT_FAILED, "found both");
}

static void test_one_that_cannot_be_judged(void **state)
{
	(void)state;
	poisoned(POISON("echo \"{\\\"id\\\":$id,\\\"error\\\":\\\"no tests\\\"}\""), 60, VERDICT_BAD_DATA, "cannot judge it: no tests");
	poisoned(POISON("echo \"{\\\"id\\\":$id,\\\"error\\\":\\\"full\\\",\\\"retry\\\":true}\""), 60, VERDICT_FAILED,
	         "asked to try again: full (asked 3 times)");
}

/* Crashes that pass: the second attempt is judged, and nothing is lost. */
static void test_retries_help(void **state)
{
	char command[512];
	struct rig rig;

	(void)state;
	rig_open(&rig, NULL);
	snprintf(command, sizeof command, VERIFIER("case $line in *poison*) if mkdir %s/once; then exit 1; else ok; fi;; *) ok;; esac"), rig.dir);
	rig.options.command = command;
	rig.options.in_flight = 4;
	run(&rig, 40, 7, 10);
	assert_judged(&rig, -1);
	assert_true(rig.counts.retried >= 1 && rig.counts.restarts == 1);
	rig_close(&rig);
}

/* In whatever order they came. */
static void test_the_smallest_order_is_asked_first(void **state)
{
	uint64_t order[TASKS_MAX];
	struct rig rig;

	(void)state;
	rig_open(&rig, VERIFIER("ok"));
	rig.options.processes = 1;
	rig.order = order;
	for (uint64_t i = 0; i < 60; i++) order[i] = i < 50 ? i * 7 % 50 + (i % 2 ? UINT64_C(1) << 63 : 0) : 1000;
	run(&rig, 60, -1, 10);
	assert_judged(&rig, -1);
	for (int i = 0; i < 60; i++) {
		int before = 0; /* it in the queue: by order, and as they came where that is equal */
		for (int k = 0; k < 60; k++) before += order[k] < order[i] || (order[k] == order[i] && k < i);
		assert_int_equal(rig.place[i], before);
	}
	rig_close(&rig);
}

/* One that must be asked alone and is first has a process to itself soon, however many others wait. */
static void test_a_retry_is_not_starved(void **state)
{
	uint64_t order[TASKS_MAX];
	char command[512];
	struct rig rig;

	(void)state;
	rig_open(&rig, NULL);
	snprintf(command, sizeof command, VERIFIER("case $line in *poison*) if mkdir %s/once; then exit 1; else ok; fi;; *) sleep 0.01; ok;; esac"), rig.dir);
	for (int i = 0; i < 100; i++) order[i] = (uint64_t)(i == 7 ? 0 : i + 1);
	rig.options.command = command;
	rig.options.in_flight = 4;
	rig.options.backoff = 0.001;
	rig.order = order;
	run(&rig, 100, 7, 10);
	assert_judged(&rig, -1);
	assert_in_range(rig.place[7], 0, 60);
	rig_close(&rig);
}

static void test_replies_to_nothing_are_ignored(void **state)
{
	struct rig rig;

	(void)state;
	rig_open(&rig, VERIFIER("ok; ok; echo '{\"id\":999999,\"reward\":9}'"));
	run(&rig, 100, -1, 10);
	assert_judged(&rig, -1);
	assert_in_range(rig.counts.strays, 196, 200); /* the last ones may still be on their way */
	assert_int_equal(rig.counts.restarts, 0);
	rig_close(&rig);
	rig_open(&rig, VERIFIER("echo '{\"id\":999999,\"reward\":9}'")); /* and are no answers */
	rig.options.timeout = rig.options.start_timeout = 0.3;
	run(&rig, 2, -1, 10);
	assert_failed(&rig, 0, VERDICT_FAILED, "did not answer");
	rig_close(&rig);
}

static void test_nobody_is_ever_judged(void **state)
{
	static const char *const commands[] = { "exit 1", "cat >/dev/null", "echo ready; cat", "exec 0<&-; exec 1>&-; sleep 1000" };

	(void)state;
	for (size_t k = 0; k < sizeof commands / sizeof *commands; k++) {
		struct rig rig;
		rig_open(&rig, commands[k]);
		rig.options.timeout = rig.options.start_timeout = 0.2;
		rig.options.backoff = 0.001;
		run(&rig, 4, -1, 10);
		for (int i = 0; i < 4; i++) assert_int_equal(rig.verdicts[i].verdict, VERDICT_FAILED);
		assert_int_equal(rig.counts.failed, 4);
		rig_close(&rig);
	}
}

/* A request is larger than any pipe and never read. */
static void test_one_that_does_not_read(void **state)
{
	struct rig rig;

	(void)state;
	rig_open(&rig, "sleep 1000");
	rig.options.timeout = rig.options.start_timeout = 0.3;
	run(&rig, 3, -1, 8 << 20);
	assert_failed(&rig, 2, VERDICT_FAILED, "did not answer");
	rig_close(&rig);
	rig_open(&rig, VERIFIER("ok"));
	run(&rig, 3, -1, 1 << 20);
	assert_judged(&rig, -1);
	rig_close(&rig);
}

static void test_standard_error_is_logged_and_bounded(void **state)
{
	struct stat status;
	struct rig rig;
	char text[512] = "";

	(void)state;
	rig_open(&rig, "echo a first word >&2; yes a lot of words >&2 & " VERIFIER("ok"));
	run(&rig, 100, -1, 10);
	assert_judged(&rig, -1);
	for (double start = clock_seconds(); clock_seconds() - start < 0.5;) verifier_pool_turn(rig.pool, clock_seconds(), &rig.err);
	assert_int_equal(stat(rig.log, &status), 0);
	assert_in_range(status.st_size, 1, LOG_BURST_BYTES + 100 * LOG_BYTES_PER_SECOND);
	FILE *file = fopen(rig.log, "r");
	assert_true(fread(text, 1, sizeof text - 1, file) > 0);
	fclose(file);
	assert_non_null(strstr(text, "a first word\n"));
	rig_close(&rig);
}

static void test_a_log_says_what_is_missing(void **state)
{
	struct verifier_log *log;
	struct rig rig;
	char line[1000];
	uint64_t left_out = 0;

	(void)state;
	rig_open(&rig, "");
	assert_int_equal(verifier_log_open(&log, rig.log, &rig.err), 0);
	memset(line, 'a', sizeof line);
	for (int i = 0; i < 1000; i++) verifier_log_line(log, 0, line, sizeof line, 1);
	left_out = verifier_log_left_out(log);
	verifier_log_line(log, 0, line, sizeof line, 0); /* the last words of one that is killed: no room comes of them */
	verifier_log_line(log, 0, line, sizeof line, 1);
	assert_int_equal(verifier_log_left_out(log), left_out + 2 * sizeof line);
	left_out += 2 * sizeof line;
	assert_in_range(left_out, 1000000 - LOG_BURST_BYTES, 1000000 - LOG_BURST_BYTES + 20000);
	verifier_log_line(log, 0, "later", 5, 100); /* there is room again */
	verifier_log_close(log);
	FILE *file = fopen(rig.log, "r");
	char told[64], expected[64];
	snprintf(expected, sizeof expected, "[%llu bytes left out]\n", (unsigned long long)left_out);
	fseek(file, -(long)(strlen(expected) + strlen("verifier 0: later\n")), SEEK_END);
	assert_non_null(fgets(told, sizeof told, file));
	assert_string_equal(told, expected);
	fclose(file);
	rig_close(&rig);
}

static void test_what_the_shell_cannot_run_is_said_at_once(void **state)
{
	struct rig rig;

	(void)state;
	rig_open(&rig, "/nonexistent/judge --fast");
	assert_int_equal(verifier_pool_open(&rig.pool, &rig.options, &rig.err), 0);
	submit(&rig, 1, -1, 10);
	assert_int_equal(turn(&rig), ERR_PEER);
	assert_non_null(strstr(rig.err.text, "status 127"));
	assert_non_null(strstr(rig.err.text, "/nonexistent/judge --fast"));
	rig_close(&rig);
}

/* 139: the program was there, and a signal ended it before it had ever answered. */
static void test_a_first_crash_is_no_missing_program(void **state)
{
	struct rig rig;
	char command[256];

	(void)state;
	rig_open(&rig, NULL);
	snprintf(command, sizeof command, VERIFIER("if mkdir %s/once; then exit 139; else ok; fi"), rig.dir);
	rig.options.command = command;
	rig.options.processes = 1;
	run(&rig, 5, -1, 10);
	assert_judged(&rig, -1);
	assert_int_equal(rig.counts.restarts, 1);
	rig_close(&rig);
}

static bool is_alive(const char *path)
{
	FILE *file = fopen(path, "r");
	int pid = 0;

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%d", &pid), 1);
	fclose(file);
	for (double start = clock_seconds(); clock_seconds() - start < 20; clock_sleep_ms(10))
		if (kill(pid, 0) && errno == ESRCH) return false;
	return true;
}

static void test_no_process_is_left_behind(void **state)
{
	char command[512], own[96], child[96];
	struct rig rig;

	(void)state;
	rig_open(&rig, NULL);
	snprintf(own, sizeof own, "%s/own", rig.dir);
	snprintf(child, sizeof child, "%s/child", rig.dir);
	snprintf(command, sizeof command, "trap '' HUP TERM; echo $$ >%s; sleep 1000 & echo $! >%s; while :; do wait; sleep 1; done", own, child);
	rig.options.command = command;
	rig.options.processes = 1;
	rig.options.timeout = rig.options.start_timeout = 0.5;
	run(&rig, 1, -1, 10);
	char dir[64];
	strcpy(dir, rig.dir);
	verifier_pool_close(rig.pool);
	assert_false(is_alive(own));
	assert_false(is_alive(child));
	snprintf(command, sizeof command, "rm -r %s", dir);
	assert_int_equal(system(command), 0);
}

static void test_cancelled_ones_have_no_verdict(void **state)
{
	struct verifier_verdict v;
	struct rig rig;

	(void)state;
	rig_open(&rig, VERIFIER("sleep 0.1; ok"));
	assert_int_equal(verifier_pool_open(&rig.pool, &rig.options, &rig.err), 0);
	submit(&rig, 6, -1, 10);
	assert_int_equal(verifier_pool_turn(rig.pool, clock_seconds(), &rig.err), 0); /* two are asked */
	for (uint64_t i = 0; i < 6; i += 2) verifier_pool_cancel(rig.pool, i);
	for (double start = clock_seconds(); verifier_pool_waiting(rig.pool) > 0 && clock_seconds() - start < HANG_SECONDS;) {
		assert_int_equal(verifier_pool_turn(rig.pool, clock_seconds(), &rig.err), 0);
		clock_sleep_ms(1);
	}
	int n = 0;
	for (; verifier_pool_take(rig.pool, &v); n++) assert_int_equal(v.trajectory % 2, 1);
	assert_int_equal(n, 3);
	rig_close(&rig);
}

/* A controller that slept is not a verifier that hung. */
static void test_time_in_which_nobody_polled_does_not_count(void **state)
{
	struct rig rig;
	double now = 1000;

	(void)state;
	rig_open(&rig, VERIFIER("ok"));
	rig.options.timeout = rig.options.start_timeout = 30;
	assert_int_equal(verifier_pool_open(&rig.pool, &rig.options, &rig.err), 0);
	submit(&rig, 1, -1, 10);
	assert_int_equal(verifier_pool_turn(rig.pool, now, &rig.err), 0);
	clock_sleep_ms(200);
	int taken = 0;
	for (int i = 0; i < 100 && !taken; i++, clock_sleep_ms(10)) {
		assert_int_equal(verifier_pool_turn(rig.pool, now += 0.001 + (i == 0 ? 5000 : 0), &rig.err), 0);
		take_verdicts(&rig, &taken);
	}
	assert_judged(&rig, -1);
	assert_int_equal(rig.counts.restarts, 0);
	rig_close(&rig);
}

static void test_replies_are_read_strictly(void **state)
{
	static const struct { const char *line; int code; double reward, answer, steps; } cases[] = {
		{ "{\"id\":3,\"reward\":0.25}", 0, 0.25, 0, 0 },
		{ "{\"id\":3,\"reward\":true,\"note\":[1,{}]}", 0, 1, 1, 0 },
		{ "{\"id\":3,\"reward\":-2,\"components\":{\"answer\":1,\"steps\":0.5,\"style\":7}}", 0, -2, 1, 0.5 },
		{ "{\"id\":3,\"reward\":1,\"error\":null,\"components\":null}", 0, 1, 1, 0 },
		{ "{\"id\":3,\"reward\":1,\"components\":{\"answer\":\"yes\"}}", ERR_INVALID },
		{ "{\"id\":3,\"reward\":1,\"components\":[]}", ERR_INVALID },
		{ "{\"id\":3.0,\"reward\":1}", ERR_INVALID }, { "{\"id\":-1,\"reward\":1}", ERR_INVALID },
		{ "{\"reward\":1}", ERR_MISSING }, { "{\"id\":3,\"reward\":null}", ERR_INVALID },
		{ "{\"id\":3,\"reward\":1}{}", ERR_INVALID }, { "[3,1]", ERR_INVALID }, { "3", ERR_INVALID }, { " ", ERR_INVALID },
		{ "{\"id\":3,\"id\":4,\"reward\":1}", ERR_INVALID }, { "{\"id\":3,\"reward\":1e999}", ERR_INVALID },
		{ "{\"id\":3,\"error\":7}", ERR_INVALID }, { "{\"id\":3,\"error\":\"x\",\"retry\":1}", ERR_INVALID },
		{ "{\"id\":3,\"error\":\"\xff\"}", ERR_INVALID },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct verifier_reply reply;
		struct err err;
		int rc = verifier_reply_parse(&reply, cases[i].line, strlen(cases[i].line), &err);
		if (rc != cases[i].code) fail_msg("%s: %d, expected %d", cases[i].line, rc, cases[i].code);
		if (rc) continue;
		assert_true(reply.has_id && reply.id == 3 && reply.answer == VERIFIER_JUDGED && reply.reward == cases[i].reward);
		assert_true(reply.reward_answer == cases[i].answer && reply.reward_steps == cases[i].steps);
	}
}

/* Cut between two characters: what a trainer is told stays UTF-8. */
static void test_long_errors_are_cut(void **state)
{
	char line[4096];
	struct verifier_reply reply;
	struct err err;

	(void)state;
	for (int lead = 0; lead < 3; lead++) {
		int n = sprintf(line, "{\"id\":1,\"error\":\"%.*s", lead, "ab");
		for (int i = 0; i < 400; i++) n += sprintf(line + n, "\xe2\x82\xac");
		n += sprintf(line + n, "\"}");
		assert_int_equal(verifier_reply_parse(&reply, line, (size_t)n, &err), 0);
		size_t kept = strlen(reply.error), most = VERIFIER_ERROR_MAX - 1 - (size_t)lead % 3;
		assert_int_equal(kept, (size_t)(lead % 3) + most / 3 * 3);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_decent),
		cmocka_unit_test(test_one_that_crashes),
		cmocka_unit_test(test_one_that_hangs),
		cmocka_unit_test(test_one_that_answers_late),
		cmocka_unit_test(test_one_that_closes_its_output),
		cmocka_unit_test(test_one_that_writes_without_end),
		cmocka_unit_test(test_one_that_answers_nonsense),
		cmocka_unit_test(test_one_that_cannot_be_judged),
		cmocka_unit_test(test_retries_help),
		cmocka_unit_test(test_the_smallest_order_is_asked_first),
		cmocka_unit_test(test_a_retry_is_not_starved),
		cmocka_unit_test(test_replies_to_nothing_are_ignored),
		cmocka_unit_test(test_nobody_is_ever_judged),
		cmocka_unit_test(test_one_that_does_not_read),
		cmocka_unit_test(test_standard_error_is_logged_and_bounded),
		cmocka_unit_test(test_a_log_says_what_is_missing),
		cmocka_unit_test(test_what_the_shell_cannot_run_is_said_at_once),
		cmocka_unit_test(test_a_first_crash_is_no_missing_program),
		cmocka_unit_test(test_no_process_is_left_behind),
		cmocka_unit_test(test_cancelled_ones_have_no_verdict),
		cmocka_unit_test(test_time_in_which_nobody_polled_does_not_count),
		cmocka_unit_test(test_replies_are_read_strictly),
		cmocka_unit_test(test_long_errors_are_cut),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

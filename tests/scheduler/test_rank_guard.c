/* test_rank_guard.c - what a guard says to mpirun and exits with, however its rank ends.  A socket pair stands in for
 * mpirun's PMI connection. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "scheduler/ranks/rank_guard.h"

enum ending { EXITS, IS_KILLED, HAS_FINALISED, ENDS_ALL };
enum { WAIT_MS = 20000 };

struct mpirun {
	int fd;
	pid_t guard, rank;
	char said[256];
	int status;
};

static void be_rank(int fd, int report, enum ending ending, int code)
{
	pid_t self = getpid();

	if (!rank_guard_enter() || !rank_guard_is_on()) _exit(99);
	self = getpid();
	if (write(report, &self, sizeof self) != sizeof self) _exit(98);
	if (ending == HAS_FINALISED && shutdown(fd, SHUT_RDWR)) _exit(97);
	if (ending == ENDS_ALL) rank_guard_end_all();
	if (ending == IS_KILLED) for (;;) pause();
	_exit(code);
}

/* Starts a guarded rank and waits until it is there. */
static void start(struct mpirun *m, const char *rank, enum ending ending, int code)
{
	int pmi[2], report[2];
	char number[16];

	memset(m, 0, sizeof *m);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pmi), 0);
	assert_int_equal(pipe(report), 0);
	snprintf(number, sizeof number, "%d", pmi[1]);
	setenv("PMI_FD", number, 1);
	setenv("PMI_RANK", rank, 1);
	m->guard = fork();
	assert_true(m->guard >= 0);
	if (m->guard == 0) {
		close(pmi[0]);
		close(report[0]);
		be_rank(pmi[1], report[1], ending, code);
	}
	close(pmi[1]);
	close(report[1]);
	m->fd = pmi[0];
	assert_int_equal(read(report[0], &m->rank, sizeof m->rank), sizeof m->rank);
	close(report[0]);
	assert_int_not_equal(m->rank, m->guard);
}

/* Takes what the guard says, answers it, and waits for its end. */
static void finish(struct mpirun *m)
{
	struct pollfd p = { .fd = m->fd, .events = POLLIN };

	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	ssize_t n = read(m->fd, m->said, sizeof m->said - 1);
	m->said[n > 0 ? n : 0] = '\0';
	if (n > 0) assert_int_equal(write(m->fd, "ok\n", 3), 3);
	assert_int_equal(waitpid(m->guard, &m->status, 0), m->guard);
	close(m->fd);
}

static void check(const char *rank, enum ending ending, int code, const char *said, int status)
{
	struct mpirun m;

	start(&m, rank, ending, code);
	if (ending == IS_KILLED) assert_int_equal(kill(m.rank, SIGKILL), 0);
	finish(&m);
	assert_string_equal(m.said, said);
	assert_true(WIFEXITED(m.status));
	assert_int_equal(WEXITSTATUS(m.status), status);
}

static void test_a_worker_that_is_killed_ends_well_for_mpirun(void **state)
{
	(void)state;
	check("2", IS_KILLED, 0, "cmd=finalize\n", 0);
}

static void test_a_worker_that_fails_ends_well_for_mpirun(void **state)
{
	(void)state;
	check("1", EXITS, 1, "cmd=finalize\n", 0);
}

static void test_the_status_is_that_of_rank_0(void **state)
{
	(void)state;
	check("0", EXITS, 0, "cmd=finalize\n", 0);
	check("0", EXITS, 2, "cmd=finalize\n", 2);
}

static void test_the_run_ends_with_rank_0(void **state)
{
	(void)state;
	check("0", IS_KILLED, 0, "cmd=abort exitcode=137\n", 137);
}

static void test_rank_0_has_the_rest_ended(void **state)
{
	(void)state;
	check("0", ENDS_ALL, 0, "cmd=abort exitcode=0\n", 0);
	check("0", ENDS_ALL, 1, "cmd=abort exitcode=1\n", 1);
}

static void test_a_rank_that_has_finalised_needs_no_word(void **state)
{
	(void)state;
	check("0", HAS_FINALISED, 3, "", 3);
}

static void test_a_rank_ends_with_its_guard(void **state)
{
	struct mpirun m;
	struct pollfd p;
	char byte;

	(void)state;
	start(&m, "1", IS_KILLED, 0);
	assert_int_equal(kill(m.guard, SIGKILL), 0);
	assert_int_equal(waitpid(m.guard, &m.status, 0), m.guard);
	/* The rank held the other end too: it is closed when both are gone. */
	p = (struct pollfd){ .fd = m.fd, .events = POLLIN };
	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	assert_int_equal(read(m.fd, &byte, 1), 0);
	close(m.fd);
}

static void test_a_stopped_rank_is_not_a_dead_one(void **state)
{
	struct mpirun m;
	struct pollfd p;

	(void)state;
	start(&m, "1", IS_KILLED, 0);
	assert_int_equal(kill(m.rank, SIGSTOP), 0);
	p = (struct pollfd){ .fd = m.fd, .events = POLLIN };
	assert_int_equal(poll(&p, 1, 300), 0);
	assert_int_equal(kill(m.rank, SIGKILL), 0);
	finish(&m);
	assert_string_equal(m.said, "cmd=finalize\n");
}

static void test_without_mpirun_there_is_no_guard(void **state)
{
	(void)state;
	unsetenv("PMI_FD");
	assert_false(rank_guard_enter());
	setenv("PMI_FD", "nonsense", 1);
	assert_false(rank_guard_enter());
	assert_false(rank_guard_is_on());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_worker_that_is_killed_ends_well_for_mpirun),
		cmocka_unit_test(test_a_worker_that_fails_ends_well_for_mpirun),
		cmocka_unit_test(test_the_status_is_that_of_rank_0),
		cmocka_unit_test(test_the_run_ends_with_rank_0),
		cmocka_unit_test(test_rank_0_has_the_rest_ended),
		cmocka_unit_test(test_a_rank_that_has_finalised_needs_no_word),
		cmocka_unit_test(test_a_rank_ends_with_its_guard),
		cmocka_unit_test(test_a_stopped_rank_is_not_a_dead_one),
		cmocka_unit_test(test_without_mpirun_there_is_no_guard),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name("rank_guard", tests, NULL, NULL);
}

/* rank_guard.c - fork before MPI, wait, and speak two lines of PMI-1 for a rank that no longer can. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "scheduler/ranks/rank_guard.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_MS = 5000, OUTPUT_MS = 200 /* for what was printed to get through mpirun, which drops it */, SIGNALLED = 128 };

static bool guarded;
static volatile bool *end_all; /* shared with the guard */

/* The descriptor of mpirun's PMI-1 connection, or -1. */
static int pmi_descriptor(void)
{
	const char *text = getenv("PMI_FD");
	char *end;

	if (!text || !*text) return -1;
	long fd = strtol(text, &end, 10);
	return *end || fd < 3 || fd > 65535 ? -1 : (int)fd;
}

/* A rank that has finalised by itself has closed the other end: then there is nothing to say. */
static void tell_mpirun(int fd, const char *line)
{
	char answer[256];
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (write(fd, line, strlen(line)) < 0) return;
	if (poll(&p, 1, ANSWER_MS) > 0 && read(fd, answer, sizeof answer) < 0) return;
}

/* The exit status for mpirun. */
static int watch_rank(pid_t rank, int fd, bool leads)
{
	int status = 0;
	char line[64];

	while (waitpid(rank, &status, 0) < 0)
		if (errno != EINTR) return EXIT_FAILURE;
	bool killed = WIFSIGNALED(status);
	int code = killed ? SIGNALLED + WTERMSIG(status) : WEXITSTATUS(status);
	if (killed)
		fprintf(stderr, "drumroll: rank %s (process %ld) was ended by signal %d (%s)%s\n", getenv("PMI_RANK"), (long)rank,
		        WTERMSIG(status), strsignal(WTERMSIG(status)), leads ? ", and with it the run" : "");
	if (leads && (killed || *end_all)) {
		nanosleep(&(struct timespec){ .tv_nsec = OUTPUT_MS * 1000000L }, NULL);
		snprintf(line, sizeof line, "cmd=abort exitcode=%d\n", code);
		tell_mpirun(fd, line);
		return code;
	}
	tell_mpirun(fd, "cmd=finalize\n");
	return leads ? code : 0;
}

void rank_guard_follow_parent(long parent_pid)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != (pid_t)parent_pid) raise(SIGKILL); /* it was faster */
}

bool rank_guard_enter(void)
{
	int fd = pmi_descriptor();
	const char *number = getenv("PMI_RANK");
	pid_t guard = getpid();

	if (fd < 0 || !number) return false;
	void *shared = mmap(NULL, sizeof *end_all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED) return false;
	end_all = shared;
	fflush(NULL);
	pid_t rank = fork();
	if (rank < 0) return false;
	if (rank > 0) {
		static const int passed_over[] = { SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE };
		for (size_t i = 0; i < sizeof passed_over / sizeof *passed_over; i++) signal(passed_over[i], SIG_IGN);
		_exit(watch_rank(rank, fd, strcmp(number, "0") == 0));
	}
	rank_guard_follow_parent(guard);
	signal(SIGUSR1, SIG_IGN); /* from mpirun -disable-auto-cleanup, when another rank has died */
	guarded = true;
	return true;
}

void rank_guard_end_all(void)
{
	if (end_all) *end_all = true;
}

bool rank_guard_is_on(void) { return guarded; }

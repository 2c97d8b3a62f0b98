/* throughput_run.c - posix_spawn, waitpid and summary.json. */
#define _GNU_SOURCE /* nftw, posix_spawn_file_actions_addclosefrom_np */
#include "scheduler/throughput/throughput_run.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scheduler/clock.h"
#include "scheduler/store/run_directory.h"

enum { POLL_MS = 10, REMOVE_DEPTH = 16 };

extern char **environ;

static volatile sig_atomic_t n_signals;

static void on_signal(int number)
{
	(void)number;
	n_signals++;
}

void throughput_catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	sigemptyset(&action.sa_mask);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

int throughput_signals(void) { return (int)n_signals; }

static int start(pid_t *pid, char *const *words, const char *log, struct err *err)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_TRUNC, 0666);
	posix_spawn_file_actions_adddup2(&actions, 1, 2);
	posix_spawn_file_actions_addclosefrom_np(&actions, 3);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
	posix_spawnattr_setpgroup(&attributes, 0);
	errno = posix_spawnp(pid, words[0], &actions, &attributes, words, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	return errno ? err_set_errno(err, ERR_IO, "cannot start mpirun with output to %s; install MPICH (Debian: mpich)", log) : 0;
}

/* Until the child has ended, at most `seconds`, or while no more than n signals have come. */
static bool has_ended(pid_t pid, double seconds, int n, int *wait_status)
{
	double until = clock_seconds() + seconds;

	for (;;) {
		pid_t ended = waitpid(pid, wait_status, WNOHANG);
		if (ended == pid) return true;
		if (clock_seconds() >= until || throughput_signals() > n) return false;
		clock_sleep_ms(POLL_MS);
	}
}

int throughput_run(const struct launch *launch, const char *log, double limit_seconds, double grace_seconds, int *status,
                   double *seconds, struct err *err)
{
	double began = clock_seconds();
	int wait_status = 0;
	pid_t pid;

	char **words = launch_words(launch, err);
	if (!words) return err->code;
	int rc = start(&pid, words, log, err);
	launch_words_free(words);
	if (rc) return rc;
	int before = throughput_signals();
	bool ended = has_ended(pid, limit_seconds, before, &wait_status), too_long = !ended && throughput_signals() == before;
	if (!ended) {
		int heard = throughput_signals();
		kill(pid, SIGINT);
		ended = has_ended(pid, grace_seconds, heard, &wait_status);
	}
	if (!ended) {
		kill(-pid, SIGKILL);
		while (waitpid(pid, &wait_status, 0) < 0 && errno == EINTR) continue;
	}
	*seconds = clock_seconds() - began;
	*status = too_long ? THROUGHPUT_TOO_LONG : WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
	return 0;
}

json_t *throughput_metrics(const char *run_dir)
{
	char path[RUN_PATH_MAX + 64];
	json_t *metrics = json_object(), *value;
	const char *key;

	snprintf(path, sizeof path, "%s/summary.json", run_dir);
	json_t *summary = json_load_file(path, 0, NULL);
	const char *status = json_string_value(json_object_get(summary, "status"));
	if (status && strcmp(status, "finished") == 0)
		json_object_foreach(summary, key, value)
			if (json_is_number(value)) json_object_set(metrics, key, value);
	json_decref(summary);
	return metrics;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *place)
{
	(void)info, (void)type, (void)place;
	return remove(path);
}

int throughput_remove(const char *dir, struct err *err)
{
	if (nftw(dir, remove_one, REMOVE_DEPTH, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT) return 0;
	return err_set_errno(err, ERR_IO, "cannot remove %s, which a run left", dir);
}

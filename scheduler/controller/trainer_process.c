/* trainer_process.c - posix_spawn and waitpid.
 *
 * The child gets no descriptor of ours but the log: it must not hold the ranks' pipes open. */
#define _GNU_SOURCE /* posix_spawn_file_actions_addclosefrom_np */
#include "scheduler/controller/trainer_process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scheduler/clock.h"
#include "scheduler/store/run_directory.h"

extern char **environ;

int trainer_process_start(pid_t *pid, const char *run_dir, const char *address, const char *keep, struct err *err)
{
	char program[PATH_MAX], config[RUN_PATH_MAX + 16], log[RUN_PATH_MAX + 16];
	char command[] = "drumroll", trainer[] = "trainer", connect[] = "--connect", target[1024], parent[32];
	char set[] = "--set", checkpoint[RUN_PATH_MAX + 64];

	ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
	if (n < 0) return err_set_errno(err, ERR_IO, "cannot find the path of this program to start the trainer");
	program[n] = '\0';
	snprintf(config, sizeof config, "%s/config.yaml", run_dir);
	snprintf(log, sizeof log, "%s/trainer.log", run_dir);
	snprintf(target, sizeof target, "%s", address);
	snprintf(checkpoint, sizeof checkpoint, "trainer.checkpoint=%s", keep);
	char *argv[] = { command, trainer, config, connect, target, set, checkpoint, NULL };

	posix_spawn_file_actions_t actions;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0666);
	posix_spawn_file_actions_adddup2(&actions, 1, 2);
	posix_spawn_file_actions_addclosefrom_np(&actions, 3);
	snprintf(parent, sizeof parent, "%ld", (long)getpid());
	setenv("DRUMROLL_PARENT", parent, 1); /* main.c: it ends when we do */
	errno = posix_spawn(pid, program, &actions, NULL, argv, environ);
	unsetenv("DRUMROLL_PARENT");
	posix_spawn_file_actions_destroy(&actions);
	if (errno) {
		*pid = 0;
		return err_set_errno(err, ERR_IO, "cannot start the reference trainer (%s trainer)", program);
	}
	return 0;
}

int trainer_process_check(pid_t *pid, const char *run_dir, struct err *err)
{
	int status;
	if (*pid <= 0 || waitpid(*pid, &status, WNOHANG) != *pid) return 0;
	*pid = 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
	if (WIFSIGNALED(status))
		return err_set(err, ERR_PEER, "the reference trainer was ended by signal %d (%s); its output is %s/trainer.log",
		               WTERMSIG(status), strsignal(WTERMSIG(status)), run_dir);
	return err_set(err, ERR_PEER, "the reference trainer ended with status %d; its output is %s/trainer.log",
	               WEXITSTATUS(status), run_dir);
}

bool trainer_process_is_stopped(pid_t pid)
{
	char path[64], line[512] = "";

	snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
	FILE *file = fopen(path, "r");
	if (!file) return false;
	const char *state = fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL; /* "pid (name) T ..." */
	fclose(file);
	return state && state[1] == ' ' && (state[2] == 'T' || state[2] == 't');
}

void trainer_process_stop(pid_t *pid, double seconds)
{
	struct err err;
	for (double start = clock_seconds(); *pid > 0 && clock_seconds() - start < seconds; clock_sleep_ms(5))
		trainer_process_check(pid, "", &err);
	if (*pid <= 0) return;
	kill(*pid, SIGTERM);
	for (double start = clock_seconds(); *pid > 0 && clock_seconds() - start < 2; clock_sleep_ms(5))
		trainer_process_check(pid, "", &err);
	if (*pid <= 0) return;
	kill(*pid, SIGKILL);
	waitpid(*pid, NULL, 0);
	*pid = 0;
}

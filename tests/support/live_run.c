/* live_run.c - see live_run.h. */
#include "tests/support/live_run.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
/* cmocka needs the headers above */
#include <cmocka.h>

enum { ARGUMENTS_MAX = 128, TEXT_MAX = 400 };

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void become_run(const struct live_run *run, const char *const *settings)
{
	static char texts[ARGUMENTS_MAX][TEXT_MAX];
	const char *program = getenv("DRUMROLL"), *words[ARGUMENTS_MAX] = {"mpirun", "-n", "2", program ? program : "build/drumroll",
		"run", "configs/quickstart/run.yaml"};
	const char *own[] = {"trainer.kind=external", "data.eval_prompts=", "run.stall_seconds=200", NULL};
	char *arguments[ARGUMENTS_MAX], dir[TEXT_MAX], log[TEXT_MAX];
	int n = 6, n_texts = 0;

	snprintf(dir, sizeof dir, "run.dir=%s/run", run->dir);
	words[n++] = "--set";
	words[n++] = dir;
	for (const char *const *list = own; list; list = list == own ? settings : NULL)
		for (int i = 0; list[i] && n < ARGUMENTS_MAX - 3; i++) {
			words[n++] = "--set";
			words[n++] = list[i];
		}
	for (int i = 0; i < n; i++, n_texts++) {
		snprintf(texts[i], TEXT_MAX, "%s", words[i]);
		arguments[i] = texts[i];
	}
	arguments[n] = NULL;
	snprintf(log, sizeof log, "%s/log", run->dir);
	int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0666);
	dup2(fd, 1);
	dup2(fd, 2);
	close(0);
	open("/dev/null", O_RDONLY);
	setpgid(0, 0);
	execvp("mpirun", arguments);
	_exit(127);
}

void live_run_start(struct live_run *run, const char *const *settings)
{
	snprintf(run->dir, sizeof run->dir, "%s/live-run-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(run->dir));
	snprintf(run->address, sizeof run->address, "unix:%s/run/bridge.sock", run->dir);
	fflush(NULL);
	run->pid = fork();
	assert_true(run->pid >= 0);
	if (run->pid == 0)
		become_run(run, settings);
}

static void show_log(const struct live_run *run)
{
	char path[TEXT_MAX], line[1024];
	snprintf(path, sizeof path, "%s/log", run->dir);
	FILE *log = fopen(path, "r");

	while (log && fgets(line, sizeof line, log))
		print_message("  run: %s", line);
	if (log)
		fclose(log);
}

void live_run_kill(struct live_run *run)
{
	if (run->pid <= 0)
		return;
	kill(-run->pid, SIGKILL);
	kill(run->pid, SIGKILL);
	waitpid(run->pid, NULL, 0);
	run->pid = 0;
}

int live_run_wait(struct live_run *run, double seconds)
{
	int status = -1;
	double deadline = now() + seconds;

	while (run->pid > 0 && now() < deadline && waitpid(run->pid, &status, WNOHANG) == 0)
		nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	if (now() >= deadline) {
		show_log(run);
		live_run_kill(run);
		return -1;
	}
	run->pid = 0;
	status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	if (status != 0)
		show_log(run);
	return status;
}

void live_run_remove(struct live_run *run)
{
	char command[TEXT_MAX];

	live_run_kill(run);
	snprintf(command, sizeof command, "rm -rf '%s'", run->dir);
	if (system(command) != 0)
		print_message("%s stays\n", run->dir);
}

double live_run_metric(const struct live_run *run, const char *name)
{
	char path[TEXT_MAX], key[128], *line = NULL;
	size_t capacity = 0;
	double value = -1;
	snprintf(path, sizeof path, "%s/run/metrics.jsonl", run->dir);
	snprintf(key, sizeof key, "\"%s\":", name);
	FILE *file = fopen(path, "r");

	while (file && getline(&line, &capacity, file) >= 0) {
		const char *at = strstr(line, key);
		if (at)
			value = strtod(at + strlen(key), NULL);
	}
	free(line);
	if (file)
		fclose(file);
	return value;
}

struct client *live_run_connect(const struct live_run *run, const struct client_options *options)
{
	struct client_options all = options ? *options : (struct client_options){0};
	struct client *client;
	struct err err;

	all.address = run->address;
	all.name = all.name ? all.name : "test";
	all.connect_seconds = 150;
	all.timeout_seconds = 150;
	if (client_open_with(&client, &all, &err)) {
		show_log(run);
		fail_msg("%s", err.text);
	}
	return client;
}

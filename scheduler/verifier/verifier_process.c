/* verifier_process.c - fork, three pipes, poll. */
#define _GNU_SOURCE /* pipe2, close_range */
#include "scheduler/verifier/verifier_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	READ_BYTES = 64 << 10,      /* taken from one pipe in one turn: who floods is read no faster */
	LOG_LINE_BYTES = 1024,      /* longer lines of standard error are cut into such */
	NOT_EXECUTABLE = 126, NOT_FOUND = 127 /* as sh says; from 128 on a signal ended the program */
};
static const double LOOK_SECONDS = 0.02; /* between two looks at whether it has ended */
static const double LAST_WORDS_SECONDS = 0.5; /* its output has ended and it has not, or the other way round */

struct buffer {
	char *bytes;
	size_t begin, end, capacity; /* [begin, end) is there */
};

struct verifier_process {
	pid_t pid;                 /* 0: reaped */
	int in, out, error, number; /* our ends, -1: closed */
	struct buffer input, output;
	size_t scanned;            /* output without a newline, from begin */
	size_t line_bytes_max;
	struct verifier_log *log;
	char log_line[LOG_LINE_BYTES];
	size_t log_bytes;
	int status;                /* of waitpid, once pid is 0 */
	double looked, going;      /* when it was last looked at; when half of it had ended, 0: not */
	char why[160];
};

/* ---- buffers ---- */

static char *buffer_space(struct buffer *b, size_t n)
{
	if (b->begin == b->end) b->begin = b->end = 0;
	if (b->begin > 0 && b->end + n > b->capacity) {
		memmove(b->bytes, b->bytes + b->begin, b->end - b->begin);
		b->end -= b->begin;
		b->begin = 0;
	}
	if (b->end + n > b->capacity) {
		b->capacity = 2 * (b->end + n);
		b->bytes = xrealloc(b->bytes, b->capacity);
	}
	return b->bytes + b->end;
}

/* ---- starting ---- */

struct pipes {
	int ends[6]; /* read and write end of input, output, error */
};

static void pipes_close(const struct pipes *pipes)
{
	for (int i = 0; i < 6; i++)
		if (pipes->ends[i] >= 0) close(pipes->ends[i]);
}

/* None of the ends may be 0, 1 or 2, where the child wants its own. */
static int pipes_open(struct pipes *pipes, struct err *err)
{
	for (int i = 0; i < 6; i++) pipes->ends[i] = -1;
	for (int i = 0; i < 6; i += 2) {
		int made[2];
		bool good = pipe2(made, O_CLOEXEC) == 0;
		for (int k = 0; k < 2 && good; k++) {
			pipes->ends[i + k] = made[k] > 2 ? made[k] : fcntl(made[k], F_DUPFD_CLOEXEC, 3);
			good = pipes->ends[i + k] >= 0;
			if (made[k] <= 2) close(made[k]);
		}
		if (!good) {
			err_set_errno(err, ERR_IO, "cannot make pipes for a verifier");
			pipes_close(pipes);
			return err->code;
		}
	}
	return 0;
}

/* Between fork and exec: only what is safe there. */
static void become(const struct pipes *pipes, pid_t parent, const char *command)
{
	const char *const text[] = { "sh", "-c", command, NULL };
	union { const char *const *from; char *const *to; } argv = { .from = text };
	sigset_t none;

	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent) _exit(1); /* it died before that took effect */
	dup2(pipes->ends[0], 0);
	dup2(pipes->ends[3], 1);
	dup2(pipes->ends[5], 2);
	close_range(3, ~0u, 0);
	for (int s = 1; s < NSIG; s++) signal(s, SIG_DFL); /* SIGPIPE, for one, is ignored in the controller */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execv("/bin/sh", argv.to);
	_exit(127);
}

int verifier_process_start(struct verifier_process **out, const char *command, int number, size_t line_bytes_max,
                           struct verifier_log *log, struct err *err)
{
	struct pipes pipes;
	pid_t parent = getpid();

	*out = NULL;
	if (pipes_open(&pipes, err)) return err->code;
	pid_t pid = fork();
	if (pid < 0) {
		err_set_errno(err, ERR_IO, "cannot start a verifier");
		pipes_close(&pipes);
		return err->code;
	}
	if (pid == 0) become(&pipes, parent, command);
	setpgid(pid, pid); /* whoever is first */
	struct verifier_process *p = *out = xcalloc(1, sizeof *p);
	*p = (struct verifier_process){ .pid = pid, .in = pipes.ends[1], .out = pipes.ends[2], .error = pipes.ends[4],
	                                .number = number, .line_bytes_max = line_bytes_max, .log = log };
	close(pipes.ends[0]);
	close(pipes.ends[3]);
	close(pipes.ends[5]);
	fcntl(p->in, F_SETFL, O_NONBLOCK);
	fcntl(p->out, F_SETFL, O_NONBLOCK);
	fcntl(p->error, F_SETFL, O_NONBLOCK);
	return 0;
}

/* ---- moving bytes ---- */

static void close_end(int *fd)
{
	if (*fd >= 0) close(*fd);
	*fd = -1;
}

void verifier_process_send(struct verifier_process *p, const char *bytes, size_t n_bytes)
{
	memcpy(buffer_space(&p->input, n_bytes), bytes, n_bytes);
	p->input.end += n_bytes;
}

static void write_input(struct verifier_process *p)
{
	struct buffer *b = &p->input;

	while (b->begin < b->end) {
		ssize_t n = write(p->in, b->bytes + b->begin, b->end - b->begin);
		if (n > 0) b->begin += (size_t)n;
		else if (n < 0 && errno == EINTR) continue;
		else if (n < 0 && errno == EAGAIN) return;
		else {
			close_end(&p->in); /* it does not listen any more; whether it lives will be seen */
			return;
		}
	}
}

static void read_output(struct verifier_process *p)
{
	ssize_t n = read(p->out, buffer_space(&p->output, READ_BYTES), READ_BYTES);

	if (n > 0) p->output.end += (size_t)n;
	else if (n == 0 || (errno != EAGAIN && errno != EINTR)) close_end(&p->out);
}

static void log_bytes(struct verifier_process *p, const char *bytes, size_t n, double now)
{
	for (size_t i = 0; i < n; i++) {
		bool ends = bytes[i] == '\n';
		if (!ends) p->log_line[p->log_bytes++] = bytes[i];
		if (!ends && p->log_bytes < sizeof p->log_line) continue;
		verifier_log_line(p->log, p->number, p->log_line, p->log_bytes, now);
		p->log_bytes = 0;
	}
}

static void read_error(struct verifier_process *p, double now)
{
	char bytes[READ_BYTES];
	ssize_t n = read(p->error, bytes, sizeof bytes);

	if (n > 0) log_bytes(p, bytes, (size_t)n, now);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR)) close_end(&p->error);
}

/* Lines that wait to be taken are enough: no more is read until they are gone. */
static bool wants_output(const struct verifier_process *p)
{
	return p->output.end - p->output.begin <= p->line_bytes_max;
}

void verifier_processes_turn(struct verifier_process *const *processes, int n, double now)
{
	struct pollfd *ready = xcalloc(3 * (size_t)n + 1, sizeof *ready);

	for (int i = 0; i < n; i++) {
		const struct verifier_process *p = processes[i];
		ready[3 * i] = (struct pollfd){ .fd = p && p->input.begin < p->input.end ? p->in : -1, .events = POLLOUT };
		ready[3 * i + 1] = (struct pollfd){ .fd = p && wants_output(p) ? p->out : -1, .events = POLLIN };
		ready[3 * i + 2] = (struct pollfd){ .fd = p ? p->error : -1, .events = POLLIN };
	}
	int n_ready = poll(ready, 3 * (nfds_t)n, 0);
	for (int i = 0; i < n && n_ready > 0; i++) {
		if (ready[3 * i].revents) write_input(processes[i]);
		if (ready[3 * i + 1].revents) read_output(processes[i]);
		if (ready[3 * i + 2].revents) read_error(processes[i], now);
	}
	free(ready);
}

const char *verifier_process_line(struct verifier_process *p, size_t *n_bytes)
{
	struct buffer *b = &p->output;
	char *from = b->bytes ? b->bytes + b->begin : NULL;
	char *newline = from ? memchr(from + p->scanned, '\n', b->end - b->begin - p->scanned) : NULL;

	if (!newline) {
		p->scanned = b->end - b->begin;
		return NULL;
	}
	*n_bytes = (size_t)(newline - from);
	b->begin += *n_bytes + 1;
	p->scanned = 0;
	return from;
}

/* ---- ending ---- */

static void describe_status(struct verifier_process *p)
{
	if (WIFSIGNALED(p->status))
		snprintf(p->why, sizeof p->why, "was ended by signal %d (%s)", WTERMSIG(p->status), strsignal(WTERMSIG(p->status)));
	else snprintf(p->why, sizeof p->why, "ended with status %d", WEXITSTATUS(p->status));
}

bool verifier_process_ended(struct verifier_process *p, double now, const char **why, bool *not_runnable)
{
	*why = p->why;
	*not_runnable = false;
	if (p->scanned > p->line_bytes_max) {
		snprintf(p->why, sizeof p->why, "wrote a line of more than %zu bytes (reward.program_reply_bytes)", p->line_bytes_max);
		return true;
	}
	if (now - p->looked < LOOK_SECONDS && p->out >= 0) return false;
	p->looked = now;
	if (p->pid > 0 && waitpid(p->pid, &p->status, WNOHANG) == p->pid) {
		kill(-p->pid, SIGKILL); /* what it left behind */
		p->pid = 0;
	}
	bool gone = p->pid == 0, silent = p->out < 0;
	if (!gone && !silent) return false;
	if (p->going == 0) p->going = now;
	if (gone) describe_status(p);
	else snprintf(p->why, sizeof p->why, "closed its output");
	int status = gone && WIFEXITED(p->status) ? WEXITSTATUS(p->status) : 0;
	*not_runnable = status == NOT_EXECUTABLE || status == NOT_FOUND;
	return (gone && silent) || now - p->going > LAST_WORDS_SECONDS;
}

void verifier_process_hang_up(struct verifier_process *p)
{
	close_end(&p->in);
}

pid_t verifier_process_kill(struct verifier_process *p)
{
	pid_t pid = p->pid;

	if (pid > 0) kill(-pid, SIGKILL);
	if (pid > 0 && waitpid(pid, &p->status, WNOHANG) == pid) pid = 0;
	if (p->log_bytes > 0) verifier_log_line(p->log, p->number, p->log_line, p->log_bytes, 0);
	close_end(&p->in);
	close_end(&p->out);
	close_end(&p->error);
	free(p->input.bytes);
	free(p->output.bytes);
	free(p);
	return pid;
}

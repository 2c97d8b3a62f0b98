/* report_gnuplot.c - gnuplot as a child: the script is its standard input, the drawing its standard output, both
 * files without a name. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scheduler/report/report_plot.h"

#define GNUPLOT "gnuplot"

int gnuplot_find(struct err *err)
{
	const char *path = getenv("PATH"), *end;

	for (; path && *path; path = *end ? end + 1 : end) {
		char file[4096];
		end = strchr(path, ':');
		if (!end) end = path + strlen(path);
		snprintf(file, sizeof file, "%.*s/" GNUPLOT, (int)(end - path), path);
		if (access(file, X_OK) == 0) return 0;
	}
	return err_set(err, ERR_MISSING, "expected the program gnuplot, which draws the plots, in PATH, found none; install it "
	               "(Debian: apt-get install gnuplot-nox)");
}

static char *read_all(FILE *f)
{
	struct stat status;
	size_t n = fstat(fileno(f), &status) == 0 ? (size_t)status.st_size : 0;
	char *text = xmalloc(n + 1);

	rewind(f);
	n = fread(text, 1, n, f);
	text[n] = '\0';
	return text;
}

static _Noreturn void become_gnuplot(FILE *in, FILE *out, FILE *complaints)
{
	if (dup2(fileno(in), 0) == 0 && dup2(fileno(out), 1) == 1 && dup2(fileno(complaints), 2) == 2) {
		setenv("LC_ALL", "C", 1);
		execlp(GNUPLOT, GNUPLOT, "-d", "-", (char *)NULL); /* -d: no settings of the user's */
	}
	_exit(127);
}

static int wait_for(pid_t child)
{
	int status = -1;
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR) return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int gnuplot_run(const char *script, size_t n, char **output, struct err *err)
{
	FILE *in = tmpfile(), *out = tmpfile(), *complaints = tmpfile();
	int code = 0;

	*output = NULL;
	if (!in || !out || !complaints || fwrite(script, 1, n, in) != n || fflush(in)) {
		code = err_set_errno(err, ERR_IO, "cannot write a temporary file for gnuplot");
	} else {
		rewind(in);
		pid_t child = fork();
		if (child == 0) become_gnuplot(in, out, complaints);
		int status = child < 0 ? -1 : wait_for(child);
		if (status != 0) {
			char *said = read_all(complaints);
			code = err_set(err, status > 0 && status < 126 ? ERR_UNSUPPORTED : ERR_IO, "gnuplot ended with status %d: %.400s", status, said);
			free(said);
		}
	}
	if (!code) *output = read_all(out);
	if (in) fclose(in);
	if (out) fclose(out);
	if (complaints) fclose(complaints);
	return code;
}

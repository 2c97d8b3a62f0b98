/* output_file.c - write beside, sync, rename; a signal that ends the command takes away what was written beside. */
#include "scheduler/commands/output_file.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *volatile beside_now; /* of the one file that is open */

static void on_signal(int signal_number)
{
	if (beside_now) unlink(beside_now);
	raise(signal_number); /* its default again, once this handler has returned */
}

/* Signals that the caller of the program had ignored stay so. */
static void clean_up_on_signals(void)
{
	static const int numbers[] = { SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGXFSZ };
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND }, before;

	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler == SIG_DFL) sigaction(numbers[i], &action, NULL);
}

/* Before the name is freed: the handler must not see it. */
static void beside_free(struct output_file *file)
{
	beside_now = NULL;
	free(file->beside);
}

int output_file_open(struct output_file *file, const char *path, struct err *err)
{
	struct stat status;

	*file = (struct output_file){.stream = stdout};
	if (!path || strcmp(path, "-") == 0) return 0;
	file->path = path;
	if (stat(path, &status) != 0 || S_ISREG(status.st_mode)) {
		size_t n_bytes = strlen(path) + sizeof ".2147483647.part";
		file->beside = xmalloc(n_bytes);
		snprintf(file->beside, n_bytes, "%s.%d.part", path, (int)getpid());
	}
	beside_now = file->beside;
	if (file->beside) clean_up_on_signals();
	file->stream = fopen(file->beside ? file->beside : path, "w");
	if (file->stream) return 0;
	err_set_errno(err, ERR_IO, "cannot write %s", path);
	beside_free(file);
	return err->code;
}

int output_file_commit(struct output_file *file, struct err *err)
{
	const char *name = file->path ? file->path : "standard output";

	if (ferror(file->stream) || fflush(file->stream) != 0) {
		err_set_errno(err, ERR_IO, "cannot write %s", name);
		output_file_abandon(file);
		return err->code;
	}
	if (!file->path) return 0;
	int failed = file->beside && fsync(fileno(file->stream)) != 0;
	failed |= fclose(file->stream) != 0;
	if (!failed && file->beside) failed = rename(file->beside, file->path) != 0;
	if (failed) {
		err_set_errno(err, ERR_IO, "cannot write %s", name);
		if (file->beside) unlink(file->beside);
	}
	beside_free(file);
	return failed ? err->code : 0;
}

void output_file_abandon(struct output_file *file)
{
	if (!file->path) return;
	fclose(file->stream);
	if (file->beside) unlink(file->beside);
	beside_free(file);
}

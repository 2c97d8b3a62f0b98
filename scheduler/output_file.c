/* output_file.c - write beside, sync, rename. */
#include "scheduler/output_file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
	file->stream = fopen(file->beside ? file->beside : path, "w");
	if (file->stream) return 0;
	err_set_errno(err, ERR_IO, "cannot write %s", path);
	free(file->beside);
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
	free(file->beside);
	return failed ? err->code : 0;
}

void output_file_abandon(struct output_file *file)
{
	if (!file->path) return;
	fclose(file->stream);
	if (file->beside) unlink(file->beside);
	free(file->beside);
}

/* output_file.h - where a command writes: standard output, or a file that is replaced as a whole. */
#ifndef SCHEDULER_COMMANDS_OUTPUT_FILE_H
#define SCHEDULER_COMMANDS_OUTPUT_FILE_H

#include <stdio.h>

#include "configs/err.h"

struct output_file {
	FILE *stream;
	const char *path; /* borrowed; NULL for standard output */
	char *beside;     /* written first, then renamed; NULL where path is no regular file */
};

/* path NULL or "-": standard output.  A device or pipe is written as it is. */
int output_file_open(struct output_file *file, const char *path, struct err *err);

/* All was written: path is now the new file.  Reports what the disk refused on the way. */
int output_file_commit(struct output_file *file, struct err *err);

/* Something failed: path stays what it was. */
void output_file_abandon(struct output_file *file);

#endif

/* fuzz_file.h - for parsers that want a path: the bytes as a file in memory.  Needs _GNU_SOURCE. */
#ifndef TESTS_FUZZ_FUZZ_FILE_H
#define TESTS_FUZZ_FUZZ_FILE_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* The path of a file with these bytes, good until the next call. */
static inline const char *fuzz_file(const void *bytes, size_t n_bytes)
{
	static int fd = -1;
	static char path[40];

	if (fd < 0) fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, 0) || pwrite(fd, bytes, n_bytes, 0) != (ssize_t)n_bytes) abort();
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return path;
}

#endif

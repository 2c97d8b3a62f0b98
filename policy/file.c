/* file.c - whole files: mapped for reading, replaced atomically for writing. */
#define _GNU_SOURCE /* renameat2 */
#include "policy/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int file_map_open(struct file_map *map, const char *path, struct err *err)
{
	map->bytes = (const unsigned char *)"";
	map->n_bytes = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) return err_set_errno(err, errno == ENOENT ? ERR_MISSING : ERR_IO, "cannot open %s", path);
	struct stat info;
	int code = 0;
	if (fstat(fd, &info) != 0) {
		code = err_set_errno(err, ERR_IO, "cannot read %s", path);
	} else if (!S_ISREG(info.st_mode)) {
		code = err_set(err, ERR_IO, "%s: expected a regular file, found a directory or device", path);
	} else if (info.st_size > 0) {
		void *bytes = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (bytes == MAP_FAILED) {
			code = err_set_errno(err, ERR_IO, "cannot map %s", path);
		} else {
			map->bytes = bytes;
			map->n_bytes = (size_t)info.st_size;
		}
	}
	close(fd);
	return code;
}

int file_map_small(struct file_map *map, const char *path, size_t n_bytes_max, struct err *err)
{
	int code = file_map_open(map, path, err);
	if (code || map->n_bytes <= n_bytes_max) return code;
	code = err_set(err, ERR_TOO_BIG, "%s: expected at most %zu bytes, found %zu: another file, or a damaged one",
	               path, n_bytes_max, map->n_bytes);
	file_map_close(map);
	return code;
}

void file_map_close(struct file_map *map)
{
	if (map->n_bytes > 0) {
		union { const void *read_only; void *address; } mapped = {.read_only = map->bytes};
		munmap(mapped.address, map->n_bytes);
	}
	map->bytes = NULL;
	map->n_bytes = 0;
}

static int write_all(int fd, const void *bytes, size_t n_bytes)
{
	const char *at = bytes;
	while (n_bytes > 0) {
		ssize_t n = write(fd, at, n_bytes < (1u << 30) ? n_bytes : 1u << 30);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return -1;
		at += n;
		n_bytes -= (size_t)n;
	}
	return 0;
}

/* The rename itself lasts only once the folder is on disk; file systems that cannot sync a folder
 * are taken as they are. */
static void sync_folder_of(const char *path)
{
	char folder[PATH_MAX];
	const char *slash = strrchr(path, '/');
	snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
	int fd = open(folder, O_RDONLY | O_CLOEXEC);
	if (fd < 0) return;
	(void)fsync(fd);
	close(fd);
}

/* All parts to a file, new or there already. */
static int write_parts(const char *path, const struct file_part *parts, int n_parts, bool sync, struct err *err)
{
	off_t n_bytes = 0;
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0) return err_set_errno(err, ERR_IO, "cannot create %s", path);
	bool failed = false;
	for (int i = 0; i < n_parts && !failed; i++) {
		failed = write_all(fd, parts[i].bytes, parts[i].n_bytes) != 0;
		n_bytes += (off_t)parts[i].n_bytes;
	}
	failed = failed || ftruncate(fd, n_bytes) != 0 || (sync && fsync(fd) != 0);
	int saved = errno;
	if (close(fd) != 0 && !failed) {
		failed = true;
		saved = errno;
	}
	errno = saved;
	return failed ? err_set_errno(err, ERR_IO, "cannot write %s", path) : 0;
}

/* Under another name first, which then becomes the file's. */
static int beside_of(char beside[PATH_MAX], const char *path, const char *ending, struct err *err)
{
	int length = snprintf(beside, PATH_MAX, "%s%s", path, ending);
	return length < 0 || length >= PATH_MAX ? err_set(err, ERR_TOO_BIG, "path too long: %s", path) : 0;
}

int file_replace(const char *path, const struct file_part *parts, int n_parts, struct err *err)
{
	char beside[PATH_MAX], ending[32];

	snprintf(ending, sizeof ending, ".tmp-%ld", (long)getpid());
	int rc = beside_of(beside, path, ending, err);
	if (rc) return rc;
	rc = write_parts(beside, parts, n_parts, true, err);
	if (!rc && rename(beside, path) != 0) rc = err_set_errno(err, ERR_IO, "cannot write %s", path);
	if (!rc) sync_folder_of(path);
	else unlink(beside);
	return rc;
}

int file_swap(const char *path, const struct file_part *parts, int n_parts, struct err *err)
{
	char spare[PATH_MAX];

	int rc = beside_of(spare, path, ".spare", err);
	if (!rc) rc = write_parts(spare, parts, n_parts, false, err);
	if (rc) unlink(spare);
	if (rc || renameat2(AT_FDCWD, spare, AT_FDCWD, path, RENAME_EXCHANGE) == 0) return rc;
	/* the first one, or a file system that cannot exchange */
	return rename(spare, path) == 0 ? 0 : err_set_errno(err, ERR_IO, "cannot write %s", path);
}

/* model_dir.c - temporary folders for tests that write files. */
#include "tests/support/model_dir.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void fail(const char *what, const char *path)
{
	perror(what);
	fprintf(stderr, "  at %s\n", path);
	abort();
}

static FILE *file_open(const char *path, const char *name, const char *mode)
{
	char full[2 * MODEL_DIR_PATH_MAX];
	snprintf(full, sizeof full, "%s/%s", path, name);
	FILE *file = fopen(full, mode);
	if (!file) fail("fopen", full);
	return file;
}

void model_dir_make(char path[MODEL_DIR_PATH_MAX])
{
	const char *base = getenv("TMPDIR");
	snprintf(path, MODEL_DIR_PATH_MAX, "%s/drumroll-test-XXXXXX", base && *base ? base : "/tmp");
	if (!mkdtemp(path)) fail("mkdtemp", path);
}

void model_dir_remove(const char *path)
{
	char full[2 * MODEL_DIR_PATH_MAX];
	DIR *dir = opendir(path);
	if (!dir) fail("opendir", path);
	for (struct dirent *entry; (entry = readdir(dir));) {
		snprintf(full, sizeof full, "%s/%s", path, entry->d_name);
		if (entry->d_name[0] != '.' && unlink(full) != 0) fail("unlink", full);
	}
	closedir(dir);
	if (rmdir(path) != 0) fail("rmdir", path);
}

int model_dir_count(const char *path)
{
	int n = 0;
	DIR *dir = opendir(path);
	if (!dir) fail("opendir", path);
	for (struct dirent *entry; (entry = readdir(dir));)
		n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	closedir(dir);
	return n;
}

void model_dir_put(const char *path, const char *name, const void *bytes, size_t n_bytes)
{
	FILE *file = file_open(path, name, "wb");
	if (fwrite(bytes, 1, n_bytes, file) != n_bytes || fclose(file) != 0) fail("fwrite", name);
}

unsigned char *model_dir_get(const char *path, const char *name, size_t *n_bytes)
{
	FILE *file = file_open(path, name, "rb");
	if (fseek(file, 0, SEEK_END) != 0) fail("fseek", name);
	*n_bytes = (size_t)ftell(file);
	rewind(file);
	unsigned char *bytes = malloc(*n_bytes + 1);
	if (fread(bytes, 1, *n_bytes, file) != *n_bytes) fail("fread", name);
	fclose(file);
	return bytes;
}

/* model_dir.h - temporary folders for tests that write files. */
#ifndef TESTS_SUPPORT_MODEL_DIR_H
#define TESTS_SUPPORT_MODEL_DIR_H

#include <stddef.h>

enum { MODEL_DIR_PATH_MAX = 512 };

/* A fresh empty folder below $TMPDIR or /tmp. */
void model_dir_make(char path[MODEL_DIR_PATH_MAX]);

/* Remove its files and itself; no folders within. */
void model_dir_remove(const char *path);

/* Write (replacing) or read a whole file of it; the bytes read are owned by the caller. */
void model_dir_put(const char *path, const char *name, const void *bytes, size_t n_bytes);
unsigned char *model_dir_get(const char *path, const char *name, size_t *n_bytes);

/* Number of files. */
int model_dir_count(const char *path);

#endif

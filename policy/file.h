/* file.h - whole files: mapped for reading, replaced atomically for writing. */
#ifndef POLICY_FILE_H
#define POLICY_FILE_H

#include <stddef.h>

#include "configs/err.h"

struct file_map {
	const unsigned char *bytes; /* [n_bytes], read-only; never NULL after file_map_open */
	size_t n_bytes;
};

/* ERR_MISSING if there is no such file, ERR_IO if it cannot be read. */
int file_map_open(struct file_map *map, const char *path, struct err *err);
void file_map_close(struct file_map *map);

enum { FILE_JSON_BYTES_MAX = 16 << 20 }; /* of a model's JSON files but the tokenizer's; parsed they take 20 times that */

/* The same, ERR_TOO_BIG beyond n_bytes_max: for a file that is to be parsed as a whole. */
int file_map_small(struct file_map *map, const char *path, size_t n_bytes_max, struct err *err);

struct file_part {
	const void *bytes; /* borrowed */
	size_t n_bytes;
};

/* Write the parts one after another beside path, sync, and rename: path is either what it was or
 * the whole new file. */
int file_replace(const char *path, const struct file_part *parts, int n_parts, struct err *err);

/* For what is written again and again, without waiting for the disk: to path.spare, which then changes names with path
 * and is what path was before.  path is whole after the death of the process, not after that of the machine; one writer
 * at a time.  The pages of both files stay in use: 2 ms instead of 11 for 9 MB on ext4, which begins to write to disk
 * what a rename puts in place of another file. */
int file_swap(const char *path, const struct file_part *parts, int n_parts, struct err *err);

#endif

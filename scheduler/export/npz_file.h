/* npz_file.h - one-dimensional arrays, each as long as it gets, into a NumPy .npz: a zip of stored .npy members.
 *
 * While rows come every array grows in a temporary file of its own ($TMPDIR or /tmp), since a member's size and checksum
 * stand before its bytes; memory is that of their buffers.
 */
#ifndef SCHEDULER_EXPORT_NPZ_FILE_H
#define SCHEDULER_EXPORT_NPZ_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "configs/err.h"

struct npz_array;

/* descr: NumPy's, little-endian, as in "<i4", whose items have item_bytes; "<U": texts, UTF-8 in, UTF-32 out, as wide as
 * the longest.  Both are borrowed. */
int npz_array_open(struct npz_array **array, const char *name, const char *descr, size_t item_bytes, struct err *err);
void npz_array_close(struct npz_array *array); /* NULL is allowed */

void npz_array_put(struct npz_array *array, const void *items, size_t n);
void npz_array_put_text(struct npz_array *array, const char *text); /* of "<U"; NULL: empty */
uint64_t npz_array_count(const struct npz_array *array);

/* All of them as one archive.  Errors of out are found by the caller. */
int npz_write(struct npz_array *const *arrays, int n, FILE *out, struct err *err);

#endif

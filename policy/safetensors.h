/* safetensors.h - the safetensors container: bytes in, tensors out.
 *
 * Pure: no I/O; keeps pointers into the bytes, so they must outlive the struct.  Every offset it
 * returns lies within the bytes.
 *
 *     u64 header length (little-endian) | JSON header | data
 *     {"name": {"dtype": "BF16", "shape": [rows, cols], "data_offsets": [begin, end]}, ...}
 */
#ifndef POLICY_SAFETENSORS_H
#define POLICY_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "configs/err.h"

enum {
	SAFETENSORS_HEADER_MAX = 16 << 20, /* bytes: 100,000 tensors; the format allows 100 MB, which parsed are 2 GB */
	SAFETENSORS_DIMS_MAX = 8
};

struct safetensors_tensor {
	const char *name;             /* owned by the struct safetensors */
	const char *dtype;            /* "BF16", "F32", ...; static */
	int element_bytes, n_dims;
	uint64_t shape[SAFETENSORS_DIMS_MAX];
	const unsigned char *data;    /* [n_bytes], borrowed, not aligned */
	size_t n_bytes;
};

struct safetensors {
	struct safetensors_tensor *tensors; /* ascending by place in the file */
	size_t n_tensors;
	void *header;                       /* the parsed JSON, which owns the names */
};

/* On error *file holds nothing to free. */
int safetensors_parse(struct safetensors *file, const unsigned char *bytes, size_t n_bytes, struct err *err);
void safetensors_free(struct safetensors *file);

/* By name, or NULL. */
const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name);

/* "[2, 3]" into text, for messages; returns text. */
const char *safetensors_shape_text(const uint64_t *shape, int n_dims, char *text, size_t size);

#endif

/* weights_files.h - inside policy only: the mapped safetensors files of a model directory, behind a struct
 * weights that weights_open made. */
#ifndef POLICY_WEIGHTS_FILES_H
#define POLICY_WEIGHTS_FILES_H

#include "policy/weights.h"

struct weights_files;

/* Every tensor of the layout is there in its shape, and none besides. */
int weights_files_open(struct weights_files **files, const struct weights *layout, const char *dir, struct err *err);
void weights_files_close(struct weights_files *files); /* NULL is allowed */

/* Elements [begin, begin + n) of a tensor as BF16: where they lie, or converted into scratch. */
const uint16_t *weights_files_read(const struct weights_files *files, int tensor, size_t begin, size_t n,
                                   uint16_t *scratch);

/* The whole pages within these elements need not stay in memory. */
void weights_files_release(const struct weights_files *files, int tensor, size_t begin, size_t n);

/* "BF16", "F16" or "F32" as the tensor is stored. */
const char *weights_files_dtype(const struct weights_files *files, int tensor);

#endif

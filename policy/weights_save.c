/* weights_save.c - a Hugging Face model directory: BF16 safetensors in the canonical order, and the
 * config files.  The tensors lie in the file as in memory, so saving is one sequential write. */
#include "policy/weights.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "policy/file.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "weights are written in memory order");

/* The 8-byte length and the header, padded with spaces so that the data begins 64-byte aligned. */
static char *header_text(const struct weights *weights, size_t *n_bytes)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	if (!out) abort();
	fprintf(out, "........{\"__metadata__\":{\"format\":\"pt\"}");
	for (int i = 0; i < weights->n_tensors; i++) {
		const struct weight_tensor *tensor = &weights->tensors[i];
		size_t begin = 2 * tensor->offset, end = begin + 2 * (size_t)tensor->rows * (size_t)tensor->cols;
		fprintf(out, ",\"%s\":{\"dtype\":\"BF16\",\"shape\":[", tensor->name);
		if (tensor->n_dims == 2) fprintf(out, "%d,", tensor->rows);
		fprintf(out, "%d],\"data_offsets\":[%zu,%zu]}", tensor->cols, begin, end);
	}
	fputc('}', out);
	fflush(out);
	for (size_t at = size; at % 64 != 0; at++) fputc(' ', out);
	if (fclose(out) != 0) abort();
	uint64_t length = size - 8;
	memcpy(text, &length, 8);
	*n_bytes = size;
	return text;
}

int weights_save(const struct weights *weights, const char *dir, struct err *err)
{
	assert(weights->data);
	char path[PATH_MAX];
	if (mkdir(dir, 0777) != 0 && errno != EEXIST)
		return err_set_errno(err, ERR_IO, "cannot make the folder %s", dir);
	snprintf(path, sizeof path, "%s/model.safetensors", dir);
	size_t header_bytes = 0;
	char *header = header_text(weights, &header_bytes);
	struct file_part parts[] = {{header, header_bytes}, {weights->data, 2 * weights->n_elements}};
	int code = file_replace(path, parts, 2, err);
	free(header);
	return code ? code : model_config_write(&weights->config, dir, err);
}

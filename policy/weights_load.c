/* weights_load.c - a Hugging Face model directory, left in its files or read into the canonical buffer. */
#include <string.h>

#include "policy/weights_files.h"

int weights_open(struct weights *weights, const char *dir, struct err *err)
{
	struct model_config config;
	memset(weights, 0, sizeof *weights);
	int code = model_config_read(&config, dir, err);
	if (code) return code;
	weights_layout(weights, &config);
	code = weights_files_open(&weights->files, weights, dir, err);
	if (!code) return 0;
	weights_free(weights);
	return err_context(err, "model %s", dir);
}

enum { READ_ELEMENTS = 2 << 20 };

static void read_tensor(const struct weights *weights, int tensor, uint16_t *to)
{
	const struct weight_tensor *t = &weights->tensors[tensor];
	int n_rows = READ_ELEMENTS / t->cols + 1;
	for (int row = 0; row < t->rows; row += n_rows) {
		if (n_rows > t->rows - row) n_rows = t->rows - row;
		size_t n = (size_t)n_rows * (size_t)t->cols;
		const uint16_t *rows = weights_rows(weights, tensor, row, n_rows, to);
		if (rows != to) memcpy(to, rows, n * sizeof *to);
		weights_release(weights, tensor, row, n_rows);
		to += n;
	}
}

static void read_all(struct weights *weights)
{
	uint16_t *data = xaligned(weights->n_elements * sizeof *data);
	for (int i = 0; i < weights->n_tensors; i++) read_tensor(weights, i, data + weights->tensors[i].offset);
	weights_files_close(weights->files);
	weights->files = NULL;
	weights->data = data;
}

int weights_load(struct weights *weights, const char *dir, struct err *err)
{
	int code = weights_open(weights, dir, err);
	if (code) return code;
	read_all(weights);
	int bad = weights_find_nonfinite(weights);
	if (bad < 0) return 0;
	code = err_set(err, ERR_INVALID, "model %s: tensor %s: expected finite numbers, found NaN or infinity", dir,
	               weights->tensors[bad].name);
	weights_free(weights);
	return code;
}

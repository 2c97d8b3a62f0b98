/* fuzz_safetensors.c - any bytes are a safetensors file or an error that says why; what is given out lies
 * within the bytes, in order and without a gap. */
#include <assert.h>
#include <string.h>

#include "policy/safetensors.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
	struct safetensors file;
	struct err err = {0};
	const unsigned char *end = NULL;

	if (safetensors_parse(&file, bytes, n_bytes, &err) != 0) {
		assert(err.code < 0 && err.text[0]);
		return 0;
	}
	for (size_t i = 0; i < file.n_tensors; i++) {
		const struct safetensors_tensor *tensor = &file.tensors[i];
		uint64_t n = (uint64_t)tensor->element_bytes;
		for (int d = 0; d < tensor->n_dims; d++)
			n *= tensor->shape[d];
		assert(n == tensor->n_bytes && (!end || tensor->data == end) && tensor->data > bytes);
		end = tensor->data + tensor->n_bytes;
		assert(safetensors_find(&file, tensor->name) == tensor);
	}
	assert(!end || end == bytes + n_bytes);
	safetensors_free(&file);
	return 0;
}

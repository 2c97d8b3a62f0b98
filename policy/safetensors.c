/* safetensors.c - the safetensors container, checked as strictly as its reference implementation:
 * unique names, known types, sizes that match shapes, and tensors that cover the data from its first
 * byte to its last without overlap or gap.  O(n log n) in the number of tensors. */
#include "policy/safetensors.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct dtype {
	const char *name;
	int bytes;
} dtypes[] = {
	{"BF16", 2}, {"F16", 2}, {"F32", 4}, {"F64", 8}, {"I64", 8}, {"I32", 4}, {"I16", 2}, {"I8", 1},
	{"U64", 8}, {"U32", 4}, {"U16", 2}, {"U8", 1}, {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1},
};
enum { N_DTYPES = sizeof dtypes / sizeof dtypes[0] };

const char *safetensors_shape_text(const uint64_t *shape, int n_dims, char *text, size_t size)
{
	size_t used = (size_t)snprintf(text, size, "[");
	for (int i = 0; i < n_dims && used < size; i++)
		used += (size_t)snprintf(text + used, size - used, "%s%llu", i > 0 ? ", " : "",
		                         (unsigned long long)shape[i]);
	if (used < size) snprintf(text + used, size - used, "]");
	return text;
}

/* What a header has in place of what it should have. */
static const char *kind_of(const json_t *value)
{
	if (!value) return "nothing";
	switch (json_typeof(value)) {
	case JSON_OBJECT: return "an object";
	case JSON_ARRAY: return "a list";
	case JSON_STRING: return "a string";
	case JSON_INTEGER: return json_integer_value(value) < 0 ? "a negative number" : "a number";
	case JSON_REAL: return "a number with a fraction";
	default: return "true, false or null";
	}
}

static int read_dtype(struct safetensors_tensor *tensor, const json_t *value, struct err *err)
{
	const char *name = json_string_value(value);
	for (int i = 0; name && i < N_DTYPES; i++) {
		if (strcmp(name, dtypes[i].name) != 0) continue;
		tensor->dtype = dtypes[i].name;
		tensor->element_bytes = dtypes[i].bytes;
		return 0;
	}
	return err_set(err, name ? ERR_UNSUPPORTED : ERR_INVALID,
	               "tensor %.80s: expected dtype BF16, F16 or F32, found %.40s", tensor->name,
	               name ? name : kind_of(value));
}

/* *n_bytes: what the shape takes. */
static int read_shape(struct safetensors_tensor *tensor, const json_t *value, uint64_t *n_bytes,
                      struct err *err)
{
	size_t n_dims = json_array_size(value);
	if (!json_is_array(value))
		return err_set(err, ERR_INVALID, "tensor %.80s: expected its shape as a list of sizes, found %s",
		               tensor->name, kind_of(value));
	if (n_dims > SAFETENSORS_DIMS_MAX)
		return err_set(err, ERR_INVALID, "tensor %.80s: expected a shape of at most %d dimensions, found %zu",
		               tensor->name, SAFETENSORS_DIMS_MAX, n_dims);
	*n_bytes = (uint64_t)tensor->element_bytes;
	tensor->n_dims = (int)n_dims;
	for (size_t i = 0; i < n_dims; i++) {
		const json_t *dim = json_array_get(value, i);
		if (!json_is_integer(dim) || json_integer_value(dim) < 0)
			return err_set(err, ERR_INVALID,
			               "tensor %.80s: expected dimension %zu of its shape to be 0 or more, found %s",
			               tensor->name, i, kind_of(dim));
		tensor->shape[i] = (uint64_t)json_integer_value(dim);
		if (__builtin_mul_overflow(*n_bytes, tensor->shape[i], n_bytes))
			return err_set(err, ERR_TOO_BIG, "tensor %.80s: its shape takes more than 2^64 bytes",
			               tensor->name);
	}
	return 0;
}

static int read_offsets(struct safetensors_tensor *tensor, const json_t *value, uint64_t shape_bytes,
                        const unsigned char *data, uint64_t data_bytes, struct err *err)
{
	char shape[256];
	const json_t *begin_json = json_array_get(value, 0), *end_json = json_array_get(value, 1);
	json_int_t begin = json_integer_value(begin_json), end = json_integer_value(end_json);
	if (json_array_size(value) != 2 || !json_is_integer(begin_json) || !json_is_integer(end_json) ||
	    begin < 0 || end < begin)
		return err_set(err, ERR_INVALID,
		               "tensor %.80s: expected data_offsets to be two byte positions, first and end, found "
		               "%s of %zu (%s, %s)%s",
		               tensor->name, kind_of(value), json_array_size(value), kind_of(begin_json),
		               kind_of(end_json), begin > end ? ", the first behind the end" : "");
	if ((uint64_t)end > data_bytes)
		return err_set(err, ERR_INCOMPLETE,
		               "tensor %.80s: expected %llu bytes of data in the file, found %llu: the file "
		               "is truncated; download it again",
		               tensor->name, (unsigned long long)end, (unsigned long long)data_bytes);
	if ((uint64_t)(end - begin) != shape_bytes)
		return err_set(err, ERR_INVALID,
		               "tensor %.80s: %s of shape %s takes %llu bytes, but data_offsets give %llu",
		               tensor->name, tensor->dtype,
		               safetensors_shape_text(tensor->shape, tensor->n_dims, shape, sizeof shape),
		               (unsigned long long)shape_bytes, (unsigned long long)(end - begin));
	tensor->data = data + begin;
	tensor->n_bytes = (size_t)(end - begin);
	return 0;
}

/* Texts by name, which are not used here. */
static int check_metadata(json_t *value, struct err *err)
{
	const char *key;
	json_t *text;
	if (!json_is_object(value))
		return err_set(err, ERR_INVALID, "expected __metadata__ to be an object, found %s", kind_of(value));
	json_object_foreach(value, key, text)
		if (!json_is_string(text))
			return err_set(err, ERR_INVALID, "expected __metadata__.%.80s to be a string, found %s", key,
			               kind_of(text));
	return 0;
}

static int read_tensors(struct safetensors *file, const json_t *header, const unsigned char *data,
                        uint64_t data_bytes, struct err *err)
{
	/* A loop by iterator: the macro json_object_foreach casts away const. */
	union { const json_t *read_only; json_t *object; } root = {.read_only = header};
	for (void *at = json_object_iter(root.object); at; at = json_object_iter_next(root.object, at)) {
		struct safetensors_tensor *tensor = &file->tensors[file->n_tensors];
		json_t *value = json_object_iter_value(at);
		uint64_t shape_bytes = 0;
		tensor->name = json_object_iter_key(at);
		if (strcmp(tensor->name, "__metadata__") == 0) {
			if (check_metadata(value, err)) return err->code;
			continue;
		}
		if (!json_is_object(value))
			return err_set(err, ERR_INVALID,
			               "tensor %.80s: expected an object with dtype, shape and data_offsets, found %s",
			               tensor->name, kind_of(value));
		int code = 0;
		if ((code = read_dtype(tensor, json_object_get(value, "dtype"), err)) ||
		    (code = read_shape(tensor, json_object_get(value, "shape"), &shape_bytes, err)) ||
		    (code = read_offsets(tensor, json_object_get(value, "data_offsets"), shape_bytes, data,
		                         data_bytes, err)))
			return code;
		file->n_tensors++;
	}
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct safetensors_tensor *x = a, *y = b;
	if (x->data != y->data) return x->data < y->data ? -1 : 1;
	return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

static int check_cover(const struct safetensors *file, const unsigned char *data, size_t data_bytes,
                       struct err *err)
{
	size_t covered = 0;
	for (size_t i = 0; i < file->n_tensors; i++) {
		const struct safetensors_tensor *tensor = &file->tensors[i];
		size_t begin = (size_t)(tensor->data - data);
		if (begin != covered)
			return err_set(err, ERR_INVALID,
			               "tensor %.80s: expected its data at byte %zu, where the one before it ends, "
			               "found %zu (%s): the file is damaged; download or save it again",
			               tensor->name, covered, begin, begin < covered ? "they overlap" : "a gap");
		covered = begin + tensor->n_bytes;
	}
	if (covered == data_bytes) return 0;
	return err_set(err, ERR_INVALID,
	               "expected the data to end with its last tensor at byte %zu, found %zu bytes: the file is "
	               "damaged; download or save it again",
	               covered, data_bytes);
}

static int read_header_length(const unsigned char *bytes, size_t n_bytes, size_t *length, struct err *err)
{
	uint64_t value = 0;
	if (n_bytes < 8)
		return err_set(err, ERR_INCOMPLETE, "expected a header length of 8 bytes, found a file of %zu bytes",
		               n_bytes);
	for (int i = 7; i >= 0; i--) value = value << 8 | bytes[i];
	if (value > SAFETENSORS_HEADER_MAX)
		return err_set(err, ERR_TOO_BIG,
		               "expected a header of at most %d bytes, found a length of %llu: not a safetensors "
		               "file, or a broken one",
		               SAFETENSORS_HEADER_MAX, (unsigned long long)value);
	if (value > n_bytes - 8)
		return err_set(err, ERR_INCOMPLETE,
		               "expected a header of %llu bytes, found %zu: the file is truncated; download it "
		               "again",
		               (unsigned long long)value, n_bytes - 8);
	*length = (size_t)value;
	return 0;
}

int safetensors_parse(struct safetensors *file, const unsigned char *bytes, size_t n_bytes, struct err *err)
{
	memset(file, 0, sizeof *file);
	size_t length = 0;
	int code = read_header_length(bytes, n_bytes, &length, err);
	if (code) return code;
	json_error_t error;
	json_t *header = json_loadb((const char *)bytes + 8, length, JSON_REJECT_DUPLICATES, &error);
	if (!header)
		return err_set(err, ERR_INVALID, "expected a header of JSON, found %s at byte %d of %zu: not a safetensors "
		               "file, or a damaged one", error.text, error.position, length);
	file->header = header;
	if (json_is_object(header)) {
		const unsigned char *data = bytes + 8 + length;
		size_t data_bytes = n_bytes - 8 - length;
		file->tensors = xcalloc(json_object_size(header) + 1, sizeof *file->tensors);
		code = read_tensors(file, header, data, data_bytes, err);
		qsort(file->tensors, file->n_tensors, sizeof *file->tensors, by_place);
		if (!code) code = check_cover(file, data, data_bytes, err);
	} else {
		code = err_set(err, ERR_INVALID, "expected the header to be a JSON object, found %s", kind_of(header));
	}
	if (code) safetensors_free(file);
	return code;
}

void safetensors_free(struct safetensors *file)
{
	free(file->tensors);
	json_decref(file->header);
	memset(file, 0, sizeof *file);
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name)
{
	for (size_t i = 0; i < file->n_tensors; i++)
		if (strcmp(file->tensors[i].name, name) == 0) return &file->tensors[i];
	return NULL;
}

/* weights_files.c - the safetensors files of a model directory, mapped, and every tensor of the layout
 * found in them.
 *
 * Every tensor's presence and shape is checked against the config before any memory is taken, so
 * what is allocated is bounded by the size of the files.
 */
#include "policy/weights_files.h"

#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/file.h"
#include "policy/pages.h"
#include "policy/safetensors.h"
#include "quant/bf16.h"

enum { SHARDS_MAX = 4096 };

struct shard {
	char *name; /* owned; file name within the directory */
	struct file_map map;
	struct safetensors file;
};

struct weights_files {
	const char *dir; /* borrowed while opening */
	struct shard *shards; /* [n_shards] */
	int n_shards;
	const struct safetensors_tensor **tensors; /* [the layout's n_tensors], borrowed from the shards */
};

void weights_files_close(struct weights_files *files)
{
	if (!files) return;
	for (int i = 0; i < files->n_shards; i++) {
		struct shard *shard = &files->shards[i];
		safetensors_free(&shard->file);
		file_map_close(&shard->map);
		free(shard->name);
	}
	free(files->shards);
	free(files->tensors);
	free(files);
}

/* Map and parse one file of the directory; no-op if it is open already. */
static int add_shard(struct weights_files *files, const char *name, struct err *err)
{
	char path[PATH_MAX];
	for (int i = 0; i < files->n_shards; i++)
		if (strcmp(files->shards[i].name, name) == 0) return 0;
	if (strchr(name, '/') || name[0] == '.' || name[0] == '\0')
		return err_set(err, ERR_INVALID,
		               "%s/model.safetensors.index.json: expected names of files beside it, found \"%.80s\"",
		               files->dir, name);
	if (files->n_shards == SHARDS_MAX)
		return err_set(err, ERR_TOO_BIG, "%s: more than %d safetensors files", files->dir, SHARDS_MAX);
	snprintf(path, sizeof path, "%s/%s", files->dir, name);
	struct shard shard = {0};
	int code = file_map_open(&shard.map, path, err);
	if (!code && (code = safetensors_parse(&shard.file, shard.map.bytes, shard.map.n_bytes, err))) {
		err_context(err, "%s", path);
		file_map_close(&shard.map);
	}
	if (code) return code;
	shard.name = xstrdup(name);
	unsigned long n = (unsigned long)files->n_shards + 1;
	files->shards = xrealloc(files->shards, n * sizeof *files->shards);
	files->shards[files->n_shards++] = shard;
	return 0;
}

static int open_shards(struct weights_files *files, const struct file_map *index, struct err *err)
{
	json_error_t error;
	int code = 0;
	json_t *root = json_loadb((const char *)index->bytes, index->n_bytes, JSON_REJECT_DUPLICATES, &error);
	json_t *map = json_object_get(root, "weight_map");
	if (!json_is_object(map))
		code = err_set(err, ERR_INVALID,
		               "%s/model.safetensors.index.json: expected an object with weight_map, found %s",
		               files->dir, root ? "none" : error.text);
	for (void *at = json_object_iter(map); at && !code; at = json_object_iter_next(map, at)) {
		const char *name = json_string_value(json_object_iter_value(at));
		if (name) code = add_shard(files, name, err);
		else
			code = err_set(err, ERR_INVALID,
			               "%s/model.safetensors.index.json: weight_map of %.80s is not a file name",
			               files->dir, json_object_iter_key(at));
	}
	json_decref(root);
	return code;
}

/* model.safetensors, or the files that the index names. */
static int open_files(struct weights_files *files, const char *dir, struct err *err)
{
	char path[PATH_MAX];
	struct file_map index = {0};
	files->dir = dir;
	int code = add_shard(files, "model.safetensors", err);
	if (code != ERR_MISSING) return code;
	snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
	code = file_map_small(&index, path, FILE_JSON_BYTES_MAX, err);
	if (code == ERR_MISSING)
		return err_set(err, ERR_MISSING,
		               "%s holds neither model.safetensors nor model.safetensors.index.json; expected a "
		               "Hugging Face model directory with safetensors weights",
		               dir);
	if (!code) code = open_shards(files, &index, err);
	file_map_close(&index);
	return code;
}

/* *found: NULL if no file has it. */
static int find_tensor(const struct weights_files *files, const char *name, const struct safetensors_tensor **found,
                       struct err *err)
{
	const char *where = NULL;
	*found = NULL;
	for (int i = 0; i < files->n_shards; i++) {
		const struct safetensors_tensor *tensor = safetensors_find(&files->shards[i].file, name);
		if (tensor && *found)
			return err_set(err, ERR_INVALID, "tensor %s: expected it in one file, found it in %.80s and in %.80s: are "
			               "they of one model?", name, where, files->shards[i].name);
		if (!tensor) continue;
		*found = tensor;
		where = files->shards[i].name;
	}
	return 0;
}

static bool is_float(const char *dtype)
{
	return strcmp(dtype, "BF16") == 0 || strcmp(dtype, "F16") == 0 || strcmp(dtype, "F32") == 0;
}

static int check_tensor(const struct weight_tensor *expected, const struct safetensors_tensor *tensor,
                        struct err *err)
{
	char wanted[64], found[256];
	uint64_t shape[2] = {(uint64_t)expected->rows, (uint64_t)expected->cols};
	const uint64_t *dims = expected->n_dims == 1 ? shape + 1 : shape;
	safetensors_shape_text(dims, expected->n_dims, wanted, sizeof wanted);
	if (!tensor)
		return err_set(err, ERR_MISSING,
		               "tensor %s: expected shape %s as config.json says, found no such tensor%s",
		               expected->name, wanted,
		               strcmp(expected->name, "lm_head.weight") ? "" : " (tie_word_embeddings is false)");
	if (!is_float(tensor->dtype))
		return err_set(err, ERR_UNSUPPORTED, "tensor %s: expected BF16, F16 or F32, found %s", expected->name,
		               tensor->dtype);
	if (tensor->n_dims != expected->n_dims ||
	    memcmp(tensor->shape, dims, (size_t)expected->n_dims * sizeof *dims) != 0)
		return err_set(err, ERR_INVALID, "tensor %s: expected shape %s as config.json says, found %s",
		               expected->name, wanted,
		               safetensors_shape_text(tensor->shape, tensor->n_dims, found, sizeof found));
	return 0;
}

/* A tensor that the layout does not use would change what the model computes (a bias, one more
 * layer), but for buffers that old filess carry along. */
static int check_unused(const struct weights *weights, const struct weights_files *files, struct err *err)
{
	for (int i = 0; i < files->n_shards; i++) {
		const struct safetensors *file = &files->shards[i].file;
		for (size_t k = 0; k < file->n_tensors; k++) {
			const char *name = file->tensors[k].name;
			if (weights_find(weights, name) >= 0 || strstr(name, "rotary_emb.inv_freq")) continue;
			if (weights->config.tied && strcmp(name, "lm_head.weight") == 0) continue;
			return err_set(err, ERR_UNSUPPORTED,
			               "tensor %.80s in %s has no place in a %s model of %d layers; is config.json "
			               "of another model?",
			               name, files->shards[i].name, weights->config.model_type,
			               weights->config.n_layers);
		}
	}
	return 0;
}

/* Little-endian, at any address. */
static void from_f16(uint16_t *out, const unsigned char *data, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint16_t h;
		memcpy(&h, data + 2 * i, sizeof h);
		uint32_t bits = (uint32_t)(h & 0x7fffu) << 13, sign = (uint32_t)(h & 0x8000u) << 16;
		float value;
		memcpy(&value, &bits, sizeof value);
		value *= 0x1p112f; /* the difference of the exponents' biases; exact, subnormals too */
		memcpy(&bits, &value, sizeof bits);
		if ((h & 0x7c00u) == 0x7c00u) bits = 0x7f800000u | (uint32_t)(h & 0x3ffu) << 13;
		bits |= sign;
		memcpy(&value, &bits, sizeof value);
		out[i] = bf16_from_f32(value);
	}
}

static void from_f32(uint16_t *out, const unsigned char *data, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		float value;
		memcpy(&value, data + 4 * i, sizeof value);
		out[i] = bf16_from_f32(value);
	}
}

const uint16_t *weights_files_read(const struct weights_files *files, int tensor, size_t begin, size_t n,
                                   uint16_t *scratch)
{
	const struct safetensors_tensor *t = files->tensors[tensor];
	const unsigned char *data = t->data + begin * (size_t)t->element_bytes;
	if (strcmp(t->dtype, "F32") == 0) from_f32(scratch, data, n);
	else if (strcmp(t->dtype, "F16") == 0) from_f16(scratch, data, n);
	else if ((uintptr_t)data % sizeof(uint16_t) == 0) return (const uint16_t *)(const void *)data;
	else memcpy(scratch, data, n * sizeof *scratch);
	return scratch;
}

void weights_files_release(const struct weights_files *files, int tensor, size_t begin, size_t n)
{
	const struct safetensors_tensor *t = files->tensors[tensor];
	size_t each = (size_t)t->element_bytes;
	pages_release(t->data + begin * each, n * each);
}

const char *weights_files_dtype(const struct weights_files *files, int tensor) { return files->tensors[tensor]->dtype; }

int weights_files_open(struct weights_files **out, const struct weights *layout, const char *dir, struct err *err)
{
	struct weights_files *files = xcalloc(1, sizeof *files);
	int code = open_files(files, dir, err);
	if (!code) code = check_unused(layout, files, err);
	files->tensors = xcalloc((unsigned long)layout->n_tensors, sizeof *files->tensors);
	for (int i = 0; i < layout->n_tensors && !code; i++) {
		code = find_tensor(files, layout->tensors[i].name, &files->tensors[i], err);
		if (!code) code = check_tensor(&layout->tensors[i], files->tensors[i], err);
	}
	if (code) weights_files_close(files);
	else *out = files;
	return code;
}

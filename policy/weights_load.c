/* weights_load.c - a Hugging Face model directory into the canonical buffer.
 *
 * Every tensor's presence and shape is checked against the config before any memory is taken, so
 * what is allocated is bounded by the size of the files.
 */
#include "policy/weights.h"

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/file.h"
#include "policy/safetensors.h"
#include "quant/bf16.h"

enum { SHARDS_MAX = 4096 };

struct shard {
	char *name; /* owned; file name within the directory */
	struct file_map map;
	struct safetensors file;
};

struct checkpoint {
	const char *dir;
	struct shard *shards; /* [n_shards] */
	int n_shards;
};

static void checkpoint_close(struct checkpoint *checkpoint)
{
	for (int i = 0; i < checkpoint->n_shards; i++) {
		struct shard *shard = &checkpoint->shards[i];
		safetensors_free(&shard->file);
		file_map_close(&shard->map);
		free(shard->name);
	}
	free(checkpoint->shards);
}

/* Map and parse one file of the directory; no-op if it is open already. */
static int checkpoint_add(struct checkpoint *checkpoint, const char *name, struct err *err)
{
	char path[PATH_MAX];
	for (int i = 0; i < checkpoint->n_shards; i++)
		if (strcmp(checkpoint->shards[i].name, name) == 0) return 0;
	if (strchr(name, '/') || name[0] == '.' || name[0] == '\0')
		return err_set(err, ERR_INVALID,
		               "%s/model.safetensors.index.json: expected names of files beside it, found \"%.80s\"",
		               checkpoint->dir, name);
	if (checkpoint->n_shards == SHARDS_MAX)
		return err_set(err, ERR_TOO_BIG, "%s: more than %d safetensors files", checkpoint->dir, SHARDS_MAX);
	snprintf(path, sizeof path, "%s/%s", checkpoint->dir, name);
	struct shard shard = {0};
	int code = file_map_open(&shard.map, path, err);
	if (!code && (code = safetensors_parse(&shard.file, shard.map.bytes, shard.map.n_bytes, err))) {
		err_context(err, "%s", path);
		file_map_close(&shard.map);
	}
	if (code) return code;
	shard.name = xstrdup(name);
	unsigned long n = (unsigned long)checkpoint->n_shards + 1;
	checkpoint->shards = xrealloc(checkpoint->shards, n * sizeof *checkpoint->shards);
	checkpoint->shards[checkpoint->n_shards++] = shard;
	return 0;
}

static int open_shards(struct checkpoint *checkpoint, const struct file_map *index, struct err *err)
{
	json_error_t error;
	int code = 0;
	json_t *root = json_loadb((const char *)index->bytes, index->n_bytes, JSON_REJECT_DUPLICATES, &error);
	json_t *map = json_object_get(root, "weight_map");
	if (!json_is_object(map))
		code = err_set(err, ERR_INVALID,
		               "%s/model.safetensors.index.json: expected an object with weight_map, found %s",
		               checkpoint->dir, root ? "none" : error.text);
	for (void *at = json_object_iter(map); at && !code; at = json_object_iter_next(map, at)) {
		const char *name = json_string_value(json_object_iter_value(at));
		if (name) code = checkpoint_add(checkpoint, name, err);
		else
			code = err_set(err, ERR_INVALID,
			               "%s/model.safetensors.index.json: weight_map of %.80s is not a file name",
			               checkpoint->dir, json_object_iter_key(at));
	}
	json_decref(root);
	return code;
}

/* model.safetensors, or the files that the index names. */
static int checkpoint_open(struct checkpoint *checkpoint, const char *dir, struct err *err)
{
	char path[PATH_MAX];
	struct file_map index = {0};
	*checkpoint = (struct checkpoint){.dir = dir};
	int code = checkpoint_add(checkpoint, "model.safetensors", err);
	if (code != ERR_MISSING) return code;
	snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
	code = file_map_open(&index, path, err);
	if (code == ERR_MISSING)
		return err_set(err, ERR_MISSING,
		               "%s holds neither model.safetensors nor model.safetensors.index.json; expected a "
		               "Hugging Face model directory with safetensors weights",
		               dir);
	if (!code) code = open_shards(checkpoint, &index, err);
	file_map_close(&index);
	return code;
}

static const struct safetensors_tensor *checkpoint_find(const struct checkpoint *checkpoint, const char *name)
{
	for (int i = 0; i < checkpoint->n_shards; i++) {
		const struct safetensors_tensor *tensor = safetensors_find(&checkpoint->shards[i].file, name);
		if (tensor) return tensor;
	}
	return NULL;
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
 * layer), but for buffers that old checkpoints carry along. */
static int check_unused(const struct weights *weights, const struct checkpoint *checkpoint, struct err *err)
{
	for (int i = 0; i < checkpoint->n_shards; i++) {
		const struct safetensors *file = &checkpoint->shards[i].file;
		for (size_t k = 0; k < file->n_tensors; k++) {
			const char *name = file->tensors[k].name;
			if (weights_find(weights, name) >= 0 || strstr(name, "rotary_emb.inv_freq")) continue;
			if (weights->config.tied && strcmp(name, "lm_head.weight") == 0) continue;
			return err_set(err, ERR_UNSUPPORTED,
			               "tensor %.80s in %s has no place in a %s model of %d layers; is config.json "
			               "of another model?",
			               name, checkpoint->shards[i].name, weights->config.model_type,
			               weights->config.n_layers);
		}
	}
	return 0;
}

static float f16_to_f32(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 0x1fu, fraction = h & 0x3ffu, bits;
	float f;
	if (exponent == 0) {
		f = (float)fraction * 0x1p-24f;
		return sign ? -f : f;
	}
	bits = sign | (exponent == 31 ? 0xffu : exponent + 112u) << 23 | fraction << 13;
	memcpy(&f, &bits, sizeof f);
	return f;
}

static void convert(uint16_t *out, const struct safetensors_tensor *tensor)
{
	size_t n = tensor->n_bytes / (size_t)tensor->element_bytes;
	if (strcmp(tensor->dtype, "BF16") == 0) {
		memcpy(out, tensor->data, tensor->n_bytes);
	} else if (strcmp(tensor->dtype, "F16") == 0) {
		for (size_t i = 0; i < n; i++) {
			uint16_t h;
			memcpy(&h, tensor->data + 2 * i, sizeof h);
			out[i] = bf16_from_f32(f16_to_f32(h));
		}
	} else {
		for (size_t i = 0; i < n; i++) {
			float f;
			memcpy(&f, tensor->data + 4 * i, sizeof f);
			out[i] = bf16_from_f32(f);
		}
	}
}

static int take_tensors(struct weights *weights, const struct checkpoint *checkpoint, struct err *err)
{
	int code = check_unused(weights, checkpoint, err);
	for (int i = 0; i < weights->n_tensors && !code; i++)
		code = check_tensor(&weights->tensors[i], checkpoint_find(checkpoint, weights->tensors[i].name), err);
	if (code) return code;
	weights->data = xaligned(weights->n_elements * sizeof *weights->data);
	for (int i = 0; i < weights->n_tensors; i++)
		convert(weights->data + weights->tensors[i].offset,
		        checkpoint_find(checkpoint, weights->tensors[i].name));
	int bad = weights_find_nonfinite(weights);
	if (bad < 0) return 0;
	return err_set(err, ERR_INVALID, "tensor %s: expected finite numbers, found NaN or infinity",
	               weights->tensors[bad].name);
}

int weights_load(struct weights *weights, const char *dir, struct err *err)
{
	struct model_config config;
	struct checkpoint checkpoint;
	memset(weights, 0, sizeof *weights);
	int code = model_config_read(&config, dir, err);
	if (code) return code;
	code = checkpoint_open(&checkpoint, dir, err);
	if (!code) {
		weights_layout(weights, &config);
		code = take_tensors(weights, &checkpoint, err);
		if (code) {
			err_context(err, "model %s", dir);
			weights_free(weights);
		}
	}
	checkpoint_close(&checkpoint);
	return code;
}

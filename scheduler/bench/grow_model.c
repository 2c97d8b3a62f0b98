/* grow_model.c - weights_grow with files before and after it. */
#include "scheduler/bench/grow_model.h"

#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "policy/file.h"
#include "policy/grow.h"

/* What belongs to a model besides weights and shape, where it is there. */
static const char *const companions[] = {
	"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
};
enum { N_COMPANIONS = sizeof companions / sizeof *companions };

static int copy_companion(const char *from, const char *to, const char *name, struct err *err)
{
	char path[PATH_MAX];
	struct file_map map;
	snprintf(path, sizeof path, "%s/%s", from, name);
	int rc = file_map_open(&map, path, err);
	if (rc) return rc == ERR_MISSING ? 0 : rc;
	snprintf(path, sizeof path, "%s/%s", to, name);
	rc = file_replace(path, &(struct file_part){map.bytes, map.n_bytes}, 1, err);
	file_map_close(&map);
	return rc;
}

/* The model itself must survive. */
static int check_out(const char *from, const char *to, struct err *err)
{
	struct stat model, out;
	if (stat(from, &model) == 0 && stat(to, &out) == 0 && model.st_dev == out.st_dev &&
	    model.st_ino == out.st_ino)
		return err_set(err, ERR_USAGE, "%s is the model itself: name another directory", to);
	return 0;
}

int grow_model(const char *from, const char *to, double parameters, int layers, struct err *err)
{
	struct weights weights = {0}, grown = {0};
	struct model_config shape;

	int rc = check_out(from, to, err);
	if (!rc) rc = weights_load(&weights, from, err);
	if (rc) return rc;
	rc = weights_grow_shape(&shape, &weights.config, parameters, layers, err);
	if (!rc) {
		weights_grow(&grown, &shape, &weights);
		rc = weights_save(&grown, to, err);
	}
	for (int i = 0; !rc && i < N_COMPANIONS; i++) rc = copy_companion(from, to, companions[i], err);
	if (!rc)
		printf("%s: %.1f M parameters, %d layers of %d, feed-forward %d; the function of %s (%.1f M, %d layers, "
		       "feed-forward %d): what was added ends in zero projections\n", to,
		       1e-6 * (double)grown.n_elements, shape.n_layers, shape.dim, shape.ffn_dim, from,
		       1e-6 * (double)weights.n_elements, weights.config.n_layers, weights.config.ffn_dim);
	weights_free(&weights);
	weights_free(&grown);
	return rc;
}

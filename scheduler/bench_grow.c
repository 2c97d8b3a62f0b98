/* bench_grow.c - `drumroll bench grow`: a model directory of a size that is not at hand, whose samples are
 * those of a smaller model, for measuring whole runs. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "policy/file.h"
#include "policy/grow.h"
#include "scheduler/arguments.h"
#include "scheduler/bench.h"

/* What belongs to a model besides weights and shape, where it is there. */
static const char *const companions[] = {
	"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
};
enum { N_COMPANIONS = sizeof companions / sizeof *companions };

struct grow_options {
	const char *model, *out;
	double parameters;
	int64_t layers;
};

static int options_read(struct grow_options *o, int argc, char **argv, struct err *err)
{
	struct argument table[] = {
		{"--model", ARGUMENT_FILE, &o->model, "Hugging Face model directory", true},
		{"--out", ARGUMENT_TEXT, &o->out, "directory to write; made if absent", true},
		{"--parameters", ARGUMENT_REAL, &o->parameters, "weights to reach, such as 0.5e9", .min = 1, .max = 1e12},
		{"--layers", ARGUMENT_INT, &o->layers, "add layers up to so many, then widen the feed-forward", .min = 1,
		 .max = MODEL_LAYERS_MAX},
	};
	int n = sizeof table / sizeof *table;

	*o = (struct grow_options){.parameters = 0.5e9, .layers = GROW_LAYERS};
	if (!arguments_want_help(argc, argv)) return arguments_parse(table, n, argc, argv, err);
	arguments_print_help(table, n, "bench grow", "a larger model that computes the same function", stdout);
	exit(EXIT_SUCCESS);
}

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
static int check_out(const struct grow_options *o, struct err *err)
{
	struct stat model, out;
	if (stat(o->model, &model) == 0 && stat(o->out, &out) == 0 && model.st_dev == out.st_dev &&
	    model.st_ino == out.st_ino)
		return err_set(err, ERR_USAGE, "--out: %s is the model itself: name another directory", o->out);
	return 0;
}

int bench_grow(int argc, char **argv, struct err *err)
{
	struct grow_options options;
	struct weights weights = {0}, grown = {0};
	struct model_config to;

	int rc = options_read(&options, argc, argv, err);
	if (!rc) rc = check_out(&options, err);
	if (!rc) rc = weights_load(&weights, options.model, err);
	if (rc) return rc;
	rc = weights_grow_shape(&to, &weights.config, options.parameters, (int)options.layers, err);
	if (!rc) {
		weights_grow(&grown, &to, &weights);
		rc = weights_save(&grown, options.out, err);
	}
	for (int i = 0; !rc && i < N_COMPANIONS; i++) rc = copy_companion(options.model, options.out, companions[i], err);
	if (!rc)
		printf("%s: %.1f M parameters, %d layers of %d, feed-forward %d; the function of %s (%.1f M, %d layers, "
		       "feed-forward %d): what was added ends in zero projections\n", options.out,
		       1e-6 * (double)grown.n_elements, to.n_layers, to.dim, to.ffn_dim, options.model,
		       1e-6 * (double)weights.n_elements, weights.config.n_layers, weights.config.ffn_dim);
	weights_free(&weights);
	weights_free(&grown);
	return rc;
}

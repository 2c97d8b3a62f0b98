/* bench_grow.c - `drumroll bench grow`: a model directory of a size that is not at hand, whose samples are
 * those of a smaller model, for measuring whole runs. */
#include <stdio.h>
#include <stdlib.h>

#include "policy/grow.h"
#include "scheduler/bench/bench.h"
#include "scheduler/bench/grow_model.h"
#include "scheduler/commands/arguments.h"

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

int bench_grow(int argc, char **argv, struct err *err)
{
	struct grow_options options;

	int rc = options_read(&options, argc, argv, err);
	return rc ? rc : grow_model(options.model, options.out, options.parameters, (int)options.layers, err);
}

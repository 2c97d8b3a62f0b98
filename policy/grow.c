/* grow.c - a larger model that computes the same function. */
#include "policy/grow.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* Inputs of down_proj are added from a multiple of this on: the largest group of any format. */
enum { WIDEN_UNIT = 128 };

static int rounded_up(int n, int unit) { return (n + unit - 1) / unit * unit; }

static double count_elements(const struct model_config *config)
{
	struct weights layout;
	weights_layout(&layout, config);
	double n = (double)layout.n_elements;
	weights_free(&layout);
	return n;
}

static double layer_elements(const struct model_config *config)
{
	struct model_config more = *config;
	more.n_layers++;
	return count_elements(&more) - count_elements(config);
}

int weights_grow_shape(struct model_config *to, const struct model_config *from, double parameters,
                       int layers_max, struct err *err)
{
	double have = count_elements(from), layer = layer_elements(from);
	if (!(parameters > have))
		return err_set(err, ERR_USAGE, "the model has %.0f parameters already: ask for more than that, found %.0f",
		               have, parameters);
	*to = *from;
	double layers = from->n_layers + ceil((parameters - have) / layer);
	if (layers <= layers_max) {
		to->n_layers = (int)layers;
		return 0;
	}
	if (layers_max > to->n_layers) to->n_layers = layers_max;
	double missing = (parameters - count_elements(to)) / to->n_layers / (3.0 * from->dim);
	double ffn = rounded_up(from->ffn_dim, WIDEN_UNIT) + ceil(missing / WIDEN_UNIT) * WIDEN_UNIT;
	if (ffn > MODEL_FFN_MAX)
		return err_set(err, ERR_TOO_BIG,
		               "%.0f parameters in %d layers need a feed-forward of %.0f, the most is %d: allow more layers",
		               parameters, to->n_layers, ffn, MODEL_FFN_MAX);
	to->ffn_dim = (int)ffn;
	return 0;
}

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), n_end = strlen(end);
	return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

/* Rows of gate or up: the model's own, zeros to the end of the group, then its own over and over. */
static void widen_rows(uint16_t *to, int to_rows, const uint16_t *from, int from_rows, int cols)
{
	size_t row = (size_t)cols * sizeof *to;
	memcpy(to, from, (size_t)from_rows * row);
	for (int r = rounded_up(from_rows, WIDEN_UNIT); r < to_rows; r++)
		memcpy(to + (size_t)r * (size_t)cols, from + (size_t)(r % from_rows) * (size_t)cols, row);
}

/* One tensor of a layer; `to` holds zeros.  added: the layer is not one of the model's own. */
static void grow_tensor(uint16_t *to, const struct weight_tensor *shape, const uint16_t *from,
                        const struct weight_tensor *from_shape, bool added)
{
	size_t rows = (size_t)from_shape->rows, cols = (size_t)from_shape->cols;
	bool down = ends_with(shape->name, "down_proj.weight");
	if (added && (down || ends_with(shape->name, "o_proj.weight") || ends_with(shape->name, "o_proj.bias") ||
	              ends_with(shape->name, "down_proj.bias")))
		return;
	if (shape->n_dims == 1) { /* biases of a widened layer: zeros behind */
		memcpy(to, from, cols * sizeof *to);
		return;
	}
	if (!down) {
		widen_rows(to, shape->rows, from, from_shape->rows, shape->cols);
		return;
	}
	for (size_t r = 0; r < rows; r++)
		memcpy(to + r * (size_t)shape->cols, from + r * cols, cols * sizeof *to);
}

void weights_grow(struct weights *grown, const struct model_config *to, const struct weights *weights)
{
	const struct model_config *from = &weights->config;
	assert(weights->data && to->n_layers >= from->n_layers && to->ffn_dim >= from->ffn_dim);
	assert(to->ffn_dim == from->ffn_dim || to->ffn_dim >= rounded_up(from->ffn_dim, WIDEN_UNIT));
	weights_alloc(grown, to);
	int outside = 2 + (from->tied ? 0 : 1), per_layer = (weights->n_tensors - outside) / from->n_layers;
	int own = from->n_layers * per_layer, all = to->n_layers * per_layer;
	for (int i = 0; i < grown->n_tensors; i++) {
		/* The canonical order: embedding, layers, final norm, head. */
		bool in_layer = i >= 1 && i <= all;
		int source = i == 0 ? 0 : in_layer ? 1 + (i - 1) % own : i - all + own;
		const struct weight_tensor *shape = &grown->tensors[i], *from_shape = &weights->tensors[source];
		grow_tensor(grown->data + shape->offset, shape, weights->data + from_shape->offset, from_shape,
		            in_layer && i > own);
	}
}

/* sweep_file.c - the sections `sweep:` and `variants:` of a config file.
 *
 * libyaml's document is enough here: the file has been loaded by config_load before, and is small. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "configs/option_table.h"
#include "configs/sweep.h"

struct reader {
	yaml_document_t document;
	const char *path;
	struct sweep *sweep;
	struct err *err;
};

static int line_of(const yaml_node_t *node) { return (int)node->start_mark.line + 1; }

__attribute__((format(printf, 3, 4)))
static int refuse(const struct reader *r, const yaml_node_t *node, const char *format, ...)
{
	char text[ERR_TEXT_MAX];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	return err_set(r->err, ERR_CONFIG, "%s:%d: %s", r->path, line_of(node), text);
}

static yaml_node_t *node_at(struct reader *r, int index) { return yaml_document_get_node(&r->document, index); }

/* NULL unless it is one value. */
static const char *text_of(const yaml_node_t *node)
{
	const char *text = node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
	return text && strlen(text) == node->data.scalar.length ? text : NULL;
}

static int n_pairs(const yaml_node_t *node) { return (int)(node->data.mapping.pairs.top - node->data.mapping.pairs.start); }

/* ---- what is read ---- */

static void value_free(struct sweep_value *value)
{
	for (int i = 0; i < value->n_sets; i++) free(value->sets[i]);
	free(value->sets);
	free(value->name);
}

void sweep_free(struct sweep *sweep)
{
	for (int a = 0; a < sweep->n_axes; a++) {
		for (int i = 0; i < sweep->axes[a].n; i++) value_free(&sweep->axes[a].values[i]);
		free(sweep->axes[a].values);
		free(sweep->axes[a].key);
	}
	memset(sweep, 0, sizeof *sweep);
}

static struct sweep_axis *add_axis(struct sweep *sweep, const char *key)
{
	struct sweep_axis *axis = &sweep->axes[sweep->n_axes++];
	*axis = (struct sweep_axis){ .key = xstrdup(key), .values = xcalloc(SWEEP_VALUES_MAX, sizeof *axis->values) };
	return axis;
}

/* Another value of the axis, without any sets yet. */
static int add_value(struct reader *r, const yaml_node_t *node, struct sweep_axis *axis, const char *name,
                     struct sweep_value **value)
{
	for (int i = 0; i < axis->n; i++)
		if (strcmp(axis->values[i].name, name) == 0) return refuse(r, node, "%s: \"%s\" is given twice; keep one", axis->key, name);
	if (axis->n == SWEEP_VALUES_MAX) return refuse(r, node, "%s: more than %d values", axis->key, SWEEP_VALUES_MAX);
	*value = &axis->values[axis->n++];
	(*value)->name = xstrdup(name);
	(*value)->sets = xcalloc(SWEEP_SETS_MAX, sizeof *(*value)->sets);
	return 0;
}

/* What the sweep decides itself. */
static const char *why_not(const struct option *option)
{
	if (strcmp(option->section, "run") == 0 && strcmp(option->key, "dir") == 0) return "every run of a sweep gets its own";
	if (strcmp(option->section, "throughput") == 0 && strcmp(option->key, "ranks") != 0) return "it is about the sweep as a whole";
	return NULL;
}

static int find_option(struct reader *r, const yaml_node_t *node, const struct option **option)
{
	const char *name = text_of(node), *dot = name ? strchr(name, '.') : NULL;
	char section[64] = "", key[64] = "";

	if (!name) return refuse(r, node, "expected section.key, as in rollout.temperature");
	if (dot) {
		snprintf(section, sizeof section, "%.*s", (int)(dot - name), name);
		snprintf(key, sizeof key, "%s", dot + 1);
	}
	*option = option_find(section, key);
	if (!*option) {
		const struct option *nearest = option_nearest(section, dot ? key : name);
		return refuse(r, node, "unknown key \"%.100s\"; the nearest known one is \"%s.%s\"", name, nearest->section, nearest->key);
	}
	const char *why = why_not(*option);
	return why ? refuse(r, node, "%s cannot be varied: %s", name, why) : 0;
}

/* The option with the node's value, in bounds. */
static int add_set(struct reader *r, const yaml_node_t *node, const struct option *option, struct sweep_value *value)
{
	const char *text = text_of(node);
	char expected[256];
	struct config scratch;

	if (!text)
		return refuse(r, node, "%s.%s: expected %s, found no single value", option->section, option->key,
		              option_expected(option, expected, sizeof expected));
	if (value->n_sets == SWEEP_SETS_MAX) return refuse(r, node, "%s: more than %d keys", value->name, SWEEP_SETS_MAX);
	config_defaults(&scratch);
	int rc = option_parse(option, text, &scratch, r->err);
	config_free(&scratch);
	if (rc) return err_context(r->err, "%s:%d", r->path, line_of(node));
	size_t size = strlen(option->section) + strlen(option->key) + strlen(text) + 3;
	char *set = xmalloc(size);
	snprintf(set, size, "%s.%s=%s", option->section, option->key, text);
	value->sets[value->n_sets++] = set;
	return 0;
}

/* ---- the sections ---- */

static int read_values(struct reader *r, const yaml_node_t *list, const struct option *option, struct sweep_axis *axis)
{
	int rc = 0;

	for (yaml_node_item_t *item = list->data.sequence.items.start; item < list->data.sequence.items.top && !rc; item++) {
		const yaml_node_t *node = node_at(r, *item);
		const char *text = text_of(node);
		struct sweep_value *value;
		char name[SWEEP_LABEL_MAX];
		snprintf(name, sizeof name, "%s=%s", option->key, text ? text : "");
		rc = add_value(r, node, axis, name, &value);
		if (!rc) rc = add_set(r, node, option, value);
	}
	return rc;
}

static int read_sweep(struct reader *r, const yaml_node_t *section)
{
	if (section->type != YAML_MAPPING_NODE)
		return refuse(r, section, "sweep: expected indented lines of `section.key: [value, value]` below it");
	for (yaml_node_pair_t *pair = section->data.mapping.pairs.start; pair < section->data.mapping.pairs.top; pair++) {
		const yaml_node_t *key = node_at(r, pair->key), *list = node_at(r, pair->value);
		const struct option *option;
		int rc = find_option(r, key, &option);
		if (!rc && (list->type != YAML_SEQUENCE_NODE || list->data.sequence.items.start == list->data.sequence.items.top))
			rc = refuse(r, key, "sweep: %s: expected a list of values, as in [1, 2, 4]; a single value belongs into the config "
			            "itself", text_of(key));
		if (!rc && sweep_varies(r->sweep, text_of(key))) rc = refuse(r, key, "sweep: %s is given twice; join the lists", text_of(key));
		if (!rc && r->sweep->n_axes == SWEEP_AXES_MAX) rc = refuse(r, key, "sweep: more than %d keys", SWEEP_AXES_MAX);
		if (!rc) rc = read_values(r, list, option, add_axis(r->sweep, text_of(key)));
		if (rc) return rc;
	}
	return 0;
}

static bool is_set_by(const struct sweep_value *value, const char *key)
{
	size_t n = strlen(key);
	for (int i = 0; i < value->n_sets; i++)
		if (strncmp(value->sets[i], key, n) == 0 && value->sets[i][n] == '=') return true;
	return false;
}

bool sweep_varies(const struct sweep *sweep, const char *key)
{
	for (int a = 0; a < sweep->n_axes; a++)
		for (int i = 0; i < sweep->axes[a].n; i++)
			if (is_set_by(&sweep->axes[a].values[i], key)) return true;
	return false;
}

static int read_variant(struct reader *r, const yaml_node_t *sets, struct sweep_axis *axis, const struct sweep *axes,
                        const yaml_node_t *name)
{
	struct sweep_value *value;
	int rc;

	if (!text_of(name) || !text_of(name)[0] || strpbrk(text_of(name), ",\"\\")) return refuse(r, name, "variants: expected a name without commas and quotes");
	if (sets->type != YAML_MAPPING_NODE)
		return refuse(r, name, "variants: %s: expected lines of `section.key: value` below it, or {} for the config as it is", text_of(name));
	if ((rc = add_value(r, name, axis, text_of(name), &value))) return rc;
	for (yaml_node_pair_t *pair = sets->data.mapping.pairs.start; pair < sets->data.mapping.pairs.top && !rc; pair++) {
		const yaml_node_t *key = node_at(r, pair->key);
		const struct option *option;
		rc = find_option(r, key, &option);
		if (!rc && is_set_by(value, text_of(key))) rc = refuse(r, key, "%s: %s is given twice; keep one", value->name, text_of(key));
		if (!rc && sweep_varies(axes, text_of(key))) rc = refuse(r, key, "%s: %s is in `sweep:` too; vary it in one place", value->name, text_of(key));
		if (!rc) rc = add_set(r, node_at(r, pair->value), option, value);
	}
	return rc;
}

static int read_variants(struct reader *r, const yaml_node_t *section)
{
	struct sweep axes = *r->sweep;
	int rc = 0;

	if (section->type != YAML_MAPPING_NODE || n_pairs(section) == 0)
		return refuse(r, section, "variants: expected indented names below it, each with lines of `section.key: value`");
	struct sweep_axis *axis = add_axis(r->sweep, "variants");
	for (yaml_node_pair_t *pair = section->data.mapping.pairs.start; pair < section->data.mapping.pairs.top && !rc; pair++)
		rc = read_variant(r, node_at(r, pair->value), axis, &axes, node_at(r, pair->key));
	return rc;
}

/* ---- the file ---- */

static const yaml_node_t *find_section(struct reader *r, const yaml_node_t *root, const char *name)
{
	if (!root || root->type != YAML_MAPPING_NODE) return NULL;
	for (yaml_node_pair_t *pair = root->data.mapping.pairs.start; pair < root->data.mapping.pairs.top; pair++) {
		const char *text = text_of(node_at(r, pair->key));
		if (text && strcmp(text, name) == 0) return node_at(r, pair->value);
	}
	return NULL;
}

static int read_document(struct reader *r)
{
	const yaml_node_t *root = yaml_document_get_root_node(&r->document);
	const yaml_node_t *sweep = find_section(r, root, "sweep"), *variants = find_section(r, root, "variants");
	int rc = sweep ? read_sweep(r, sweep) : 0;

	if (!rc && variants) rc = read_variants(r, variants);
	if (rc) sweep_free(r->sweep);
	return rc;
}

int sweep_read(struct sweep *sweep, const char *path, struct err *err)
{
	struct reader r = { .path = path, .sweep = sweep, .err = err };
	yaml_parser_t parser;
	FILE *file = fopen(path, "rb");

	memset(sweep, 0, sizeof *sweep);
	if (!file) return err_set_errno(err, errno == ENOENT ? ERR_MISSING : ERR_IO, "cannot read the config file \"%s\"", path);
	int rc = yaml_parser_initialize(&parser) ? 0 : err_set(err, ERR_MEMORY, "no memory to parse %s", path);
	if (!rc) {
		yaml_parser_set_input_file(&parser, file);
		if (!yaml_parser_load(&parser, &r.document))
			rc = err_set(err, ERR_CONFIG, "%s:%d: this is not YAML: %s", path, (int)parser.problem_mark.line + 1,
			             parser.problem ? parser.problem : "unreadable");
		yaml_parser_delete(&parser);
	}
	fclose(file);
	if (rc) return rc;
	rc = read_document(&r);
	yaml_document_delete(&r.document);
	return rc;
}

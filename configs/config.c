/* config.c - loading a config: defaults, then the file, then `--set` assignments.
 *
 * A file goes through three steps: yaml_outline.c checks its shape and notes lines, libcyaml loads
 * every value as text by a schema made from options.def, and option_table.c parses the texts against
 * types and bounds.  libcyaml's own number types are not used because version 1.3 knows no bounds,
 * takes every word as a boolean and lets NaN through; one parser also serves `--set`.
 */
#include <cyaml/cyaml.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "configs/option_table.h"
#include "configs/yaml_outline.h"

enum { FILE_BYTES_MAX = 1 << 20 };

/* What libcyaml fills in: NULL where the file does not have the option. */
struct texts {
	char *of[OPTION_COUNT];
};

#define LEAF(section, key, ...) \
	CYAML_FIELD_STRING_PTR(#key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct texts, \
	                       of[OPTION_AT_##section##_##key], 0, CYAML_UNLIMITED),
#define SECTION(name, help) CYAML_FIELD_END }; static const cyaml_schema_field_t name##_fields[] = {
#define INT LEAF
#define REAL LEAF
#define BOOL LEAF
#define TEXT LEAF
#define CHOICE LEAF
static const cyaml_schema_field_t no_fields[] __attribute__((unused)) = { /* opens what SECTION closes */
#include "configs/options.def"
	CYAML_FIELD_END
};
#undef SECTION
#undef INT
#undef REAL
#undef BOOL
#undef TEXT
#undef CHOICE

/* The sections of the YAML share one flat struct, so each lies at offset 0 of it. */
static const cyaml_schema_field_t section_fields[] = {
#define SECTION(name, help) { .key = #name, .data_offset = 0, \
	.value = { CYAML_VALUE_MAPPING(CYAML_FLAG_OPTIONAL, struct texts, name##_fields) } },
#define INT(...)
#define REAL(...)
#define BOOL(...)
#define TEXT(...)
#define CHOICE(...)
#include "configs/options.def"
#undef SECTION
#undef INT
#undef REAL
#undef BOOL
#undef TEXT
#undef CHOICE
	CYAML_FIELD_END
};
static const cyaml_schema_value_t root_schema = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct texts, section_fields)
};
/* What is unknown has been refused by then, but for the sections of a sweep (sweep.h). */
static const cyaml_config_t cyaml_settings = { .mem_fn = cyaml_mem, .log_level = CYAML_LOG_ERROR, .flags = CYAML_CFG_IGNORE_UNKNOWN_KEYS };

void config_defaults(struct config *config)
{
	for (int i = 0; i < OPTION_COUNT; i++) option_reset(&option_table[i], config);
}

void config_free(struct config *config)
{
	for (int i = 0; i < OPTION_COUNT; i++)
		if (option_table[i].type == OPTION_TEXT) free(*(char **)((char *)config + option_table[i].offset));
	memset(config, 0, sizeof *config);
}

/* The whole file, owned by the caller; a pipe is fine, so the size is known only at the end. */
static int read_file(const char *path, char **bytes, size_t *n_bytes, struct err *err)
{
	FILE *file = fopen(path, "rb");
	if (!file) {
		int code = errno == ENOENT ? ERR_MISSING : ERR_IO;
		return err_set_errno(err, code, "cannot read the config file \"%s\"", path);
	}
	char *buffer = xmalloc(FILE_BYTES_MAX + 1);
	size_t n = fread(buffer, 1, FILE_BYTES_MAX + 1, file);
	int code = 0;
	if (ferror(file))
		code = err_set_errno(err, ERR_IO, "cannot read the config file \"%s\"", path);
	else if (n > FILE_BYTES_MAX)
		code = err_set(err, ERR_TOO_BIG, "%s is larger than %d bytes: is it a config?", path, FILE_BYTES_MAX);
	fclose(file);
	if (code) {
		free(buffer);
		return code;
	}
	*bytes = buffer;
	*n_bytes = n;
	return 0;
}

static int apply_texts(struct config *config, const char *path, const struct yaml_outline *outline,
                       const struct texts *texts, struct err *err)
{
	for (int i = 0; i < OPTION_COUNT; i++) {
		if (texts->of[i] && option_parse(&option_table[i], texts->of[i], config, err))
			return err_context(err, "%s:%d", path, outline->line[i]);
	}
	return 0;
}

static int apply_file(struct config *config, const char *path, struct err *err)
{
	char *bytes = NULL;
	size_t n_bytes = 0;
	if (read_file(path, &bytes, &n_bytes, err)) return err->code;
	struct yaml_outline outline;
	int code = yaml_outline_read(&outline, path, bytes, n_bytes, err);
	struct texts *texts = NULL; /* stays NULL for the document {} */
	if (!code) {
		cyaml_err_t status = cyaml_load_data((const uint8_t *)bytes, n_bytes, &cyaml_settings, &root_schema,
		                                     (cyaml_data_t **)&texts, NULL);
		if (status != CYAML_OK)
			code = err_set(err, ERR_CONFIG, "%s: cannot load: %s", path, cyaml_strerror(status));
	}
	if (!code && texts) code = apply_texts(config, path, &outline, texts, err);
	cyaml_free(&cyaml_settings, &root_schema, texts, 0);
	free(bytes);
	return code;
}

int config_load(struct config *config, const char *path, const char *const *sets, int n_sets,
                struct err *err)
{
	config_defaults(config);
	int code = path ? apply_file(config, path, err) : 0;
	for (int i = 0; i < n_sets && !code; i++) code = config_set(config, sets[i], err);
	if (code) config_free(config);
	return code;
}

int config_set(struct config *config, const char *assignment, struct err *err)
{
	const char *dot = strchr(assignment, '.'), *equals = strchr(assignment, '=');
	if (!dot || !equals || dot > equals)
		return err_set(err, ERR_USAGE,
		               "--set \"%.200s\": expected section.key=value, as in rollout.temperature=0.7",
		               assignment);
	char section[64], key[64];
	snprintf(section, sizeof section, "%.*s", (int)(dot - assignment), assignment);
	snprintf(key, sizeof key, "%.*s", (int)(equals - dot - 1), dot + 1);
	const struct option *option = option_find(section, key);
	if (!option) {
		const struct option *nearest = option_nearest(section, key);
		return err_set(err, ERR_CONFIG, "--set: unknown key \"%s.%s\"; the nearest known one is \"%s.%s\"",
		               section, key, nearest->section, nearest->key);
	}
	if (option_parse(option, equals + 1, config, err)) return err_context(err, "--set");
	return 0;
}

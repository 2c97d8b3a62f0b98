/* yaml_outline.c - the shape of a config file, from libyaml's events, before its values are loaded.
 *
 * libcyaml says where something is wrong only in its log, cannot name the nearest known key, and
 * takes the last of two equal keys in silence.  So this pass looks at keys and lines and refuses
 * every wrong shape; after it, libcyaml fills in values that are known to fit its schema.
 * One pass, O(bytes), no recursion.
 */
#include <stdarg.h>
#include <string.h>
#include <yaml.h>

#include "configs/yaml_outline.h"

struct walk {
	yaml_parser_t parser;
	yaml_event_t event; /* the current one */
	const char *path;
	const char *bytes; /* [n_bytes] */
	size_t n_bytes;
	struct yaml_outline *outline;
	bool has_sweep, has_variants;
	struct err *err;
};

static int event_line(const struct walk *walk)
{
	return (int)walk->event.start_mark.line + 1;
}

/* ERR_CONFIG with "path:line: " before the text. */
__attribute__((format(printf, 3, 4)))
static int refuse(const struct walk *walk, int line, const char *format, ...)
{
	char text[ERR_TEXT_MAX];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	return err_set(walk->err, ERR_CONFIG, "%s:%d: %s", walk->path, line, text);
}

/* What libyaml could not read; only its reader (encoding) gives a byte instead of a line. */
static int syntax_error(const struct walk *walk)
{
	const yaml_parser_t *parser = &walk->parser;
	int line = (int)parser->problem_mark.line + 1;
	if (parser->error == YAML_READER_ERROR) {
		line = 1;
		for (size_t i = 0; i < parser->problem_offset && i < walk->n_bytes; i++)
			line += walk->bytes[i] == '\n';
	}
	return refuse(walk, line, "this is not YAML: %s%s%s", parser->problem ? parser->problem : "unreadable",
	              parser->context ? " " : "", parser->context ? parser->context : "");
}

static int next(struct walk *walk)
{
	yaml_event_delete(&walk->event);
	if (!yaml_parser_parse(&walk->parser, &walk->event)) return syntax_error(walk);
	return 0;
}

static const char *event_kind(const struct walk *walk)
{
	switch (walk->event.type) {
	case YAML_SCALAR_EVENT: return "a single value";
	case YAML_SEQUENCE_START_EVENT: return "a list";
	case YAML_MAPPING_START_EVENT: return "a mapping";
	case YAML_ALIAS_EVENT: return "an alias (aliases are not used here; write the value out)";
	default: return "nothing";
	}
}

static const char *scalar(const struct walk *walk)
{
	return (const char *)walk->event.data.scalar.value;
}

static bool is_null(const struct walk *walk)
{
	static const char *const nulls[] = { "", "~", "null", "Null", "NULL" };
	if (walk->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE) return false;
	for (size_t i = 0; i < sizeof nulls / sizeof nulls[0]; i++)
		if (!strcmp(scalar(walk), nulls[i])) return true;
	return false;
}

/* The current event is the value of the option. */
static int check_value(struct walk *walk, const struct option *option, int line)
{
	char expected[256];
	option_expected(option, expected, sizeof expected);
	if (walk->event.type != YAML_SCALAR_EVENT)
		return refuse(walk, line, "%s.%s: expected %s, found %s", option->section, option->key, expected,
		              event_kind(walk));
	if (is_null(walk))
		return refuse(walk, line, "%s.%s has no value: expected %s; leave the key out for the default%s",
		              option->section, option->key, expected,
		              option->type == OPTION_TEXT ? ", or write \"\" for an empty text" : "");
	if (strlen(scalar(walk)) != walk->event.data.scalar.length)
		return refuse(walk, line, "%s.%s: a value cannot hold a zero byte", option->section, option->key);
	return 0;
}

/* The current event is a key in the section. */
static int read_option(struct walk *walk, const struct option_section *section)
{
	int line = event_line(walk);
	if (walk->event.type != YAML_SCALAR_EVENT)
		return refuse(walk, line, "expected a key of section %s, found %s", section->name, event_kind(walk));
	const struct option *option = option_find(section->name, scalar(walk));
	if (!option) {
		const struct option *nearest = option_nearest(section->name, scalar(walk));
		return refuse(walk, line, "unknown key \"%s.%.100s\"; the nearest known one is \"%s.%s\"",
		              section->name, scalar(walk), nearest->section, nearest->key);
	}
	int *seen = &walk->outline->line[option - option_table];
	if (*seen)
		return refuse(walk, line, "%s.%s is given twice, first on line %d; keep one", option->section,
		              option->key, *seen);
	*seen = line;
	if (next(walk)) return walk->err->code;
	return check_value(walk, option, line);
}

static int unknown_section(struct walk *walk, int line)
{
	const struct option *option = NULL; /* a known key that only lacks its section */
	for (int i = 0; i < OPTION_COUNT && !option; i++)
		if (!strcmp(option_table[i].key, scalar(walk))) option = &option_table[i];
	if (option)
		return refuse(walk, line, "unknown section \"%s\"; the key \"%s\" belongs below one, as in \"%s.%s\"",
		              scalar(walk), option->key, option->section, option->key);
	return refuse(walk, line, "unknown section \"%.100s\"; the nearest known one is \"%s\"", scalar(walk),
	              option_nearest_section(scalar(walk))->name);
}

/* The next event begins a value: over it, whatever it holds. */
static int skip_value(struct walk *walk)
{
	int depth = 0;
	do {
		if (next(walk)) return walk->err->code;
		yaml_event_type_t type = walk->event.type;
		if (type == YAML_ALIAS_EVENT) return refuse(walk, event_line(walk), "expected a value, found %s", event_kind(walk));
		depth += type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT;
		depth -= type == YAML_MAPPING_END_EVENT || type == YAML_SEQUENCE_END_EVENT;
	} while (depth > 0);
	return 0;
}

/* Of a sweep (sweep.h): to a single run they say nothing. */
static int skip_sweep(struct walk *walk, bool *seen, int line)
{
	if (*seen) return refuse(walk, line, "section %s is opened twice; join them", scalar(walk));
	*seen = true;
	return skip_value(walk);
}

/* The current event is a key of the document. */
static int read_section(struct walk *walk, int *section_lines)
{
	int line = event_line(walk);
	if (walk->event.type != YAML_SCALAR_EVENT)
		return refuse(walk, line, "expected the name of a section, found %s", event_kind(walk));
	if (!strcmp(scalar(walk), "sweep")) return skip_sweep(walk, &walk->has_sweep, line);
	if (!strcmp(scalar(walk), "variants")) return skip_sweep(walk, &walk->has_variants, line);
	const struct option_section *section = option_find_section(scalar(walk));
	if (!section) return unknown_section(walk, line);
	int *seen = &section_lines[section - option_sections];
	if (*seen)
		return refuse(walk, line, "section %s is opened twice, first on line %d; join them", section->name,
		              *seen);
	*seen = line;
	if (next(walk)) return walk->err->code;
	if (walk->event.type != YAML_MAPPING_START_EVENT)
		return refuse(walk, line, "section %s: expected indented lines of `key: value` below it, found %s",
		              section->name,
		              walk->event.type == YAML_SCALAR_EVENT && is_null(walk) ? "nothing" : event_kind(walk));
	for (;;) {
		if (next(walk)) return walk->err->code;
		if (walk->event.type == YAML_MAPPING_END_EVENT) return 0;
		if (read_option(walk, section)) return walk->err->code;
	}
}

static int read_document(struct walk *walk)
{
	int section_lines[OPTION_COUNT] = { 0 }; /* there are fewer sections than options */
	if (next(walk)) return walk->err->code; /* stream start */
	if (next(walk)) return walk->err->code; /* document start, or the end */
	if (walk->event.type == YAML_STREAM_END_EVENT)
		return err_set(walk->err, ERR_CONFIG,
		               "%s is empty: expected sections with keys; `drumroll config --default` prints all",
		               walk->path);
	if (next(walk)) return walk->err->code;
	if (walk->event.type != YAML_MAPPING_START_EVENT)
		return refuse(walk, event_line(walk), "expected sections such as `run:`, found %s", event_kind(walk));
	for (;;) {
		if (next(walk)) return walk->err->code;
		if (walk->event.type == YAML_MAPPING_END_EVENT) break;
		if (read_section(walk, section_lines)) return walk->err->code;
	}
	if (next(walk)) return walk->err->code; /* document end */
	if (next(walk)) return walk->err->code;
	if (walk->event.type != YAML_STREAM_END_EVENT)
		return refuse(walk, event_line(walk), "a second document begins here; a config is one document");
	return 0;
}

int yaml_outline_read(struct yaml_outline *outline, const char *path, const char *bytes, size_t n_bytes,
                      struct err *err)
{
	struct walk walk = { .path = path, .bytes = bytes, .n_bytes = n_bytes, .outline = outline, .err = err };
	memset(outline, 0, sizeof *outline);
	if (!yaml_parser_initialize(&walk.parser)) return err_set(err, ERR_MEMORY, "no memory to parse %s", path);
	yaml_parser_set_input_string(&walk.parser, (const unsigned char *)bytes, n_bytes);
	int code = read_document(&walk);
	yaml_event_delete(&walk.event);
	yaml_parser_delete(&walk.parser);
	return code;
}

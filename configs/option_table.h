/* option_table.h - options.def as data: what loading, --set and printing walk over.
 *
 * Private to configs/.  The table is constant; an option's value lives in a struct config at
 * option->offset.  Values are parsed and printed here and nowhere else, so a printed value always
 * parses back to the same bits.
 */
#ifndef CONFIGS_OPTION_TABLE_H
#define CONFIGS_OPTION_TABLE_H

#include <stddef.h>

#include "configs/config.h"

enum { OPTION_VALUE_MAX = CONFIG_VALUE_MAX }; /* longest printed value that is not a text */

enum option_type { OPTION_INT, OPTION_REAL, OPTION_BOOL, OPTION_TEXT, OPTION_CHOICE };

/* The index of every option in option_table: OPTION_AT_section_key. */
enum option_index {
#define SECTION(...)
#define INT(section, key, ...) OPTION_AT_##section##_##key,
#define REAL(section, key, ...) OPTION_AT_##section##_##key,
#define BOOL(section, key, ...) OPTION_AT_##section##_##key,
#define TEXT(section, key, ...) OPTION_AT_##section##_##key,
#define CHOICE(section, key, ...) OPTION_AT_##section##_##key,
#include "configs/options.def"
#undef SECTION
#undef INT
#undef REAL
#undef BOOL
#undef TEXT
#undef CHOICE
	OPTION_COUNT
};

struct option {
	const char *section, *key;
	enum option_type type;
	size_t offset;                         /* of the value in struct config */
	int64_t int_default, int_min, int_max; /* INT; BOOL has only the default */
	double real_default, real_min, real_max;
	const char *text_default;              /* TEXT and CHOICE */
	const char *choices;                   /* CHOICE: "a|b|c" */
	const char *help;
};
extern const struct option option_table[OPTION_COUNT];

struct option_section {
	const char *name, *help;
};
extern const struct option_section option_sections[];
extern const int option_sections_n;

/* NULL if there is none. */
const struct option *option_find(const char *section, const char *key);
const struct option_section *option_find_section(const char *section);

/* The known name that takes the fewest edits; a key of another section counts as at most two more. */
const struct option *option_nearest(const char *section, const char *key);
const struct option_section *option_nearest_section(const char *section);

/* Put the default into config; a TEXT that is there is not freed. */
void option_reset(const struct option *option, struct config *config);

/* Parse text, check type and bounds, put the value into config.  On error (ERR_CONFIG, text begins
 * with "section.key: ") config is unchanged. */
int option_parse(const struct option *option, const char *text, struct config *config, struct err *err);

/* The value as option_parse takes it back; a TEXT is borrowed from config, others may be in buffer. */
const char *option_format(const struct option *option, const struct config *config,
                          char buffer[OPTION_VALUE_MAX]);

/* "whole number from 1 to 1024", "true or false", ...: what a person may write. */
const char *option_expected(const struct option *option, char *buffer, size_t size);

#endif

/* option_table.c - the option table, and the one parser and printer of its values.
 *
 * Numbers are decimal; booleans are `true` or `false` and nothing else (YAML 1.1's yes, no, on and
 * off are refused: NO is also a country).  Reals are printed with the fewest digits that parse back
 * to the same double.  Nearest names by optimal string alignment (Levenshtein with transpositions),
 * O(n m) per pair.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "configs/option_table.h"

#define PLACE(section_, key_, type_) .section = #section_, .key = #key_, .type = type_, \
	.offset = offsetof(struct config, section_.key_)

const struct option option_table[OPTION_COUNT] = {
#define SECTION(...)
#define INT(section_, key_, def, min, max, help_) \
	{ PLACE(section_, key_, OPTION_INT), .int_default = def, .int_min = min, .int_max = max, .help = help_ },
#define REAL(section_, key_, def, min, max, help_) \
	{ PLACE(section_, key_, OPTION_REAL), .real_default = def, .real_min = min, .real_max = max, \
	  .help = help_ },
#define BOOL(section_, key_, def, help_) \
	{ PLACE(section_, key_, OPTION_BOOL), .int_default = def, .help = help_ },
#define TEXT(section_, key_, def, help_) \
	{ PLACE(section_, key_, OPTION_TEXT), .text_default = def, .help = help_ },
#define CHOICE(section_, key_, def, choices_, help_) \
	{ PLACE(section_, key_, OPTION_CHOICE), .text_default = def, .choices = choices_, .help = help_ },
#include "configs/options.def"
#undef SECTION
#undef INT
#undef REAL
#undef BOOL
#undef TEXT
#undef CHOICE
};

const struct option_section option_sections[] = {
#define SECTION(name_, help_) { .name = #name_, .help = help_ },
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
};
const int option_sections_n = sizeof option_sections / sizeof option_sections[0];

const struct option *option_find(const char *section, const char *key)
{
	for (int i = 0; i < OPTION_COUNT; i++) {
		const struct option *option = &option_table[i];
		if (!strcmp(option->section, section) && !strcmp(option->key, key)) return option;
	}
	return NULL;
}

const struct option_section *option_find_section(const char *section)
{
	for (int i = 0; i < option_sections_n; i++)
		if (!strcmp(option_sections[i].name, section)) return &option_sections[i];
	return NULL;
}

enum { NAME_MAX_COMPARED = 63 }; /* longer names are compared by their beginning */

static int min3(int a, int b, int c)
{
	int least = a < b ? a : b;
	return least < c ? least : c;
}

static int edit_distance(const char *a, const char *b)
{
	int cost[NAME_MAX_COMPARED + 1][NAME_MAX_COMPARED + 1];
	int n = (int)strnlen(a, NAME_MAX_COMPARED), m = (int)strnlen(b, NAME_MAX_COMPARED);
	for (int i = 0; i <= n; i++) cost[i][0] = i;
	for (int j = 0; j <= m; j++) cost[0][j] = j;
	for (int i = 1; i <= n; i++) {
		for (int j = 1; j <= m; j++) {
			int differs = a[i - 1] != b[j - 1];
			cost[i][j] = min3(cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + differs);
			bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
			if (swapped && cost[i - 2][j - 2] + 1 < cost[i][j]) cost[i][j] = cost[i - 2][j - 2] + 1;
		}
	}
	return cost[n][m];
}

const struct option *option_nearest(const char *section, const char *key)
{
	const struct option *nearest = NULL;
	int least = 0;
	for (int i = 0; i < OPTION_COUNT; i++) {
		const struct option *option = &option_table[i];
		int between_sections = edit_distance(section, option->section);
		int edits = edit_distance(key, option->key) + (between_sections < 2 ? between_sections : 2);
		if (!nearest || edits < least) {
			nearest = option;
			least = edits;
		}
	}
	return nearest;
}

const struct option_section *option_nearest_section(const char *section)
{
	const struct option_section *nearest = NULL;
	int least = 0;
	for (int i = 0; i < option_sections_n; i++) {
		int edits = edit_distance(section, option_sections[i].name);
		if (!nearest || edits < least) {
			nearest = &option_sections[i];
			least = edits;
		}
	}
	return nearest;
}

static void *place(const struct option *option, struct config *config)
{
	return (char *)config + option->offset;
}

static const void *place_const(const struct option *option, const struct config *config)
{
	return (const char *)config + option->offset;
}

/* Index of text[0..length) in "a|b|c", or -1. */
static int choice_index(const char *choices, const char *text)
{
	size_t length = strlen(text);
	int index = 0;
	for (const char *choice = choices;; index++) {
		size_t choice_length = strcspn(choice, "|");
		if (choice_length == length && !memcmp(choice, text, length)) return index;
		if (!choice[choice_length]) return -1;
		choice += choice_length + 1;
	}
}

void option_reset(const struct option *option, struct config *config)
{
	void *value = place(option, config);
	switch (option->type) {
	case OPTION_INT: *(int64_t *)value = option->int_default; break;
	case OPTION_REAL: *(double *)value = option->real_default; break;
	case OPTION_BOOL: *(bool *)value = option->int_default; break;
	case OPTION_TEXT: *(char **)value = xstrdup(option->text_default); break;
	case OPTION_CHOICE: *(int *)value = choice_index(option->choices, option->text_default); break;
	}
}

static void real_format(double value, char *buffer, size_t size)
{
	for (int digits = 15; digits <= 17; digits++) {
		snprintf(buffer, size, "%.*g", digits, value);
		if (strtod(buffer, NULL) == value) return;
	}
}

const char *option_expected(const struct option *option, char *buffer, size_t size)
{
	char low[OPTION_VALUE_MAX], high[OPTION_VALUE_MAX];
	switch (option->type) {
	case OPTION_INT:
		snprintf(buffer, size, "a whole number from %" PRId64 " to %" PRId64, option->int_min,
		         option->int_max);
		break;
	case OPTION_REAL:
		real_format(option->real_min, low, sizeof low);
		real_format(option->real_max, high, sizeof high);
		snprintf(buffer, size, "a number from %s to %s", low, high);
		break;
	case OPTION_BOOL: snprintf(buffer, size, "true or false"); break;
	case OPTION_TEXT: snprintf(buffer, size, "a text in UTF-8"); break;
	case OPTION_CHOICE: snprintf(buffer, size, "one of %s", option->choices); break;
	}
	return buffer;
}

static bool is_utf8(const char *text)
{
	const utf8proc_uint8_t *bytes = (const utf8proc_uint8_t *)text;
	utf8proc_ssize_t left = (utf8proc_ssize_t)strlen(text);
	while (left > 0) {
		utf8proc_int32_t code;
		utf8proc_ssize_t used = utf8proc_iterate(bytes, left, &code);
		if (used <= 0) return false;
		bytes += used;
		left -= used;
	}
	return true;
}

static bool parse_int(const struct option *option, const char *text, int64_t *value)
{
	if (!*text || text[strspn(text, "+-0123456789")]) return false;
	char *end;
	errno = 0;
	*value = strtoll(text, &end, 10);
	return !*end && errno != ERANGE && *value >= option->int_min && *value <= option->int_max;
}

/* Words such as nan and inf, and hexadecimal, do not pass the set of characters; 1e999 is infinite. */
static bool parse_real(const struct option *option, const char *text, double *value)
{
	if (!*text || text[strspn(text, "+-.eE0123456789")]) return false;
	char *end;
	*value = strtod(text, &end);
	return !*end && isfinite(*value) && *value >= option->real_min && *value <= option->real_max;
}

int option_parse(const struct option *option, const char *text, struct config *config, struct err *err)
{
	void *place_of_value = place(option, config);
	int64_t whole;
	double real;
	int choice;
	bool good = false;
	switch (option->type) {
	case OPTION_INT:
		if ((good = parse_int(option, text, &whole))) *(int64_t *)place_of_value = whole;
		break;
	case OPTION_REAL:
		if ((good = parse_real(option, text, &real))) *(double *)place_of_value = real;
		break;
	case OPTION_BOOL:
		good = !strcmp(text, "true") || !strcmp(text, "false");
		if (good) *(bool *)place_of_value = *text == 't';
		break;
	case OPTION_TEXT:
		if ((good = is_utf8(text))) {
			char *copy = xstrdup(text); /* text may be the value that is there */
			free(*(char **)place_of_value);
			*(char **)place_of_value = copy;
		}
		break;
	case OPTION_CHOICE:
		choice = choice_index(option->choices, text);
		if ((good = choice >= 0)) *(int *)place_of_value = choice;
		break;
	}
	if (good) return 0;
	char expected[256];
	return err_set(err, ERR_CONFIG, "%s.%s: expected %s, found \"%.200s\"", option->section, option->key,
	               option_expected(option, expected, sizeof expected), text);
}

static void choice_format(const char *choices, int index, char buffer[OPTION_VALUE_MAX])
{
	while (index-- > 0) choices += strcspn(choices, "|") + 1;
	snprintf(buffer, OPTION_VALUE_MAX, "%.*s", (int)strcspn(choices, "|"), choices);
}

const char *option_format(const struct option *option, const struct config *config,
                          char buffer[OPTION_VALUE_MAX])
{
	const void *value = place_const(option, config);
	switch (option->type) {
	case OPTION_INT: snprintf(buffer, OPTION_VALUE_MAX, "%" PRId64, *(const int64_t *)value); break;
	case OPTION_REAL: real_format(*(const double *)value, buffer, OPTION_VALUE_MAX); break;
	case OPTION_BOOL: return *(const bool *)value ? "true" : "false";
	case OPTION_TEXT: return *(char *const *)value;
	case OPTION_CHOICE: choice_format(option->choices, *(const int *)value, buffer); break;
	}
	return buffer;
}

/* config_print.c - a config as YAML that loads back to the same values.
 *
 * Texts are always double-quoted; what libyaml would refuse or fold inside quotes is escaped.
 */
#include <inttypes.h>
#include <string.h>
#include <utf8proc.h>

#include "configs/option_table.h"

/* Control characters, line breaks of YAML 1.1 beyond \n, byte order mark, non-characters. */
static bool needs_escape(utf8proc_int32_t code)
{
	bool control = code < 0x20 || (code >= 0x7f && code < 0xa0);
	bool line_break = code == 0x2028 || code == 0x2029;
	return control || line_break || code == 0xfeff || code == 0xfffe || code == 0xffff;
}

static void print_text(const char *text, FILE *out)
{
	const utf8proc_uint8_t *bytes = (const utf8proc_uint8_t *)text;
	utf8proc_ssize_t left = (utf8proc_ssize_t)strlen(text);
	fputc('"', out);
	while (left > 0) {
		utf8proc_int32_t code;
		utf8proc_ssize_t used = utf8proc_iterate(bytes, left, &code);
		if (used <= 0) break; /* option_parse lets only UTF-8 in */
		if (code == '"' || code == '\\') fprintf(out, "\\%c", (char)code);
		else if (code == '\n') fputs("\\n", out);
		else if (code == '\t') fputs("\\t", out);
		else if (needs_escape(code)) fprintf(out, "\\u%04X", (unsigned)code);
		else fwrite(bytes, 1, (size_t)used, out);
		bytes += used;
		left -= used;
	}
	fputc('"', out);
}

static void print_value(const struct option *option, const struct config *config, FILE *out)
{
	char buffer[OPTION_VALUE_MAX];
	const char *value = option_format(option, config, buffer);
	if (option->type == OPTION_TEXT) print_text(value, out);
	else fputs(value, out);
}

static void print_comment(const struct option *option, const struct config *defaults, FILE *out)
{
	char expected[256];
	fprintf(out, "  # %s\n", option->help);
	fprintf(out, "  # %s; default ", option_expected(option, expected, sizeof expected));
	print_value(option, defaults, out);
	fputc('\n', out);
}

void config_print(const struct config *config, FILE *out, bool annotated)
{
	struct config defaults;
	config_defaults(&defaults);
	const char *section = "";
	for (int i = 0; i < OPTION_COUNT; i++) {
		const struct option *option = &option_table[i];
		if (strcmp(section, option->section)) {
			const char *gap = *section ? "\n" : "";
			section = option->section;
			if (annotated) fprintf(out, "%s# %s\n", gap, option_find_section(section)->help);
			fprintf(out, "%s:\n", section);
		}
		if (annotated) print_comment(option, &defaults, out);
		fprintf(out, "  %s: ", option->key);
		print_value(option, config, out);
		fputc('\n', out);
	}
	config_free(&defaults);
}

const char *config_value(const struct config *config, const char *section, const char *key, char buffer[OPTION_VALUE_MAX])
{
	return option_format(option_find(section, key), config, buffer);
}

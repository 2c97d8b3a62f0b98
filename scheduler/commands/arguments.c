/* arguments.c - reads a command line against its table. */
#include "scheduler/commands/arguments.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct argument *argument_find(struct argument *table, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (strcmp(table[i].name, name) == 0) return &table[i];
	return NULL;
}

static int read_int(const struct argument *a, const char *text, struct err *err)
{
	char *end;

	errno = 0;
	long long value = strtoll(text, &end, 10);
	if (end == text || *end != '\0' || errno != 0)
		return err_set(err, ERR_USAGE, "%s: expected a whole number, found '%s'", a->name, text);
	if ((double)value < a->min || (double)value > a->max)
		return err_set(err, ERR_USAGE, "%s: expected %.0f to %.0f, found %s", a->name, a->min, a->max, text);
	*(int64_t *)a->value = value;
	return 0;
}

static int read_real(const struct argument *a, const char *text, struct err *err)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end != '\0' || isnan(value))
		return err_set(err, ERR_USAGE, "%s: expected a number, found '%s'", a->name, text);
	if (value < a->min || value > a->max)
		return err_set(err, ERR_USAGE, "%s: expected %g to %g, found %s", a->name, a->min, a->max, text);
	*(double *)a->value = value;
	return 0;
}

static int read_choice(const struct argument *a, const char *text, struct err *err)
{
	size_t length = strlen(text);
	int index = 0;

	for (const char *c = a->choices; c; index++) {
		const char *end = strchr(c, '|');
		if ((end ? (size_t)(end - c) : strlen(c)) == length && strncmp(c, text, length) == 0) {
			*(int *)a->value = index;
			return 0;
		}
		c = end ? end + 1 : NULL;
	}
	return err_set(err, ERR_USAGE, "%s: expected one of %s, found '%s'", a->name, a->choices, text);
}

static int read_value(const struct argument *a, const char *text, struct err *err)
{
	switch (a->type) {
	case ARGUMENT_INT: return read_int(a, text, err);
	case ARGUMENT_REAL: return read_real(a, text, err);
	case ARGUMENT_CHOICE: return read_choice(a, text, err);
	case ARGUMENT_FILE:
		if (access(text, R_OK) != 0 && strcmp(text, "-") != 0)
			return err_set_errno(err, ERR_USAGE, "%s: cannot read %s", a->name, text);
		break;
	case ARGUMENT_TEXT:
	case ARGUMENT_FLAG: break;
	}
	*(const char **)a->value = text;
	return 0;
}

int arguments_parse(struct argument *table, int n, int argc, char **argv, struct err *err)
{
	for (int i = 1; i < argc; i++) {
		struct argument *a = argument_find(table, n, argv[i]);
		if (!a) return err_set(err, ERR_USAGE, "unknown option '%s' (--help lists what there is)", argv[i]);
		a->given = true;
		if (a->type == ARGUMENT_FLAG) {
			*(bool *)a->value = true;
			continue;
		}
		if (i + 1 == argc) return err_set(err, ERR_USAGE, "%s needs a value after it", a->name);
		int rc = read_value(a, argv[++i], err);
		if (rc) return rc;
	}
	for (int i = 0; i < n; i++)
		if (table[i].required && !table[i].given)
			return err_set(err, ERR_USAGE, "%s is missing: %s", table[i].name, table[i].help);
	return 0;
}

static bool takes_value(const struct argument *table, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (strcmp(table[i].name, name) == 0) return table[i].type != ARGUMENT_FLAG;
	return false;
}

int arguments_take_word(const struct argument *table, int n, int *argc, char **argv, char **rest, const char **word,
                        const char *what, struct err *err)
{
	int n_rest = 0;

	*word = NULL;
	for (int i = 0; i < *argc; i++) {
		if (i == 0 || argv[i][0] == '-') {
			rest[n_rest++] = argv[i];
			if (i > 0 && takes_value(table, n, argv[i]) && i + 1 < *argc) rest[n_rest++] = argv[++i];
		} else if (*word) {
			return err_set(err, ERR_USAGE, "more than one %s is given (%s and %s)", what, *word, argv[i]);
		} else *word = argv[i];
	}
	*argc = n_rest;
	return *word ? 0 : err_set(err, ERR_USAGE, "no %s is given (--help lists what there is)", what);
}

bool arguments_want_help(int argc, char **argv)
{
	return argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
}

static void print_default(const struct argument *a, FILE *out)
{
	if (a->required) fprintf(out, " (required)");
	else if (a->type == ARGUMENT_INT) fprintf(out, " [%lld]", (long long)*(int64_t *)a->value);
	else if (a->type == ARGUMENT_REAL) fprintf(out, " [%g]", *(double *)a->value);
	fputc('\n', out);
}

void arguments_print_help(const struct argument *table, int n, const char *command, const char *what,
                          FILE *out)
{
	fprintf(out, "drumroll %s: %s\n\n", command, what);
	for (int i = 0; i < n; i++) {
		fprintf(out, "  %-16s %s", table[i].name, table[i].help);
		if (table[i].choices) fprintf(out, " (%s)", table[i].choices);
		print_default(&table[i], out);
	}
}

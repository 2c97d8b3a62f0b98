/* arguments.h - the options of a command as a table: --name value pairs and flags, checked before any work. */
#ifndef SCHEDULER_COMMANDS_ARGUMENTS_H
#define SCHEDULER_COMMANDS_ARGUMENTS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "configs/err.h"

enum argument_type {
	ARGUMENT_TEXT, /* const char *, borrowed from argv */
	ARGUMENT_FILE, /* the same; must exist */
	ARGUMENT_INT,  /* int64_t */
	ARGUMENT_REAL, /* double */
	ARGUMENT_CHOICE, /* int: index into choices */
	ARGUMENT_FLAG, /* bool: true if given; takes no value */
};

struct argument {
	const char *name;    /* "--model" */
	enum argument_type type;
	void *value;         /* of the type above; holds the default */
	const char *help;
	bool required;
	double min, max;     /* INT, REAL */
	const char *choices; /* "exact|speculative" */
	bool given;          /* out */
};

/* ERR_USAGE for what is unknown, missing, malformed or out of bounds. */
int arguments_parse(struct argument *table, int n, int argc, char **argv, struct err *err);

/* The one word that is neither an option nor its value: *word is borrowed from argv.  What else there is goes to rest
 * [*argc + 1], for arguments_parse, and *argc is how much.  ERR_USAGE where there is none or two; what: "run directory". */
int arguments_take_word(const struct argument *table, int n, int *argc, char **argv, char **rest, const char **word,
                        const char *what, struct err *err);

/* True if the first argument asks for help. */
bool arguments_want_help(int argc, char **argv);
void arguments_print_help(const struct argument *table, int n, const char *command, const char *what,
                          FILE *out);

#endif

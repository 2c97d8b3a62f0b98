/* config_arguments.h - the command lines that name a config: CONFIG, --set, and what a command adds. */
#ifndef CONFIGS_CONFIG_ARGUMENTS_H
#define CONFIGS_CONFIG_ARGUMENTS_H

#include <stdbool.h>

#include "configs/err.h"

enum { CONFIG_SETS_MAX = 256 };

struct config_arguments {
	const char *path; /* NULL only where the command's own flag stands in for it */
	const char *sets[CONFIG_SETS_MAX];
	int n_sets;
	const char *value; /* of the command's own option; NULL if it was not given */
	bool flag;         /* the command's own flag was given */
};

/* own_option takes a value, such as "--out"; own_flag takes none, such as "--default", and replaces
 * CONFIG; either may be NULL.  Texts are borrowed from argv.  ERR_USAGE for anything else. */
int config_arguments_read(struct config_arguments *arguments, int argc, char **argv, const char *own_option,
                          const char *own_flag, struct err *err);

#endif

/* yaml_outline.h - which options a YAML text holds, and on which lines.  Private to configs/. */
#ifndef CONFIGS_YAML_OUTLINE_H
#define CONFIGS_YAML_OUTLINE_H

#include "configs/option_table.h"

struct yaml_outline {
	int line[OPTION_COUNT]; /* of the option's key, from 1; 0: not given */
};

/* Refuses what is not one mapping of sections to mappings of options to single values: syntax
 * errors, unknown and repeated names, lists, aliases, missing values.  Messages begin with
 * "path:line: ". */
int yaml_outline_read(struct yaml_outline *outline, const char *path, const char *bytes, size_t n_bytes,
                      struct err *err);

#endif

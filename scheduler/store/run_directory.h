/* run_directory.h - where a run leaves what it made: drumroll.db, config.yaml, metrics.jsonl,
 * summary.json, trainer.log. */
#ifndef SCHEDULER_STORE_RUN_DIRECTORY_H
#define SCHEDULER_STORE_RUN_DIRECTORY_H

#include <limits.h>
#include <stddef.h>

#include "configs/config.h"

enum { RUN_PATH_MAX = 1024 };

/* Until run_directory_began, a lack of memory takes the new directory back.  Make run.dir with {name} filled in; where it exists, the next free -2, -3, ... */
int run_directory_create(char path[RUN_PATH_MAX], const struct config *config, struct err *err);

void run_directory_began(void);

/* "template" with {run} replaced by the directory; owned by the caller. */
char *run_directory_expand(const char *text, const char *run_dir);

/* Write run_dir/name whole (beside and renamed), or append one line to it. */
int run_directory_write(const char *run_dir, const char *name, const char *text, struct err *err);
int run_directory_append(const char *run_dir, const char *name, const char *line, struct err *err);

/* Take back a directory in which no run came to be: its files, then itself. */
void run_directory_remove(const char *run_dir);

/* The effective config as YAML; owned by the caller. */
char *run_directory_config_text(const struct config *config);

#endif

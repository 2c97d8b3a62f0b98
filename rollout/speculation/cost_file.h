/* cost_file.h - what forward calls cost on this machine, kept in a file: JSON lines, one per setup (machine,
 * threads, model, drafter), so that one file serves the ranks of a mixed cluster.
 *
 *     {"setup": "...", "target": TABLE, "drafters": [TABLE or null, ...]}
 *     TABLE = {"rows": [1, 2, ...], "seconds": [...], "per_position": seconds}
 *
 * Written by `drumroll calibrate`, read by every worker (speculation.costs): what is read is where the controller
 * begins; it goes on learning.  `drumroll simulate` reads it too.
 */
#ifndef ROLLOUT_SPECULATION_COST_FILE_H
#define ROLLOUT_SPECULATION_COST_FILE_H

#include <stdio.h>

#include "policy/policy.h"
#include "rollout/speculation/speculation.h"

enum { COST_SETUP_MAX = 512 };

/* What the costs depend on, in words that are compared as they are. */
void cost_setup_describe(char text[COST_SETUP_MAX], const char *cpu, int n_threads, const struct policy *policy,
                         enum kv_type kv_type);

/* 1: found, and costs filled; 0: the file has no line for this setup; negative: no such file, or not this
 * format (the line is named). */
int cost_file_read(const char *path, const char *setup, struct speculation_costs *costs, struct err *err);

/* The first line whose setup holds the text ("": the first line), for whoever plans for another machine: its setup and
 * costs.  ERR_MISSING if there is none; otherwise as above. */
int cost_file_find(const char *path, const char *text, char setup[COST_SETUP_MAX], struct speculation_costs *costs,
                   struct err *err);

/* All lines of the file at path (which need not exist) but that of the setup, then the setup's; to out. */
int cost_file_write(FILE *out, const char *path, const char *setup, const struct speculation_costs *costs,
                    struct err *err);

#endif

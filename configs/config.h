/* config.h - the config schema: one table (options.def), one struct, one loader.
 *
 * Owns: parsing of YAML (libcyaml), `--set section.key=value`, bounds, defaults, printing.
 * A loaded struct config is immutable for the rest of the run.
 */
#ifndef CONFIGS_CONFIG_H
#define CONFIGS_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "configs/err.h"

/* Values of the CHOICE options, in the order of their choices in options.def. */
enum durability { DURABILITY_OFF, DURABILITY_PROCESS, DURABILITY_POWER };
enum rollout_mode { ROLLOUT_EXACT, ROLLOUT_SPECULATIVE, ROLLOUT_QUANTIZED, ROLLOUT_EXPLORE };
enum { DRAFT_FORMAT_AUTO = 11 }; /* of `format`; those before are enum format of quant/format.h */
enum draft_head_format { DRAFT_HEAD_SAME, DRAFT_HEAD_BF16, DRAFT_HEAD_FORMATS }; /* then those of `format` */
enum drafter_kind { DRAFTER_KIND_QUANT, DRAFTER_KIND_SUFFIX, DRAFTER_KIND_COMBINED };
enum coupling { COUPLING_COUPLED, COUPLING_MAXIMAL };
enum draft_quantizer { DRAFT_RTN, DRAFT_SEARCH };
enum draft_activations { DRAFT_INT8, DRAFT_FP32 };
enum kv_format { KV_FORMAT_BF16, KV_FORMAT_F32 };
enum prompt_source { PROMPTS_FROM_FILE, PROMPTS_FROM_TRAINER, PROMPTS_FROM_BOTH };
enum scheduler_asynchrony { ASYNCHRONY_SYNC, ASYNCHRONY_ONE_STEP_OFF, ASYNCHRONY_ASYNC };
enum scheduler_kv { WEIGHTS_RECOMPUTE_KV, WEIGHTS_KEEP_KV };
enum stale_action { STALE_FINISH, STALE_MASK, STALE_DROP };
enum deferral_action { DEFERRAL_FINISH, DEFERRAL_DROP };
enum reward_kind {
	REWARD_EXACT, REWARD_NUMERIC, REWARD_MATH, REWARD_COUNTDOWN, REWARD_REGEX, REWARD_CONTAINS, REWARD_LENGTH,
	REWARD_STEPS, REWARD_PROGRAM, REWARD_NONE
};
enum advantage_estimator { ADVANTAGE_MC_GRPO, ADVANTAGE_GRPO, ADVANTAGE_DR_GRPO, ADVANTAGE_RLOO };
enum advantage_scale { SCALE_AUTO, SCALE_MAD, SCALE_STD, SCALE_NONE };
enum allocation_kind { ALLOCATION_UNIFORM, ALLOCATION_DARS_ET, ALLOCATION_DARS_HW };
enum lease_order { LEASE_OLDEST, LEASE_LONGEST };
enum migrate_kv { MIGRATE_KV_AUTO, MIGRATE_KV_RECOMPUTE, MIGRATE_KV_SHIP };
enum trainer_kind { TRAINER_REFERENCE, TRAINER_EXTERNAL, TRAINER_NONE, TRAINER_SIMULATED };
enum trainer_push { PUSH_AUTO, PUSH_FULL, PUSH_DELTA };
enum simulate_lengths_kind { LENGTHS_LOGNORMAL, LENGTHS_PARETO, LENGTHS_UNIFORM, LENGTHS_STORE };

/* struct config_run run; struct config_model model; ... with one field per option:
 * INT int64_t, REAL double, BOOL bool, TEXT char *, CHOICE int. */
#define SECTION(name, help) }; struct config_##name { 
#define INT(section, key, def, min, max, help) int64_t key;
#define REAL(section, key, def, min, max, help) double key;
#define BOOL(section, key, def, help) bool key;
#define TEXT(section, key, def, help) char *key;
#define CHOICE(section, key, def, choices, help) int key;
struct config_none_ { char unused;
#include "configs/options.def"
};
#undef SECTION
#undef INT
#undef REAL
#undef BOOL
#undef TEXT
#undef CHOICE

struct config {
#define SECTION(name, help) struct config_##name name;
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

/* All defaults.  Free with config_free. */
void config_defaults(struct config *config);

/* Load a YAML file (path NULL: none) over the defaults, then apply n_sets strings "section.key=value".
 * Refuses unknown keys (naming the nearest known one), wrong types, values out of bounds
 * and NaN, with the line number; relative paths in the file stay relative to the working
 * directory.  On error *config holds nothing to free. */
int config_load(struct config *config, const char *path, const char *const *sets, int n_sets,
                struct err *err);

/* One "section.key=value" over what is there. */
int config_set(struct config *config, const char *assignment, struct err *err);

/* ERR_CONFIG where `now` changes something that a run which began with `before` must keep: it says which and why. */
int config_check_resume(const struct config *before, const struct config *now, struct err *err);

/* The effective config as YAML that config_load takes back; annotated: with type, bounds
 * and help as comments. */
void config_print(const struct config *config, FILE *out, bool annotated);

enum { CONFIG_VALUE_MAX = 64 }; /* longest value that is not a text */
/* The value of an option as a person writes it; borrowed from config or in buffer. */
const char *config_value(const struct config *config, const char *section, const char *key, char buffer[CONFIG_VALUE_MAX]);

void config_free(struct config *config);

/* `drumroll config CONFIG [--set ...]` and `drumroll config --default`; argv[0] is the command's name.
 * Returns the exit status: 2 where the command line or the config is wrong. */
int config_command(int argc, char **argv);

#endif

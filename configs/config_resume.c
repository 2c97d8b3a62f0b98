/* config_resume.c - which options a run that is resumed may change.
 *
 * A trajectory that was begun before is finished after, and its group is compared as a whole: what decides a
 * token, a reward, or which prompt comes next is fixed for the life of a run.  Everything else may change. */
#include <string.h>

#include "configs/option_table.h"

static const struct fixed {
	const char *section, *key; /* key NULL: all of the section */
	const char *why;
} fixed[] = {
	{ "run", "name", "it is part of every trajectory" },
	{ "run", "seed", "it is the key of all sampling noise, also of samples that are half done" },
	{ "run", "durability", NULL },
	{ "model", NULL, "versions are counted from it" },
	{ "data", "source", NULL },
	{ "data", "prompts", "the run is at a place in them" },
	{ "data", "prompt_key", "it decides the prompts' tokens" },
	{ "data", "answer_key", "samples of one group must be judged alike" },
	{ "data", "template", "it decides the prompts' tokens" },
	{ "data", "template_kwargs", "it decides the prompts' tokens" },
	{ "data", "shuffle", "it decides which prompt comes next" },
	{ "data", "limit", "it decides which prompt comes next" },
	{ "rollout", "mode", NULL },
	{ "rollout", NULL, "samples of one group must be drawn alike" },
	{ "speculation", "coupling", "it decides what is drawn: samples of one group must be drawn alike" },
	{ "worker", "kv_format", "it decides the last bits of log-probabilities" },
	{ "reward", NULL, "samples of one group must be judged alike" },
	{ "prune", "at_tokens", "samples of one group must be judged alike" },
	{ "prune", "hidden", "the quality head was made with it" },
	{ "advantage", "estimator", "it decides how many samples a group has" },
	{ "explore", "pool", "it decides how many samples a group has" },
	{ "allocation", NULL, "it decides how many samples a group has" },
	{ "trainer", "kind", NULL },
};

static const struct fixed *find_fixed(const struct option *option)
{
	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
		if (strcmp(fixed[i].section, option->section) == 0 && (!fixed[i].key || strcmp(fixed[i].key, option->key) == 0))
			return &fixed[i];
	return NULL;
}

static bool draws_quantized(const struct config *c)
{
	return c->rollout.mode == ROLLOUT_QUANTIZED || c->rollout.mode == ROLLOUT_EXPLORE;
}

/* Exact and speculative mode draw the same bits; a run with durability off has nothing to resume. */
static const char *why_not(const struct config *before, const struct config *now, const struct option *option)
{
	const struct fixed *f = find_fixed(option);

	if (strcmp(option->section, "speculation") == 0 && draws_quantized(now) &&
	    (strstr(option->key, "format") || strcmp(option->key, "quantizer") == 0 || strcmp(option->key, "activations") == 0))
		return "in quantized and explore mode it decides what is drawn: samples of one group must be drawn alike";
	if (!f || f->why) return f ? f->why : NULL;
	if (strcmp(option->section, "data") == 0)
		return now->data.source == PROMPTS_FROM_TRAINER ? "groups of prompts from the file may be half done" : NULL;
	if (strcmp(option->section, "trainer") == 0)
		return now->trainer.kind == TRAINER_NONE ? "the weights and batches of the run are between it and its trainer" : NULL;
	if (strcmp(option->section, "run") == 0)
		return now->run.durability == DURABILITY_OFF    ? "what was stored until now would not fit what comes"
		       : before->run.durability == DURABILITY_OFF ? "nothing was stored that could go on" : NULL;
	return draws_quantized(before) || draws_quantized(now)
	       ? "samples of one group must be drawn alike" : NULL;
}

int config_check_resume(const struct config *before, const struct config *now, struct err *err)
{
	char was[OPTION_VALUE_MAX], is[OPTION_VALUE_MAX];

	for (int i = 0; i < OPTION_COUNT; i++) {
		const struct option *option = &option_table[i];
		const char *old = option_format(option, before, was), *new = option_format(option, now, is);
		const char *why = strcmp(old, new) != 0 ? why_not(before, now, option) : NULL;
		if (why)
			return err_set(err, ERR_CONFIG, "%s.%s: the run that is resumed has \"%s\" and cannot change to \"%s\": %s; "
			               "leave it out, or start a new run", option->section, option->key, old, new, why);
	}
	return 0;
}

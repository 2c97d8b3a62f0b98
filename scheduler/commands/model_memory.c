/* model_memory.c - versions, what is on its way, and the KV cache, from shapes alone. */
#include "scheduler/commands/model_memory.h"

#include <unistd.h>

#include "policy/policy.h"

static const double MIB = 1024.0 * 1024.0;

/* The flat buffer in which a version arrives. */
static double intake_bytes(const struct model_config *model)
{
	struct weights layout;
	weights_layout(&layout, model);
	double bytes = 2.0 * (double)layout.n_elements;
	weights_free(&layout);
	return bytes;
}

/* Rank 0 and what scores there under kept versions: two that are pushed, one flat from its file and one being kept, one
 * packed. */
static int keeper_check(const struct model_config *model, const struct config *config, struct err *err)
{
	double need = 4 * intake_bytes(model) + policy_bytes(model, NULL);
	double have = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);

	if (config->weights.keep_versions == 0 || need <= have) return 0;
	return err_set(err, ERR_MEMORY, "with weights.keep_versions rank 0 needs %.0f MiB of memory, but this machine has %.0f: set "
	               "it to 0, or take a smaller model", need / MIB, have / MIB);
}

int model_memory_check(const struct model_config *model, const struct config *config, struct err *err)
{
	struct draft_options draft = draft_options_of(&config->speculation, config->rollout.mode);
	double version = policy_bytes(model, config->rollout.mode != ROLLOUT_EXACT ? &draft : NULL);
	/* A new version arrives and is packed, layer by layer, beside the old one; the first is packed from its files.
	 * The controller needs less: two flat buffers in turn, the base of deltas and what arrives. */
	bool updates = config->trainer.kind != TRAINER_NONE;
	double need = updates ? 2 * version + intake_bytes(model) : version;
	double kv = (double)config->worker.kv_memory_mb * MIB;
	double have = config->worker.memory_mb ? (double)config->worker.memory_mb * MIB
	                                       : (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
	if (need + kv <= have) return keeper_check(model, config, err);
	return err_set(err, ERR_MEMORY,
	               "the model needs %.0f MiB per rank (%s) and worker.kv_memory_mb is %.0f, but %s is %.0f MiB: raise the "
	               "budget, lower worker.kv_memory_mb, or take a smaller model",
	               need / MIB, updates ? "two versions with their drafters, and one on its way" : "one version with its drafter",
	               kv / MIB, config->worker.memory_mb ? "worker.memory_mb" : "this machine's memory", have / MIB);
}

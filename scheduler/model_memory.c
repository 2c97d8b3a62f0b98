/* model_memory.c - an estimate from shapes alone. */
#include "scheduler/model_memory.h"

#include <unistd.h>

#include "policy/weights.h"

static const double MIB = 1024.0 * 1024.0;

double model_memory_bytes(const struct model_config *model, bool with_draft)
{
	struct weights layout;
	weights_layout(&layout, model);
	double elements = (double)layout.n_elements;
	weights_free(&layout);
	/* BF16 embedding and, where tied, its packed copy as the head; INT4 with scales is about 5 bits. */
	double head = model->tied ? (double)model->vocab_size * model->dim : 0;
	return (elements + head) * (with_draft ? 2.0 + 5.0 / 8.0 : 2.0);
}

int model_memory_check(const struct model_config *model, const struct config *config, struct err *err)
{
	bool with_draft = config->rollout.mode == ROLLOUT_SPECULATIVE;
	/* The checkpoint stays in memory until it is packed, and a new version is packed beside the old. */
	struct weights layout;
	weights_layout(&layout, model);
	double raw = 2.0 * (double)layout.n_elements;
	weights_free(&layout);
	double versions = config->trainer.kind == TRAINER_NONE ? 1 : 2;
	double need = versions * model_memory_bytes(model, with_draft) + raw;
	double kv = (double)config->worker.kv_memory_mb * MIB;
	double have = config->worker.memory_mb ? (double)config->worker.memory_mb * MIB
	                                       : (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
	if (need + kv <= have) return 0;
	return err_set(err, ERR_MEMORY,
	               "the model needs %.0f MiB per rank (%.0f version(s), drafter and intake) and worker.kv_memory_mb is %.0f, "
	               "but %s is %.0f MiB: raise the budget, lower worker.kv_memory_mb, or take a smaller model",
	               need / MIB, versions, kv / MIB, config->worker.memory_mb ? "worker.memory_mb" : "this machine's memory",
	               have / MIB);
}

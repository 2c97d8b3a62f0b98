/* replay_weights.c - see replay_weights.h. */
#include "scheduler/replay/replay_weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "scheduler/store/weight_history.h"
#include "scheduler/store/weights_keeper.h"

struct replay_weights {
	const char *run_dir, *model_dir;
	const struct model_config *config;
	struct store *store;
	struct weight_history *history; /* NULL: the run kept none */
};

struct replay_weights *replay_weights_open(const char *run_dir, const char *model_dir, const struct model_config *config,
                                           struct store *store)
{
	struct replay_weights *w = xcalloc(1, sizeof *w);
	struct err none;

	*w = (struct replay_weights){ .run_dir = run_dir, .model_dir = model_dir, .config = config, .store = store };
	if (weight_history_open(&w->history, run_dir, config, &none)) w->history = NULL;
	return w;
}

void replay_weights_close(struct replay_weights *w)
{
	if (!w) return;
	weight_history_close(w->history);
	free(w);
}

/* DIR/weights/version-N is there, and the store knows what must be in it. */
static bool is_kept(struct replay_weights *w, int64_t version, uint64_t *xxh3)
{
	char path[4200];
	struct err err;
	bool known;

	snprintf(path, sizeof path, "%.4096s/weights/version-%" PRId64 "/model.safetensors", w->run_dir, version);
	return access(path, R_OK) == 0 && store_get_version(w->store, version, xxh3, &known, &err) == 0 && known;
}

bool replay_weights_has(struct replay_weights *w, int64_t version)
{
	uint64_t xxh3;
	return version == 0 || (w->history && weight_history_has(w->history, version)) || is_kept(w, version, &xxh3);
}

int replay_weights_load(struct replay_weights *w, int64_t version, struct weights *loaded, struct err *err)
{
	uint64_t xxh3;
	int rc;

	if (version == 0) return weights_open(loaded, w->model_dir, err);
	if (w->history && weight_history_has(w->history, version)) rc = weight_history_load(w->history, version, loaded, err);
	else if (is_kept(w, version, &xxh3)) rc = weights_keeper_load(loaded, w->run_dir, version, xxh3, w->config, err);
	else rc = err_set(err, ERR_MISSING, "the weights of version %" PRId64 " are not kept (any more)", version);
	if (!rc) loaded->config = *w->config; /* as in the run: what ends a sample is the model directory's */
	return rc;
}

/* weights_keeper.c - one thread that writes what it is given. */
#define _XOPEN_SOURCE 700 /* realpath */
#include "scheduler/store/weights_keeper.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

enum { KEPT = 2 };

struct weights_keeper {
	char dir[PATH_MAX / 2], model[PATH_MAX / 2];
	pthread_t thread;
	pthread_mutex_t mutex;   /* over everything below */
	pthread_cond_t changed;
	struct weights waiting, written; /* data NULL: none */
	int64_t waiting_version, kept[KEPT]; /* newest first, -1: none */
	int64_t told_version;    /* news for poll; -1: none */
	struct err told;         /* code 0: it is kept */
	bool quit, over;
};

static void remove_version(const char *path)
{
	char file[PATH_MAX];
	DIR *folder = opendir(path);
	for (const struct dirent *entry; folder && (entry = readdir(folder));) {
		if (entry->d_name[0] == '.') continue;
		if (snprintf(file, sizeof file, "%s/%s", path, entry->d_name) < (int)sizeof file) unlink(file);
	}
	if (folder) closedir(folder);
	rmdir(path);
}

static void version_path(const struct weights_keeper *k, int64_t version, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/version-%" PRId64, k->dir, version);
}

/* So that it can be used as a model; links cost nothing, and one that fails takes nothing from a resume. */
static void link_tokenizer(const struct weights_keeper *k, const char *to)
{
	static const char *const names[] = { "tokenizer.json", "tokenizer_config.json", "generation_config.json",
	                                     "chat_template.jinja", "special_tokens_map.json" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char from[PATH_MAX], link[PATH_MAX];
		if (snprintf(from, sizeof from, "%s/%s", k->model, names[i]) >= (int)sizeof from ||
		    snprintf(link, sizeof link, "%s/%s", to, names[i]) >= (int)sizeof link || access(from, R_OK) != 0) continue;
		if (symlink(from, link) != 0) continue;
	}
}

static int write_version(const struct weights_keeper *k, int64_t version, const struct weights *weights, struct err *err)
{
	char beside[PATH_MAX], path[PATH_MAX];

	snprintf(beside, sizeof beside, "%s/new", k->dir);
	version_path(k, version, path);
	remove_version(beside);
	int rc = weights_save(weights, beside, err);
	if (!rc) link_tokenizer(k, beside);
	if (!rc && rename(beside, path) != 0) {
		remove_version(path); /* of a run that had gone on from an older version under the same number */
		if (rename(beside, path) != 0) rc = err_set_errno(err, ERR_IO, "cannot rename %s to %s", beside, path);
	}
	if (rc) remove_version(beside);
	return rc;
}

/* The lock is held, but for the time of writing. */
static void take_one(struct weights_keeper *k)
{
	struct weights weights = k->waiting;
	int64_t version = k->waiting_version, oldest = k->kept[KEPT - 1];
	struct err err = { 0 };
	char path[PATH_MAX];

	bool noted = k->told_version < 0; /* the one before is known to the store, or nobody has asked yet */

	k->waiting.data = NULL;
	k->written = weights;
	pthread_mutex_unlock(&k->mutex);
	if (write_version(k, version, &weights, &err) == 0) err.code = 0;
	if (err.code == 0 && oldest >= 0 && noted) {
		version_path(k, oldest, path);
		remove_version(path);
	}
	pthread_mutex_lock(&k->mutex);
	k->written.data = NULL;
	k->told_version = version;
	k->told = err;
	if (err.code) return;
	memmove(k->kept + 1, k->kept, (KEPT - 1) * sizeof *k->kept);
	k->kept[0] = version;
}

static void *write_what_comes(void *context)
{
	struct weights_keeper *k = context;

	pthread_mutex_lock(&k->mutex);
	while (!k->quit || k->waiting.data) {
		if (k->waiting.data) take_one(k);
		else pthread_cond_wait(&k->changed, &k->mutex);
	}
	k->over = true;
	pthread_mutex_unlock(&k->mutex);
	return NULL;
}

/* The versions that are there, newest first; what is older, unknown to the store or half written goes. */
static void look_around(struct weights_keeper *k, int64_t newest)
{
	char path[PATH_MAX];
	DIR *folder = opendir(k->dir);

	for (const struct dirent *entry; folder && (entry = readdir(folder));) {
		int64_t version;
		if (sscanf(entry->d_name, "version-%" SCNd64, &version) != 1 || version < 0) continue;
		int at = version > newest ? KEPT : 0;
		while (at < KEPT && k->kept[at] > version) at++;
		int64_t out = at < KEPT ? k->kept[KEPT - 1] : version;
		if (at < KEPT) {
			memmove(k->kept + at + 1, k->kept + at, (size_t)(KEPT - 1 - at) * sizeof *k->kept);
			k->kept[at] = version;
		}
		if (out < 0) continue;
		version_path(k, out, path);
		remove_version(path);
	}
	if (folder) closedir(folder);
	snprintf(path, sizeof path, "%s/new", k->dir);
	remove_version(path);
}

int weights_keeper_open(struct weights_keeper **keeper, const char *run_dir, const char *model_path, int64_t newest,
                        struct err *err)
{
	struct weights_keeper *k = xcalloc(1, sizeof *k);
	char model[PATH_MAX];

	snprintf(k->dir, sizeof k->dir, "%s/weights", run_dir);
	if (realpath(model_path, model)) snprintf(k->model, sizeof k->model, "%.*s", (int)sizeof k->model - 1, model);
	for (int i = 0; i < KEPT; i++) k->kept[i] = -1;
	k->told_version = -1;
	struct stat status;
	if (mkdir(k->dir, 0777) != 0 && (stat(k->dir, &status) != 0 || !S_ISDIR(status.st_mode))) {
		err_set_errno(err, ERR_IO, "cannot make the directory %s for the policy's weights", k->dir);
		free(k);
		return err->code;
	}
	look_around(k, newest);
	pthread_mutex_init(&k->mutex, NULL);
	pthread_cond_init(&k->changed, NULL);
	if (pthread_create(&k->thread, NULL, write_what_comes, k) != 0) {
		free(k);
		return err_set(err, ERR_MEMORY, "cannot start the thread that keeps weights");
	}
	*keeper = k;
	return 0;
}

void weights_keeper_close(struct weights_keeper *k, double seconds)
{
	if (!k) return;
	pthread_mutex_lock(&k->mutex);
	k->quit = true;
	pthread_cond_signal(&k->changed);
	bool over = k->over;
	pthread_mutex_unlock(&k->mutex);
	for (double waited = 0; !over && waited < seconds; waited += 0.002) {
		nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
		pthread_mutex_lock(&k->mutex);
		over = k->over;
		pthread_mutex_unlock(&k->mutex);
	}
	if (!over) pthread_cancel(k->thread); /* between two writes; what it leaves half written goes with the next open */
	pthread_join(k->thread, NULL);
	pthread_mutex_destroy(&k->mutex);
	pthread_cond_destroy(&k->changed);
	free(k);
}

void weights_keeper_put(struct weights_keeper *k, int64_t version, const struct weights *weights)
{
	pthread_mutex_lock(&k->mutex);
	k->waiting = *weights;
	k->waiting_version = version;
	pthread_cond_signal(&k->changed);
	pthread_mutex_unlock(&k->mutex);
}

bool weights_keeper_uses(struct weights_keeper *k, const uint16_t *data)
{
	pthread_mutex_lock(&k->mutex);
	bool uses = data && (k->written.data == data || k->waiting.data == data);
	pthread_mutex_unlock(&k->mutex);
	return uses;
}

int weights_keeper_poll(struct weights_keeper *k, int64_t *version, struct err *err)
{
	pthread_mutex_lock(&k->mutex);
	int rc = k->told_version < 0 ? 0 : k->told.code ? k->told.code : 1;
	*version = k->told_version;
	if (rc < 0) *err = k->told;
	k->told_version = -1;
	pthread_mutex_unlock(&k->mutex);
	return rc;
}

bool weights_keeper_busy(struct weights_keeper *k)
{
	pthread_mutex_lock(&k->mutex);
	bool busy = k->written.data || k->waiting.data || k->told_version >= 0;
	pthread_mutex_unlock(&k->mutex);
	return busy;
}

int weights_keeper_load(struct weights *weights, const char *run_dir, int64_t version, uint64_t xxh3,
                        const struct model_config *model, struct err *err)
{
	char path[PATH_MAX];
	struct weights layout;

	snprintf(path, sizeof path, "%s/weights/version-%" PRId64, run_dir, version);
	int rc = weights_load(weights, path, err);
	if (rc)
		return err_context(err, "the run's policy is at version %" PRId64 ", whose weights must be in %s: restore it from a copy",
		                   version, path);
	weights_layout(&layout, model);
	size_t expected = layout.n_elements;
	weights_free(&layout);
	uint64_t found = XXH3_64bits(weights->data, 2 * weights->n_elements);
	if (weights->n_elements == expected && found == xxh3) return 0;
	weights_free(weights);
	return err_set(err, ERR_INVALID, "%s/model.safetensors is not what the run wrote (expected XXH3 %016" PRIx64 ", found %016"
	               PRIx64 "): restore it from a copy", path, xxh3, found);
}

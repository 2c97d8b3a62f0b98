/* weight_history.c - see weight_history.h.
 *
 * A file: magic and version, u64 bytes of each piece and the piece, u64 XXH3 of all before it.  A whole version is
 * pieces that are not packed. */
#include "scheduler/store/weight_history.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "trainer_bridge/wire/delta.h"

enum { PIECE_BYTES = 1 << 20, PATH_BYTES = 4096, MAGIC_BYTES = 8 };
static const char magic_full[MAGIC_BYTES + 1] = "DRWFULL1", magic_delta[MAGIC_BYTES + 1] = "DRWDELT1";

struct weight_history {
	char dir[PATH_BYTES];
	struct weights layout;
	int64_t *versions;        /* [n] ascending; the last is whole */
	int n, keep;
};

static void path_of(const struct weight_history *h, int64_t version, const char *kind, char path[PATH_BYTES])
{
	snprintf(path, PATH_BYTES, "%.3900s/%" PRId64 ".%s", h->dir, version, kind);
}

static size_t version_bytes(const struct weight_history *h) { return 2 * h->layout.n_elements; }

/* ---- files ---- */

struct file {
	FILE *stream;
	XXH3_state_t *sum;
	char path[PATH_BYTES];
};

static void file_put(struct file *f, const void *bytes, size_t n_bytes)
{
	fwrite(bytes, 1, n_bytes, f->stream);
	XXH3_64bits_update(f->sum, bytes, n_bytes);
}

static bool file_get(struct file *f, void *bytes, size_t n_bytes)
{
	if (fread(bytes, 1, n_bytes, f->stream) != n_bytes) return false;
	XXH3_64bits_update(f->sum, bytes, n_bytes);
	return true;
}

static int file_open(struct file *f, const char *mode, struct err *err)
{
	f->stream = fopen(f->path, mode);
	if (!f->stream) return err_set_errno(err, ERR_IO, "cannot open %s", f->path);
	f->sum = XXH3_createState();
	XXH3_64bits_reset(f->sum);
	return 0;
}

static void file_close(struct file *f)
{
	XXH3_freeState(f->sum);
	fclose(f->stream);
}

/* The pieces of `data`, as they are or against base, into the version's file of this kind. */
static int write_version(const struct weight_history *h, int64_t version, const uint8_t *data, const uint8_t *base,
                         struct err *err)
{
	struct file f;
	char path[PATH_BYTES];
	struct delta *delta = base ? delta_open() : NULL;
	size_t total = version_bytes(h);

	path_of(h, version, base ? "delta" : "full", path);
	snprintf(f.path, sizeof f.path, "%.4090s.new", path);
	int rc = file_open(&f, "wb", err);
	if (!rc) {
		file_put(&f, base ? magic_delta : magic_full, MAGIC_BYTES);
		for (size_t at = 0; at < total; at += PIECE_BYTES) {
			size_t n = total - at < PIECE_BYTES ? total - at : PIECE_BYTES, packed = n;
			const void *piece = base ? delta_pack(delta, data + at, base + at, n, &packed) : data + at;
			uint64_t length = packed;
			file_put(&f, &length, sizeof length);
			file_put(&f, piece, packed);
		}
		uint64_t sum = XXH3_64bits_digest(f.sum);
		fwrite(&sum, sizeof sum, 1, f.stream);
		bool failed = fflush(f.stream) != 0 || ferror(f.stream);
		file_close(&f);
		if (failed || rename(f.path, path) < 0) {
			rc = err_set_errno(err, ERR_IO, "cannot write %s", path);
			unlink(f.path);
		}
	}
	delta_close(delta);
	return rc;
}

/* What a file has, over `data`, which holds the base of a delta. */
static int read_pieces(struct file *f, uint8_t *data, size_t total, bool is_delta, uint8_t *packed, struct delta *delta,
                       struct err *err)
{
	char magic[MAGIC_BYTES];
	uint64_t length, sum;

	if (!file_get(f, magic, sizeof magic)) return err_set(err, ERR_INCOMPLETE, "%s is empty", f->path);
	if (memcmp(magic, is_delta ? magic_delta : magic_full, sizeof magic) != 0)
		return err_set(err, ERR_INVALID, "%s is no version of weights", f->path);
	for (size_t at = 0; at < total; at += PIECE_BYTES) {
		size_t n = total - at < PIECE_BYTES ? total - at : PIECE_BYTES;
		if (!file_get(f, &length, sizeof length) || length > 2 * PIECE_BYTES || (!is_delta && length != n) ||
		    !file_get(f, is_delta ? packed : data + at, length))
			return err_set(err, ERR_INCOMPLETE, "%s ends within the piece at byte %zu, or is of another model", f->path, at);
		if (is_delta && delta_unpack(delta, data + at, data + at, n, packed, length, err))
			return err_context(err, "%s", f->path);
	}
	uint64_t expected = XXH3_64bits_digest(f->sum);
	if (fread(&sum, sizeof sum, 1, f->stream) != 1 || sum != expected)
		return err_set(err, ERR_INVALID, "%s is damaged: its checksum does not hold", f->path);
	return 0;
}

static int read_version(const struct weight_history *h, int64_t version, bool is_delta, uint8_t *data, struct err *err)
{
	struct file f;

	path_of(h, version, is_delta ? "delta" : "full", f.path);
	int rc = file_open(&f, "rb", err);
	if (rc) return rc;
	struct delta *delta = is_delta ? delta_open() : NULL;
	uint8_t *packed = is_delta ? xmalloc(2 * PIECE_BYTES) : NULL;
	rc = read_pieces(&f, data, version_bytes(h), is_delta, packed, delta, err);
	free(packed);
	delta_close(delta);
	file_close(&f);
	return rc;
}

/* ---- opening ---- */

static struct weight_history *history_new(const char *run_dir, const struct model_config *model, int keep)
{
	struct weight_history *h = xcalloc(1, sizeof *h);

	snprintf(h->dir, sizeof h->dir, "%.4000s/versions", run_dir);
	weights_layout(&h->layout, model);
	h->keep = keep;
	return h;
}

static void insert(struct weight_history *h, int64_t version)
{
	int at = h->n;

	h->versions = xrealloc(h->versions, (size_t)(h->n + 1) * sizeof *h->versions);
	for (; at > 0 && h->versions[at - 1] > version; at--) h->versions[at] = h->versions[at - 1];
	h->versions[at] = version;
	h->n++;
}

/* What a run has left, up to the newest that lies whole. */
static void scan(struct weight_history *h)
{
	DIR *dir = opendir(h->dir);
	int64_t full = -1;

	for (const struct dirent *entry; dir && (entry = readdir(dir));) {
		char *end;
		int64_t version = strtoll(entry->d_name, &end, 10);
		if (end == entry->d_name || (strcmp(end, ".full") != 0 && strcmp(end, ".delta") != 0)) continue;
		if (strcmp(end, ".full") == 0 && version > full) full = version;
		if (!weight_history_has(h, version)) insert(h, version);
	}
	if (dir) closedir(dir);
	while (h->n > 0 && h->versions[h->n - 1] > full) h->n--; /* nothing newer than the whole one can be read */
}

int weight_history_create(struct weight_history **out, const char *run_dir, const struct model_config *model, int keep,
                          struct err *err)
{
	struct weight_history *h = history_new(run_dir, model, keep);

	*out = NULL;
	if (mkdir(h->dir, 0777) < 0 && errno != EEXIST) {
		err_set_errno(err, ERR_IO, "cannot make %s", h->dir);
		weight_history_close(h);
		return err->code;
	}
	scan(h);
	*out = h;
	return 0;
}

int weight_history_open(struct weight_history **out, const char *run_dir, const struct model_config *model, struct err *err)
{
	struct weight_history *h = history_new(run_dir, model, 0);

	*out = NULL;
	scan(h);
	if (h->n == 0) {
		err_set(err, ERR_MISSING, "%s has no versions: set weights.keep_versions for the run", run_dir);
		weight_history_close(h);
		return err->code;
	}
	*out = h;
	return 0;
}

void weight_history_close(struct weight_history *h)
{
	if (!h) return;
	weights_free(&h->layout);
	free(h->versions);
	free(h);
}

/* ---- keeping ---- */

/* The newest becomes what differs from the one that follows it. */
static int demote_newest(struct weight_history *h, const struct weights *next, struct err *err)
{
	int64_t version = h->versions[h->n - 1];
	uint8_t *data = xmalloc(version_bytes(h));

	int rc = read_version(h, version, false, data, err);
	if (!rc) rc = write_version(h, version, data, (const uint8_t *)next->data, err);
	free(data);
	return rc;
}

static void remove_file(const struct weight_history *h, int64_t version, const char *kind)
{
	char path[PATH_BYTES];
	path_of(h, version, kind, path);
	unlink(path);
}

int weight_history_put(struct weight_history *h, int64_t version, const struct weights *weights, struct err *err)
{
	/* A run that goes on has it already, or a newer one that it has lost. */
	if (version <= weight_history_newest(h)) return 0;
	/* Wherever a crash comes in between, the newest that lies whole is the end of a chain without gaps. */
	int rc = h->n > 0 && h->keep > 1 ? demote_newest(h, weights, err) : 0;
	if (!rc) rc = write_version(h, version, (const uint8_t *)weights->data, NULL, err);
	if (rc) return err_context(err, "weights.keep_versions");
	if (h->n > 0) remove_file(h, h->versions[h->n - 1], "full");
	insert(h, version);
	while (h->n > h->keep) {
		remove_file(h, h->versions[0], "delta");
		remove_file(h, h->versions[0], "full");
		memmove(h->versions, h->versions + 1, (size_t)--h->n * sizeof *h->versions);
	}
	return 0;
}

int weight_history_count(const struct weight_history *h) { return h->n; }
int64_t weight_history_oldest(const struct weight_history *h) { return h->n ? h->versions[0] : -1; }
int64_t weight_history_newest(const struct weight_history *h) { return h->n ? h->versions[h->n - 1] : -1; }

bool weight_history_has(const struct weight_history *h, int64_t version)
{
	for (int i = 0; i < h->n; i++)
		if (h->versions[i] == version) return true;
	return false;
}

int weight_history_load(const struct weight_history *h, int64_t version, struct weights *weights, struct err *err)
{
	if (!weight_history_has(h, version))
		return err_set(err, ERR_MISSING, "version %" PRId64 " is not kept: expected one of %d from %" PRId64 " to %" PRId64,
		               version, h->n, weight_history_oldest(h), weight_history_newest(h));
	weights_alloc(weights, &h->layout.config);
	int rc = read_version(h, weight_history_newest(h), false, (uint8_t *)weights->data, err);
	for (int i = h->n - 2; !rc && i >= 0 && h->versions[i] >= version; i--)
		rc = read_version(h, h->versions[i], true, (uint8_t *)weights->data, err);
	if (rc) weights_free(weights);
	return rc;
}

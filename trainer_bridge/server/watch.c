/* watch.c - looks for markers, copies checkpoints piece by piece, writes what became of them. */
#include "trainer_bridge/server/watch.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SCAN_MS = 200, MARKER_BYTES_MAX = 64, PIECE_ELEMENTS = 2 << 20, NAME_BYTES_MAX = 200 };
static const char READY[] = ".ready", STATUS[] = ".status";

struct watch {
	char *dir;
	struct exchange *exchange;
	uint64_t scanned_ms;   /* 0: never */
	bool taking;
	char name[NAME_BYTES_MAX + 1];
	int64_t version;
	struct weights files;  /* of the checkpoint that is being taken */
	uint16_t *scratch;     /* [PIECE_ELEMENTS and a row] */
	int tensor, row;       /* the next to copy */
};

struct watch *watch_open(const char *dir, struct exchange *exchange)
{
	struct watch *watch = xcalloc(1, sizeof *watch);

	watch->dir = xstrdup(dir);
	watch->exchange = exchange;
	if (mkdir(dir, 0777) < 0 && errno != EEXIST)
		fprintf(stderr, "drumroll: weights.watch_dir %s: %s; it is looked for again and again\n", dir, strerror(errno));
	return watch;
}

static void stop_taking(struct watch *watch)
{
	weights_free(&watch->files);
	free(watch->scratch);
	watch->scratch = NULL;
	watch->taking = false;
}

void watch_close(struct watch *watch)
{
	if (!watch)
		return;
	if (watch->taking) {
		intake_abandon(watch->exchange->intake);
		stop_taking(watch);
	}
	free(watch->dir);
	free(watch);
}

/* ---- markers ---- */

static void path_of(const struct watch *watch, const char *name, const char *end, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/%s%s", watch->dir, name, end);
}

/* The version in a marker, or -1. */
static int64_t read_marker(const struct watch *watch, const char *name)
{
	char path[PATH_MAX], text[MARKER_BYTES_MAX + 1], *end;

	path_of(watch, name, READY, path);
	FILE *file = fopen(path, "r");
	if (!file)
		return -1;
	size_t n = fread(text, 1, MARKER_BYTES_MAX, file);
	fclose(file);
	text[n] = '\0';
	errno = 0;
	long long version = strtoll(text, &end, 10);
	if (end == text || end[strspn(end, " \t\r\n")] != '\0' || errno || version < 0 || version > INT32_MAX)
		return -1;
	return version;
}

/* Is this the name of a marker?  Then without its end into name. */
static bool is_marker(const char *file, char name[NAME_BYTES_MAX + 1])
{
	size_t length = strlen(file), end = sizeof READY - 1;

	if (file[0] == '.' || length <= end || length - end > NAME_BYTES_MAX || strcmp(file + length - end, READY) != 0)
		return false;
	memcpy(name, file, length - end);
	name[length - end] = '\0';
	return true;
}

/* The marker of the lowest version; one that holds none comes first, to be refused. */
static bool find_marker(struct watch *watch)
{
	DIR *dir = opendir(watch->dir);
	const struct dirent *entry;
	char name[NAME_BYTES_MAX + 1];
	bool found = false;

	while (dir && (entry = readdir(dir))) {
		if (!is_marker(entry->d_name, name))
			continue;
		int64_t version = read_marker(watch, name);
		if (found && version >= watch->version)
			continue;
		found = true;
		watch->version = version;
		memcpy(watch->name, name, sizeof name);
	}
	if (dir)
		closedir(dir);
	return found;
}

/* ---- answers ---- */

/* NAME.status, whole or not at all; then NAME.ready goes. */
static void answer(struct watch *watch, const struct err *refusal)
{
	char path[PATH_MAX], beside[PATH_MAX], ready[PATH_MAX];
	json_t *status = json_object();

	json_object_set_new(status, "version", json_integer(watch->version));
	json_object_set_new(status, "taken", json_boolean(!refusal));
	if (refusal) {
		json_object_set_new(status, "code", json_string(wire_error_name(wire_error_of(refusal->code))));
		json_object_set_new(status, "text", json_string(refusal->text));
		fprintf(stderr, "drumroll: %s/%s was refused: %s\n", watch->dir, watch->name, refusal->text);
	}
	path_of(watch, watch->name, STATUS, path);
	path_of(watch, watch->name, ".status.new", beside);
	path_of(watch, watch->name, READY, ready);
	char *text = json_dumps(status, JSON_PRESERVE_ORDER);
	FILE *file = fopen(beside, "w");
	bool written = file && text && fprintf(file, "%s\n", text) > 0;
	if (file && fclose(file) != 0)
		written = false;
	if (!written || rename(beside, path) < 0)
		fprintf(stderr, "drumroll: cannot write %s: %s\n", path, strerror(errno));
	unlink(ready); /* in any case: it would be taken again for ever */
	free(text);
	json_decref(status);
}

static void refuse(struct watch *watch, const struct err *err)
{
	if (watch->taking) {
		intake_abandon(watch->exchange->intake);
		stop_taking(watch);
	}
	answer(watch, err);
}

/* ---- taking ---- */

static int check_shapes(const struct watch *watch, struct err *err)
{
	const struct weights *layout = intake_layout(watch->exchange->intake);

	for (int i = 0; i < watch->files.n_tensors; i++) {
		const struct weight_tensor *found = &watch->files.tensors[i];
		int at = weights_find(layout, found->name);
		if (at < 0)
			return err_set(err, ERR_MISSING, "the policy has no tensor '%s': is this its checkpoint?", found->name);
		const struct weight_tensor *expected = &layout->tensors[at];
		if (found->rows != expected->rows || found->cols != expected->cols)
			return err_set(err, ERR_INVALID, "tensor '%s': expected %d x %d numbers, found %d x %d", found->name,
			               expected->rows, expected->cols, found->rows, found->cols);
	}
	return 0;
}

static int begin(struct watch *watch, struct err *err)
{
	char path[PATH_MAX];
	int longest = 0;

	if (watch->version < 0)
		return err_set(err, ERR_INVALID, "%s%s: expected a version in decimal, found something else", watch->name, READY);
	path_of(watch, watch->name, "", path);
	if (weights_open(&watch->files, path, err))
		return err->code;
	if (check_shapes(watch, err) ||
	    intake_begin(watch->exchange->intake, watch->version, watch->exchange->version, err)) {
		weights_free(&watch->files);
		return err->code;
	}
	for (int i = 0; i < watch->files.n_tensors; i++)
		if (watch->files.tensors[i].cols > longest)
			longest = watch->files.tensors[i].cols;
	watch->scratch = xmalloc(((size_t)PIECE_ELEMENTS + (size_t)longest) * sizeof *watch->scratch);
	watch->taking = true;
	watch->tensor = watch->row = 0;
	return 0;
}

/* A piece of a tensor, and its end behind the last one. */
static int take_piece(struct watch *watch, struct err *err)
{
	struct intake *intake = watch->exchange->intake;
	const struct weight_tensor *t = &watch->files.tensors[watch->tensor];
	int left = t->rows - watch->row, n_rows = PIECE_ELEMENTS / t->cols + 1;
	size_t row_bytes = (size_t)t->cols * sizeof(uint16_t);

	if (n_rows > left)
		n_rows = left;
	const uint16_t *rows = weights_rows(&watch->files, watch->tensor, watch->row, n_rows, watch->scratch);
	int rc = intake_chunk(intake, watch->version, t->name, (size_t)watch->row * row_bytes, rows, (size_t)n_rows * row_bytes,
	                      err);
	weights_release(&watch->files, watch->tensor, watch->row, n_rows);
	watch->row += n_rows;
	if (rc || watch->row < t->rows)
		return rc;
	watch->row = 0;
	watch->tensor++;
	return intake_seal(intake, watch->version, t->name, err);
}

static int commit(struct watch *watch, struct err *err)
{
	const struct exchange *exchange = watch->exchange;
	const struct weights *weights;

	if (intake_commit(exchange->intake, watch->version, &weights, err) ||
	    exchange->callbacks.weights_arrived(exchange->callbacks.context, watch->version, weights, err))
		return err->code;
	intake_adopt(exchange->intake);
	stop_taking(watch);
	answer(watch, NULL);
	return 0;
}

bool watch_turn(struct watch *watch, uint64_t now_ms)
{
	struct err err = {0};
	int rc;

	if (!watch->taking) {
		if (watch->scanned_ms && now_ms - watch->scanned_ms < SCAN_MS)
			return false;
		watch->scanned_ms = now_ms;
		if (intake_busy(watch->exchange->intake) || watch->exchange->pusher || !intake_ready(watch->exchange->intake) ||
		    !find_marker(watch))
			return false;
		rc = begin(watch, &err);
	} else {
		rc = watch->tensor < watch->files.n_tensors ? take_piece(watch, &err) : commit(watch, &err);
	}
	if (rc)
		refuse(watch, &err);
	return watch->taking;
}

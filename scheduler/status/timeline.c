/* timeline.c - see timeline.h. */
#include "scheduler/status/timeline.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct timeline_track {
	struct rank_stats before; /* sums of the run before this opening, as far as a line tells them */
	struct rank_stats last;   /* as of the last line */
	double written;           /* when that was; < 0: none yet */
	int64_t step;
};

struct timeline {
	char path[PATH_MAX];
	FILE *file;
	size_t bytes, event_bytes, bytes_max;
	double interval;
	double before; /* seconds of the run before this opening */
	bool dirty;
	struct timeline_track *tracks; /* [n_ranks] */
	int n_ranks;
};

const char *rank_shown_text(enum rank_shown state)
{
	static const char *const texts[] = { "idle", "generating", "weights", "lost" };
	return texts[state];
}

/* ---- what is there already ---- */

/* The rank of a line, or -1 where it is no rank's. */
static int rank_of(const char *line)
{
	const char *at = strstr(line, "\"rank\":");
	return at && !strstr(line, "\"event\":") ? atoi(at + strlen("\"rank\":")) : -1;
}

static void read_positions(const json_t *line, const char *key, uint64_t to[ENGINE_POSITIONS])
{
	const json_t *values = json_object_get(line, key);
	for (size_t i = 0; i < json_array_size(values) && i < ENGINE_POSITIONS; i++)
		to[i] = (uint64_t)json_integer_value(json_array_get(values, i));
}

static void read_sums(const char *text, struct rank_stats *sums)
{
	json_t *line = json_loads(text, 0, NULL);
	const json_t *seconds = json_object_get(line, "seconds");

	sums->engine.tokens = (uint64_t)json_integer_value(json_object_get(line, "tokens"));
	read_positions(line, "drafted_by_position", sums->engine.drafted_by_position);
	read_positions(line, "accepted_by_position", sums->engine.accepted_by_position);
	for (int i = 0; i < ENGINE_POSITIONS; i++) {
		sums->engine.drafted += sums->engine.drafted_by_position[i];
		sums->engine.accepted += sums->engine.accepted_by_position[i];
	}
#define READ(name, field) sums->field = json_number_value(json_object_get(seconds, name));
	TIMELINE_SECONDS(READ)
#undef READ
	json_decref(line);
}

/* Where every rank, the clock and the interval were. */
static void read_back(struct timeline *t, FILE *f)
{
	char **last = xcalloc((size_t)t->n_ranks, sizeof *last), *line = NULL;
	size_t size = 0;
	double at;
	ssize_t n;

	while ((n = getline(&line, &size, f)) > 0 && line[n - 1] == '\n') {
		int rank = rank_of(line);
		const char *interval = strstr(line, "\"event\":\"thinned\",\"interval\":");
		if (rank < 0) t->event_bytes += (size_t)n;
		t->bytes += (size_t)n;
		if (sscanf(line, "{\"t\":%lf", &at) == 1 && at > t->before) t->before = at;
		if (interval) sscanf(interval, "\"event\":\"thinned\",\"interval\":%lf", &t->interval);
		if (rank <= 0 || rank >= t->n_ranks) continue;
		free(last[rank]);
		last[rank] = xstrdup(line);
	}
	for (int r = 0; r < t->n_ranks; r++) {
		if (last[r]) read_sums(last[r], &t->tracks[r].before);
		free(last[r]);
	}
	free(last);
	free(line);
}

int timeline_open(struct timeline **out, const char *path, double interval, size_t bytes_max, int n_ranks, struct err *err)
{
	struct timeline *t = xcalloc(1, sizeof *t);

	snprintf(t->path, sizeof t->path, "%s", path);
	t->interval = interval;
	t->bytes_max = bytes_max;
	t->n_ranks = n_ranks;
	t->tracks = xcalloc((size_t)n_ranks, sizeof *t->tracks);
	for (int r = 0; r < n_ranks; r++) t->tracks[r].written = -1;
	struct stat about;
	FILE *f = stat(path, &about) == 0 && S_ISREG(about.st_mode) ? fopen(path, "r") : NULL;
	if (f) {
		read_back(t, f);
		fclose(f);
		if (truncate(path, (off_t)t->bytes)) t->bytes = 0; /* opening it below fails too, and says why */
	}
	t->file = fopen(path, "a");
	if (!t->file) {
		int rc = err_set_errno(err, ERR_IO, "cannot write %s", path);
		timeline_close(t);
		return rc;
	}
	*out = t;
	return 0;
}

void timeline_close(struct timeline *t)
{
	if (!t) return;
	if (t->file) fclose(t->file);
	free(t->tracks);
	free(t);
}

double timeline_interval(const struct timeline *t) { return t->interval; }
double timeline_before(const struct timeline *t) { return t->before; }

void timeline_sums(const struct timeline *t, int rank, const struct rank_stats *stats, struct rank_stats *sums)
{
	*sums = t->tracks[rank].before;
	rank_stats_add(sums, stats);
}

/* ---- lines ---- */

bool timeline_wants(const struct timeline *t, int rank, double now)
{
	const struct timeline_track *track = &t->tracks[rank];
	return track->written < 0 || now - track->written >= t->interval * 0.95; /* what comes a little early is on time */
}

bool timeline_lacks(const struct timeline *t, int rank, int64_t step, const struct rank_stats *stats)
{
	const struct timeline_track *track = &t->tracks[rank];
	return track->written < 0 || track->step != step || track->last.engine.rounds != stats->engine.rounds;
}

static int print_positions(FILE *f, const char *key, const uint64_t values[ENGINE_POSITIONS])
{
	int n = ENGINE_POSITIONS, bytes = fprintf(f, ",\"%s\":[", key);

	while (n > 0 && values[n - 1] == 0) n--;
	for (int i = 0; i < n; i++) bytes += fprintf(f, "%s%" PRIu64, i ? "," : "", values[i]);
	return bytes + fprintf(f, "]");
}

static double draft_length(const struct engine_stats *now, const struct engine_stats *before)
{
	double drafted = (double)(now->drafted - before->drafted);
	double turns = (double)(now->decode_rows - before->decode_rows) + (double)(now->verify_rows - before->verify_rows) - drafted;
	return turns > 0 ? drafted / turns : 0;
}

void timeline_rank(struct timeline *t, double now, int64_t step, int rank, enum rank_shown state,
                   const struct rank_stats *stats)
{
	struct timeline_track *track = &t->tracks[rank];
	const struct engine_stats *e = &stats->engine;
	struct rank_stats sums;

	timeline_sums(t, rank, stats, &sums);
	int n = fprintf(t->file, "{\"t\":%.3f,\"step\":%" PRId64 ",\"rank\":%d,\"state\":\"%s\",\"active\":%d,\"queued\":%d,\"tokens\":%" PRIu64,
	                t->before + now, step, rank, rank_shown_text(state), e->active, e->queued, sums.engine.tokens);
	n += print_positions(t->file, "drafted_by_position", sums.engine.drafted_by_position);
	n += print_positions(t->file, "accepted_by_position", sums.engine.accepted_by_position);
	n += fprintf(t->file, ",\"draft_length\":%.3f,\"version\":%" PRId64 ",\"kv_used\":%.4f,\"seconds\":{",
	             draft_length(e, &track->last.engine), stats->version,
	             e->kv_pages_max > 0 ? (double)e->kv_pages_used / e->kv_pages_max : 0);
	const char *comma = "";
#define PRINT(name, field) \
	n += fprintf(t->file, "%s\"" name "\":%.6g", comma, sums.field); \
	comma = ",";
	TIMELINE_SECONDS(PRINT)
#undef PRINT
	t->bytes += (size_t)(n + fprintf(t->file, "}}\n"));
	t->dirty = true;
	track->last = *stats;
	track->written = now;
	track->step = step;
}

void timeline_event(struct timeline *t, double now, int64_t step, const char *event, const char *fields)
{
	int n = fprintf(t->file, "{\"t\":%.3f,\"step\":%" PRId64 ",\"event\":\"%s\"%s}\n", t->before + now, step, event, fields);

	t->bytes += (size_t)n;
	t->event_bytes += (size_t)n;
	t->dirty = true;
}

/* ---- the length of the file ---- */

/* The name of a line's event; two are told apart by it. */
static unsigned event_hash(const char *line)
{
	const char *at = strstr(line, "\"event\":\"");
	unsigned hash = 5381;

	for (at += strlen("\"event\":\""); *at && *at != '"'; at++) hash = hash * 33 + (unsigned char)*at;
	return hash % 256;
}

static bool copy_half(struct timeline *t, FILE *from, FILE *to)
{
	bool thin_events = t->event_bytes > t->bytes_max / 4, good = true;
	unsigned char *odd = xcalloc((size_t)t->n_ranks, 1), odd_event[256] = { 0 };
	char *line = NULL;
	size_t size = 0;
	ssize_t n;

	t->bytes = t->event_bytes = 0;
	while (good && (n = getline(&line, &size, from)) > 0) {
		int rank = rank_of(line);
		bool event = rank < 0 && strstr(line, "\"event\":\"");
		if (rank >= 0 && rank < t->n_ranks && (odd[rank] ^= 1)) continue;
		if (event && thin_events && (odd_event[event_hash(line)] ^= 1)) continue;
		good = fputs(line, to) >= 0;
		t->bytes += (size_t)n;
		if (event) t->event_bytes += (size_t)n;
	}
	free(odd);
	free(line);
	return good;
}

static int thin(struct timeline *t, struct err *err)
{
	char path[PATH_MAX + 8];

	snprintf(path, sizeof path, "%s.new", t->path);
	FILE *from = fopen(t->path, "r"), *to = fopen(path, "w");
	bool good = from && to && copy_half(t, from, to);
	t->interval *= 2;
	if (good) t->bytes += (size_t)fprintf(to, "{\"t\":%.3f,\"step\":0,\"event\":\"thinned\",\"interval\":%g}\n", t->before, t->interval);
	if (from) fclose(from);
	if (to && fclose(to)) good = false;
	if (!good || rename(path, t->path)) return err_set_errno(err, ERR_IO, "cannot thin %s", t->path);
	FILE *file = fopen(t->path, "a");
	if (!file) return err_set_errno(err, ERR_IO, "cannot go on with %s", t->path);
	fclose(t->file);
	t->file = file;
	return 0;
}

int timeline_flush(struct timeline *t, struct err *err)
{
	if (!t->dirty) return 0;
	t->dirty = false;
	if (fflush(t->file) || ferror(t->file)) return err_set_errno(err, ERR_IO, "cannot append to %s", t->path);
	return t->bytes > t->bytes_max ? thin(t, err) : 0;
}

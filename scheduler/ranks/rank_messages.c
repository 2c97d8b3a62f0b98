/* rank_messages.c - the parts that several messages share. */
#include "scheduler/ranks/rank_messages.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "trainer_bridge/wire/codec.h"

double rank_alive_seconds(const struct config_cluster *options)
{
	double patience = options->silence_seconds < options->controller_seconds ? options->silence_seconds
	                                                                         : options->controller_seconds;
	return patience < 20 ? patience / 4 : 5;
}

void rank_message_begin(struct message_writer *writer, enum rank_message type, uint32_t n_fields)
{
	message_writer_reset(writer);
	message_begin_map(writer, n_fields + 1);
	message_key(writer, "type");
	message_put_int(writer, type);
}

int rank_message_send(struct transport *transport, int rank, const struct message_writer *writer, struct err *err)
{
	size_t n_bytes;
	const void *bytes = message_bytes(writer, &n_bytes);
	return transport_send(transport, rank, bytes, n_bytes, err);
}

static void put_uint(struct message_writer *writer, const char *key, uint64_t value)
{
	message_key(writer, key);
	message_put_uint(writer, value);
}

static void put_kv(struct message_writer *writer, const struct kv_parcel *kv)
{
	put_uint(writer, "kv_version", (uint64_t)kv->version);
	put_uint(writer, "kv_mode", (uint64_t)kv->mode);
	put_uint(writer, "kv_positions", (uint64_t)kv->n_positions);
	message_key(writer, "kv");
	message_put_bin(writer, kv->bytes, kv->n_bytes);
}

int rank_message_send_trajectory(struct transport *transport, int rank, struct message_writer *writer,
                                 enum rank_message type, uint64_t lease, const struct trajectory *trajectory,
                                 const struct rank_cargo *cargo, struct err *err)
{
	rank_message_begin(writer, type, (cargo->kv.bytes ? 9 : 5) + cargo->unscored + cargo->explored + (cargo->proposal != NULL));
	put_uint(writer, "lease", lease);
	message_key(writer, "trajectory");
	codec_put_trajectory(writer, trajectory);
	put_uint(writer, "prompt_tokens", cargo->prompt_tokens);
	put_uint(writer, "recomputed_tokens", cargo->recomputed_tokens);
	put_uint(writer, "imported_tokens", cargo->imported_tokens);
	if (cargo->kv.bytes) put_kv(writer, &cargo->kv);
	if (cargo->unscored) {
		message_key(writer, "unscored");
		message_put_bool(writer, true);
	}
	if (cargo->explored) {
		message_key(writer, "explored");
		message_put_bool(writer, true);
	}
	if (cargo->proposal) {
		message_key(writer, "proposal");
		message_put_bin(writer, cargo->proposal, cargo->proposal_bytes);
	}
	return rank_message_send(transport, rank, writer, err);
}

int rank_message_get_cargo(const struct message_node *root, struct rank_cargo *cargo, struct err *err)
{
	int64_t mode, n_positions;
	const void *bytes;

	*cargo = (struct rank_cargo){0};
	int rc = message_get_uint(root, "prompt_tokens", &cargo->prompt_tokens, err);
	if (!rc) rc = message_get_uint(root, "recomputed_tokens", &cargo->recomputed_tokens, err);
	if (!rc) rc = message_get_uint(root, "imported_tokens", &cargo->imported_tokens, err);
	cargo->unscored = message_field(root, "unscored") != NULL;
	cargo->explored = message_field(root, "explored") != NULL;
	if (!rc && message_field(root, "proposal"))
		rc = message_get_bin(root, "proposal", &cargo->proposal, &cargo->proposal_bytes, err);
	if (rc || !message_field(root, "kv")) return rc;
	rc = message_get_int(root, "kv_version", 0, INT64_MAX, &cargo->kv.version, err);
	if (!rc) rc = message_get_int(root, "kv_mode", 0, INT32_MAX, &mode, err);
	if (!rc) rc = message_get_int(root, "kv_positions", 0, INT32_MAX, &n_positions, err);
	if (!rc) rc = message_get_bin(root, "kv", &bytes, &cargo->kv.n_bytes, err);
	if (rc) return rc;
	cargo->kv.mode = (int32_t)mode;
	cargo->kv.n_positions = (int32_t)n_positions;
	memcpy(&cargo->kv.bytes, &bytes, sizeof bytes); /* borrowed, and never written through */
	return 0;
}

int rank_message_get_trajectory(const struct message_node *root, uint64_t *lease, struct trajectory **trajectory,
                                struct err *err)
{
	int rc = message_get_uint(root, "lease", lease, err);
	if (rc) return rc;
	const struct message_node *node = message_field(root, "trajectory");
	if (!node) return err_set(err, ERR_MISSING, "field 'trajectory' is missing in a message between ranks");
	return codec_get_trajectory(node, trajectory, err);
}

void rank_message_put_increment(struct message_writer *writer, uint64_t lease, const struct trajectory *t, int32_t start)
{
	size_t n_bytes = 4 * (size_t)(t->n_tokens - start);
	struct segment *segments = xmalloc((size_t)(t->n_segments + 1) * sizeof *segments);
	size_t n = 0;

	for (int i = 0; i < t->n_segments; i++) {
		struct segment s = t->segments[i];
		int32_t cut = s.start < start ? start - s.start : 0;
		if (cut >= s.length) continue;
		s.start += cut;
		s.length -= cut;
		segments[n++] = s;
	}
	message_begin_map(writer, 6);
	put_uint(writer, "id", t->id);
	put_uint(writer, "lease", lease);
	put_uint(writer, "start", (uint64_t)start);
	message_key(writer, "tokens");
	message_put_bin(writer, t->tokens + start, n_bytes);
	message_key(writer, "logprobs");
	message_put_bin(writer, t->logprobs + start, n_bytes);
	message_key(writer, "segments");
	message_put_bin(writer, segments, n * sizeof *segments);
	free(segments);
}

void rank_stats_add(struct rank_stats *sums, const struct rank_stats *added)
{
	struct engine_stats *to = &sums->engine;
	const struct engine_stats *from = &added->engine;
#define ADD(name) to->name += from->name;
#define ADD_TIME(name) sums->name += added->name;
	ENGINE_SUMS(ADD)
	RANK_SUMS(ADD_TIME)
#undef ADD
#undef ADD_TIME
	for (int i = 0; i < ENGINE_POSITIONS; i++) {
		to->drafted_by_position[i] += from->drafted_by_position[i];
		to->accepted_by_position[i] += from->accepted_by_position[i];
	}
	to->active = from->active;
	to->queued = from->queued;
	to->kv_pages_used = from->kv_pages_used;
	to->kv_pages_max = from->kv_pages_max;
	sums->version = added->version;
}

/* u64 each, without the zeros at the end. */
static void put_positions(struct message_writer *writer, const char *key, const uint64_t now[ENGINE_POSITIONS],
                          const uint64_t before[ENGINE_POSITIONS])
{
	uint64_t added[ENGINE_POSITIONS];
	size_t n = 0;

	for (size_t i = 0; i < ENGINE_POSITIONS; i++) {
		added[i] = now[i] - before[i];
		if (added[i]) n = i + 1;
	}
	message_key(writer, key);
	message_put_bin(writer, added, n * sizeof *added);
}

void rank_message_put_stats(struct message_writer *writer, const struct rank_stats *now, struct rank_stats *before)
{
#define COUNT(name) + 1
#define PUT(name) \
	message_key(writer, #name); \
	message_put_real(writer, (double)(now->engine.name - before->engine.name));
#define PUT_TIME(name) \
	message_key(writer, #name); \
	message_put_real(writer, now->name - before->name);
	rank_message_begin(writer, RANK_STATS, 7 ENGINE_SUMS(COUNT) RANK_SUMS(COUNT));
	ENGINE_SUMS(PUT)
	RANK_SUMS(PUT_TIME)
#undef COUNT
#undef PUT
#undef PUT_TIME
	put_positions(writer, "drafted_by_position", now->engine.drafted_by_position, before->engine.drafted_by_position);
	put_positions(writer, "accepted_by_position", now->engine.accepted_by_position, before->engine.accepted_by_position);
	put_uint(writer, "active", (uint64_t)now->engine.active);
	put_uint(writer, "queued", (uint64_t)now->engine.queued);
	put_uint(writer, "kv_pages_used", (uint64_t)now->engine.kv_pages_used);
	put_uint(writer, "kv_pages_max", (uint64_t)now->engine.kv_pages_max);
	put_uint(writer, "version", (uint64_t)now->version);
	*before = *now;
}

/* A finite number; whole: a count that a double holds exactly. */
static int get_sum(const struct message_node *root, const char *key, bool whole, double *value, struct err *err)
{
	static const double COUNT_MAX = 9007199254740992.0; /* 2^53 */
	int rc = message_get_real(root, key, value, err);

	if (rc || (isfinite(*value) && (!whole || (*value >= 0 && *value <= COUNT_MAX && *value == floor(*value))))) return rc;
	return err_set(err, ERR_INVALID, "field '%s' of STATS: expected %s, found %g", key,
	               whole ? "a count" : "a finite number", *value);
}

static int get_positions(const struct message_node *root, const char *key, uint64_t to[ENGINE_POSITIONS], struct err *err)
{
	const void *bytes;
	size_t n_bytes;

	int rc = message_get_bin(root, key, &bytes, &n_bytes, err);
	if (rc) return rc;
	if (n_bytes > ENGINE_POSITIONS * sizeof *to || n_bytes % sizeof *to != 0)
		return err_set(err, ERR_INVALID, "field '%s' of STATS: expected at most %d numbers of 8 bytes, found %zu bytes", key,
		               ENGINE_POSITIONS, n_bytes);
	memcpy(to, bytes, n_bytes);
	for (int i = 0; i < ENGINE_POSITIONS; i++)
		if (to[i] > UINT64_C(1) << 53) return err_set(err, ERR_INVALID, "field '%s' of STATS: number %d is no count", key, i);
	return 0;
}

static int get_gauge(const struct message_node *root, const char *key, int *value, struct err *err)
{
	int64_t wide = 0;
	int rc = message_get_int(root, key, 0, INT32_MAX, &wide, err);

	*value = (int)wide;
	return rc;
}

int rank_message_get_stats(const struct message_node *root, struct rank_stats *added, struct err *err)
{
	struct engine_stats *e = &added->engine;
	double value = 0;
	int rc = 0;

	*added = (struct rank_stats){0};
#define GET(name) \
	if (!rc) rc = get_sum(root, #name, (__typeof__(e->name))0.5 == 0, &value, err); \
	if (!rc) e->name = (__typeof__(e->name))value;
#define GET_TIME(name) \
	if (!rc) rc = get_sum(root, #name, false, &added->name, err);
	ENGINE_SUMS(GET)
	RANK_SUMS(GET_TIME)
#undef GET
#undef GET_TIME
	if (!rc) rc = get_positions(root, "drafted_by_position", e->drafted_by_position, err);
	if (!rc) rc = get_positions(root, "accepted_by_position", e->accepted_by_position, err);
	if (!rc) rc = get_gauge(root, "active", &e->active, err);
	if (!rc) rc = get_gauge(root, "queued", &e->queued, err);
	if (!rc) rc = get_gauge(root, "kv_pages_used", &e->kv_pages_used, err);
	if (!rc) rc = get_gauge(root, "kv_pages_max", &e->kv_pages_max, err);
	return rc ? rc : message_get_int(root, "version", 0, INT64_MAX, &added->version, err);
}

/* rank_messages.c - the parts that several messages share. */
#include "scheduler/rank_messages.h"

#include <stdlib.h>
#include <string.h>

#include "trainer_bridge/codec.h"

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
	rank_message_begin(writer, type, (cargo->kv.bytes ? 9 : 5) + cargo->unscored);
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

int rank_message_send_stats(struct transport *transport, int rank, struct message_writer *writer,
                            const struct engine_stats *now, struct engine_stats *before, struct err *err)
{
#define COUNT(name) + 1
#define PUT(name) \
	message_key(writer, #name); \
	message_put_real(writer, (double)(now->name - before->name));
	rank_message_begin(writer, RANK_STATS, 0 ENGINE_SUMS(COUNT));
	ENGINE_SUMS(PUT)
#undef COUNT
#undef PUT
	*before = *now;
	return rank_message_send(transport, rank, writer, err);
}

int rank_message_add_stats(const struct message_node *root, struct engine_stats *sums, struct err *err)
{
	double added;
	int rc = 0;
#define ADD(name) \
	if (!rc) rc = message_get_real(root, #name, &added, err); \
	if (!rc) sums->name += (__typeof__(sums->name))added;
	ENGINE_SUMS(ADD)
#undef ADD
	return rc;
}

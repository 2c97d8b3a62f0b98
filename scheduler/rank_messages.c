/* rank_messages.c - the parts that several messages share. */
#include "scheduler/rank_messages.h"

#include "trainer_bridge/codec.h"

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

int rank_message_send_trajectory(struct transport *transport, int rank, struct message_writer *writer,
                                 enum rank_message type, uint64_t lease, const struct trajectory *trajectory,
                                 struct err *err)
{
	rank_message_begin(writer, type, 2);
	message_key(writer, "lease");
	message_put_uint(writer, lease);
	message_key(writer, "trajectory");
	codec_put_trajectory(writer, trajectory);
	return rank_message_send(transport, rank, writer, err);
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

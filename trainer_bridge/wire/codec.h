/* codec.h - trajectory records as msgpack maps (PROTOCOL.md, "Trajectory"). */
#ifndef TRAINER_BRIDGE_WIRE_CODEC_H
#define TRAINER_BRIDGE_WIRE_CODEC_H

#include "rollout/trajectory.h"
#include "trainer_bridge/wire/message.h"

/* Writes one value (a map) at the writer's current place. */
void codec_put_trajectory(struct message_writer *writer, const struct trajectory *trajectory);

/* New trajectory owned by the caller.  Array lengths, ids and the checksum are verified. */
int codec_get_trajectory(const struct message_node *node, struct trajectory **trajectory, struct err *err);

#endif

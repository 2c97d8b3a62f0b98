/* server_internal.h - what server_batches.c needs of server.c, so that only that knows <uv.h>. */
#ifndef TRAINER_BRIDGE_SERVER_SERVER_INTERNAL_H
#define TRAINER_BRIDGE_SERVER_SERVER_INTERNAL_H

#include "trainer_bridge/server/peer.h"

struct exchange *server_exchange(struct server *server);
/* Peers of open connections by index; NULL behind the last. */
struct peer *server_peer(const struct server *server, int index);
/* Hands to the sockets what peers have to say. */
void server_pump(struct server *server);

#endif

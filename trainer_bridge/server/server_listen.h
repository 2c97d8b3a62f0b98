/* server_listen.h - within the server: streams of either kind, and the one that listens. */
#ifndef TRAINER_BRIDGE_SERVER_SERVER_LISTEN_H
#define TRAINER_BRIDGE_SERVER_SERVER_LISTEN_H

#include <stdbool.h>
#include <uv.h>

#include "trainer_bridge/wire/address.h"

union stream {
	uv_handle_t handle;
	uv_stream_t stream;
	uv_tcp_t tcp;
	uv_pipe_t pipe;
};

int server_stream_init(uv_loop_t *loop, const struct address *address, union stream *stream);

/* *opened: the listener must be closed, also after an error.  Its data is left alone.  option: the key of `listen`. */
int server_listen(uv_loop_t *loop, union stream *listener, bool *opened, const struct address *address,
                  const char *listen, const char *option, uv_connection_cb on_connection, struct err *err);

/* As bound, port filled in. */
void server_describe_address(const union stream *listener, const struct address *address, char *text, size_t size);

#endif

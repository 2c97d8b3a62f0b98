/* server_http.h - a small HTTP server for what one may look at: GET and HEAD, one request per connection.
 *
 * Owns its socket and libuv loop; runs on the caller's thread, from http_server_poll alone, and never waits.  Bounds: the
 * connections that are open (what comes beyond is answered 503), a request's head (http_request.h), the time from a
 * connection's first moment to its last. */
#ifndef TRAINER_BRIDGE_SERVER_SERVER_HTTP_H
#define TRAINER_BRIDGE_SERVER_SERVER_HTTP_H

#include <stddef.h>

#include "configs/err.h"

struct http_server;

enum { HTTP_CONNECTIONS_MAX = 32, HTTP_SECONDS_MAX = 10 };

struct http_server_options {
	const char *listen; /* unix:PATH or tcp:HOST:PORT; port 0: any */
	const char *option; /* its key, for errors */
	int patience_ms;    /* a connection's longest life; 0: HTTP_SECONDS_MAX */
	void *context;
	/* The body for a path, owned by the server from then on, and its media type; NULL: there is no such page. */
	char *(*get)(void *context, const char *path, const char **type, size_t *n_bytes);
};

/* Ignores SIGPIPE in the process from then on. */
int http_server_open(struct http_server **server, const struct http_server_options *options, struct err *err);
void http_server_close(struct http_server *server); /* NULL is allowed */

const char *http_server_address(const struct http_server *server); /* as bound, port filled in */
void http_server_poll(struct http_server *server);

#endif

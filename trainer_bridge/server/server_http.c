/* server_http.c - see server_http.h.
 *
 * A connection reads until its request is whole or refused, writes the one answer, says that it will write no more and
 * reads into nowhere until the other side closes: a close with bytes unread would make the system throw away the answer. */
#include "trainer_bridge/server/server_http.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "trainer_bridge/server/http_request.h"
#include "trainer_bridge/server/server_listen.h"

struct visitor {
	struct http_server *server;
	struct visitor *next;
	union stream socket;
	char input[HTTP_HEAD_BYTES_MAX]; /* once answered, where the rest goes to be forgotten */
	size_t n_input;
	uint64_t opened_ms;
	bool answered, closed;
	uv_write_t write;
	uv_shutdown_t shutdown;
	char head[512], *body; /* body: owned, NULL: none */
};

struct http_server {
	uv_loop_t loop;
	union stream listener;
	bool listening;
	struct address address;
	char address_text[ERR_TEXT_MAX];
	struct http_server_options options;
	struct visitor *visitors;
	int n_visitors;
};

static void on_closed(uv_handle_t *handle)
{
	struct visitor *visitor = handle->data;
	struct visitor **at = &visitor->server->visitors;

	while (*at != visitor) at = &(*at)->next;
	*at = visitor->next;
	visitor->server->n_visitors--;
	free(visitor->body);
	free(visitor);
}

static void leave(struct visitor *visitor)
{
	if (visitor->closed) return;
	visitor->closed = true;
	uv_close(&visitor->socket.handle, on_closed);
}

static void on_shutdown(uv_shutdown_t *request, int status)
{
	if (status < 0) leave(request->data);
}

static void on_written(uv_write_t *request, int status)
{
	struct visitor *visitor = request->data;

	if (visitor->closed) return;
	visitor->shutdown.data = visitor;
	if (status < 0 || uv_shutdown(&visitor->shutdown, &visitor->socket.stream, on_shutdown)) leave(visitor);
}

/* body: taken. */
static void answer(struct visitor *visitor, int status, const char *type, char *body, size_t n_bytes, bool head_only)
{
	int n = snprintf(visitor->head, sizeof visitor->head,
	                 "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n"
	                 "X-Content-Type-Options: nosniff\r\n%sConnection: close\r\n\r\n",
	                 status, http_status_text(status), type, n_bytes, status == 405 ? "Allow: GET, HEAD\r\n" : "");
	uv_buf_t parts[2] = { uv_buf_init(visitor->head, (unsigned)n), uv_buf_init(body, (unsigned)n_bytes) };

	visitor->answered = true;
	visitor->body = body;
	visitor->write.data = visitor;
	if (uv_write(&visitor->write, &visitor->socket.stream, parts, head_only || n_bytes == 0 ? 1 : 2, on_written)) leave(visitor);
}

static void refuse(struct visitor *visitor, int status)
{
	char text[64];

	snprintf(text, sizeof text, "%d %s\n", status, http_status_text(status));
	answer(visitor, status, "text/plain; charset=utf-8", xstrdup(text), strlen(text), false);
}

static void serve(struct visitor *visitor)
{
	const struct http_server_options *options = &visitor->server->options;
	struct http_request request;
	const char *type = NULL;
	size_t n_bytes = 0;

	int status = http_request_parse(&request, visitor->input, visitor->n_input);
	if (status == HTTP_MORE) return;
	char *body = status == HTTP_OK ? options->get(options->context, request.path, &type, &n_bytes) : NULL;
	if (body) answer(visitor, HTTP_OK, type, body, n_bytes, request.head_only);
	else refuse(visitor, status == HTTP_OK ? 404 : status);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
	struct visitor *visitor = handle->data;

	(void)suggested;
	if (visitor->answered) visitor->n_input = 0;
	buffer->base = visitor->input + visitor->n_input;
	buffer->len = sizeof visitor->input - visitor->n_input;
}

static void on_read(uv_stream_t *stream, ssize_t n_bytes, const uv_buf_t *buffer)
{
	struct visitor *visitor = stream->data;

	(void)buffer;
	if (n_bytes < 0) leave(visitor);
	else if (!visitor->answered && n_bytes > 0) {
		visitor->n_input += (size_t)n_bytes;
		serve(visitor);
	}
}

static void on_connection(uv_stream_t *listener, int status)
{
	struct http_server *server = listener->data;

	if (status < 0) return;
	struct visitor *visitor = xcalloc(1, sizeof *visitor);
	visitor->server = server;
	visitor->next = server->visitors;
	visitor->opened_ms = uv_now(&server->loop);
	server->visitors = visitor;
	server->n_visitors++;
	int rc = server_stream_init(&server->loop, &server->address, &visitor->socket);
	assert(rc == 0); /* memory only; the socket is made by accept */
	visitor->socket.handle.data = visitor;
	if (uv_accept(listener, &visitor->socket.stream)) leave(visitor);
	else if (server->n_visitors > 2 * HTTP_CONNECTIONS_MAX) leave(visitor); /* not even that */
	else if (uv_read_start(&visitor->socket.stream, on_alloc, on_read)) leave(visitor);
	else if (server->n_visitors > HTTP_CONNECTIONS_MAX) refuse(visitor, 503);
}

int http_server_open(struct http_server **out, const struct http_server_options *options, struct err *err)
{
	struct address address;

	*out = NULL;
	if (address_parse(&address, options->listen, err)) return err_context(err, "%s", options->option);
	struct http_server *server = xcalloc(1, sizeof *server);
	server->address = address;
	server->options = *options;
	if (server->options.patience_ms == 0) server->options.patience_ms = HTTP_SECONDS_MAX * 1000;
	signal(SIGPIPE, SIG_IGN);
	int rc = uv_loop_init(&server->loop);
	assert(rc == 0);
	server->listener.handle.data = server;
	rc = server_listen(&server->loop, &server->listener, &server->listening, &server->address, options->listen, options->option,
	                   on_connection, err);
	if (rc) {
		http_server_close(server);
		return rc;
	}
	server_describe_address(&server->listener, &server->address, server->address_text, sizeof server->address_text);
	*out = server;
	return 0;
}

void http_server_close(struct http_server *server)
{
	if (!server) return;
	for (struct visitor *visitor = server->visitors; visitor; visitor = visitor->next) leave(visitor);
	if (server->listening) uv_close(&server->listener.handle, NULL);
	uv_run(&server->loop, UV_RUN_DEFAULT);
	int rc = uv_loop_close(&server->loop);
	assert(rc == 0);
	free(server);
}

const char *http_server_address(const struct http_server *server) { return server->address_text; }

void http_server_poll(struct http_server *server)
{
	uv_run(&server->loop, UV_RUN_NOWAIT);
	uint64_t now_ms = uv_now(&server->loop);
	for (struct visitor *visitor = server->visitors; visitor; visitor = visitor->next)
		if (now_ms - visitor->opened_ms > (uint64_t)server->options.patience_ms) leave(visitor);
}

/* server_listen.c - the listening socket: bound where it should be, or an error that says what is in the way. */
#include "trainer_bridge/server/server_listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BACKLOG = 64 };

int server_stream_init(uv_loop_t *loop, const struct address *address, union stream *stream)
{
	return address->is_unix ? uv_pipe_init(loop, &stream->pipe, 0) : uv_tcp_init(loop, &stream->tcp);
}

/* A Unix socket's file outlives a killed process: it is stale if nobody answers there. */
static int remove_stale_socket(const struct address *address, const char *option, struct err *err)
{
	struct stat status;

	if (lstat(address->path, &status) < 0)
		return 0;
	if (!S_ISSOCK(status.st_mode))
		return err_set(err, ERR_IO,
		               "cannot listen on unix:%s: the file exists and is no socket; remove it or choose "
		               "another %s",
		               address->path, option);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	bool stale = fd >= 0 &&
	             connect(fd, (const struct sockaddr *)&address->socket, address->socket_bytes) < 0 &&
	             errno == ECONNREFUSED;
	if (fd >= 0)
		close(fd);
	if (!stale)
		return err_set(err, ERR_IO,
		               "cannot listen on unix:%s: the address is in use, another run answers there; stop "
		               "it or set %s to another path",
		               address->path, option);
	if (unlink(address->path) < 0)
		return err_set_errno(err, ERR_IO, "cannot remove the stale socket %s", address->path);
	return 0;
}

static int bind_listener(union stream *listener, const struct address *address, const char *option, struct err *err)
{
	if (!address->is_unix)
		return uv_tcp_bind(&listener->tcp, (const struct sockaddr *)&address->socket, 0);
	if (remove_stale_socket(address, option, err))
		return 0;
	int rc = uv_pipe_bind(&listener->pipe, address->path);
	if (rc == 0 && chmod(address->path, S_IRUSR | S_IWUSR) < 0) /* the file system is its authentication */
		err_set_errno(err, ERR_IO, "cannot restrict %s to its owner", address->path);
	return rc;
}

void server_describe_address(const union stream *listener, const struct address *address, char *text, size_t size)
{
	struct sockaddr_storage socket;
	int n_bytes = sizeof socket;
	char host[INET6_ADDRSTRLEN];

	if (address->is_unix) {
		snprintf(text, size, "unix:%s", address->path);
		return;
	}
	uv_tcp_getsockname(&listener->tcp, (struct sockaddr *)&socket, &n_bytes);
	uv_ip_name((const struct sockaddr *)&socket, host, sizeof host);
	bool v6 = socket.ss_family == AF_INET6;
	int port = v6 ? ((struct sockaddr_in6 *)&socket)->sin6_port : ((struct sockaddr_in *)&socket)->sin_port;
	snprintf(text, size, v6 ? "tcp:[%s]:%d" : "tcp:%s:%d", host, ntohs((uint16_t)port));
}

int server_listen(uv_loop_t *loop, union stream *listener, bool *opened, const struct address *address,
                  const char *listen, const char *option, uv_connection_cb on_connection, struct err *err)
{
	void *data = listener->handle.data; /* the caller's; uv leaves it alone, but does not say so */

	err->code = 0;
	int rc = server_stream_init(loop, address, listener);
	listener->handle.data = data;
	*opened = rc == 0;
	if (rc == 0)
		rc = bind_listener(listener, address, option, err);
	if (err->code)
		return err->code;
	if (rc == 0)
		rc = uv_listen(&listener->stream, BACKLOG, on_connection);
	if (rc == UV_EADDRINUSE)
		return err_set(err, ERR_IO,
		               "cannot listen on %s: the address is in use; stop the program that holds it or set "
		               "%s to another one (port 0 takes any free port)",
		               listen, option);
	if (rc)
		return err_set(err, ERR_IO,
		               "cannot listen on %s: %s; set %s to an address of this machine", listen,
		               uv_strerror(rc), option);
	return 0;
}

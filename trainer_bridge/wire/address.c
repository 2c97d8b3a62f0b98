/* address.c - socket addresses from text; the only place that resolves names. */
#include "trainer_bridge/wire/address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

static int parse_unix(struct address *address, const char *path, struct err *err)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&address->socket;

	if (!*path)
		return err_set(err, ERR_USAGE, "unix: needs a path behind it, as in unix:/tmp/drumroll.sock");
	if (strlen(path) >= sizeof address->path)
		return err_set(err, ERR_TOO_BIG,
		               "socket path of %zu bytes: the system takes at most %zu; choose a shorter "
		               "directory or a tcp: address (%s)",
		               strlen(path), sizeof address->path - 1, path);
	strcpy(address->path, path);
	un->sun_family = AF_UNIX;
	strcpy(un->sun_path, path);
	address->socket_bytes = sizeof *un;
	address->is_unix = address->is_loopback = true;
	return 0;
}

static bool is_loopback(const struct sockaddr_storage *socket)
{
	if (socket->ss_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)socket)->sin_addr.s_addr) >> 24 == 127;
	return socket->ss_family == AF_INET6 &&
	       IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)socket)->sin6_addr);
}

/* "HOST:PORT" or "[HOST]:PORT" into its parts. */
static int split_host(const char *text, char host[256], const char **port, struct err *err)
{
	const char *colon = strrchr(text, ':'), *end = colon;

	if (!colon || colon == text || !colon[1])
		return err_set(err, ERR_USAGE, "'tcp:%s': expected tcp:HOST:PORT, as in tcp:127.0.0.1:7000", text);
	if (text[0] == '[' && colon[-1] == ']')
		text++, end--;
	else if (memchr(text, ':', (size_t)(colon - text)))
		return err_set(err, ERR_USAGE, "'tcp:%s': write an IPv6 address in brackets, as in tcp:[::1]:7000",
		               text);
	if (end - text >= 256)
		return err_set(err, ERR_TOO_BIG, "a host name of %td bytes: the limit is 255", end - text);
	memcpy(host, text, (size_t)(end - text));
	host[end - text] = '\0';
	*port = colon + 1;
	char *rest;
	long number = strtol(*port, &rest, 10);
	if (*rest || **port < '0' || **port > '9' || number < 0 || number > 65535)
		return err_set(err, ERR_USAGE, "'%s' is no port: expected a number from 0 to 65535", *port);
	return 0;
}

static int parse_tcp(struct address *address, const char *text, struct err *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
	char host[256];
	const char *port = NULL;

	if (split_host(text, host, &port, err))
		return err->code;
	int rc = getaddrinfo(strcmp(host, "*") == 0 ? "0.0.0.0" : host, port, &hints, &found);
	if (rc)
		return err_set(err, ERR_IO, "cannot find host '%s': %s", host, gai_strerror(rc));
	memcpy(&address->socket, found->ai_addr, found->ai_addrlen);
	address->socket_bytes = found->ai_addrlen;
	address->is_loopback = is_loopback(&address->socket);
	freeaddrinfo(found);
	return 0;
}

int address_parse(struct address *address, const char *text, struct err *err)
{
	memset(address, 0, sizeof *address);
	if (strncmp(text, "unix:", 5) == 0)
		return parse_unix(address, text + 5, err);
	if (strncmp(text, "tcp:", 4) == 0)
		return parse_tcp(address, text + 4, err);
	return err_set(err, ERR_USAGE, "'%s' is no address: expected unix:PATH or tcp:HOST:PORT", text);
}

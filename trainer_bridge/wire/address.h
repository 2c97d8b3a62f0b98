/* address.h - where to meet: "unix:PATH" or "tcp:HOST:PORT", as the socket calls want it. */
#ifndef TRAINER_BRIDGE_WIRE_ADDRESS_H
#define TRAINER_BRIDGE_WIRE_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "configs/err.h"

struct address {
	bool is_unix;
	bool is_loopback; /* a Unix socket counts */
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct sockaddr_storage socket;
	socklen_t socket_bytes;
};

/* HOST is a name, an address, [v6 address] or * (every interface); PORT is 0 to 65535. */
int address_parse(struct address *address, const char *text, struct err *err);

#endif

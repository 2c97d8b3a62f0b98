/* worker_farewell.c - see worker_farewell.h. */
#include "scheduler/worker/worker_farewell.h"

#include <stdio.h>
#include <stdlib.h>

#include "scheduler/clock.h"

static const double FAREWELL_SECONDS = 5;

static bool is_quit(const struct transport_message *m)
{
	struct message *message;
	struct err err;
	int64_t type = 0;

	if (message_parse(&message, m->bytes, m->n_bytes, &err)) return false;
	int rc = message_get_int(message_root(message), "type", RANK_START, RANK_FAILED, &type, &err);
	message_close(message);
	return rc == 0 && type == RANK_QUIT;
}

void worker_farewell(struct transport *transport, struct message_writer *writer, const struct err *why)
{
	struct err err;
	bool quit = false;

	rank_message_begin(writer, RANK_FAILED, 1);
	message_key(writer, "text");
	message_put_text(writer, why->text);
	if (rank_message_send(transport, 0, writer, &err)) fprintf(stderr, "drumroll: %s\n", why->text);
	for (double start = clock_seconds(); !quit && clock_seconds() - start < FAREWELL_SECONDS;) {
		struct transport_message m;
		while (transport_poll(transport, &m)) {
			quit = is_quit(&m) || quit;
			free(m.bytes);
		}
		clock_sleep_ms(1);
	}
}

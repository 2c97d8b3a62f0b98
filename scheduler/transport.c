/* transport.c - MPI point-to-point messages, polled. */
#include "scheduler/transport.h"

#include <mpi.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TAG_MESSAGE = 1, DRAIN_MS = 20, FINALIZE_SECONDS = 60 };

struct outgoing {
	MPI_Request request;
	void *bytes; /* owned until the request is done */
	size_t n_bytes;
	int rank;
	struct outgoing *next;
};

struct transport {
	int rank, size;
	struct outgoing *sending; /* order does not matter: MPI keeps the order per receiver */
	size_t *backlog;          /* [size] */
	struct transport_message incoming; /* on its way in; bytes NULL if there is none */
	MPI_Request receiving;
};

int transport_open(struct transport **out, struct err *err)
{
	int provided = 0;

	if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS || provided < MPI_THREAD_FUNNELED)
		return err_set(err, ERR_IO, "MPI did not start with funneled threads; is drumroll run by MPICH's mpirun?");
	MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
	struct transport *t = xcalloc(1, sizeof *t);
	MPI_Comm_rank(MPI_COMM_WORLD, &t->rank);
	MPI_Comm_size(MPI_COMM_WORLD, &t->size);
	t->backlog = xcalloc((size_t)t->size, sizeof *t->backlog);
	*out = t;
	return 0;
}

/* Free what has been sent. */
static void sends_complete(struct transport *t)
{
	for (struct outgoing **link = &t->sending; *link;) {
		struct outgoing *o = *link;
		int done = 0;
		if (MPI_Test(&o->request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && !done) {
			link = &o->next;
			continue;
		}
		*link = o->next;
		t->backlog[o->rank] -= o->n_bytes;
		free(o->bytes);
		free(o);
	}
}

static void pause_briefly(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

static void on_alarm(int signal_number)
{
	static const char text[] = "drumroll: a rank does not answer any more; ending without it\n";
	ssize_t n = write(STDERR_FILENO, text, sizeof text - 1);
	(void)signal_number;
	(void)n;
	_exit(EXIT_FAILURE);
}

void transport_close(struct transport *t, double seconds)
{
	/* What still comes in is of no use to anybody, but must be taken. */
	struct transport_message late;
	for (int ms = 0; (t->sending && ms < (int)(seconds * 1000)) || ms < DRAIN_MS; ms++) {
		while (transport_poll(t, &late)) free(late.bytes);
		pause_briefly();
	}
	/* MPI_Finalize waits for everybody: with sends still open, a rank is gone.  It has no time limit of its
	 * own, and a rank that hangs must not take the others along; mpirun ends that rank when we leave. */
	if (t->sending) return; /* its bytes are MPI's to read until the process ends */
	signal(SIGALRM, on_alarm);
	alarm(FINALIZE_SECONDS);
	MPI_Finalize();
	alarm(0);
	free(t->incoming.bytes);
	free(t->backlog);
	free(t);
}

int transport_rank(const struct transport *t) { return t->rank; }
int transport_size(const struct transport *t) { return t->size; }
size_t transport_backlog(const struct transport *t, int rank) { return t->backlog[rank]; }

bool transport_wait(struct transport *t, int rank, double seconds)
{
	double until = MPI_Wtime() + seconds;

	do sends_complete(t);
	while (t->backlog[rank] > 0 && MPI_Wtime() < until);
	return t->backlog[rank] == 0;
}

int transport_send(struct transport *t, int rank, const void *bytes, size_t n_bytes, struct err *err)
{
	if (n_bytes > TRANSPORT_MESSAGE_MAX)
		return err_set(err, ERR_TOO_BIG, "a message of %zu bytes to rank %d exceeds the limit of %d", n_bytes, rank,
		               TRANSPORT_MESSAGE_MAX);
	struct outgoing *o = xcalloc(1, sizeof *o);
	o->bytes = xmalloc(n_bytes ? n_bytes : 1);
	memcpy(o->bytes, bytes, n_bytes);
	o->n_bytes = n_bytes;
	o->rank = rank;
	if (MPI_Isend(o->bytes, (int)n_bytes, MPI_BYTE, rank, TAG_MESSAGE, MPI_COMM_WORLD, &o->request) != MPI_SUCCESS) {
		free(o->bytes);
		free(o);
		return err_set(err, ERR_PEER, "MPI refused a message of %zu bytes to rank %d", n_bytes, rank);
	}
	o->next = t->sending;
	t->sending = o;
	t->backlog[rank] += n_bytes;
	return 0;
}

/* Begin to receive the next message if there is one.  Not a blocking receive: a long message moves only
 * while its sender polls MPI too, and a worker may be in a round of its engine. */
static void receive_begin(struct transport *t)
{
	int ready = 0, n_bytes = 0;
	MPI_Message message;
	MPI_Status status;

	if (MPI_Improbe(MPI_ANY_SOURCE, TAG_MESSAGE, MPI_COMM_WORLD, &ready, &message, &status) != MPI_SUCCESS || !ready) return;
	MPI_Get_count(&status, MPI_BYTE, &n_bytes);
	t->incoming = (struct transport_message){ .rank = status.MPI_SOURCE, .n_bytes = (size_t)n_bytes,
	                                          .bytes = xmalloc(n_bytes ? (size_t)n_bytes : 1) };
	if (MPI_Imrecv(t->incoming.bytes, n_bytes, MPI_BYTE, &message, &t->receiving) == MPI_SUCCESS) return;
	free(t->incoming.bytes);
	t->incoming.bytes = NULL;
}

/* One message is received at a time, so those of one rank stay in order. */
bool transport_poll(struct transport *t, struct transport_message *message)
{
	int done = 0;

	sends_complete(t);
	if (!t->incoming.bytes) receive_begin(t);
	if (!t->incoming.bytes || MPI_Test(&t->receiving, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS || !done) return false;
	*message = t->incoming;
	t->incoming.bytes = NULL;
	return true;
}

bool transport_is_follower(void)
{
	const char *rank = getenv("PMI_RANK");
	return rank && strcmp(rank, "0") != 0;
}

/* transport.c - MPI point-to-point messages, polled, each with its XXH3 behind it. */
#include "scheduler/ranks/transport.h"

#include <mpi.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "scheduler/ranks/rank_guard.h"

enum { TAG_MESSAGE = 1, TAG_LEAVE = 2, START_SECONDS = 300, FINALIZE_SECONDS = 60, RECEIVING_MAX = 64 };

static const double DRAIN_SECONDS = 0.02;

struct outgoing {
	MPI_Request request;
	void *bytes; /* owned until the request is done */
	size_t n_bytes;
	int rank;
	struct outgoing *next;
};

struct incoming {
	MPI_Request request;
	struct transport_message message;
	bool done;
	struct incoming *next;
};

struct transport {
	int rank, size;
	struct outgoing *sending; /* order does not matter: MPI keeps the order per receiver */
	size_t *backlog;          /* [size] */
	bool *lost;               /* [size] */
	bool *broken;             /* [size], MPI has refused something */
	bool *left;               /* [size], has taken leave */
	bool alone;               /* somebody was lost: no MPI_Finalize */
	struct incoming *receiving; /* in order of arrival */
	int n_receiving;            /* of ranks that are not lost */
};

static void on_alarm(int signal_number)
{
	static const char text[] = "drumroll: a rank does not answer any more; ending without it\n";
	ssize_t n = write(STDERR_FILENO, text, sizeof text - 1);
	(void)signal_number;
	(void)n;
	_exit(EXIT_FAILURE);
}

int transport_open(struct transport **out, struct err *err)
{
	int provided = 0;

	/* UCX aborts where it reads the memory of a process that has died (CMA); and a link that was cut may come back:
	 * whether a rank is gone is for us to say. */
	setenv("UCX_TLS", "^cma", 0);
	setenv("UCX_TCP_KEEPIDLE", "inf", 0);
	/* It waits for everybody: a rank that never comes must not hold the others for ever. */
	signal(SIGALRM, on_alarm);
	alarm(START_SECONDS);
	if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS || provided < MPI_THREAD_FUNNELED)
		return err_set(err, ERR_IO, "MPI did not start with funneled threads; is drumroll run by MPICH's mpirun?");
	alarm(0);
	MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
	struct transport *t = xcalloc(1, sizeof *t);
	MPI_Comm_rank(MPI_COMM_WORLD, &t->rank);
	MPI_Comm_size(MPI_COMM_WORLD, &t->size);
	t->backlog = xcalloc((size_t)t->size, sizeof *t->backlog);
	t->lost = xcalloc((size_t)t->size, sizeof *t->lost);
	t->left = xcalloc((size_t)t->size, sizeof *t->left);
	t->broken = xcalloc((size_t)t->size, sizeof *t->broken);
	*out = t;
	return 0;
}

/* Free what has been sent. */
static void sends_complete(struct transport *t)
{
	for (struct outgoing **link = &t->sending; *link;) {
		struct outgoing *o = *link;
		int done = 0;
		bool works = MPI_Test(&o->request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS;
		if (works && !done) {
			link = &o->next;
			continue;
		}
		t->broken[o->rank] |= !works;
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

static bool is_sending(const struct transport *t)
{
	for (int r = 0; r < t->size; r++)
		if (t->backlog[r] > 0 && !t->lost[r]) return true;
	return false;
}

/* Rank 0 waits for a word from everybody that is not lost; the others for what they have queued. */
static bool may_leave(struct transport *t)
{
	int ready = 0;
	MPI_Status status;

	if (t->rank > 0) return !is_sending(t);
	while (MPI_Iprobe(MPI_ANY_SOURCE, TAG_LEAVE, MPI_COMM_WORLD, &ready, &status) == MPI_SUCCESS && ready) {
		MPI_Recv(NULL, 0, MPI_BYTE, status.MPI_SOURCE, TAG_LEAVE, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		t->left[status.MPI_SOURCE] = true;
	}
	for (int r = 1; r < t->size; r++)
		if (!t->lost[r] && !t->left[r]) return false;
	return true;
}

static bool has_everybody_left(const struct transport *t)
{
	for (int r = 1; r < t->size; r++)
		if (!t->left[r]) return false;
	return true;
}

/* MPI_Finalize waits for everybody and has no time limit: with a rank that is gone it hangs, and over TCP MPICH
 * 4.0.2 hangs in it now and then with all of them there.  A guarded rank does without: its guard takes leave. */
static void finalize(struct transport *t)
{
	if (t->sending || t->receiving || t->alone || rank_guard_is_on()) return; /* bytes are MPI's to read until the end */
	signal(SIGALRM, on_alarm);
	alarm(FINALIZE_SECONDS);
	MPI_Finalize();
	alarm(0);
}

/* MPI may still read or write what is under way with ranks that are gone: it stays to the end of the process. */
static struct transport *volatile kept;

void transport_close(struct transport *t, double seconds)
{
	double began = MPI_Wtime();
	struct transport_message late;
	MPI_Request leaving;

	if (t->rank > 0) MPI_Isend(NULL, 0, MPI_BYTE, 0, TAG_LEAVE, MPI_COMM_WORLD, &leaving);
	/* What still comes in is of no use to anybody, but must be taken. */
	for (bool done = false; !done || MPI_Wtime() - began < DRAIN_SECONDS; pause_briefly()) {
		while (transport_poll(t, &late)) free(late.bytes);
		done = MPI_Wtime() - began > seconds || may_leave(t);
	}
	if (t->rank == 0 && !has_everybody_left(t)) rank_guard_end_all();
	finalize(t);
	if (t->sending || t->receiving) {
		kept = t;
		return;
	}
	free(t->backlog);
	free(t->lost);
	free(t->left);
	free(t->broken);
	free(t);
}

bool transport_is_broken(const struct transport *t, int rank) { return t->broken[rank]; }

void transport_leave_alone(struct transport *t) { t->alone = true; }

void transport_lost(struct transport *t, int rank)
{
	t->lost[rank] = t->alone = true;
	t->n_receiving = 0;
	for (const struct incoming *in = t->receiving; in; in = in->next) t->n_receiving += !t->lost[in->message.rank];
}

void transport_found(struct transport *t, int rank)
{
	t->lost[rank] = false;
	t->n_receiving = 0;
	for (const struct incoming *in = t->receiving; in; in = in->next) t->n_receiving += !t->lost[in->message.rank];
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
	uint64_t checksum = XXH3_64bits(bytes, n_bytes);
	o->bytes = xmalloc(n_bytes + sizeof checksum);
	memcpy(o->bytes, bytes, n_bytes);
	memcpy((char *)o->bytes + n_bytes, &checksum, sizeof checksum);
	o->n_bytes = n_bytes;
	o->rank = rank;
	if (MPI_Isend(o->bytes, (int)(n_bytes + sizeof checksum), MPI_BYTE, rank, TAG_MESSAGE, MPI_COMM_WORLD, &o->request) != MPI_SUCCESS) {
		free(o->bytes);
		free(o);
		t->broken[rank] = true;
		return 0;
	}
	o->next = t->sending;
	t->sending = o;
	t->backlog[rank] += n_bytes;
	return 0;
}

/* Begin to receive the next message if there is one.  Not a blocking receive: a long message moves only
 * while its sender polls MPI too, and a worker may be in a round of its engine, stopped, or dead. */
static bool receive_begin(struct transport *t)
{
	int ready = 0, n_bytes = 0;
	MPI_Message message;
	MPI_Status status;

	if (t->n_receiving >= RECEIVING_MAX) return false;
	if (MPI_Improbe(MPI_ANY_SOURCE, TAG_MESSAGE, MPI_COMM_WORLD, &ready, &message, &status) != MPI_SUCCESS || !ready)
		return false;
	MPI_Get_count(&status, MPI_BYTE, &n_bytes);
	struct incoming *in = xcalloc(1, sizeof *in);
	in->message = (struct transport_message){ .rank = status.MPI_SOURCE, .n_bytes = (size_t)n_bytes,
	                                          .bytes = xmalloc(n_bytes ? (size_t)n_bytes : 1) };
	if (MPI_Imrecv(in->message.bytes, n_bytes, MPI_BYTE, &message, &in->request) != MPI_SUCCESS) {
		free(in->message.bytes);
		free(in);
		return true;
	}
	struct incoming **link = &t->receiving;
	while (*link) link = &(*link)->next;
	*link = in;
	t->n_receiving += !t->lost[in->message.rank];
	return true;
}

/* The message without the checksum that ends it; false if that is another one. */
static bool is_whole(struct transport_message *message)
{
	uint64_t checksum;

	if (message->n_bytes < sizeof checksum) return false;
	message->n_bytes -= sizeof checksum;
	memcpy(&checksum, (const char *)message->bytes + message->n_bytes, sizeof checksum);
	return checksum == XXH3_64bits(message->bytes, message->n_bytes);
}

/* One whose sender died on the way fails, or MPI says that all is well and it is not: then it is no message. */
static void receive_test(struct transport *t, struct incoming *in)
{
	int done = 0;

	if (in->done) return;
	bool works = MPI_Test(&in->request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS;
	if (works && !done) return;
	in->done = true;
	if (works && is_whole(&in->message)) return;
	free(in->message.bytes);
	in->message.bytes = NULL;
	t->broken[in->message.rank] = true;
}

static bool is_first_of_its_rank(const struct transport *t, const struct incoming *in)
{
	const struct incoming *first = t->receiving;

	while (first->message.rank != in->message.rank) first = first->next;
	return first == in;
}

/* The first that has arrived whole; those of one rank stay in order, and none waits for another rank's. */
static bool receive_take(struct transport *t, struct transport_message *message)
{
	for (struct incoming **link = &t->receiving; *link;) {
		struct incoming *in = *link;
		receive_test(t, in);
		if (!in->done || !is_first_of_its_rank(t, in)) {
			link = &in->next;
			continue;
		}
		*link = in->next;
		*message = in->message;
		t->n_receiving -= !t->lost[in->message.rank];
		free(in);
		if (message->bytes) return true;
	}
	return false;
}

bool transport_poll(struct transport *t, struct transport_message *message)
{
	sends_complete(t);
	while (!receive_take(t, message))
		if (!receive_begin(t)) return false;
	return true;
}

bool transport_is_follower(void)
{
	const char *rank = getenv("PMI_RANK");
	return rank && strcmp(rank, "0") != 0;
}

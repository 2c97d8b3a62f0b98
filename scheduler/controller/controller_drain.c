/* controller_drain.c - SIGINT and SIGTERM: the first has what is in flight put aside and stored, in bounded time; the
 * second ends the run at once.  Either way it can be resumed: the second loses at most what was not committed. */
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>

#include "scheduler/clock.h"
#include "scheduler/controller/controller_internal.h"

static volatile sig_atomic_t n_signals, last_signal;

static void on_signal(int signal_number)
{
	last_signal = signal_number;
	n_signals++;
}

void controller_catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is then an error of the write, like a full disk */
}

int controller_signals(int *signal_number)
{
	*signal_number = (int)last_signal;
	return (int)n_signals;
}

static int ask_for_everything(struct controller *c, bool *waits /* [n_ranks] */, struct err *err)
{
	int rc = 0;

	for (int r = 1; r < c->n_ranks && !rc; r++) {
		waits[r] = c->ranks[r].holding > 0;
		if (!waits[r]) continue;
		rank_message_begin(c->writer, RANK_STOP, 1);
		message_key(c->writer, "keep");
		message_begin_array(c->writer, 0);
		rc = rank_message_send(c->transport, r, c->writer, err);
	}
	return rc;
}

/* The scheduler's decisions are left where they are: this run makes no more of them. */
static int take_what_comes(struct controller *c, const bool *waits, bool *done, struct err *err)
{
	struct transport_message m;
	int rc = 0;

	while (!rc && transport_poll(c->transport, &m)) {
		rc = controller_on_message(c, &m, err);
		free(m.bytes);
	}
	*done = !c->keeper || !weights_keeper_busy(c->keeper);
	for (int r = 1; r < c->n_ranks; r++) *done = *done && !(waits[r] && c->ranks[r].holding > 0);
	return rc;
}

int controller_drain(struct controller *c, struct err *err)
{
	double began = clock_seconds();
	bool *waits = xcalloc((size_t)c->n_ranks, sizeof *waits), done = false;
	int held = 0, left = 0;

	for (int r = 1; r < c->n_ranks; r++) held += c->ranks[r].holding;
	c->draining = true;
	progress_note("signal %d in step %" PRId64 ": %d samples in flight are put aside (at most %g s; a second signal stops at once)",
	              (int)last_signal, c->step, held, c->config->run.drain_seconds);
	int rc = ask_for_everything(c, waits, err);
	while (!rc && !done && n_signals < 2 && clock_seconds() - began < c->config->run.drain_seconds) {
		rc = take_what_comes(c, waits, &done, err);
		if (!rc) rc = controller_ranks_turn(c, err);
		if (!rc) rc = controller_keep_poll(c, err);
		if (!rc && !done) clock_sleep_ms(1);
	}
	free(waits);
	if (!rc) rc = controller_flush(c, err);
	if (rc) return rc;
	for (int r = 1; r < c->n_ranks; r++) left += c->ranks[r].holding;
	return err_set(err, ERR_STATE, "stopped by signal %d in step %" PRId64 "; %d samples were put aside, %d as last committed; "
	               "go on with: mpirun -n %d drumroll run --resume %s", (int)last_signal, c->step, held - left, left, c->n_ranks,
	               c->run_dir);
}

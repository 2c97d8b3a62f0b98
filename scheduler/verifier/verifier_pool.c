/* verifier_pool.c - who is asked what, when again, and what becomes of it.
 *
 * Every request is a task: in the queue, with a process, or answered.  A turn costs O(queue + processes * in_flight). */
#include "scheduler/verifier/verifier_pool.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "scheduler/clock.h"
#include "scheduler/verifier/verifier_process.h"

static const double GOODBYE_SECONDS = 1; /* for processes to go by themselves at the end */

struct task {
	struct task *previous, *next; /* in the queue */
	uint64_t trajectory, request;
	uint64_t order;      /* the smallest is asked first */
	char *body;
	size_t n_bytes;
	int attempts;        /* that count and failed */
	double submitted, sent, not_before;
	bool cancelled;
};

struct slot {
	struct verifier_process *process; /* NULL: none runs */
	struct task **tasks;              /* [n_tasks <= in_flight], with it */
	int n_tasks;
	bool answered;                    /* has ever replied */
	int failures;                     /* in a row */
	double start_at;                  /* not before */
};

struct verifier_pool {
	struct verifier_pool_options options;
	char *command;
	struct verifier_log *log;
	struct slot *slots;               /* [processes] */
	struct verifier_process **processes; /* [processes], scratch */
	pid_t *dying;                     /* [n_dying], killed and not reaped */
	int n_dying, dying_capacity;
	struct task *first, *last;        /* the queue, by `order` */
	int n_queued, n_sent;
	struct verifier_verdict *verdicts; /* [n_verdicts], from `taken` on not yet taken */
	int n_verdicts, taken, verdicts_capacity;
	struct verifier_counts counts;
	uint64_t next_request;
	bool ever_answered;
	double clock, now;                /* the pool's seconds; the caller's at the last turn, < 0: none yet */
	struct err broken;                /* code 0: it is not */
};

/* ---- tasks ---- */

/* Behind those of its order: mostly the last, since samples come roughly as they were leased. */
static void queue_push(struct verifier_pool *pool, struct task *task)
{
	struct task *before = pool->last;

	while (before && before->order > task->order) before = before->previous;
	task->previous = before;
	task->next = before ? before->next : pool->first;
	*(before ? &before->next : &pool->first) = task;
	*(task->next ? &task->next->previous : &pool->last) = task;
	pool->n_queued++;
}

static void queue_remove(struct verifier_pool *pool, struct task *task)
{
	*(task->previous ? &task->previous->next : &pool->first) = task->next;
	*(task->next ? &task->next->previous : &pool->last) = task->previous;
	pool->n_queued--;
}

/* The first that may be asked now; `alone`: a process is free of others.  Where the first must be alone, a process that is
 * not gets nothing: it is free for it the sooner. */
static struct task *queue_pop(struct verifier_pool *pool, bool alone)
{
	for (struct task *task = pool->first; task; task = task->next) {
		if (task->not_before > pool->clock) continue;
		if (task->attempts > 0 && !alone) return NULL;
		queue_remove(pool, task);
		return task;
	}
	return NULL;
}

static void task_free(struct task *task)
{
	free(task->body);
	free(task);
}

static struct verifier_verdict *verdict_add(struct verifier_pool *pool)
{
	if (pool->taken == pool->n_verdicts) pool->taken = pool->n_verdicts = 0;
	if (pool->n_verdicts == pool->verdicts_capacity) {
		pool->verdicts_capacity = pool->verdicts_capacity ? 2 * pool->verdicts_capacity : 64;
		pool->verdicts = xrealloc(pool->verdicts, (size_t)pool->verdicts_capacity * sizeof *pool->verdicts);
	}
	return &pool->verdicts[pool->n_verdicts++];
}

/* Its verdict is out: error NULL where it was judged.  Frees the task. */
static void task_end(struct verifier_pool *pool, struct task *task, enum verdict verdict,
                     const struct verifier_reply *reply, const char *error)
{
	if (!task->cancelled) {
		struct verifier_verdict *v = verdict_add(pool);
		*v = (struct verifier_verdict){ .trajectory = task->trajectory, .verdict = verdict,
		                                .seconds = pool->clock - task->submitted };
		if (verdict == VERDICT_JUDGED) {
			v->reward = reply->reward;
			v->reward_answer = reply->reward_answer;
			v->reward_steps = reply->reward_steps;
		} else if (verdict == VERDICT_BAD_DATA) {
			snprintf(v->error, sizeof v->error, "the verifier cannot judge it: %s", error);
		} else {
			snprintf(v->error, sizeof v->error, "the verifier %s (asked %d times)", error, task->attempts);
		}
		pool->counts.judged += verdict == VERDICT_JUDGED;
		pool->counts.bad_data += verdict == VERDICT_BAD_DATA;
		pool->counts.failed += verdict == VERDICT_FAILED;
	}
	task_free(task);
}

static double backoff(const struct verifier_pool *pool, int failures)
{
	double seconds = pool->options.backoff;

	for (int i = 1; i < failures && i <= BACKOFF_DOUBLINGS_MAX; i++) seconds *= 2;
	return seconds;
}

/* An attempt has come to nothing, for this reason: again later, or never. */
static void task_failed(struct verifier_pool *pool, struct task *task, const char *why)
{
	task->attempts++;
	if (task->cancelled || task->attempts > pool->options.retries) {
		task_end(pool, task, VERDICT_FAILED, NULL, why);
		return;
	}
	task->not_before = pool->clock + backoff(pool, task->attempts);
	queue_push(pool, task);
}

/* ---- processes ---- */

static void start(struct verifier_pool *pool, struct slot *slot)
{
	struct err err;
	int number = (int)(slot - pool->slots);

	slot->answered = false;
	if (verifier_process_start(&slot->process, pool->command, number, pool->options.reply_bytes_max, pool->log, &err) == 0) return;
	slot->failures++; /* no memory or no descriptors: perhaps later */
	slot->start_at = pool->clock + backoff(pool, slot->failures);
	verifier_log_note(pool->log, number, err.text);
}

static void reap(struct verifier_pool *pool)
{
	for (int i = pool->n_dying - 1; i >= 0; i--)
		if (waitpid(pool->dying[i], NULL, WNOHANG) != 0) pool->dying[i] = pool->dying[--pool->n_dying];
}

static void kill_process(struct verifier_pool *pool, struct slot *slot)
{
	pid_t pid = verifier_process_kill(slot->process);

	slot->process = NULL;
	if (pid == 0) return;
	if (pool->n_dying == pool->dying_capacity) {
		pool->dying_capacity = pool->dying_capacity ? 2 * pool->dying_capacity : 16;
		pool->dying = xrealloc(pool->dying, (size_t)pool->dying_capacity * sizeof *pool->dying);
	}
	pool->dying[pool->n_dying++] = pid;
}

/* The process is of no use any more.  guilty: the one task that this is charged to; NULL: all that it held. */
static void process_failed(struct verifier_pool *pool, struct slot *slot, const struct task *guilty, const char *why)
{
	char reason[VERIFIER_ERROR_MAX];

	snprintf(reason, sizeof reason, "%s", why); /* it may be the process' own */
	verifier_log_note(pool->log, (int)(slot - pool->slots), reason);
	kill_process(pool, slot);
	pool->n_sent -= slot->n_tasks;
	for (int i = 0; i < slot->n_tasks; i++) {
		struct task *task = slot->tasks[i];
		if (!guilty || task == guilty) task_failed(pool, task, reason);
		else if (task->cancelled) task_free(task);
		else queue_push(pool, task);
	}
	slot->n_tasks = 0;
	slot->failures++;
	slot->start_at = pool->clock + backoff(pool, slot->failures);
	pool->counts.restarts++;
}

/* ---- asking and answers ---- */

static void ask(struct verifier_pool *pool, struct slot *slot, struct task *task)
{
	char head[48];
	int n = snprintf(head, sizeof head, "{\"id\":%" PRIu64, task->request = pool->next_request++);

	verifier_process_send(slot->process, head, (size_t)n);
	verifier_process_send(slot->process, task->body, task->n_bytes);
	task->sent = pool->clock;
	slot->tasks[slot->n_tasks++] = task;
	pool->n_sent++;
	pool->counts.asked++;
	pool->counts.retried += task->attempts > 0;
}

/* A task that has failed before is with a process alone. */
static void fill(struct verifier_pool *pool, struct slot *slot)
{
	while (slot->n_tasks < pool->options.in_flight && !(slot->n_tasks > 0 && slot->tasks[0]->attempts > 0)) {
		struct task *task = queue_pop(pool, slot->n_tasks == 0);
		if (!task) return;
		ask(pool, slot, task);
	}
}

static struct task *task_of(const struct slot *slot, uint64_t request)
{
	for (int i = 0; i < slot->n_tasks; i++)
		if (slot->tasks[i]->request == request) return slot->tasks[i];
	return NULL;
}

static void take_from(struct verifier_pool *pool, struct slot *slot, const struct task *task)
{
	for (int i = 0; i < slot->n_tasks; i++) {
		if (slot->tasks[i] != task) continue;
		slot->n_tasks--;
		memmove(slot->tasks + i, slot->tasks + i + 1, (size_t)(slot->n_tasks - i) * sizeof *slot->tasks);
		pool->n_sent--;
		return;
	}
}

static void take_reply(struct verifier_pool *pool, struct slot *slot, struct task *task, const struct verifier_reply *reply)
{
	char why[VERIFIER_ERROR_MAX + 40];

	take_from(pool, slot, task);
	slot->answered = pool->ever_answered = true;
	slot->failures = 0;
	switch (reply->answer) {
	case VERIFIER_JUDGED: task_end(pool, task, VERDICT_JUDGED, reply, NULL); return;
	case VERIFIER_CANNOT_JUDGE: task_end(pool, task, VERDICT_BAD_DATA, reply, reply->error); return;
	case VERIFIER_TRY_AGAIN: break;
	}
	snprintf(why, sizeof why, "asked to try again: %s", reply->error);
	task_failed(pool, task, why);
}

/* One line; false: the process is done for. */
static bool take_line(struct verifier_pool *pool, struct slot *slot, const char *line, size_t n_bytes)
{
	struct verifier_reply reply;
	struct err err;

	if (n_bytes == 0) return true;
	int rc = verifier_reply_parse(&reply, line, n_bytes, &err);
	struct task *task = reply.has_id ? task_of(slot, reply.id) : NULL;
	if (rc == 0 && task) {
		take_reply(pool, slot, task, &reply);
		return true;
	}
	if (rc == 0) { /* late, twice, or never asked */
		pool->counts.strays++;
		return true;
	}
	char why[VERIFIER_ERROR_MAX];
	snprintf(why, sizeof why, "answered nonsense: %.200s", err.text);
	process_failed(pool, slot, task, why);
	return false;
}

static bool take_lines(struct verifier_pool *pool, struct slot *slot)
{
	const char *line;
	size_t n_bytes;

	while ((line = verifier_process_line(slot->process, &n_bytes)))
		if (!take_line(pool, slot, line, n_bytes)) return false;
	return true;
}

/* Who has not answered in time, the oldest first; NULL: nobody. */
static const struct task *late_task(const struct verifier_pool *pool, const struct slot *slot)
{
	double limit = pool->options.timeout;

	if (!slot->answered && pool->options.start_timeout > limit) limit = pool->options.start_timeout;
	for (int i = 0; i < slot->n_tasks; i++)
		if (pool->clock - slot->tasks[i]->sent > limit) return slot->tasks[i];
	return NULL;
}

static void end_late(struct verifier_pool *pool, struct slot *slot)
{
	const struct task *late = late_task(pool, slot);
	char why[VERIFIER_ERROR_MAX];

	if (!late) return;
	snprintf(why, sizeof why, "did not answer within %.3g s (reward.program_timeout)", pool->clock - late->sent);
	process_failed(pool, slot, late, why);
}

/* A program that does not exist will not by being started again. */
static void mark_broken(struct verifier_pool *pool, const char *why)
{
	if (pool->broken.code || pool->ever_answered) return;
	err_set(&pool->broken, ERR_PEER, "the verifier %s before it ever answered: the shell cannot run \"%s\" "
	        "(reward.program); what it says is in %s", why, pool->command, pool->options.log_path);
}

static void slot_turn(struct verifier_pool *pool, struct slot *slot)
{
	const char *why;
	bool not_runnable;

	if (!slot->process && slot->start_at <= pool->clock) start(pool, slot);
	if (!slot->process || !take_lines(pool, slot)) return;
	if (verifier_process_ended(slot->process, pool->clock, &why, &not_runnable)) {
		if (not_runnable) mark_broken(pool, why);
		process_failed(pool, slot, NULL, why);
		return;
	}
	end_late(pool, slot);
	if (slot->process) fill(pool, slot);
}

static void move_clock(struct verifier_pool *pool, double now)
{
	double passed = pool->now < 0 ? 0 : now - pool->now;

	if (passed > 0) pool->clock += passed < TURN_SECONDS_MAX ? passed : TURN_SECONDS_MAX;
	pool->now = now;
}

int verifier_pool_turn(struct verifier_pool *pool, double now, struct err *err)
{
	move_clock(pool, now);
	for (int i = 0; i < pool->options.processes; i++) pool->processes[i] = pool->slots[i].process;
	verifier_processes_turn(pool->processes, pool->options.processes, pool->clock);
	for (int i = 0; i < pool->options.processes; i++) slot_turn(pool, &pool->slots[i]);
	reap(pool);
	if (pool->broken.code) *err = pool->broken;
	return pool->broken.code;
}

/* ---- from outside ---- */

void verifier_pool_submit(struct verifier_pool *pool, uint64_t trajectory, uint64_t order, char *body, size_t n_bytes)
{
	struct task *task = xcalloc(1, sizeof *task);

	*task = (struct task){ .trajectory = trajectory, .order = order, .body = body, .n_bytes = n_bytes, .submitted = pool->clock };
	queue_push(pool, task);
}

void verifier_pool_cancel(struct verifier_pool *pool, uint64_t trajectory)
{
	for (struct task *task = pool->first; task; task = task->next) {
		if (task->trajectory != trajectory) continue;
		queue_remove(pool, task);
		task_free(task);
		return;
	}
	for (int i = 0; i < pool->options.processes; i++)
		for (int k = 0; k < pool->slots[i].n_tasks; k++)
			if (pool->slots[i].tasks[k]->trajectory == trajectory) pool->slots[i].tasks[k]->cancelled = true;
}

bool verifier_pool_take(struct verifier_pool *pool, struct verifier_verdict *verdict)
{
	if (pool->taken == pool->n_verdicts) return false;
	*verdict = pool->verdicts[pool->taken++];
	return true;
}

int verifier_pool_waiting(const struct verifier_pool *pool)
{
	return pool->n_queued + pool->n_sent;
}

void verifier_pool_counts(const struct verifier_pool *pool, struct verifier_counts *counts)
{
	*counts = pool->counts;
}

void verifier_pool_describe(const struct verifier_pool *pool, char *text, size_t size)
{
	double oldest = pool->clock;
	int waiting = verifier_pool_waiting(pool);

	text[0] = '\0';
	if (waiting == 0) return;
	for (const struct task *task = pool->first; task; task = task->next)
		oldest = task->submitted < oldest ? task->submitted : oldest;
	for (int i = 0; i < pool->options.processes; i++)
		for (int k = 0; k < pool->slots[i].n_tasks; k++)
			oldest = pool->slots[i].tasks[k]->submitted < oldest ? pool->slots[i].tasks[k]->submitted : oldest;
	snprintf(text, size, "%d samples wait for the verifier (%d are with it, the oldest for %.0f s; %" PRIu64 " restarts)",
	         waiting, pool->n_sent, pool->clock - oldest, pool->counts.restarts);
}

int verifier_pool_open(struct verifier_pool **out, const struct verifier_pool_options *options, struct err *err)
{
	struct verifier_log *log;

	*out = NULL;
	if (verifier_log_open(&log, options->log_path, err)) return err->code;
	struct verifier_pool *pool = *out = xcalloc(1, sizeof *pool);
	pool->options = *options;
	pool->command = xstrdup(options->command);
	pool->options.log_path = xstrdup(options->log_path);
	pool->log = log;
	pool->slots = xcalloc((size_t)options->processes, sizeof *pool->slots);
	pool->processes = xcalloc((size_t)options->processes, sizeof(void *));
	pool->now = -1;
	pool->next_request = 1;
	for (int i = 0; i < options->processes; i++) {
		pool->slots[i].tasks = xcalloc((size_t)options->in_flight, sizeof(void *));
		start(pool, &pool->slots[i]);
	}
	return 0;
}

/* Those that read to the end of their input go by themselves, and clean up; the others are killed. */
static void say_goodbye(struct verifier_pool *pool)
{
	double start = clock_seconds();
	int alive = 1;

	for (int i = 0; i < pool->options.processes; i++)
		if (pool->slots[i].process) verifier_process_hang_up(pool->slots[i].process);
	while (alive && clock_seconds() - start < GOODBYE_SECONDS) {
		alive = 0;
		for (int i = 0; i < pool->options.processes; i++) pool->processes[i] = pool->slots[i].process;
		verifier_processes_turn(pool->processes, pool->options.processes, pool->clock);
		for (int i = 0; i < pool->options.processes; i++) {
			struct slot *slot = &pool->slots[i];
			const char *why;
			bool not_runnable;
			size_t n;
			if (!slot->process) continue;
			while (verifier_process_line(slot->process, &n)) {}
			if (verifier_process_ended(slot->process, pool->clock += 0.005, &why, &not_runnable)) kill_process(pool, slot);
			else alive++;
		}
		if (alive) clock_sleep_ms(2);
	}
	for (int i = 0; i < pool->options.processes; i++)
		if (pool->slots[i].process) kill_process(pool, &pool->slots[i]);
	for (start = clock_seconds(); pool->n_dying && clock_seconds() - start < GOODBYE_SECONDS; clock_sleep_ms(1)) reap(pool);
}

void verifier_pool_close(struct verifier_pool *pool)
{
	if (!pool) return;
	say_goodbye(pool);
	for (int i = 0; i < pool->options.processes; i++) {
		for (int k = 0; k < pool->slots[i].n_tasks; k++) task_free(pool->slots[i].tasks[k]);
		free(pool->slots[i].tasks);
	}
	while (pool->first) {
		struct task *task = pool->first;
		pool->first = task->next;
		task_free(task);
	}
	verifier_log_close(pool->log);
	union { const char *from; char *to; } path = { .from = pool->options.log_path };
	free(path.to);
	free(pool->command);
	free(pool->slots);
	free(pool->processes);
	free(pool->dying);
	free(pool->verdicts);
	free(pool);
}

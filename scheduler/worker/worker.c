/* worker.c - the loop of one rollout rank.
 *
 * Between messages the worker runs engine rounds; a stop takes effect at the next round's end, so the
 * time from STOP to QUIET is bounded by one round (in quantized mode also by the rescoring of what goes
 * back, one prefill each).  An idle worker sleeps: cores are shared with the trainer. */
#include "scheduler/worker/worker.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "policy/tokenizer/tokenizer.h"
#include "rollout/engine.h"
#include "rollout/reward/reward.h"
#include "rollout/speculation/cost_file.h"
#include "scheduler/bench/bench_report.h"
#include "scheduler/clock.h"
#include "scheduler/controller/patience.h"
#include "scheduler/ranks/rank_messages.h"
#include "scheduler/worker/kv_shipping.h"
#include "scheduler/worker/leases.h"
#include "scheduler/worker/worker_farewell.h"
#include "scheduler/worker/worker_progress.h"
#include "scheduler/worker/worker_reached.h"
#include "scheduler/worker/worker_weights.h"

enum { IDLE_MS_MAX = 2 };
static const double TIMED_SECONDS_MAX = 0.1; /* of waiting for a transfer whose rate is wanted */

struct worker {
	const struct config *config;
	struct transport *transport;
	struct message_writer *writer;
	struct policy *policy;
	struct engine *engine;
	struct rank_stats reported; /* as the last STATS said */
	struct rank_stats times;    /* its seconds outside the engine, but their sum */
	double stats_said;          /* clock_seconds() of that */
	double began;
	struct tokenizer *tokenizer;
	struct reward *reward;
	struct leases leases; /* of what is in the engine */
	struct kv_shipping shipping;
	size_t shipped; /* bytes of KV */
	struct engine_stats told; /* as of the last trajectory sent */
	struct worker_weights *weights; /* versions on their way; NULL before START */
	bool first;             /* no sample has grown under the newest yet */
	bool quit;
	struct patience patience;
	double heard;        /* as patience counts, when the controller last spoke */
	double said;         /* when it was last told that this rank lives */
	double progress_said; /* clock_seconds() when it was last told what samples in flight have got */
	double pack_seconds; /* that the policy took to make */
	uint64_t epoch;      /* of the last RESET */
};

/* Frees the trajectory and the parcel. */
static int send_trajectory(struct worker *w, enum rank_message type, struct trajectory *t, struct kv_parcel *kv,
                           struct err *err)
{
	struct engine_stats now;

	engine_stats_read(w->engine, &now);
	struct rank_cargo cargo = {
		.prompt_tokens = now.prompt_tokens - w->told.prompt_tokens,
		.recomputed_tokens = now.recomputed_tokens - w->told.recomputed_tokens,
		.imported_tokens = now.imported_tokens - w->told.imported_tokens,
	};
	w->told = now;
	if (kv) cargo.kv = *kv;
	w->shipped += cargo.kv.n_bytes;
	int rc = rank_message_send_trajectory(w->transport, 0, w->writer, type, leases_end(&w->leases, t->id), t, &cargo, err);
	if (kv) kv_parcel_free(kv);
	trajectory_free(t);
	return rc;
}

/* Give an unfinished sample back, with its KV where that is worth it; one that has just ended goes as such. */
static int give_back(struct worker *w, uint64_t trajectory_id, enum rank_message type, bool same_version,
                     struct err *err)
{
	int n = same_version ? engine_kv_positions(w->engine, trajectory_id) : 0;
	struct kv_parcel kv = { 0 };
	struct engine_stats stats;
	struct trajectory *t;

	engine_stats_read(w->engine, &stats);
	double prefill = stats.prefill_rows ? stats.prefill_seconds / (double)stats.prefill_rows : 0;
	if (n > 0 && kv_shipping_pays(&w->shipping, engine_kv_bytes(w->engine, n), n, prefill))
		t = engine_withdraw_with_kv(w->engine, trajectory_id, &kv);
	else t = engine_withdraw(w->engine, trajectory_id);
	return t ? send_trajectory(w, type, t, &kv, err) : 0;
}

/* The verifier's verdict; its failure is an error on the sample, not on the worker. */
static void score(struct worker *w, struct trajectory *t)
{
	struct err err;
	char *text;
	size_t n_bytes;

	int kind = w->config->reward.kind;
	const struct lease *l = leases_find(&w->leases, t->id);

	if (kind == REWARD_NONE || kind == REWARD_PROGRAM || t->finish == FINISH_ERROR || (l && l->unscored)) return; /* others score */
	double start = clock_seconds();
	if (tokenizer_decode(w->tokenizer, t->tokens + t->n_prompt, (size_t)trajectory_response_length(t), true, &text,
	                     &n_bytes, &err)) {
		t->finish = FINISH_ERROR;
		t->error = xstrdup(err.text);
		return;
	}
	reward_score(w->reward, t, text, &err);
	free(text);
	double seconds = clock_seconds() - start;
	t->reward_seconds += seconds;
	w->times.reward_seconds += seconds;
}

static void read_stats(const struct worker *w, struct rank_stats *stats)
{
	*stats = w->times;
	engine_stats_read(w->engine, &stats->engine);
	stats->seconds = clock_seconds() - w->began;
	stats->version = w->policy->version;
}

/* What was done since it was last told; nothing where nothing was, unless somebody watches. */
static int send_stats(struct worker *w, bool watched, struct err *err)
{
	const struct engine_stats *before = &w->reported.engine;
	struct rank_stats now;

	read_stats(w, &now);
	const struct engine_stats *e = &now.engine;
	if (!watched && e->rounds == before->rounds && e->active + e->queued == before->active + before->queued) return 0;
	w->stats_said = clock_seconds();
	rank_message_put_stats(w->writer, &now, &w->reported);
	return rank_message_send(w->transport, 0, w->writer, err);
}

static int say_stats(struct worker *w, struct err *err)
{
	double every = w->config->run.timeline_seconds;

	if (!w->engine || every <= 0 || clock_seconds() - w->stats_said < every) return 0;
	return send_stats(w, true, err);
}

static int send_finished(struct worker *w, struct err *err)
{
	struct trajectory *t;
	int rc = engine_pending(w->engine) ? 0 : send_stats(w, false, err);
	while (!rc && (t = engine_take_finished(w->engine))) {
		score(w, t);
		rc = send_trajectory(w, RANK_DONE, t, NULL, err);
	}
	return rc;
}

/* What calls cost here, as `drumroll calibrate` found it; *known false: nobody measured this setup. */
static int read_costs(const struct worker *w, struct speculation_costs *costs, bool *known, struct err *err)
{
	const struct config *c = w->config;
	char setup[COST_SETUP_MAX];

	*known = false;
	if (!c->speculation.costs[0] || !w->policy->drafts) return 0;
	cost_setup_describe(setup, bench_cpu_name(), (int)c->worker.threads, w->policy, (enum kv_type)c->worker.kv_format);
	int found = cost_file_read(c->speculation.costs, setup, costs, err);
	*known = found > 0;
	if (found == 0)
		fprintf(stderr, "drumroll: rank %d: %s has no line for this setup, so costs are learned as it runs: %s\n",
		        transport_rank(w->transport), c->speculation.costs, setup);
	return found < 0 ? err_context(err, "speculation.costs") : 0;
}

/* Version 0, with a quantized copy where the mode wants one, and what makes those that follow. */
static int make_policy(struct worker *w, const struct weights *weights, struct err *err)
{
	struct draft_options draft = draft_options_of(&w->config->speculation, w->config->rollout.mode);
	const struct draft_options *drafts = w->config->rollout.mode != ROLLOUT_EXACT ? &draft : NULL;
	int n_threads = (int)w->config->worker.threads;

	w->weights = worker_weights_open(&weights->config, drafts, n_threads, w->config, w->transport, w->writer);
	return policy_create(&w->policy, weights, 0, drafts, n_threads, err);
}

static int say_ready(struct worker *w, struct err *err)
{
	const struct config *c = w->config;
	struct engine_stats stats;

	engine_stats_read(w->engine, &stats);
	rank_message_begin(w->writer, RANK_READY, 9);
	message_key(w->writer, "active");
	message_put_int(w->writer, c->worker.max_active);
	message_key(w->writer, "capacity");
	message_put_int(w->writer, c->worker.max_active + c->scheduler.rank_backlog);
	message_key(w->writer, "threads");
	message_put_int(w->writer, c->worker.threads);
	message_key(w->writer, "cpu");
	message_put_text(w->writer, kernels_best()->name);
	message_key(w->writer, "weight_bytes");
	message_put_uint(w->writer, w->policy->bytes);
	message_key(w->writer, "kv_pages");
	message_put_int(w->writer, stats.kv_pages_max);
	message_key(w->writer, "version");
	message_put_int(w->writer, w->policy->version);
	message_key(w->writer, "pack_seconds");
	message_put_real(w->writer, w->pack_seconds);
	message_key(w->writer, "epoch");
	message_put_uint(w->writer, w->epoch);
	return rank_message_send(w->transport, 0, w->writer, err);
}

/* The controller had given this rank up: others have what it held, and it begins anew. */
static int on_reset(struct worker *w, const struct message_node *root, struct err *err)
{
	struct trajectory *t;
	int rc = message_get_uint(root, "epoch", &w->epoch, err);

	if (rc || !w->engine) return rc;
	for (int i = 0; i < w->leases.n; i++) engine_discard(w->engine, w->leases.items[i].trajectory_id);
	w->leases.n = 0;
	while ((t = engine_take_finished(w->engine))) trajectory_free(t);
	read_stats(w, &w->reported);
	w->told = w->reported.engine;
	worker_weights_forget(w->weights);
	return say_ready(w, err);
}

static int on_start(struct worker *w, const struct message_node *root, struct err *err)
{
	const struct config *c = w->config;
	struct weights weights;
	int64_t context;

	int rc = message_get_int(root, "context", 1, INT32_MAX, &context, err);
	if (!rc) rc = tokenizer_open(&w->tokenizer, c->model.path, err);
	if (!rc) rc = reward_open(&w->reward, &c->reward, err);
	if (!rc) rc = weights_open(&weights, c->model.path, err);
	if (rc) return rc;
	double start = clock_seconds();
	rc = make_policy(w, &weights, err);
	w->pack_seconds = clock_seconds() - start;
	weights_free(&weights);
	if (rc) return rc;

	struct engine_options options = {
		.mode = c->rollout.mode,
		.drafter = c->speculation.drafter,
		.coupling = c->speculation.coupling,
		.draft_length = (int)c->speculation.draft_length,
		.draft_length_max = (int)c->speculation.draft_length_max,
		.explore_chunk = (int)c->explore.chunk,
		.suffix_tokens = c->speculation.suffix_tokens,
		.max_active = (int)c->worker.max_active,
		.prefill_chunk = (int)c->worker.prefill_chunk,
		.n_threads = (int)c->worker.threads,
		.kv_type = (enum kv_type)c->worker.kv_format,
		.kv_bytes = (size_t)c->worker.kv_memory_mb << 20,
		.rank = transport_rank(w->transport),
		.stop_token = -1,
		.observe_at = (int32_t)c->prune.at_tokens,
		.clock = clock_seconds,
	};
	struct speculation_costs costs;
	bool known;
	rc = read_costs(w, &costs, &known, err);
	if (rc) return rc;
	options.costs = known ? &costs : NULL;
	if (c->rollout.stop[0]) rc = tokenizer_single(w->tokenizer, c->rollout.stop, &options.stop_token, err);
	if (!rc) rc = engine_open(&w->engine, w->policy, &options, (int)context, err);
	if (rc) return rc;

	w->shipping.mode = c->scheduler.migrate_kv;
	return say_ready(w, err);
}

/* Explore mode: who draws it, and what is tried first. */
static void take_proposal(struct trajectory *t, const struct rank_cargo *cargo)
{
	t->explored = cargo->explored;
	if (!cargo->proposal) return;
	int32_t *tokens = xmalloc(cargo->proposal_bytes + 1);
	memcpy(tokens, cargo->proposal, cargo->proposal_bytes);
	trajectory_propose(t, tokens, (int32_t)(cargo->proposal_bytes / sizeof *tokens));
	free(tokens);
}

static int on_lease(struct worker *w, const struct message_node *root, struct err *err)
{
	struct trajectory *t;
	uint64_t lease;

	struct rank_cargo cargo;

	int rc = rank_message_get_cargo(root, &cargo, err);
	if (!rc) rc = rank_message_get_trajectory(root, &lease, &t, err);
	if (rc) return rc;
	leases_add(&w->leases, t->id, lease, t->n_tokens);
	leases_find(&w->leases, t->id)->unscored = cargo.unscored;
	take_proposal(t, &cargo);
	engine_add_with_kv(w->engine, t, &cargo.kv);
	return 0;
}

static int say_quiet(struct worker *w, struct err *err)
{
	int rc = send_stats(w, false, err);
	if (rc) return rc;
	rank_message_begin(w->writer, RANK_QUIET, 0);
	return rank_message_send(w->transport, 0, w->writer, err);
}

/* Samples have been given back since `start`, when `shipped` bytes had gone: how fast was that? */
static void time_shipping(struct worker *w, double start, size_t shipped)
{
	if (w->shipped == shipped || !kv_shipping_wants_rate(&w->shipping)) return;
	if (transport_wait(w->transport, 0, TIMED_SECONDS_MAX))
		kv_shipping_observe(&w->shipping, w->shipped - shipped, clock_seconds() - start);
}

/* Everything goes back as a partial but what must be kept. */
static int on_stop(struct worker *w, const struct message_node *root, struct err *err)
{
	const struct message_node *keep = message_field(root, "keep");
	int64_t n_keep = keep ? message_count(keep) : -1;
	double start = clock_seconds();
	size_t shipped = w->shipped;

	if (n_keep < 0) return err_set(err, ERR_MISSING, "field 'keep' (an array) is missing in STOP");
	for (int i = 0; i < w->leases.n; i++) w->leases.items[i].keep = false;
	for (uint32_t i = 0; i < (uint32_t)n_keep; i++) {
		uint64_t id;
		int rc = message_get_uint(message_item(keep, i), "id", &id, err);
		if (rc) return rc;
		struct lease *l = leases_find(&w->leases, id);
		if (l) l->keep = true;
	}
	for (int i = w->leases.n - 1; i >= 0; i--) {
		if (w->leases.items[i].keep) continue;
		/* Without a trainer the next step has the same weights. */
		int rc = give_back(w, w->leases.items[i].trajectory_id, RANK_PARTIAL, w->config->trainer.kind == TRAINER_NONE, err);
		if (rc) return rc;
	}
	time_shipping(w, start, shipped);
	return say_quiet(w, err);
}

/* A sample whose group was given up; one that has just finished is on its way and will be refused there. */
static int on_cancel(struct worker *w, const struct message_node *root, struct err *err)
{
	uint64_t id, lease;

	int rc = message_get_uint(root, "id", &id, err);
	if (!rc) rc = message_get_uint(root, "lease", &lease, err);
	if (rc) return rc;
	const struct lease *l = leases_find(&w->leases, id);
	if (!l || l->lease != lease) return 0;
	engine_discard(w->engine, id);
	leases_end(&w->leases, id);
	return 0;
}

/* Another rank is idle: what is the least loss goes back. */
static int on_recall(struct worker *w, const struct message_node *root, struct err *err)
{
	uint64_t recall, least;
	int64_t keep;
	double start = clock_seconds();
	size_t shipped = w->shipped;

	int rc = message_get_uint(root, "recall", &recall, err);
	if (!rc) rc = message_get_int(root, "keep", 0, INT32_MAX, &keep, err);
	while (!rc && engine_pending(w->engine) > keep && (least = engine_least_progress(w->engine)))
		rc = give_back(w, least, RANK_RETURNED, true, err);
	if (rc) return rc;
	time_shipping(w, start, shipped);
	rank_message_begin(w->writer, RANK_RECALLED, 1);
	message_key(w->writer, "recall");
	message_put_uint(w->writer, recall);
	return rank_message_send(w->transport, 0, w->writer, err);
}

static int say_updated(struct worker *w, int64_t version, double seconds, struct err *err)
{
	rank_message_begin(w->writer, RANK_UPDATED, 3);
	message_key(w->writer, "version");
	message_put_int(w->writer, version);
	message_key(w->writer, "seconds");
	message_put_real(w->writer, seconds);
	message_key(w->writer, "requantize");
	message_put_real(w->writer, worker_weights_seconds(w->weights));
	return rank_message_send(w->transport, 0, w->writer, err);
}

/* Part of a version; with its commit the engine goes on under it. */
static int on_weights(struct worker *w, enum rank_message type, const struct message_node *root, struct err *err)
{
	double start = clock_seconds();
	struct policy *policy;
	int64_t committed;

	if (!w->weights) return err_set(err, ERR_PEER, "weights came before START");
	int rc = worker_weights_take(w->weights, type, root, w->policy->version, &policy, &committed, err);
	if (!rc && committed >= 0 && policy) {
		engine_set_policy(w->engine, policy, w->config->scheduler.kv == WEIGHTS_KEEP_KV);
		policy_free(w->policy);
		w->policy = policy;
		w->first = true;
	}
	double seconds = clock_seconds() - start;
	w->times.weights_seconds += seconds;
	return rc || committed < 0 ? rc : say_updated(w, committed, seconds, err);
}

static int say_first(struct worker *w, struct err *err)
{
	w->first = false;
	rank_message_begin(w->writer, RANK_FIRST, 1);
	message_key(w->writer, "version");
	message_put_int(w->writer, w->policy->version);
	return rank_message_send(w->transport, 0, w->writer, err);
}

static void on_quit(struct worker *w, const struct message_node *root)
{
	struct err err;
	int64_t alone;

	w->quit = true;
	if (message_get_int(root, "alone", 0, 1, &alone, &err) || alone) transport_leave_alone(w->transport);
}

static int on_message(struct worker *w, const struct transport_message *m, struct err *err)
{
	struct message *message;
	int64_t type;

	int rc = message_parse(&message, m->bytes, m->n_bytes, err);
	if (rc) return rc;
	const struct message_node *root = message_root(message);
	rc = message_get_int(root, "type", RANK_START, RANK_FAILED, &type, err);
	if (!rc) switch (type) {
	case RANK_START: rc = on_start(w, root, err); break;
	case RANK_LEASE: rc = on_lease(w, root, err); break;
	case RANK_STOP: rc = on_stop(w, root, err); break;
	case RANK_CANCEL: rc = on_cancel(w, root, err); break;
	case RANK_RECALL: rc = on_recall(w, root, err); break;
	case RANK_WEIGHTS_BEGIN:
	case RANK_WEIGHTS:
	case RANK_WEIGHTS_TENSOR:
	case RANK_WEIGHTS_COMMIT:
	case RANK_WEIGHTS_DROP: rc = on_weights(w, (enum rank_message)type, root, err); break;
	case RANK_ALIVE: break;
	case RANK_RESET: rc = on_reset(w, root, err); break;
	case RANK_QUIT: on_quit(w, root); break;
	default: rc = err_set(err, ERR_PEER, "the controller sent message type %lld, which is a worker's", (long long)type);
	}
	message_close(message);
	return rc;
}

/* What samples in flight have got, so that a crash of the controller does not lose it. */
static int say_progress(struct worker *w, struct err *err)
{
	const struct config_run *run = &w->config->run;
	double now = clock_seconds();

	if (now - w->progress_said < run->commit_seconds / 2 || run->durability == DURABILITY_OFF ||
	    w->config->rollout.mode == ROLLOUT_QUANTIZED) return 0;
	w->progress_said = now;
	return worker_say_progress(w->engine, &w->leases, w->transport, w->writer, err);
}

static int say_alive(struct worker *w, struct err *err)
{
	struct engine_stats stats = { 0 };
	double now = clock_seconds();

	if (now - w->said < rank_alive_seconds(&w->config->cluster)) return 0;
	w->said = now;
	if (w->engine) engine_stats_read(w->engine, &stats);
	rank_message_begin(w->writer, RANK_ALIVE, 1);
	message_key(w->writer, "rounds");
	message_put_uint(w->writer, stats.rounds);
	return rank_message_send(w->transport, 0, w->writer, err);
}

/* Before START it reads prompts, which may take it long, and says nothing: as long as it would wait for this rank. */
static int keep_in_touch(struct worker *w, struct err *err)
{
	double limit = w->engine ? w->config->cluster.controller_seconds : w->config->cluster.start_seconds;

	patience_turn(&w->patience);
	if (transport_is_broken(w->transport, 0))
		return err_set(err, ERR_TIMEOUT, "rank %d has lost its connection to the controller and ends", transport_rank(w->transport));
	if (w->patience.seconds - w->heard <= limit) {
		int rc = say_alive(w, err);
		return rc ? rc : say_stats(w, err);
	}
	return err_set(err, ERR_TIMEOUT, "rank %d heard nothing from the controller for %.1f s (%s) and ends",
	               transport_rank(w->transport), w->patience.seconds - w->heard,
	               w->engine ? "cluster.controller_seconds" : "cluster.start_seconds");
}

static int pass_weights_on(struct worker *w, bool *busy, struct err *err)
{
	double start = clock_seconds();
	int rc = worker_weights_pump(w->weights, busy, err);

	w->times.weights_seconds += clock_seconds() - start;
	return rc;
}

static int serve(struct worker *w, struct err *err)
{
	double idle_ms = 0;

	while (!w->quit) {
		struct transport_message m;
		bool busy = false;
		int rc = 0;
		while (!rc && !w->quit && transport_poll(w->transport, &m)) {
			busy = true;
			w->heard = w->patience.seconds;
			rc = on_message(w, &m, err);
			free(m.bytes);
			if (!rc) rc = say_alive(w, err);
		}
		if (!rc && !w->quit && w->engine && engine_pending(w->engine)) {
			busy = true;
			if (engine_round(w->engine) > 0 && w->first) rc = say_first(w, err);
			if (!rc && w->config->prune.at_tokens > 0) rc = worker_say_reached(w->engine, &w->leases, w->transport, w->writer, err);
			if (!rc) rc = say_progress(w, err);
		}
		if (!rc && w->weights) rc = pass_weights_on(w, &busy, err);
		/* Also without a round: a sample that cannot be generated is finished as soon as it is added. */
		if (!rc && !w->quit && w->engine) rc = send_finished(w, err);
		if (!rc && !w->quit) rc = keep_in_touch(w, err);
		if (rc) return rc;
		if (busy) {
			idle_ms = 0;
			continue;
		}
		idle_ms = idle_ms < IDLE_MS_MAX ? idle_ms + 0.1 : IDLE_MS_MAX;
		double start = clock_seconds();
		clock_sleep_ms(idle_ms);
		w->times.wait_seconds += clock_seconds() - start;
	}
	return 0;
}

int worker_run(struct transport *transport, const struct config *config)
{
	struct worker w = { .config = config, .transport = transport, .writer = message_writer_open(),
		.began = clock_seconds() };
	struct err err;

	/* mpirun and batch systems signal every rank.  The controller ends the run: a worker that died of the
	 * signal would have mpirun kill the controller before it has saved anything. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	int rc = serve(&w, &err);
	if (rc) transport_leave_alone(transport);
	if (rc == ERR_TIMEOUT) {
		transport_lost(transport, 0);
		fprintf(stderr, "drumroll: %s\n", err.text);
	} else if (rc && w.quit) fprintf(stderr, "drumroll: %s\n", err.text);
	else if (rc) worker_farewell(transport, w.writer, &err);
	if (w.engine) engine_close(w.engine);
	policy_free(w.policy);
	worker_weights_close(w.weights);
	if (w.tokenizer) tokenizer_close(w.tokenizer);
	if (w.reward) reward_close(w.reward);
	free(w.leases.items);
	message_writer_close(w.writer);
	return rc ? 1 : 0;
}

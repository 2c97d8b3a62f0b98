/* client.h - a trainer's side of the protocol, blocking, with timeouts; used by the reference
 * trainer and by tests.  Plain sockets, no libuv. */
#ifndef TRAINER_BRIDGE_CLIENT_CLIENT_H
#define TRAINER_BRIDGE_CLIENT_CLIENT_H

#include "policy/weights.h"
#include "rollout/trajectory.h"
#include "trainer_bridge/server/requests.h"
#include "trainer_bridge/server/server.h"

struct client;

struct client_batch {
	uint64_t batch_id;
	int64_t step, version;
	struct trajectory **trajectories; /* owned by the batch */
	int n;
	int64_t micro;  /* of a micro-batch, from 0; -1: a whole batch */
	bool ended;     /* n is 0: all of the batch's micro-batches have come, now it is to be acknowledged */
};

struct client_options {
	const char *address, *secret, *name;
	double connect_seconds, timeout_seconds;
	bool by_completion; /* groups in the order in which they were complete, else in prompt order */
	int micro_groups;   /* micro-batches of so many groups, as they come; 0: whole batches */
	bool lengths;       /* have lengths announced */
};

/* Connects (retrying for connect_seconds while nobody listens), shakes hands.  */
int client_open(struct client **client, const char *address, const char *secret, const char *name,
                double connect_seconds, double timeout_seconds, struct err *err);
int client_open_with(struct client **client, const struct client_options *options, struct err *err);
void client_close(struct client *client);

const char *client_run_id(const struct client *client);
int64_t client_version(const struct client *client);
/* The version whose weights the run had at the handshake: less than client_version where a crash lost some.  A trainer
 * that has newer ones pushes them again, under a version above client_version. */
int64_t client_weights_version(const struct client *client);

/* The next batch or micro-batch; 0 and batch->n > 0, or 0 and batch->n == 0 at the end of a batch that came in
 * micro-batches (ended) or when the run is over (BYE), or an error. */
int client_pull(struct client *client, struct client_batch *batch, double timeout_seconds, struct err *err);
void client_batch_free(struct client_batch *batch);
int client_ack(struct client *client, uint64_t batch_id, struct err *err);

/* Weights in checksummed chunks; returns once the run has taken the version, or its refusal. */
int client_push_weights(struct client *client, int64_t version, const struct weights *weights,
                        size_t chunk_bytes, struct err *err);
/* The push that just failed was refused as it began, before any tensor of it was looked at, since the run has that version
 * or a later one. */
bool client_push_was_not_new(const struct client *client);
/* The same as what differs from `base`, the weights of base_version.  ERR_BASE: the run does not hold that version,
 * push in full. */
int client_push_delta(struct client *client, int64_t version, const struct weights *weights, int64_t base_version,
                      const struct weights *base, size_t chunk_bytes, struct err *err);

/* LoRA pairs on the base_version that the run holds; PROTOCOL.md says how they are merged. */
struct client_lora {
	const char *matrix;  /* checkpoint name without ".weight" */
	int rows, cols;
	const float *a, *b;  /* [rank][cols], [rows][rank] f32 */
};
int client_push_lora(struct client *client, int64_t version, int64_t base_version, int rank, double alpha,
                     const struct client_lora *pairs, int n_pairs, size_t chunk_bytes, struct err *err);

/* The run is on this machine: what is sent costs no network. */
bool client_is_local(const struct client *client);
uint64_t client_sent_bytes(const struct client *client); /* since it was opened */
int client_report(struct client *client, const struct trainer_report *report, struct err *err);

/* What was announced of the batch or micro-batch that client_pull gives next; borrowed until then.  Pulls. */
struct client_lengths {
	uint64_t batch_id;
	int64_t micro; /* -1: a whole batch */
	int n;         /* trajectories; 0: there is none, the run or the batch is over */
	const int64_t *groups;
	const int32_t *prompts, *responses; /* tokens */
};
int client_lengths(struct client *client, struct client_lengths *lengths, double timeout_seconds, struct err *err);

/* What the run said in its welcome. */
struct client_limits {
	int64_t prompts_max, prompt_tokens_max, max_tokens, keep_versions;
};
void client_limits(const struct client *client, struct client_limits *limits);

/* Prompts to be sampled for training; *room: how many more may be submitted now.  A refusal that may be tried again is
 * ERR_STATE. */
int client_submit(struct client *client, const struct request_prompt *prompts, int n, int *room, struct err *err);
/* The same to be evaluated, and what came of it, in one go; n 0: the held-out prompts. */
int client_evaluate(struct client *client, const struct request_prompt *prompts, int n,
                    const struct request_settings *settings, struct client_batch *result, double timeout_seconds,
                    struct err *err);
/* In two: batches may be pulled between them.  *id names the request. */
int client_evaluate_begin(struct client *client, const struct request_prompt *prompts, int n,
                          const struct request_settings *settings, int64_t *id, struct err *err);
int client_evaluate_end(struct client *client, int64_t id, struct client_batch *result, double timeout_seconds,
                        struct err *err);
/* logprobs[i] has room for sequence i's n_tokens. */
int client_score(struct client *client, int64_t version, const struct request_sequence *sequences, int n,
                 const struct request_settings *settings, float *const *logprobs, double timeout_seconds,
                 struct err *err);

#endif

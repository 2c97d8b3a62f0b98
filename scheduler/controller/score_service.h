/* score_service.h - log-probabilities of given tokens under kept versions, computed beside the controller's loop.
 *
 * One thread of its own keeps the versions (weight_history.h) and scores, in the order in which it was asked; it
 * touches neither MPI nor sockets, and what the ranks generate does not depend on it.  Memory: the policy of one
 * version and, while another is loaded or kept, two flat copies.
 */
#ifndef SCHEDULER_CONTROLLER_SCORE_SERVICE_H
#define SCHEDULER_CONTROLLER_SCORE_SERVICE_H

#include "configs/config.h"
#include "policy/weights.h"
#include "trainer_bridge/server/requests.h"

struct score_service;

struct scored {
	uint64_t ticket;
	int64_t version;
	int rc;              /* 0, or why not: err */
	struct err err;
	float *logprobs;     /* of all sequences one behind the other; owned */
	int *lengths, n;     /* [n], owned */
};

/* config->weights.keep_versions versions, the first of them version 0 from model.path unless the run goes on. */
int score_service_open(struct score_service **service, const struct config *config, const struct model_config *model,
                       const char *run_dir, struct err *err);
void score_service_close(struct score_service *service); /* what is asked for is not answered any more */

/* One that was to be kept is not kept yet. */
bool score_service_keeping(struct score_service *service);
/* Keep this version; copied.  Waits while the one before is being kept, so who must not wait asks first. */
void score_service_keep(struct score_service *service, int64_t version, const struct weights *weights);
void score_service_ask(struct score_service *service, uint64_t ticket, int64_t version,
                       const struct request_sequence *sequences, int n, const struct sampling_options *sampling);
/* An answer, owned by the caller (scored_free); false if none is ready. */
bool score_service_take(struct score_service *service, struct scored *scored);
void scored_free(struct scored *scored);
/* Something that could not be kept; told once. */
bool score_service_failed(struct score_service *service, struct err *err);
int score_service_pending(struct score_service *service); /* requests without an answer */

#endif

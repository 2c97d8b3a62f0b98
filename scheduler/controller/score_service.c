/* score_service.c - see score_service.h. */
#include "scheduler/controller/score_service.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "policy/policy.h"
#include "rollout/score.h"
#include "scheduler/store/weight_history.h"

/* A version to keep (weights.data), or tokens to score. */
struct job {
	bool keep;
	int64_t version;
	struct weights weights;
	uint64_t ticket;
	int32_t *tokens;         /* of all sequences one behind the other */
	int (*spans)[2];         /* [n]: length, of which given */
	int n;
	struct sampling_options sampling;
	struct scored answer;
	struct job *next;
};

struct jobs {
	struct job *first, *last;
	int n;
};

struct score_service {
	const struct config *config;
	const struct model_config *model;
	struct weight_history *history;
	pthread_t thread;
	pthread_mutex_t lock;    /* of what follows */
	pthread_cond_t asked, kept;
	struct jobs waiting, answered;
	int n_keeping, n_pending;
	bool quit, has_failed;
	struct err failure;
	/* the thread's own */
	struct policy *policy;   /* of the version that was asked for last, or NULL */
	int64_t policy_version;
	struct scorer *scorer;
};

static void job_append(struct jobs *jobs, struct job *job)
{
	*(jobs->last ? &jobs->last->next : &jobs->first) = job;
	jobs->last = job;
	jobs->n++;
}

static void job_put_first(struct jobs *jobs, struct job *job)
{
	job->next = jobs->first;
	jobs->first = job;
	if (!jobs->last) jobs->last = job;
	jobs->n++;
}

static struct job *job_take(struct jobs *jobs)
{
	struct job *job = jobs->first;

	if (!job) return NULL;
	jobs->first = job->next;
	if (!jobs->first) jobs->last = NULL;
	jobs->n--;
	job->next = NULL;
	return job;
}

static void job_free(struct job *job)
{
	if (job->keep) weights_free(&job->weights);
	free(job->tokens);
	free(job->spans);
	scored_free(&job->answer);
	free(job);
}

void scored_free(struct scored *scored)
{
	free(scored->logprobs);
	free(scored->lengths);
	scored->logprobs = NULL;
	scored->lengths = NULL;
}

/* ---- the thread ---- */

static void drop_policy(struct score_service *s)
{
	scorer_close(s->scorer);
	policy_free(s->policy);
	s->scorer = NULL;
	s->policy = NULL;
}

static int need_policy(struct score_service *s, int64_t version, struct err *err)
{
	struct weights weights;

	if (s->policy && s->policy_version == version) return 0;
	drop_policy(s);
	int rc = weight_history_load(s->history, version, &weights, err);
	if (rc) return rc;
	rc = policy_create(&s->policy, &weights, version, NULL, 1, err);
	weights_free(&weights);
	if (rc) return rc;
	s->policy_version = version;
	s->scorer = scorer_open(s->policy, (enum kv_type)s->config->worker.kv_format, 1);
	return 0;
}

static void finish(struct score_service *s, struct job *job, int rc, const struct err *err);

/* The next version waits for the one before to be kept, and shall not wait for scores. */
static void keep_what_waits(struct score_service *s)
{
	struct err err;

	pthread_mutex_lock(&s->lock);
	struct job *job = s->waiting.first && s->waiting.first->keep ? job_take(&s->waiting) : NULL;
	pthread_mutex_unlock(&s->lock);
	if (!job) return;
	int rc = weight_history_put(s->history, job->version, &job->weights, &err);
	finish(s, job, rc, &err);
}

static int score(struct score_service *s, struct job *job, struct err *err)
{
	const int32_t *tokens = job->tokens;
	float *logprobs = job->answer.logprobs;

	int rc = need_policy(s, job->version, err);
	for (int i = 0; !rc && i < job->n; i++) {
		keep_what_waits(s);
		rc = score_tokens(s->scorer, tokens, job->spans[i][1], job->spans[i][0], &job->sampling, logprobs, err);
		if (rc) err_context(err, "sequence %d", i);
		tokens += job->spans[i][0];
		logprobs += job->spans[i][0];
	}
	return rc;
}

static void finish(struct score_service *s, struct job *job, int rc, const struct err *err)
{
	pthread_mutex_lock(&s->lock);
	if (job->keep) {
		s->n_keeping--;
		if (rc) {
			s->has_failed = true;
			s->failure = *err;
		}
		pthread_cond_signal(&s->kept);
	} else {
		job->answer.rc = rc;
		if (rc) job->answer.err = *err;
		job_append(&s->answered, job);
	}
	pthread_mutex_unlock(&s->lock);
	if (job->keep) job_free(job);
}

/* Version 0 is in the model's directory, and only read when there is somebody to keep it for. */
static int keep_first(struct score_service *s, struct err *err)
{
	struct weights weights;

	if (weight_history_count(s->history) > 0) return 0;
	int rc = weights_load(&weights, s->config->model.path, err);
	if (rc) return rc;
	rc = weight_history_put(s->history, 0, &weights, err);
	weights_free(&weights);
	return rc;
}

static void *run(void *context)
{
	struct score_service *s = context;
	struct err err;
	struct job *job;

	if (keep_first(s, &err)) {
		pthread_mutex_lock(&s->lock);
		s->has_failed = true;
		s->failure = err;
		pthread_mutex_unlock(&s->lock);
	}
	for (;;) {
		pthread_mutex_lock(&s->lock);
		while (!s->quit && !s->waiting.first) pthread_cond_wait(&s->asked, &s->lock);
		job = s->quit ? NULL : job_take(&s->waiting);
		pthread_mutex_unlock(&s->lock);
		if (!job) return NULL;
		int rc = job->keep ? weight_history_put(s->history, job->version, &job->weights, &err) : score(s, job, &err);
		finish(s, job, rc, &err);
	}
}

/* ---- the controller's side ---- */

int score_service_open(struct score_service **out, const struct config *config, const struct model_config *model,
                       const char *run_dir, struct err *err)
{
	struct score_service *s = xcalloc(1, sizeof *s);

	*out = NULL;
	*s = (struct score_service){ .config = config, .model = model };
	int rc = weight_history_create(&s->history, run_dir, model, (int)config->weights.keep_versions, err);
	if (rc) {
		free(s);
		return rc;
	}
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->asked, NULL);
	pthread_cond_init(&s->kept, NULL);
	if (pthread_create(&s->thread, NULL, run, s)) {
		weight_history_close(s->history);
		free(s);
		return err_set(err, ERR_MEMORY, "cannot start the thread that keeps versions (weights.keep_versions)");
	}
	*out = s;
	return 0;
}

void score_service_close(struct score_service *s)
{
	struct job *job;

	if (!s) return;
	pthread_mutex_lock(&s->lock);
	while (s->n_keeping > 0) pthread_cond_wait(&s->kept, &s->lock); /* the last version is for `drumroll score` */
	s->quit = true;
	pthread_cond_signal(&s->asked);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	while ((job = job_take(&s->waiting)) || (job = job_take(&s->answered))) job_free(job);
	drop_policy(s);
	weight_history_close(s->history);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->asked);
	pthread_cond_destroy(&s->kept);
	free(s);
}

static void ask(struct score_service *s, struct job *job)
{
	pthread_mutex_lock(&s->lock);
	if (job->keep) {
		while (s->n_keeping > 0) pthread_cond_wait(&s->kept, &s->lock);
		s->n_keeping++;
		job_put_first(&s->waiting, job);
	} else {
		s->n_pending++;
		job_append(&s->waiting, job);
	}
	pthread_cond_signal(&s->asked);
	pthread_mutex_unlock(&s->lock);
}

bool score_service_keeping(struct score_service *s)
{
	pthread_mutex_lock(&s->lock);
	bool keeping = s->n_keeping > 0;
	pthread_mutex_unlock(&s->lock);
	return keeping;
}

void score_service_keep(struct score_service *s, int64_t version, const struct weights *weights)
{
	struct job *job = xcalloc(1, sizeof *job);

	job->keep = true;
	job->version = version;
	weights_alloc(&job->weights, &weights->config);
	memcpy(job->weights.data, weights->data, 2 * weights->n_elements);
	ask(s, job);
}

void score_service_ask(struct score_service *s, uint64_t ticket, int64_t version, const struct request_sequence *sequences,
                       int n, const struct sampling_options *sampling)
{
	struct job *job = xcalloc(1, sizeof *job);
	size_t total = 0, at = 0;

	for (int i = 0; i < n; i++) total += (size_t)sequences[i].n_tokens;
	job->version = version;
	job->n = n;
	job->sampling = *sampling;
	job->tokens = xmalloc(total * sizeof *job->tokens);
	job->spans = xmalloc((size_t)n * sizeof *job->spans);
	job->answer = (struct scored){ .ticket = ticket, .version = version, .n = n };
	job->answer.logprobs = xcalloc(total, sizeof *job->answer.logprobs);
	job->answer.lengths = xmalloc((size_t)n * sizeof *job->answer.lengths);
	for (int i = 0; i < n; at += (size_t)sequences[i++].n_tokens) {
		memcpy(job->tokens + at, sequences[i].tokens, (size_t)sequences[i].n_tokens * sizeof *job->tokens);
		job->spans[i][0] = job->answer.lengths[i] = sequences[i].n_tokens;
		job->spans[i][1] = sequences[i].n_prompt;
	}
	ask(s, job);
}

bool score_service_take(struct score_service *s, struct scored *scored)
{
	pthread_mutex_lock(&s->lock);
	struct job *job = job_take(&s->answered);
	s->n_pending -= job != NULL;
	pthread_mutex_unlock(&s->lock);
	if (!job) return false;
	*scored = job->answer;
	job->answer.logprobs = NULL;
	job->answer.lengths = NULL;
	job_free(job);
	return true;
}

bool score_service_failed(struct score_service *s, struct err *err)
{
	pthread_mutex_lock(&s->lock);
	bool failed = s->has_failed;
	s->has_failed = false;
	if (failed) *err = s->failure;
	pthread_mutex_unlock(&s->lock);
	return failed;
}

int score_service_pending(struct score_service *s)
{
	pthread_mutex_lock(&s->lock);
	int n = s->n_pending;
	pthread_mutex_unlock(&s->lock);
	return n;
}

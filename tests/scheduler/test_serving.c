/* test_serving.c - a trainer's requests to a real run: submitted prompts come back once each with what was asked for,
 * evaluations are drawn beside training and change nothing of it, scores are those on record.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "policy/weights.h"
#include "tests/support/live_run.h"

enum { WAIT_SECONDS = 150 };
static struct weights model;

#define good(call) \
	do { \
		if (call) \
			fail_msg("%s: %s", #call, err.text); \
	} while (0)

static void push(struct client *client, int64_t version)
{
	struct err err;

	good(client_push_weights(client, version, &model, 1 << 20, &err));
}

/* The model with its final norm a little larger: other log-probabilities. */
static void change_model(void)
{
	int norm = weights_find(&model, "model.norm.weight");

	for (int i = 0; i < model.tensors[norm].cols; i++)
		model.data[model.tensors[norm].offset + (size_t)i] ^= 0x0010;
}

static void finish(struct live_run *run, struct client *client)
{
	client_close(client);
	assert_int_equal(live_run_wait(run, WAIT_SECONDS), 0);
	live_run_remove(run);
}

/* ---- submitted prompts ---- */

static void expect_refusal(int rc, int code, const struct err *err, const char *said)
{
	if (rc != code || !strstr(err->text, said))
		fail_msg("%d, '%s' is not %d and does not say '%s'", rc, err->text, code, said);
}

/* What must be true of each group that comes back, by its prompt. */
static void check_submitted(const struct client_batch *batch, int *seen)
{
	for (int i = 0; i < batch->n; i++) {
		const struct trajectory *t = batch->trajectories[i];
		int k = t->prompt_id[0] - 'a';
		assert_in_range(k, 0, 3);
		assert_string_equal(t->meta, "{\"k\":[1,2]}");
		assert_false(t->eval);
		if (k == 1) { /* unscored, with settings of its own */
			assert_int_equal(t->group_size, 3);
			assert_false(t->has_reward || t->has_advantage);
			assert_true(t->sampling.temperature == 0.5f && t->sampling.top_k == 7);
			assert_int_equal(t->max_tokens, 5);
			assert_true(trajectory_response_length(t) <= 5);
			assert_true(t->loss_weight == 1);
		} else { /* MC-GRPO draws one more */
			assert_int_equal(t->group_size, k == 0 ? 3 : 9);
			assert_true(t->has_reward && t->has_advantage && t->sampling.temperature == 1);
			assert_string_equal(t->answer, "3");
		}
		if (k == 2)
			assert_int_equal(t->epoch, 77);
		if (t->sample == 0)
			seen[k]++;
	}
}

static void test_submitted_prompts_come_back(void **state)
{
	const char *const settings[] = {"data.source=trainer", "data.prompts=", "run.steps=2", "scheduler.groups_per_step=2",
	                                "bridge.prompts_max=4", "data.prompt_tokens_max=20", "reward.kind=exact", NULL};
	const int32_t ids[] = {5, 6, 7};
	struct request_prompt prompts[4];
	struct client_limits limits;
	struct client_batch batch;
	struct live_run run;
	struct err err;
	int seen[4] = {0}, room;

	(void)state;
	live_run_start(&run, settings);
	struct client *client = live_run_connect(&run, NULL);
	client_limits(client, &limits);
	assert_int_equal(limits.prompts_max, 4);
	assert_int_equal(limits.prompt_tokens_max, 20);
	assert_int_equal(limits.max_tokens, 128);
	for (int i = 0; i < 4; i++) {
		static const char *const names[] = {"a", "b", "c", "d"};
		prompts[i] = (struct request_prompt){.prompt_id = names[i], .text = "1+2=\n", .answer = "3",
			.meta = "{\"k\":[1,2]}", .epoch = -1};
	}
	prompts[0].settings = (struct request_settings){.has_samples = true, .samples = 2};
	prompts[1].unscored = true;
	prompts[1].settings = (struct request_settings){.has_samples = true, .samples = 3, .has_temperature = true,
		.has_top_k = true, .has_max_tokens = true, .max_tokens = 5, .sampling = {.temperature = 0.5f, .top_k = 7}};
	prompts[2].epoch = 77;
	prompts[3].text = NULL;
	prompts[3].tokens = ids;
	prompts[3].n_tokens = 3;

	struct request_prompt bad = prompts[0];
	bad.text = "1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1=\n";
	expect_refusal(client_submit(client, &bad, 1, &room, &err), ERR_TOO_BIG, &err, "expected at most 20");
	bad.text = "1=";
	bad.meta = "[1]";
	expect_refusal(client_submit(client, &bad, 1, &room, &err), ERR_INVALID, &err, "JSON object");
	bad = prompts[3];
	bad.n_tokens = 1;
	bad.tokens = &(const int32_t){1 << 30};
	expect_refusal(client_submit(client, &bad, 1, &room, &err), ERR_INVALID, &err, "token 0 is 1073741824");
	struct request_prompt many[5] = {prompts[0], prompts[0], prompts[0], prompts[0], prompts[0]};
	expect_refusal(client_submit(client, many, 5, &room, &err), ERR_STATE, &err, "may be tried again");

	good(client_submit(client, prompts, 4, &room, &err));
	assert_in_range(room, 0, 4);
	good(client_submit(client, &prompts[2], 1, &room, &err)); /* the same prompt and epoch: taken once */
	for (int step = 1; step <= 2; step++) {
		good(client_pull(client, &batch, WAIT_SECONDS, &err));
		assert_int_equal(batch.step, step);
		check_submitted(&batch, seen);
		client_batch_free(&batch);
		good(client_ack(client, (uint64_t)step, &err));
		push(client, step);
	}
	for (int k = 0; k < 4; k++)
		assert_int_equal(seen[k], 1);
	finish(&run, client);
}

/* ---- evaluations ---- */

static uint64_t mix_bytes(uint64_t hash, const void *bytes, size_t n_bytes) /* FNV-1a */
{
	for (size_t i = 0; i < n_bytes; i++)
		hash = (hash ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3u;
	return hash;
}

/* Group ids count over training and evaluation: what is compared is what was drawn, and for what. */
static uint64_t checksum_of(const struct client_batch *batch)
{
	uint64_t hash = 0xcbf29ce484222325u;

	for (int i = 0; i < batch->n; i++) {
		const struct trajectory *t = batch->trajectories[i];
		hash = mix_bytes(hash, t->prompt_id, strlen(t->prompt_id));
		hash = mix_bytes(hash, t->tokens, 4 * (size_t)t->n_tokens);
		hash = mix_bytes(hash, t->logprobs, 4 * (size_t)t->n_tokens);
		hash = mix_bytes(hash, &t->advantage, sizeof t->advantage);
	}
	return hash;
}

static void check_evaluation(struct client_batch *result, int n, int64_t version)
{
	assert_int_equal(result->n, n);
	assert_int_equal(result->version, version);
	for (int i = 0; i < n; i++) {
		const struct trajectory *t = result->trajectories[i];
		assert_true(t->eval && t->loss_weight == 0 && t->has_reward && !t->has_advantage);
		for (int k = t->n_prompt; k < t->n_tokens; k++)
			assert_int_equal(t->versions[k], version);
	}
}

/* Two steps; with evaluations between and beside them, or none. */
static void train(const char *asynchrony, bool evaluate, uint64_t sums[2])
{
	char mode[64];
	const char *const settings[] = {"run.steps=2", "scheduler.groups_per_step=4", "scheduler.over_sampling=1", mode,
	                                "data.eval_prompts=configs/quickstart/heldout.jsonl", "eval.limit=3", "reward.kind=exact", NULL};
	const struct request_settings greedy = {.has_temperature = true, .has_samples = true, .samples = 2};
	const struct request_settings drawn = {.has_samples = true, .samples = 3};
	const struct request_prompt prompt = {.prompt_id = "mine", .text = "7+2=\n", .answer = "9", .epoch = -1};
	struct client_batch batch, first, second;
	struct live_run run;
	struct err err;
	int64_t id;

	snprintf(mode, sizeof mode, "scheduler.asynchrony=%s", asynchrony);
	live_run_start(&run, settings);
	struct client *client = live_run_connect(&run, NULL);
	if (evaluate) {
		good(client_evaluate(client, &prompt, 1, &greedy, &first, WAIT_SECONDS, &err));
		check_evaluation(&first, 2, 0);
		assert_string_equal(first.trajectories[0]->prompt_id, "mine");
		int n = trajectory_response_length(first.trajectories[0]);
		assert_int_equal(n, trajectory_response_length(first.trajectories[1])); /* greedy: all samples agree */
		assert_memory_equal(first.trajectories[0]->tokens, first.trajectories[1]->tokens, 4 * (size_t)n);
		client_batch_free(&first);
	}
	for (int64_t step = 1; step <= 2; step++) {
		good(client_pull(client, &batch, WAIT_SECONDS, &err));
		for (int i = 0; i < batch.n; i++)
			assert_false(batch.trajectories[i]->eval);
		sums[step - 1] = checksum_of(&batch);
		client_batch_free(&batch);
		good(client_ack(client, (uint64_t)step, &err));
		if (evaluate && step == 1) { /* while the run waits for weights; the same twice */
			good(client_evaluate_begin(client, NULL, 0, &drawn, &id, &err));
			good(client_evaluate_end(client, id, &first, WAIT_SECONDS, &err));
			good(client_evaluate(client, NULL, 0, &drawn, &second, WAIT_SECONDS, &err));
			check_evaluation(&first, 9, 0);
			check_evaluation(&second, 9, 0);
			for (int i = 0; i < 9; i++) {
				const struct trajectory *a = first.trajectories[i], *b = second.trajectories[i];
				assert_string_equal(a->prompt_id, b->prompt_id);
				assert_int_equal(a->n_tokens, b->n_tokens);
				assert_memory_equal(a->tokens, b->tokens, 4 * (size_t)a->n_tokens);
				assert_memory_equal(a->logprobs, b->logprobs, 4 * (size_t)a->n_tokens);
			}
			client_batch_free(&first);
			client_batch_free(&second);
		}
		push(client, step);
	}
	finish(&run, client);
}

static void test_evaluations_change_no_training(void **state)
{
	uint64_t with[2], without[2];

	(void)state;
	train("sync", true, with);
	train("sync", false, without);
	assert_true(with[0] == without[0] && with[1] == without[1] && with[0] != with[1]);
	train("async", true, with);
	train("one_step_off", true, with);
}

/* Some 0.3 s; under a sanitizer a sixteenth of them takes longer. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define EVAL_SAMPLES "eval.samples=4"
#else
#define EVAL_SAMPLES "eval.samples=64"
#endif

/* The run's own is the last thing that it does. */
static void test_an_evaluation_that_is_asked_for_during_the_last_one_is_answered(void **state)
{
	static const char *const modes[] = {"scheduler.asynchrony=sync", "scheduler.asynchrony=async"};
	const struct request_settings drawn = {.has_samples = true, .samples = 3};

	(void)state;
	for (int i = 0; i < 2; i++) {
		const char *const settings[] = {"run.steps=1", "scheduler.groups_per_step=4", modes[i], EVAL_SAMPLES,
		                                "data.eval_prompts=configs/quickstart/heldout.jsonl", "eval.limit=16", NULL};
		struct client_batch batch, result;
		struct live_run run;
		struct err err;
		int64_t id;
		live_run_start(&run, settings);
		struct client *client = live_run_connect(&run, NULL);
		good(client_pull(client, &batch, WAIT_SECONDS, &err));
		client_batch_free(&batch);
		good(client_ack(client, 1, &err));
		push(client, 1);
		nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
		good(client_evaluate_begin(client, NULL, 0, &drawn, &id, &err));
		good(client_evaluate_end(client, id, &result, WAIT_SECONDS, &err));
		check_evaluation(&result, 48, 1);
		client_batch_free(&result);
		finish(&run, client);
	}
}

/* ---- scores ---- */

static void score_batch(struct client *client, const struct client_batch *batch, int64_t version, bool same)
{
	struct request_sequence *sequences = calloc((size_t)batch->n, sizeof *sequences);
	float **logprobs = calloc((size_t)batch->n, sizeof *logprobs);
	const struct request_settings plain = {.sampling = {.temperature = 1, .top_p = 1}};
	struct err err;
	int n_different = 0;

	for (int i = 0; i < batch->n; i++) {
		const struct trajectory *t = batch->trajectories[i];
		sequences[i] = (struct request_sequence){t->tokens, t->n_tokens, t->n_prompt};
		logprobs[i] = calloc((size_t)t->n_tokens, sizeof(float));
	}
	good(client_score(client, version, sequences, batch->n, &plain, logprobs, WAIT_SECONDS, &err));
	for (int i = 0; i < batch->n; i++) {
		size_t n_bytes = 4 * (size_t)sequences[i].n_tokens;
		n_different += memcmp(logprobs[i], batch->trajectories[i]->logprobs, n_bytes) != 0;
		free(logprobs[i]);
	}
	assert_true(same ? n_different == 0 : n_different == batch->n);
	free(logprobs);
	free(sequences);
}

/* What `drumroll score --run` says of one sample, after the run. */
static void score_by_command(const struct live_run *run, const struct trajectory *t, int64_t version)
{
	char path[300], command[1200], *line = NULL;
	const char *program = getenv("DRUMROLL") ? getenv("DRUMROLL") : "build/drumroll";
	size_t capacity = 0;

	snprintf(path, sizeof path, "%s/tokens.jsonl", run->dir);
	FILE *file = fopen(path, "w");
	for (int part = 0; part < 2; part++) {
		fputs(part ? "],\"tokens\":[" : "{\"prompt_tokens\":[", file);
		for (int i = part ? t->n_prompt : 0, end = part ? t->n_tokens : t->n_prompt; i < end; i++)
			fprintf(file, "%s%d", i == (part ? t->n_prompt : 0) ? "" : ",", t->tokens[i]);
	}
	fputs("]}\n", file);
	fclose(file);
	snprintf(command, sizeof command, "%s score --run %s/run --version %lld --in %s", program, run->dir,
	         (long long)version, path);
	FILE *out = popen(command, "r");
	assert_non_null(out);
	assert_true(getline(&line, &capacity, out) > 0);
	assert_int_equal(pclose(out), 0);
	const char *at = strchr(line, '[');
	assert_non_null(at);
	for (int i = t->n_prompt; i < t->n_tokens; i++, at = strpbrk(at + 1, ",]"))
		assert_true((float)strtod(at + 1, NULL) == t->logprobs[i]);
	free(line);
}

static void test_scores_are_those_on_record(void **state)
{
	const char *const settings[] = {"run.steps=3", "scheduler.groups_per_step=2", "weights.keep_versions=2",
	                                "scheduler.over_sampling=1", NULL};
	const struct request_settings plain = {.sampling = {.temperature = 1, .top_p = 1}};
	const struct request_sequence one = {(const int32_t[]){3, 4}, 2, 1}, bad = {(const int32_t[]){3, 1 << 30}, 2, 1};
	float values[2], *logprobs[] = {values};
	struct client_batch batches[3];
	struct live_run run;
	struct err err;

	(void)state;
	live_run_start(&run, settings);
	struct client *client = live_run_connect(&run, NULL);
	for (int64_t step = 1; step <= 3; step++) {
		good(client_pull(client, &batches[step - 1], WAIT_SECONDS, &err));
		assert_int_equal(batches[step - 1].version, step - 1);
		if (step == 1)
			score_batch(client, &batches[0], 0, true);
		if (step == 2) { /* the older one is a delta by now */
			score_batch(client, &batches[1], 1, true);
			score_batch(client, &batches[0], 0, true);
			score_batch(client, &batches[0], 1, false);
		}
		if (step == 3)
			break;
		good(client_ack(client, (uint64_t)step, &err));
		change_model();
		push(client, step);
	}
	expect_refusal(client_score(client, 0, &one, 1, &plain, logprobs, WAIT_SECONDS, &err), ERR_MISSING, &err,
	               "version 0 is not kept: expected one of 2 from 1 to 2");
	expect_refusal(client_score(client, 2, &bad, 1, &plain, logprobs, WAIT_SECONDS, &err), ERR_INVALID, &err,
	               "token 1 of sequence 0");
	score_batch(client, &batches[2], 2, true);
	good(client_ack(client, 3, &err));
	push(client, 3);
	client_close(client);
	assert_int_equal(live_run_wait(&run, WAIT_SECONDS), 0);
	score_by_command(&run, batches[2].trajectories[0], 2);
	for (int i = 0; i < 3; i++)
		client_batch_free(&batches[i]);
	live_run_remove(&run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_submitted_prompts_come_back),
		cmocka_unit_test(test_evaluations_change_no_training),
		cmocka_unit_test(test_an_evaluation_that_is_asked_for_during_the_last_one_is_answered),
		cmocka_unit_test(test_scores_are_those_on_record),
	};
	struct err err;

	if (weights_load(&model, "configs/quickstart", &err)) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	weights_free(&model);
	return failed;
}

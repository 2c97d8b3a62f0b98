/* test_requests.c - SUBMIT, EVALUATE and SCORE through a peer: what is wrong is refused with the request's id and has no
 * effect, limits hold, answers find their requests, and damaged frames harm nobody.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "tests/support/bridge_fixture.h"
#include "trainer_bridge/server/peer.h"

enum { FRAME_BYTES_MAX = 1 << 20, DAMAGED_ROUNDS = 20000 };

static struct {
	int submitted, evaluations, scores, forgotten, sequences;
	uint64_t ticket;
	bool busy;
} seen;

static int on_submit(void *context, const struct request_prompt *prompts, int n, struct request_answer *answer,
                     struct err *err)
{
	(void)context;
	if (seen.busy) {
		answer->busy = true;
		return err_set(err, ERR_STATE, "full");
	}
	for (int i = 0; i < n; i++) {
		assert_true((prompts[i].text != NULL) + (prompts[i].messages != NULL) + (prompts[i].tokens != NULL) == 1);
		assert_in_range(prompts[i].settings.samples, 1, REQUEST_SAMPLES_MAX);
		assert_true(prompts[i].settings.sampling.temperature >= 0 && prompts[i].settings.sampling.temperature <= 100);
		for (size_t k = 0; k < prompts[i].n_tokens; k++)
			seen.sequences += prompts[i].tokens[k] == 1; /* read them all */
	}
	seen.submitted += n;
	answer->n_prompts = n;
	return 0;
}

static int on_evaluate(void *context, uint64_t ticket, const struct request_prompt *prompts, int n,
                       const struct request_settings *settings, struct request_answer *answer, struct err *err)
{
	(void)context;
	(void)prompts;
	(void)settings;
	(void)err;
	seen.evaluations++;
	seen.ticket = ticket;
	answer->n_prompts = n;
	return 0;
}

static int on_score(void *context, uint64_t ticket, int64_t version, const struct request_sequence *sequences, int n,
                    const struct request_settings *settings, struct request_answer *answer, struct err *err)
{
	(void)context;
	(void)version;
	(void)settings;
	(void)answer;
	(void)err;
	for (int i = 0; i < n; i++)
		for (int k = 0; k < sequences[i].n_tokens; k++)
			seen.sequences += sequences[i].tokens[k] == 1;
	seen.scores++;
	seen.ticket = ticket;
	return 0;
}

static void on_forget(void *context, uint64_t ticket)
{
	(void)context;
	(void)ticket;
	seen.forgotten++;
}

static void on_name(void *context, const char *name)
{
	(void)context;
	(void)name;
}

static void on_left(void *context, const char *name, const char *why)
{
	(void)context;
	(void)name;
	(void)why;
}

static const struct request_handlers handlers = {.prompts_max = 8, .prompt_tokens_max = 64, .max_tokens = 16,
	.keep_versions = 2, .submit = on_submit, .evaluate = on_evaluate, .score = on_score, .forget = on_forget};
static struct model_config config = {.dim = 2, .vocab_size = 2, .tied = true};
static struct exchange exchange;
static struct message_writer *w;
static struct peer *peer;

static void send_frame(void)
{
	size_t n_bytes;
	const void *bytes = message_bytes(w, &n_bytes);

	peer_receive(peer, bytes, n_bytes);
}

static void begin(enum frame_type type, uint32_t n_fields)
{
	message_writer_reset(w);
	frame_begin(w, type, n_fields);
}

static void put_int(const char *key, int64_t value)
{
	message_key(w, key);
	message_put_int(w, value);
}

static void put_text(const char *key, const char *text)
{
	message_key(w, key);
	message_put_text(w, text);
}

static void put_bin(const char *key, const void *bytes, size_t n_bytes)
{
	message_key(w, key);
	message_put_bin(w, bytes, n_bytes);
}

/* The frames that are due, one behind the other; the last of them as a message, or NULL if there is none. */
static struct message *last_answer(void)
{
	struct message *message = NULL;
	struct peer_frame frame;
	struct err err;

	while (peer_next_frame(peer, &frame)) {
		size_t total = frame.head_bytes + frame.body_bytes;
		uint8_t *bytes = malloc(total);
		memcpy(bytes, frame.head, frame.head_bytes);
		if (frame.body_bytes > 0)
			memcpy(bytes + frame.head_bytes, frame.body, frame.body_bytes);
		for (size_t at = 0; at < total;) {
			size_t n = bytes[at] | (size_t)bytes[at + 1] << 8 | (size_t)bytes[at + 2] << 16;
			message_close(message);
			assert_int_equal(message_parse(&message, bytes + at + 4, n, &err), 0);
			at += 4 + n;
		}
		free(bytes);
		peer_frame_free(&frame);
	}
	return message;
}

static void expect_answer(const char *type, int64_t id, const char *code, const char *said)
{
	struct message *message = last_answer();
	const char *text;
	struct err err;
	int64_t found;

	assert_non_null(message);
	const struct message_node *root = message_root(message);
	assert_int_equal(message_get_text(root, "type", &text, &err), 0);
	assert_string_equal(text, type);
	assert_int_equal(message_get_int(root, "id", 0, INT64_MAX, &found, &err), 0);
	assert_int_equal(found, id);
	if (code) {
		bool fatal = true;
		assert_int_equal(message_get_text(root, "code", &text, &err), 0);
		assert_string_equal(text, code);
		assert_int_equal(message_get_text(root, "text", &text, &err), 0);
		if (!strstr(text, said))
			fail_msg("'%s' does not say '%s'", text, said);
		assert_int_equal(message_get_bool(root, "fatal", &fatal, &err), 0);
		assert_false(fatal);
	}
	message_close(message);
	assert_false(peer_over(peer));
}

static int open_peer(void **state)
{
	const uint8_t nonce[NONCE_BYTES] = {0};

	(void)state;
	memset(&seen, 0, sizeof seen);
	w = message_writer_open();
	exchange = (struct exchange){.run_id = "r", .frame_bytes_max = FRAME_BYTES_MAX, .credits_max = 1,
		.callbacks = {.peer_joined = on_name, .peer_left = on_left}, .intake = intake_open(&config), .handlers = &handlers};
	peer = peer_open(&exchange);
	begin(FRAME_HELLO, 5);
	put_int("protocol_min", 1);
	put_int("protocol_max", 1);
	put_text("name", "n");
	put_text("role", "trainer");
	put_bin("nonce", nonce, sizeof nonce);
	send_frame();
	message_close(last_answer());
	return 0;
}

static int close_peer(void **state)
{
	(void)state;
	if (peer)
		peer_close(peer, "over");
	peer = NULL;
	intake_close(exchange.intake);
	message_writer_close(w);
	return 0;
}

/* A submit of one prompt, with room for fields of the test's. */
static void begin_prompt(int64_t id, uint32_t n_fields)
{
	begin(FRAME_SUBMIT, 2);
	put_int("id", id);
	message_key(w, "prompts");
	message_begin_array(w, 1);
	message_begin_map(w, n_fields);
}

static void test_bad_prompts_are_refused(void **state)
{
	const int32_t ids[] = {1, 2};
	char *long_text = malloc(PROMPT_META_BYTES_MAX + 2);

	(void)state;
	memset(long_text, 'x', PROMPT_META_BYTES_MAX + 1);
	long_text[PROMPT_META_BYTES_MAX + 1] = '\0';
	begin_prompt(1, 1); put_text("text", "a");
	send_frame(); expect_answer("error", 1, "missing", "prompt 0: field 'prompt_id'");
	begin_prompt(2, 2); put_text("prompt_id", ""); put_text("text", "a");
	send_frame(); expect_answer("error", 2, "invalid", "1 to 256 bytes");
	begin_prompt(3, 1); put_text("prompt_id", "p");
	send_frame(); expect_answer("error", 3, "invalid", "exactly one of");
	begin_prompt(4, 3); put_text("prompt_id", "p"); put_text("text", "a"); put_bin("tokens", ids, sizeof ids);
	send_frame(); expect_answer("error", 4, "invalid", "exactly one of");
	begin_prompt(5, 2); put_text("prompt_id", "p"); put_bin("tokens", ids, 7);
	send_frame(); expect_answer("error", 5, "invalid", "7 bytes");
	begin_prompt(6, 3); put_text("prompt_id", "p"); put_text("text", "a"); put_text("reward", "maybe");
	send_frame(); expect_answer("error", 6, "unsupported", "'run' or 'none'");
	begin_prompt(7, 3); put_text("prompt_id", "p"); put_text("text", "a"); put_int("samples", 1025);
	send_frame(); expect_answer("error", 7, "invalid", "1 to 1024");
	begin_prompt(8, 3); put_text("prompt_id", "p"); put_text("text", "a"); put_int("max_tokens", 17);
	send_frame(); expect_answer("error", 8, "invalid", "1 to 16");
	begin_prompt(9, 3); put_text("prompt_id", "p"); put_text("text", "a"); put_text("meta", long_text);
	send_frame(); expect_answer("error", 9, "too_big", "over 65536 bytes");
	begin_prompt(10, 3); put_text("prompt_id", "p"); put_text("text", "a");
	message_key(w, "temperature"); message_put_real(w, (double)NAN);
	send_frame(); expect_answer("error", 10, "invalid", "expected 0 to 100");
	begin(FRAME_SUBMIT, 2); put_int("id", 11); message_key(w, "prompts"); message_begin_array(w, 0);
	send_frame(); expect_answer("error", 11, "invalid", "expected 1 to 4096, found 0");
	begin(FRAME_SUBMIT, 2); put_int("id", 12); message_key(w, "prompts");
	message_begin_array(w, REQUEST_PROMPTS_MAX + 1);
	for (int i = 0; i <= REQUEST_PROMPTS_MAX; i++)
		message_put_int(w, 0);
	send_frame(); expect_answer("error", 12, "too_big", "found 4097");
	begin(FRAME_SUBMIT, 2); put_int("id", 13); message_key(w, "prompts"); message_begin_array(w, 1); message_put_int(w, 5);
	send_frame(); expect_answer("error", 13, "invalid", "expected a map");
	assert_int_equal(seen.submitted, 0);
	seen.busy = true;
	begin_prompt(14, 2); put_text("prompt_id", "p"); put_text("text", "a");
	send_frame(); expect_answer("error", 14, "busy", "full");
	seen.busy = false;
	send_frame(); expect_answer("accepted", 14, NULL, NULL);
	assert_int_equal(seen.submitted, 1);
	free(long_text);
}

static void ask_score(int64_t id, const int32_t *tokens, size_t n_bytes, int64_t n_prompt)
{
	begin(FRAME_SCORE, 3);
	put_int("id", id);
	put_int("version", 3);
	message_key(w, "sequences");
	message_begin_array(w, 1);
	message_begin_map(w, 2);
	put_bin("tokens", tokens, n_bytes);
	put_int("n_prompt", n_prompt);
	send_frame();
}

static void test_bad_scores_are_refused(void **state)
{
	int32_t *many = calloc(SCORE_TOKENS_MAX + 1, sizeof *many);

	(void)state;
	ask_score(1, many, 8, 0);
	expect_answer("error", 1, "invalid", "sequence 0");
	ask_score(2, many, 8, 3);
	expect_answer("error", 2, "invalid", "expected 1 to 2");
	ask_score(3, many, 4 * ((size_t)SCORE_TOKENS_MAX + 1), 1);
	expect_answer("error", 3, "too_big", "over 1048576 tokens");
	ask_score(4, many, FRAME_BYTES_MAX, 1); /* the answer is as long as the question, and a little more */
	expect_answer("error", 4, "too_big", "ask in several requests");
	assert_int_equal(seen.scores, 0);
	free(many);
}

static void test_requests_are_bounded_and_answered(void **state)
{
	const int32_t tokens[] = {1, 2, 3};
	const float logprobs[] = {0, -1, -2};
	const int length = 3;
	struct err err;

	(void)state;
	for (int i = 0; i < REQUESTS_MAX; i++)
		ask_score(i, tokens, sizeof tokens, 1);
	assert_int_equal(seen.scores, REQUESTS_MAX);
	assert_null(last_answer());
	ask_score(99, tokens, sizeof tokens, 1);
	expect_answer("error", 99, "busy", "too many requests");
	assert_false(peer_answer_scores(peer, seen.ticket + 1, 3, logprobs, &length, 1));
	assert_true(peer_answer_scores(peer, seen.ticket, 3, logprobs, &length, 1));
	expect_answer("scores", REQUESTS_MAX - 1, NULL, NULL);
	assert_false(peer_answer_scores(peer, seen.ticket, 3, logprobs, &length, 1)); /* once */
	err_set(&err, ERR_MISSING, "version 3 is gone");
	assert_true(peer_answer_refusal(peer, seen.ticket - 1, &err));
	expect_answer("error", REQUESTS_MAX - 2, "missing", "gone");
	ask_score(100, tokens, sizeof tokens, 1);
	assert_int_equal(seen.scores, REQUESTS_MAX + 1);
	peer_close(peer, "gone");
	peer = NULL;
	assert_int_equal(seen.forgotten, REQUESTS_MAX - 1); /* those without an answer */
}

static void ask_evaluation(int64_t id, bool held_out, bool prompts)
{
	begin(FRAME_EVALUATE, 1u + held_out + prompts);
	put_int("id", id);
	if (held_out) {
		message_key(w, "held_out");
		message_put_bool(w, true);
	}
	if (prompts) {
		message_key(w, "prompts");
		message_begin_array(w, 1);
		message_begin_map(w, 2);
		put_text("prompt_id", "p");
		put_text("text", "a");
	}
	send_frame();
}

static void test_evaluations_come_whole(void **state)
{
	struct trajectory *t = bridge_trajectory(4, 0, 200000); /* more than a frame */

	(void)state;
	ask_evaluation(1, true, true);
	expect_answer("error", 1, "invalid", "found both");
	ask_evaluation(2, false, false);
	expect_answer("error", 2, "missing", "'prompts'");
	ask_evaluation(3, true, false);
	expect_answer("accepted", 3, NULL, NULL);
	ask_evaluation(4, false, true);
	expect_answer("accepted", 4, NULL, NULL);
	struct batch *result = batch_new(1, 0, 5);
	batch_add(result, 5, 0, &t, 1);
	assert_true(peer_answer_evaluation(peer, seen.ticket, result));
	expect_answer("evaluation", 4, NULL, NULL);
	assert_int_equal(seen.forgotten, 1);
	result = batch_new(2, 0, 5);
	batch_add(result, 5, 0, &t, 1);
	assert_true(peer_answer_evaluation(peer, seen.ticket - 1, result)); /* it leaves before that is sent */
	peer_close(peer, "gone");
	peer = NULL;
	assert_int_equal(seen.forgotten, 2);
	trajectory_free(t);
}

static void test_a_run_without_requests_says_so(void **state)
{
	(void)state;
	exchange.handlers = NULL;
	begin_prompt(1, 2); put_text("prompt_id", "p"); put_text("text", "a");
	send_frame();
	expect_answer("error", 1, "unsupported", "takes no requests");
}

/* Good frames with bytes changed, or cut: each is answered or ends the connection, and memory stays sound. */
static void test_damaged_requests(void **state)
{
	const int32_t tokens[] = {1, 2, 3};
	uint64_t random = 11;
	int n_over = 0;

	for (int round = 0; round < DAMAGED_ROUNDS; round++) {
		if (round % 3 == 0) {
			begin_prompt(1, 6); put_text("prompt_id", "p"); put_bin("tokens", tokens, sizeof tokens);
			put_text("answer", "7"); put_text("meta", "{}"); put_int("samples", 2); put_int("top_k", 3);
		} else if (round % 3 == 1) {
			begin(FRAME_EVALUATE, 3); put_int("id", 1); put_int("samples", 2); message_key(w, "prompts");
			message_begin_array(w, 1); message_begin_map(w, 2); put_text("prompt_id", "p"); put_text("messages", "[]");
		} else {
			begin(FRAME_SCORE, 4); put_int("id", 1); put_int("version", 3); put_int("top_k", 5);
			message_key(w, "sequences"); message_begin_array(w, 1); message_begin_map(w, 2);
			put_bin("tokens", tokens, sizeof tokens); put_int("n_prompt", 1);
		}
		size_t n_bytes;
		const void *bytes = message_bytes(w, &n_bytes);
		uint8_t *damaged = malloc(n_bytes);
		memcpy(damaged, bytes, n_bytes);
		for (uint32_t n = bridge_random(&random) % 4; n > 0; n--)
			damaged[bridge_random(&random) % n_bytes] = (uint8_t)bridge_random(&random);
		peer_receive(peer, damaged, bridge_random(&random) % 8 ? n_bytes : bridge_random(&random) % n_bytes);
		free(damaged);
		message_close(last_answer());
		if (!peer_over(peer) && round % 50 != 49)
			continue;
		n_over += peer_over(peer);
		close_peer(state);
		struct { int submitted, evaluations, scores; } kept = {seen.submitted, seen.evaluations, seen.scores};
		open_peer(state);
		seen.submitted = kept.submitted;
		seen.evaluations = kept.evaluations;
		seen.scores = kept.scores;
	}
	assert_in_range(n_over, DAMAGED_ROUNDS / 20, DAMAGED_ROUNDS - DAMAGED_ROUNDS / 20);
	assert_in_range(seen.submitted, DAMAGED_ROUNDS / 50, DAMAGED_ROUNDS);
	assert_in_range(seen.evaluations, DAMAGED_ROUNDS / 50, DAMAGED_ROUNDS);
	assert_in_range(seen.scores, DAMAGED_ROUNDS / 50, DAMAGED_ROUNDS);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, open_peer, close_peer)
	const struct CMUnitTest tests[] = {
		CASE(test_bad_prompts_are_refused),
		CASE(test_bad_scores_are_refused),
		CASE(test_requests_are_bounded_and_answered),
		CASE(test_evaluations_come_whole),
		CASE(test_a_run_without_requests_says_so),
		CASE(test_damaged_requests),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_protocol.c - PROTOCOL.md against the program: its tables, and its worked exchange replayed through
 * a peer byte by byte.  Frames sent by the peer in that exchange were made by another msgpack library.
 */
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
#include "trainer_bridge/wire/codec.h"

enum { LINE_MAX_BYTES = 4096, ROWS_MAX = 64, N_STEPS = 44 };

static FILE *open_page(void)
{
	FILE *page = fopen("trainer_bridge/PROTOCOL.md", "r");

	if (!page)
		fail_msg("run from the top: there is no trainer_bridge/PROTOCOL.md here");
	return page;
}

/* ---- tables ---- */

struct row {
	char cells[3][LINE_MAX_BYTES];
};

static void take_cell(char *out, const char *from, const char *end)
{
	while (from < end && (*from == ' ' || *from == '`'))
		from++;
	while (end > from && (end[-1] == ' ' || end[-1] == '`'))
		end--;
	memcpy(out, from, (size_t)(end - from));
	out[end - from] = '\0';
}

/* Rows of the table whose header's first cell is this, without the header. */
static int read_table(const char *first_cell, struct row *rows)
{
	FILE *page = open_page();
	char line[LINE_MAX_BYTES], start[64];
	bool inside = false;
	int n = 0;

	snprintf(start, sizeof start, "| %s |", first_cell);
	while (fgets(line, sizeof line, page)) {
		if (strncmp(line, start, strlen(start)) == 0) {
			inside = true;
		} else if (inside && line[0] != '|') {
			break;
		} else if (inside && line[1] != '-') {
			const char *at = line + 1;
			for (int cell = 0; cell < 3; cell++) {
				const char *end = strchr(at, '|');
				assert_non_null(end);
				take_cell(rows[n].cells[cell], at, end);
				at = end + 1;
			}
			assert_true(++n < ROWS_MAX);
		}
	}
	fclose(page);
	return n;
}

static struct row rows[ROWS_MAX];

static void test_constants_agree(void **state)
{
	const struct { const char *name; long value; } known[] = {
#define X(name, value) {#name, value},
		PROTOCOL_LIST(X)
#undef X
	};
	int n = read_table("constant", rows);

	(void)state;
	assert_int_equal(n, sizeof known / sizeof *known);
	for (int i = 0; i < n; i++) {
		assert_string_equal(rows[i].cells[0], known[i].name);
		assert_int_equal(strtol(rows[i].cells[1], NULL, 10), known[i].value);
	}
	assert_int_equal(MESSAGE_NESTING_MAX, 16); /* stated in the text */
	assert_int_equal(MESSAGE_VALUES_MAX, 1048576);
}

static void test_frame_types_agree(void **state)
{
	const struct { const char *name, *sender; } known[] = {
#define X(name, text, sender) {text, sender},
		FRAME_LIST(X)
#undef X
	};
	int n = read_table("type", rows);

	(void)state;
	assert_int_equal(n, FRAME_TYPES);
	for (int i = 0; i < n; i++) {
		int type = frame_type_parse(rows[i].cells[0]);
		assert_true(type >= 0);
		assert_string_equal(rows[i].cells[0], known[type].name);
		assert_string_equal(rows[i].cells[1], known[type].sender);
	}
}

static void test_error_codes_agree(void **state)
{
	int n = read_table("code", rows);

	(void)state;
	assert_int_equal(n, WIRE_ERRORS);
	for (int i = 0; i < n; i++) {
		assert_string_equal(rows[i].cells[0], wire_error_name((enum wire_error)i));
		assert_string_equal(rows[i].cells[1], wire_error_may_retry((enum wire_error)i) ? "yes" : "no");
	}
}

static void test_trajectory_fields_agree(void **state)
{
	struct trajectory *t = bridge_trajectory(1, 0, 4); /* scored: every field is there */
	struct message_writer *w = message_writer_open();
	struct message *message;
	struct err err;
	size_t n_bytes;
	int n = read_table("field", rows);

	(void)state;
	codec_put_trajectory(w, t);
	const uint8_t *bytes = message_bytes(w, &n_bytes);
	assert_int_equal(bytes[0], 0xde); /* map 16 */
	assert_int_equal(bytes[1] << 8 | bytes[2], n);
	assert_int_equal(message_parse(&message, bytes, n_bytes, &err), 0);
	for (int i = 0; i < n; i++)
		if (!message_field(message_root(message), rows[i].cells[0]))
			fail_msg("'%s' is on the page and not in a record", rows[i].cells[0]);
	message_close(message);
	message_writer_close(w);
	trajectory_free(t);
}

/* ---- the worked exchange ---- */

static int n_acked, n_weights;

static void on_name(void *context, const char *name)
{
	(void)context;
	assert_string_equal(name, "example");
}

static void on_left(void *context, const char *name, const char *why)
{
	(void)context;
	(void)name;
	(void)why;
}

static void on_acked(void *context, uint64_t batch_id)
{
	(void)context;
	assert_int_equal(batch_id, 3);
	n_acked++;
}

static int on_weights(void *context, int64_t version, const struct weights *weights, struct err *err)
{
	static const uint16_t expected[][6] = {
		{0x3f80, 0x4000, 0xbf80, 0x3f00, 0x3f80, 0x3f80}, /* full */
		{0x3f80, 0x4000, 0xbf80, 0x3f00, 0x3f80, 0x3f81}, /* delta: one number is another */
		{0x4040, 0x4060, 0xbfc0, 0x3e00, 0x3f80, 0x3f81}, /* lora: 1 2, -1 0.5 and twice (1, -0.25) times (1 0.75) */
	};

	(void)context;
	(void)err;
	assert_int_equal(version, 8 + n_weights);
	assert_memory_equal(weights->data, expected[n_weights], sizeof expected[n_weights]);
	n_weights++;
	return 0;
}

static void fixed_nonce(uint8_t nonce[NONCE_BYTES])
{
	for (int i = 0; i < NONCE_BYTES; i++)
		nonce[i] = (uint8_t)(0xa0 + i);
}

static struct trajectory *worked_trajectory(uint64_t group)
{
	const int32_t prompt[] = {1};
	struct trajectory *t = trajectory_new(prompt, 1, 2);

	t->group_id = group;
	t->group_size = 2;
	t->id = trajectory_id(group, 0);
	t->prompt_id = xstrdup("p");
	t->answer = xstrdup("4");
	t->finish = FINISH_STOP;
	t->has_reward = true;
	t->reward = t->reward_answer = 1;
	trajectory_append(t, 52, -0.5f, 7, 1, 1);
	trajectory_append(t, 2, -0.25f, 7, 1, 1);
	return t;
}

/* ---- requests ---- */

static uint64_t evaluation_ticket, score_ticket;

static int on_submit(void *context, const struct request_prompt *prompts, int n, struct request_answer *answer,
                     struct err *err)
{
	const int32_t ids[] = {1, 0};

	(void)context;
	(void)err;
	assert_int_equal(n, 2);
	assert_string_equal(prompts[0].prompt_id, "sum");
	assert_string_equal(prompts[0].text, "1+1=");
	assert_string_equal(prompts[0].answer, "2");
	assert_null(prompts[0].tokens);
	assert_int_equal(prompts[0].epoch, -1);
	assert_true(prompts[0].settings.has_samples && prompts[0].settings.samples == 2 && !prompts[0].unscored);
	assert_int_equal(prompts[1].n_tokens, 2);
	assert_memory_equal(prompts[1].tokens, ids, sizeof ids);
	assert_string_equal(prompts[1].meta, "{\"from\":\"page\"}");
	assert_int_equal(prompts[1].epoch, 4);
	assert_true(prompts[1].unscored && prompts[1].settings.has_temperature);
	assert_true(prompts[1].settings.sampling.temperature == 0.5f && !prompts[1].settings.has_samples);
	*answer = (struct request_answer){.n_prompts = 2, .room = 6};
	return 0;
}

static int on_evaluate(void *context, uint64_t ticket, const struct request_prompt *prompts, int n,
                       const struct request_settings *settings, struct request_answer *answer, struct err *err)
{
	(void)context;
	(void)err;
	assert_int_equal(n, 1);
	assert_string_equal(prompts[0].answer, "4");
	assert_true(settings->has_samples && settings->samples == 1);
	assert_true(settings->has_temperature && settings->sampling.temperature == 0);
	evaluation_ticket = ticket;
	*answer = (struct request_answer){.n_prompts = 1, .room = 5};
	return 0;
}

static int on_score(void *context, uint64_t ticket, int64_t version, const struct request_sequence *sequences, int n,
                    const struct request_settings *settings, struct request_answer *answer, struct err *err)
{
	const int32_t ids[] = {1, 52, 2};

	(void)context;
	(void)answer;
	(void)err;
	assert_int_equal(version, 7);
	assert_int_equal(n, 1);
	assert_true(sequences->n_tokens == 3 && sequences->n_prompt == 1);
	assert_memory_equal(sequences->tokens, ids, sizeof ids);
	assert_false(settings->has_temperature);
	score_ticket = ticket;
	return 0;
}

static void on_forget(void *context, uint64_t ticket)
{
	(void)context;
	assert_int_equal(ticket, evaluation_ticket); /* it has been sent */
	evaluation_ticket = 0;
}

static const struct request_handlers handlers = {
	.prompts_max = 8, .prompt_tokens_max = 64, .max_tokens = 16, .keep_versions = 2,
	.submit = on_submit, .evaluate = on_evaluate, .score = on_score, .forget = on_forget,
};

/* What the run has ready by the time that the page says so. */
static void answer_requests(struct peer *peer, const char *label)
{
	const float logprobs[] = {0, -0.5f, -0.25f};
	const int length = 3;

	if (strcmp(label, "scores") == 0)
		assert_true(peer_answer_scores(peer, score_ticket, 7, logprobs, &length, 1));
	if (strcmp(label, "evaluation") != 0)
		return;
	struct trajectory *t = worked_trajectory(6);
	struct batch *result = batch_new(2, 0, 7);
	t->eval = true;
	t->group_size = 1;
	t->sampling.temperature = 0;
	t->loss_weight = 0;
	batch_add(result, 7, 0, &t, 1);
	assert_true(peer_answer_evaluation(peer, evaluation_ticket, result));
	trajectory_free(t);
}

static void server_sends(struct peer *peer, const char *label, const uint8_t *expected, size_t n_bytes)
{
	struct peer_frame frame;

	if (!peer_next_frame(peer, &frame))
		fail_msg("the server has nothing to say where the page has '%s'", label);
	uint8_t *found = malloc(frame.head_bytes + frame.body_bytes);
	memcpy(found, frame.head, frame.head_bytes);
	if (frame.body_bytes > 0)
		memcpy(found + frame.head_bytes, frame.body, frame.body_bytes);
	if (frame.head_bytes + frame.body_bytes != n_bytes || memcmp(found, expected, n_bytes) != 0) {
		fprintf(stderr, "found:");
		for (size_t i = 0; i < frame.head_bytes + frame.body_bytes; i++)
			fprintf(stderr, "%s%02x", i % 48 == 0 ? "\n    " : i % 4 == 0 ? " " : "", found[i]);
		fail_msg("\n'%s' is not what the page says", label);
	}
	free(found);
	peer_frame_free(&frame);
}

static void peer_sends(struct peer *peer, const uint8_t *bytes, size_t n_bytes)
{
	uint8_t length[FRAME_LENGTH_BYTES];

	assert_true(n_bytes > FRAME_LENGTH_BYTES);
	frame_put_length(length, n_bytes - FRAME_LENGTH_BYTES);
	assert_memory_equal(bytes, length, sizeof length);
	peer_receive(peer, bytes + FRAME_LENGTH_BYTES, n_bytes - FRAME_LENGTH_BYTES);
}

struct step {
	char side;       /* '>' or '<'; 0: none yet */
	char label[64];
	char hex[LINE_MAX_BYTES];
};

static void play(struct exchange *exchange, struct peer *peer, const struct step *step)
{
	static uint8_t bytes[LINE_MAX_BYTES];
	size_t n_bytes = bridge_unhex(step->hex, bytes, sizeof bytes);

	if (step->side == '>')
		peer_sends(peer, bytes, n_bytes);
	else if (step->side == '<') {
		exchange->finishing = strcmp(step->label, "bye") == 0;
		answer_requests(peer, step->label);
		server_sends(peer, step->label, bytes, n_bytes);
	}
}

/* Every step of the fenced block behind the heading; returns how many. */
static int play_page(struct exchange *exchange, struct peer *peer)
{
	FILE *page = open_page();
	char line[LINE_MAX_BYTES];
	static struct step step;
	int fences = 0, n = 0;
	bool there = false;

	memset(&step, 0, sizeof step);
	while (fences < 2 && fgets(line, sizeof line, page)) {
		there = there || strcmp(line, "## Worked exchange\n") == 0;
		if (!there)
			continue;
		fences += strncmp(line, "```", 3) == 0;
		if (fences == 1 && (line[0] == '>' || line[0] == '<')) {
			play(exchange, peer, &step);
			memset(&step, 0, sizeof step);
			step.side = line[0];
			sscanf(line + 1, "%63s", step.label);
			n++;
		} else if (fences == 1 && line[0] == ' ') {
			assert_true(strlen(step.hex) + strlen(line) < sizeof step.hex);
			strcat(step.hex, line);
		}
	}
	play(exchange, peer, &step);
	fclose(page);
	return n;
}

static void test_the_worked_exchange_is_what_happens(void **state)
{
	struct model_config config = {.dim = 2, .vocab_size = 2, .tied = true};
	struct exchange exchange = {
		.run_id = "demo", .secret = "correct horse", .frame_bytes_max = 65536, .credits_max = 2, .version = 7,
		.callbacks = {NULL, on_name, on_left, on_acked, on_weights, NULL, {0}},
		.intake = intake_open(&config), .nonce = fixed_nonce,
		.handlers = &handlers,
	};
	struct peer *peer = peer_open(&exchange);
	struct trajectory *t = worked_trajectory(5);

	(void)state;
	batches_put(&exchange.batches, 3, 3, 7, &t, 1);
	assert_int_equal(play_page(&exchange, peer), N_STEPS);
	assert_true(peer_said_bye(peer));
	assert_int_equal(n_acked, 1);
	assert_int_equal(n_weights, 3);
	assert_int_equal(evaluation_ticket, 0);
	peer_close(peer, "over");
	trajectory_free(t);
	intake_close(exchange.intake);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_constants_agree),
		cmocka_unit_test(test_frame_types_agree),
		cmocka_unit_test(test_error_codes_agree),
		cmocka_unit_test(test_trajectory_fields_agree),
		cmocka_unit_test(test_the_worked_exchange_is_what_happens),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

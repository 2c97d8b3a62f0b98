/* test_chat.c - chat templates: what each one renders (goldens by jinja2), where they are found, with which
 * variables, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/chat/chat.h"
#include "tests/support/tokens_fixture.h"

static const char one[] = "[{\"role\":\"user\",\"content\":\"x\"}]";

/* A chat from a tokenizer_config.json with these fields; config is given up. */
static struct chat *chat_of(json_t *config)
{
	char folder[TOKENS_PATH_MAX];
	char *text = json_dumps(config, 0);
	struct chat *chat;
	struct err err = {0};

	tokens_folder_make(folder);
	tokens_folder_write(folder, "tokenizer_config.json", text);
	if (chat_open(&chat, folder, &err) != 0)
		fail_msg("%s", err.text);
	tokens_folder_remove(folder);
	free(text);
	json_decref(config);
	return chat;
}

static struct chat *chat_from(const char *template)
{
	return chat_of(json_pack("{s:s}", "chat_template", template));
}

static void expect_rendered(const struct chat *chat, const char *messages, const char *expected)
{
	struct err err = {0};
	char *text;

	if (chat_render(chat, messages, &text, &err) != 0)
		fail_msg("%s", err.text);
	assert_string_equal(text, expected);
	free(text);
}

static void expect_refused(const struct chat *chat, const char *messages, int code, const char *says)
{
	struct err err = {0};
	char *text;

	assert_int_equal(chat_render(chat, messages, &text, &err), code);
	assert_null(text);
	if (!strstr(err.text, says))
		fail_msg("\"%s\" does not say \"%s\"", err.text, says);
}

/* The chat renders one message to this and is closed. */
static void expect_one(struct chat *chat, const char *expected)
{
	expect_rendered(chat, one, expected);
	chat_close(chat);
}

/* ---- goldens ---- */

/* Text of each case; where it is null the template refuses the conversation. */
static void expect_cases(const struct chat *chat, const json_t *cases)
{
	const json_t *item;
	size_t i, rendered = 0;

	json_array_foreach(cases, i, item) {
		char *messages = json_dumps(json_object_get(item, "messages"), 0);
		const char *text = json_string_value(json_object_get(item, "text"));
		if (text)
			expect_rendered(chat, messages, text);
		else
			expect_refused(chat, messages, ERR_INVALID, "use `prompt`");
		rendered += text != NULL;
		free(messages);
	}
	assert_true(rendered >= 9);
}

static struct chat *golden_open(const json_t *golden)
{
	const char *folder = json_string_value(json_object_get(golden, "folder"));
	char path[TOKENS_PATH_MAX];
	struct chat *chat;
	struct err err = {0};

	if (!folder)
		return chat_of(json_pack("{s:O,s:O,s:O}", "chat_template", json_object_get(golden, "template"),
		                         "bos_token", json_object_get(golden, "bos_token"), "eos_token",
		                         json_object_get(golden, "eos_token")));
	assert_true(tokens_data_path(path, folder));
	if (chat_open(&chat, path, &err) != 0)
		fail_msg("%s", err.text);
	return chat;
}

/* What further variables make of the second conversation, each on a chat of its own. */
static void expect_kwargs(const json_t *golden)
{
	char *messages = json_dumps(json_object_get(json_array_get(json_object_get(golden, "cases"), 1), "messages"), 0);
	const json_t *item;
	size_t i;

	json_array_foreach(json_object_get(golden, "kwargs"), i, item) {
		char *variables = json_dumps(json_object_get(item, "variables"), 0);
		const char *text = json_string_value(json_object_get(item, "text"));
		struct chat *chat = golden_open(golden);
		struct err err = {0};
		if (chat_variables_set(chat, variables, &err) != 0)
			fail_msg("%s", err.text);
		if (text)
			expect_rendered(chat, messages, text);
		else
			expect_refused(chat, messages, ERR_INVALID, "use `prompt`");
		chat_close(chat);
		free(variables);
	}
	assert_true(i >= 5);
	free(messages);
}

/* The template of this name in the goldens. */
static void test_golden(void **state)
{
	json_t *goldens = tokens_golden("chat_templates.json"), *golden = NULL, *item;
	char path[TOKENS_PATH_MAX];
	size_t i;

	json_array_foreach(json_object_get(goldens, "templates"), i, item)
		if (strcmp(json_string_value(json_object_get(item, "name")), *state) == 0)
			golden = item;
	assert_non_null(golden);
	const char *folder = json_string_value(json_object_get(golden, "folder"));
	if (folder && !tokens_data_path(path, folder)) {
		json_decref(goldens);
		skip();
	}
	struct chat *chat = golden_open(golden);
	expect_cases(chat, json_object_get(golden, "cases"));
	chat_close(chat);
	expect_kwargs(golden);
	json_decref(goldens);
}

/* ---- where the template is ---- */

static struct chat *chat_in(const char *folder)
{
	struct chat *chat;
	struct err err = {0};

	if (chat_open(&chat, folder, &err) != 0)
		fail_msg("%s", err.text);
	return chat;
}

/* The chat's template is from this file and renders one message to `expected`; the chat is closed. */
static void expect_place(struct chat *chat, const char *name, const char *expected)
{
	const char *path = chat_path(chat);

	assert_non_null(path);
	assert_string_equal(strrchr(path, '/') + 1, name);
	expect_one(chat, expected);
}

/* chat_template.jinja before tokenizer_config.json before chat_template.json. */
static void test_places(void **state)
{
	char folder[TOKENS_PATH_MAX];
	struct chat *chat;
	struct err err = {0};

	(void)state;
	tokens_folder_make(folder);
	chat = chat_in(folder);
	assert_null(chat_path(chat));
	chat_close(chat);
	tokens_folder_write(folder, "chat_template.json", "{\"chat_template\": \"json\"}");
	expect_place(chat_in(folder), "chat_template.json", "json");
	tokens_folder_write(folder, "tokenizer_config.json", "{\"chat_template\": \"config\"}");
	expect_place(chat_in(folder), "tokenizer_config.json", "config");
	tokens_folder_write(folder, "chat_template.jinja", "jinja {{ messages[0].content }}\r\nend\n");
	expect_place(chat_in(folder), "chat_template.jinja", "jinja x\nend");
	tokens_folder_write(folder, "tokenizer_config.json", "{\"chat_template\": ");
	assert_int_equal(chat_open(&chat, folder, &err), ERR_INVALID);
	assert_null(chat);
	assert_non_null(strstr(err.text, "tokenizer_config.json: line 1"));
	tokens_folder_remove(folder);
}

/* Of several templates the one called default. */
static void test_named(void **state)
{
	(void)state;
	expect_one(chat_of(json_pack("{s:[{s:s,s:s},{s:s,s:s}]}", "chat_template", "name", "tool_use", "template",
	                             "tools", "name", "default", "template", "plain")),
	           "plain");
	expect_one(chat_of(json_pack("{s:{s:s,s:s}}", "chat_template", "rag", "documents", "default", "plain")), "plain");
	struct chat *chat = chat_of(json_pack("{s:[{s:s,s:s}]}", "chat_template", "name", "tool_use", "template", "x"));
	expect_refused(chat, one, ERR_UNSUPPORTED, "no template called \"default\"");
	assert_non_null(strstr(chat_path(chat), "tokenizer_config.json"));
	chat_close(chat);
}

/* ---- variables ---- */

static const char tokens[] = "{{ bos_token }}|{{ eos_token }}|{{ unk_token is defined }}|{{ pad_token }}|"
                             "{{ image_token }}|{{ additional_special_tokens }}";

static void test_special_tokens(void **state)
{
	(void)state;
	expect_one(chat_of(json_pack("{s:s,s:s,s:{s:s,s:b},s:n,s:{s:s},s:[s]}", "chat_template", tokens, "bos_token",
	                             "<s>", "eos_token", "content", "</s>", "lstrip", 0, "unk_token",
	                             "extra_special_tokens", "image_token", "<image>", "additional_special_tokens",
	                             "<a>")),
	           "<s>|</s>|False||<image>|['<a>']");
	expect_one(chat_from(tokens), "||False|||");
}

/* special_tokens_map.json counts where the config is of the time before added_tokens_decoder. */
static void test_special_tokens_map(void **state)
{
	char folder[TOKENS_PATH_MAX], config[1024];

	(void)state;
	tokens_folder_make(folder);
	tokens_folder_write(folder, "special_tokens_map.json",
	                    "{\"bos_token\": \"map\", \"pad_token\": {\"content\": \"pad\"}}");
	snprintf(config, sizeof config, "{\"chat_template\": \"%s\", \"bos_token\": \"config\"}", tokens);
	tokens_folder_write(folder, "tokenizer_config.json", config);
	expect_one(chat_in(folder), "config||False|pad||");
	snprintf(config, sizeof config, "{\"chat_template\": \"%s\", \"added_tokens_decoder\": {}}", tokens);
	tokens_folder_write(folder, "tokenizer_config.json", config);
	expect_one(chat_in(folder), "||False|||");
	tokens_folder_remove(folder);
}

static void test_variables(void **state)
{
	(void)state;
	expect_one(chat_from("{{ tools }}{{ documents }}{{ add_generation_prompt }}{{ strftime_now('%d %b %Y') }}"),
	           "NoneNoneTrue26 Jul 2024");
}

/* Later ones win over earlier ones and over the model's own; what is refused changes nothing. */
static void test_variables_set(void **state)
{
	static const struct { const char *json, *says; } bad[] = {
		{"{\"enable_thinking\": False}", "(invalid token near 'False')"},
		{"{\"a\": 1, \"a\": 2}", "(duplicate object key"},
		{"[1]", "expected a JSON object such as {\"enable_thinking\": false}, found \"[1]\" (no object)"},
		{"null", "found \"null\""}, {" ", "found \" \""}, {"{\"a\": \"\\u0000\"}", "expected a JSON object"},
		{"{\"a\": 1} 2", "end of file expected"}, {"{\"x\": 1, \"messages\": []}", "found `messages`"},
	};
	struct chat *chat = chat_from("{{ x }}{{ bos_token }}{{ add_generation_prompt }}{{ messages | length }}");
	struct err err = {0};

	(void)state;
	assert_int_equal(chat_variables_set(chat, "", &err), 0);
	expect_rendered(chat, one, "True1");
	assert_int_equal(chat_variables_set(chat, "{\"x\": 1, \"bos_token\": \"<b>\"}", &err), 0);
	assert_int_equal(chat_variables_set(chat, "{\"x\": {\"y\": [null, 2.5]}}", &err), 0);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(chat_variables_set(chat, bad[i].json, &err), ERR_CONFIG);
		if (!strstr(err.text, bad[i].says))
			fail_msg("\"%s\" does not say \"%s\"", err.text, bad[i].says);
	}
	expect_one(chat, "{'y': [None, 2.5]}<b>True1");
}

/* ---- messages ---- */

static void test_messages(void **state)
{
	struct chat *chat = chat_from("{% for m in messages %}{{ m | tojson }}{% endfor %}");

	(void)state;
	expect_rendered(chat, "[{\"role\": \"tool\", \"name\": \"f\", \"content\": null}]",
	                "{\"role\": \"tool\", \"name\": \"f\", \"content\": null}");
	expect_rendered(chat, "[{\"role\": \"assistant\", \"tool_calls\": [{\"n\": 1.0}]}]",
	                "{\"role\": \"assistant\", \"tool_calls\": [{\"n\": 1.0}]}");
	expect_rendered(chat, "[{\"content\": [{\"type\": \"text\"}], \"role\": \"x\"}]",
	                "{\"content\": [{\"type\": \"text\"}], \"role\": \"x\"}");
	expect_refused(chat, "[]", ERR_INVALID, "at least one");
	expect_refused(chat, "{}", ERR_INVALID, "must be a list");
	expect_refused(chat, "[", ERR_INVALID, "messages:");
	expect_refused(chat, "[7]", ERR_INVALID, "messages[0] must be");
	expect_refused(chat, "[{\"role\":\"user\"}]", ERR_INVALID, "messages[0] must have \"content\"");
	expect_refused(chat, "[{\"content\":\"x\"}]", ERR_INVALID, "messages[0] must be");
	expect_refused(chat, "[{\"role\":\"user\",\"content\":7}]", ERR_INVALID, "messages[0] has a content");
	expect_refused(chat, "[{\"role\":\"user\",\"content\":\"a\\u0000b\"}]", ERR_INVALID, "messages:");
	chat_close(chat);
}

/* ---- refusals: the file, the line, the construct, the way out ---- */

static void test_refused(void **state)
{
	struct chat *chat = chat_of(json_object());

	(void)state;
	expect_refused(chat, one, ERR_UNSUPPORTED, "has no chat template");
	expect_refused(chat, one, ERR_UNSUPPORTED, "use `prompt`");
	chat_close(chat);
	chat = chat_from("a\n{% include 'x' %}");
	expect_refused(chat, one, ERR_UNSUPPORTED, "tokenizer_config.json: line 2: the statement \"include\"");
	expect_refused(chat, one, ERR_UNSUPPORTED, "use `prompt` with the rendered text instead of `messages`");
	chat_close(chat);
	chat = chat_from("{{ messages[0].role");
	expect_refused(chat, one, ERR_INVALID, "line 1: expected }}");
	chat_close(chat);
	chat = chat_from("a\n\n{{ raise_exception('roles must alternate') }}");
	expect_refused(chat, one, ERR_INVALID, "line 3: the template refuses: roles must alternate; use `prompt`");
	chat_close(chat);
	chat = chat_from("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}");
	expect_refused(chat, one, ERR_TOO_BIG, "line 1: the template");
	chat_close(chat);
}

int main(void)
{
	static char names[][32] = {
		"chatml", "chatml with default", "smollm2", "smollm2, newlines escaped", "qwen2", "qwen2.5", "minimind2",
		"tinyllama", "llama3", "like llama2", "like llama3.2", "like mistral", "like qwen3", "like gemma",
		"like deepseek", "like phi", "like none: macros"};
	enum { N_NAMES = sizeof names / sizeof *names };
	struct CMUnitTest goldens[N_NAMES];
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_named),
		cmocka_unit_test(test_special_tokens),
		cmocka_unit_test(test_special_tokens_map),
		cmocka_unit_test(test_variables),
		cmocka_unit_test(test_variables_set),
		cmocka_unit_test(test_messages),
		cmocka_unit_test(test_refused),
	};

	for (int i = 0; i < N_NAMES; i++)
		goldens[i] = (struct CMUnitTest){names[i], test_golden, NULL, NULL, names[i]};
	int failed = cmocka_run_group_tests_name("goldens", goldens, NULL, NULL);
	return failed + cmocka_run_group_tests_name("chat", tests, NULL, NULL);
}

/* test_chat.c - chat templates: what each known one renders (goldens by a Jinja implementation), and what
 * is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/chat.h"
#include "tests/support/tokens_fixture.h"

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

static void expect_cases(const struct chat *chat, const json_t *cases)
{
	const json_t *item;
	size_t i;

	json_array_foreach(cases, i, item) {
		char *messages = json_dumps(json_object_get(item, "messages"), 0), *text;
		struct err err = {0};
		if (chat_render(chat, messages, &text, &err) != 0)
			fail_msg("%s", err.text);
		assert_string_equal(text, json_string_value(json_object_get(item, "text")));
		free(text);
		free(messages);
	}
	assert_true(i >= 6);
}

/* The template of this name in the goldens. */
static void test_golden(void **state)
{
	json_t *goldens = tokens_golden("chat_templates.json"), *golden = NULL, *item;
	char path[TOKENS_PATH_MAX];
	struct chat *chat;
	struct err err = {0};
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
	if (!folder)
		chat = chat_of(json_pack("{s:O,s:O,s:O}", "chat_template", json_object_get(golden, "template"),
		                         "bos_token", json_object_get(golden, "bos_token"), "eos_token",
		                         json_object_get(golden, "eos_token")));
	else if (chat_open(&chat, path, &err) != 0)
		fail_msg("%s", err.text);
	expect_cases(chat, json_object_get(golden, "cases"));
	chat_close(chat);
	json_decref(goldens);
}

#define TURNS \
	"{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}" \
	"{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
#define CHATML "{% for message in messages %}" TURNS
#define CHATML_SYSTEM(text) \
	"{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}" \
	"{{ '<|im_start|>system\n" text "<|im_end|>\n' }}{% endif %}" TURNS

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

/* The default system message is read from the template, its escapes undone. */
static void test_default_system(void **state)
{
	struct chat *chat =
		chat_of(json_pack("{s:s}", "chat_template", CHATML_SYSTEM("In \\\\boxed{},\\nplease; it\\'s due")));

	(void)state;
	expect_rendered(
		chat, "[{\"role\":\"user\",\"content\":\"x\"}]",
		"<|im_start|>system\nIn \\boxed{},\nplease; it's due<|im_end|>\n<|im_start|>user\nx<|im_end|>\n"
		"<|im_start|>assistant\n");
	chat_close(chat);
}

/* Named templates: the one called default; chat_template.jinja comes before the config. */
static void test_places(void **state)
{
	static const char one[] = "[{\"role\":\"user\",\"content\":\"x\"}]";
	static const char plain[] = "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n";
	struct chat *chat = chat_of(json_pack("{s:[{s:s,s:s},{s:s,s:s}]}", "chat_template", "name", "tool_use",
	                                      "template", "{{ x }}", "name", "default", "template", CHATML));
	char folder[TOKENS_PATH_MAX];
	struct err err = {0};

	(void)state;
	expect_rendered(chat, one, plain);
	chat_close(chat);
	tokens_folder_make(folder);
	tokens_folder_write(folder, "chat_template.jinja", CHATML "\n");
	assert_int_equal(chat_open(&chat, folder, &err), 0);
	expect_rendered(chat, one, plain);
	chat_close(chat);
	tokens_folder_write(folder, "tokenizer_config.json", "{\"chat_template\": \"{{ x }}\"}");
	assert_int_equal(chat_open(&chat, folder, &err), 0);
	expect_rendered(chat, one, plain);
	chat_close(chat);
	tokens_folder_write(folder, "tokenizer_config.json", "{\"chat_template\": ");
	assert_int_equal(chat_open(&chat, folder, &err), ERR_INVALID);
	assert_null(chat);
	assert_non_null(strstr(err.text, "tokenizer_config.json: line 1"));
	tokens_folder_remove(folder);
}

static void test_refused(void **state)
{
	static const char one[] = "[{\"role\":\"user\",\"content\":\"x\"}]";
	struct chat *chat = chat_of(json_pack("{s:s}", "chat_template", CHATML " "));

	(void)state;
	expect_refused(chat, one, ERR_UNSUPPORTED, "is none of the known ones");
	expect_refused(chat, one, ERR_UNSUPPORTED, "use `prompt`");
	chat_close(chat);
	chat = chat_of(json_object());
	expect_refused(chat, one, ERR_UNSUPPORTED, "has no chat template");
	chat_close(chat);

	chat = chat_of(json_pack("{s:s}", "chat_template", CHATML));
	expect_refused(chat, "[]", ERR_INVALID, "at least one");
	expect_refused(chat, "{}", ERR_INVALID, "must be a list");
	expect_refused(chat, "[", ERR_INVALID, "messages:");
	expect_refused(chat, "[7]", ERR_INVALID, "messages[0] must be");
	expect_refused(chat, "[{\"role\":\"user\"}]", ERR_INVALID, "messages[0] must be");
	expect_refused(chat, "[{\"role\":\"user\",\"content\":[]}]", ERR_INVALID, "messages[0] must be");
	expect_refused(chat, "[{\"role\":\"tool\",\"content\":\"x\"}]", ERR_UNSUPPORTED, "role \"tool\"");
	expect_refused(chat, "[{\"role\":\"assistant\",\"content\":\"x\",\"tool_calls\":[]}]", ERR_UNSUPPORTED,
	               "tool_calls");
	expect_refused(chat, "[{\"role\":\"user\",\"content\":\"a\\u0000b\"}]", ERR_INVALID, "messages:");
	chat_close(chat);
}

int main(void)
{
	static char names[][32] = {
		"chatml",    "chatml with default", "smollm2", "smollm2, newlines escaped", "qwen2", "qwen2.5",
		"minimind2", "tinyllama",           "llama3"};
	const struct CMUnitTest tests[] = {
		{names[0], test_golden, NULL, NULL, names[0]},
		{names[1], test_golden, NULL, NULL, names[1]},
		{names[2], test_golden, NULL, NULL, names[2]},
		{names[3], test_golden, NULL, NULL, names[3]},
		{names[4], test_golden, NULL, NULL, names[4]},
		{names[5], test_golden, NULL, NULL, names[5]},
		{names[6], test_golden, NULL, NULL, names[6]},
		{names[7], test_golden, NULL, NULL, names[7]},
		{names[8], test_golden, NULL, NULL, names[8]},
		cmocka_unit_test(test_default_system),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

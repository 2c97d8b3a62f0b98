/* chat.c - a model's chat template found in its directory, and what it is rendered with. */
#include "policy/chat/chat.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/chat/jinja.h"
#include "policy/file.h"

static const char way_out[] = "use `prompt` with the rendered text instead of `messages`";

struct chat {
	struct jinja *template; /* NULL: refused says why */
	char *path;             /* owned; of the file that the template is from, or NULL */
	struct err refused;
	json_t *variables;      /* owned; all but messages */
};

const char *chat_path(const struct chat *chat) { return chat->path; }

static int refuse(struct err *err, const char *path, const struct err *why)
{
	return err_set(err, why->code, "%s: %.700s; %s", path, why->text, way_out);
}

static void path_take(struct chat *chat, const char *path)
{
	free(chat->path);
	chat->path = xstrdup(path);
}

/* Make text the chat's template, in place of one found before. */
static void template_take(struct chat *chat, const char *path, const char *text, size_t n)
{
	struct err why = {0};

	path_take(chat, path);
	jinja_free(chat->template);
	if (jinja_compile(&chat->template, text, n, &why) != 0)
		refuse(&chat->refused, path, &why);
}

/* ---- the template among the fields of a config ---- */

/* {name, template}, ... or {name: template, ...}: the one called default, else NULL. */
static const json_t *template_default(const json_t *templates)
{
	const json_t *item;
	size_t i;

	json_array_foreach(templates, i, item) {
		const char *name = json_string_value(json_object_get(item, "name"));
		if (name && strcmp(name, "default") == 0)
			return json_object_get(item, "template");
	}
	return json_object_get(templates, "default");
}

static void template_choose(struct chat *chat, const char *path, const json_t *config)
{
	const json_t *template = json_object_get(config, "chat_template");

	if (!template || json_is_null(template))
		return;
	if (!json_is_string(template))
		template = template_default(template);
	if (json_is_string(template)) {
		template_take(chat, path, json_string_value(template), json_string_length(template));
		return;
	}
	path_take(chat, path);
	err_set(&chat->refused, ERR_UNSUPPORTED, "%s: chat_template has no template called \"default\"; %s", path,
	        way_out);
}

/* ---- special tokens ---- */

/* A token is a string, or an object with the string as content. */
static void token_take(struct chat *chat, const char *name, const json_t *token)
{
	const json_t *text = json_is_object(token) ? json_object_get(token, "content") : token;

	if (json_string_length(text) > 0 && !json_object_get(chat->variables, name))
		json_object_set_new(chat->variables, name, json_string(json_string_value(text)));
}

/* The special tokens that a config names and that are not known yet. */
static void tokens_take(struct chat *chat, json_t *config)
{
	static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
	                                    "pad_token", "cls_token", "mask_token"};
	json_t *list = json_object_get(config, "additional_special_tokens"), *token;
	const char *name;

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		token_take(chat, names[i], json_object_get(config, names[i]));
	json_object_foreach(json_object_get(config, "extra_special_tokens"), name, token)
		token_take(chat, name, token);
	if (json_array_size(list) > 0 && !json_object_get(chat->variables, "additional_special_tokens"))
		json_object_set(chat->variables, "additional_special_tokens", list);
}

/* ---- files ---- */

enum { PATH_BYTES_MAX = 4096 };

/* Map model_dir/name, whose path is set, if it is there. */
static int optional_open(struct file_map *map, bool *there, char *path, const char *model_dir, const char *name,
                         struct err *err)
{
	struct err missing;

	snprintf(path, PATH_BYTES_MAX, "%s/%s", model_dir, name);
	*there = file_map_small(map, path, FILE_JSON_BYTES_MAX, &missing) == 0;
	if (*there || missing.code == ERR_MISSING)
		return 0;
	*err = missing;
	return err->code;
}

/* Parse model_dir/name if it is there: *json, owned, else NULL. */
static int optional_json(json_t **json, char *path, const char *model_dir, const char *name, struct err *err)
{
	struct file_map map;
	json_error_t error;
	bool there;

	*json = NULL;
	if (optional_open(&map, &there, path, model_dir, name, err) != 0)
		return err->code;
	if (!there)
		return 0;
	*json = json_loadb((const char *)map.bytes, map.n_bytes, 0, &error);
	file_map_close(&map);
	if (!*json)
		return err_set(err, ERR_INVALID, "%s: line %d: %s", path, error.line, error.text);
	return 0;
}

/* tokenizer_config.json, and special_tokens_map.json where the former is of the time before it named all. */
static int config_read(struct chat *chat, const char *model_dir, struct err *err)
{
	char path[PATH_BYTES_MAX];
	json_t *config, *map = NULL;

	if (optional_json(&config, path, model_dir, "tokenizer_config.json", err) != 0)
		return err->code;
	template_choose(chat, path, config);
	tokens_take(chat, config);
	int code = json_object_get(config, "added_tokens_decoder")
	                   ? 0 : optional_json(&map, path, model_dir, "special_tokens_map.json", err);
	tokens_take(chat, map);
	json_decref(map);
	json_decref(config);
	return code;
}

/* chat_template.json, which the models have that take more than text; unless there is a template already. */
static int processor_read(struct chat *chat, const char *model_dir, struct err *err)
{
	char path[PATH_BYTES_MAX];
	json_t *config;

	if (chat->path)
		return 0;
	if (optional_json(&config, path, model_dir, "chat_template.json", err) != 0)
		return err->code;
	template_choose(chat, path, config);
	json_decref(config);
	return 0;
}

/* chat_template.jinja, which comes before all others. */
static int template_read(struct chat *chat, const char *model_dir, struct err *err)
{
	char path[PATH_BYTES_MAX];
	struct file_map map;
	bool there;

	if (optional_open(&map, &there, path, model_dir, "chat_template.jinja", err) != 0)
		return err->code;
	if (there) {
		template_take(chat, path, (const char *)map.bytes, map.n_bytes);
		file_map_close(&map);
	}
	return 0;
}

int chat_open(struct chat **out, const char *model_dir, struct err *err)
{
	struct chat *chat = xcalloc(1, sizeof *chat);

	err_set(&chat->refused, ERR_UNSUPPORTED,
	        "the model has no chat template (chat_template.jinja, tokenizer_config.json); %s", way_out);
	chat->variables = json_pack("{s:n, s:n, s:b}", "tools", "documents", "add_generation_prompt", 1);
	int code = config_read(chat, model_dir, err);
	if (code == 0)
		code = processor_read(chat, model_dir, err);
	if (code == 0)
		code = template_read(chat, model_dir, err);
	*out = code == 0 ? chat : NULL;
	if (code != 0)
		chat_close(chat);
	return code;
}

void chat_close(struct chat *chat)
{
	if (!chat)
		return;
	jinja_free(chat->template);
	free(chat->path);
	json_decref(chat->variables);
	free(chat);
}

int chat_variables_set(struct chat *chat, const char *json, struct err *err)
{
	json_error_t error = {.text = ""};
	json_t *variables = json[0] ? json_loads(json, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error) : json_object();
	int code = 0;

	if (!json_is_object(variables))
		code = err_set(err, ERR_CONFIG,
		               "expected a JSON object such as {\"enable_thinking\": false}, found \"%.100s\" (%s)", json,
		               variables ? "no object" : error.text);
	else if (json_object_get(variables, "messages"))
		code = err_set(err, ERR_CONFIG, "expected variables of the chat template, found `messages`, which the "
		               "prompts' lines give: take it out");
	else
		json_object_update(chat->variables, variables);
	json_decref(variables);
	return code;
}

/* ---- messages ---- */

static int message_check(const json_t *message, size_t i, struct err *err)
{
	const json_t *content = json_object_get(message, "content");
	bool calls = json_object_get(message, "tool_calls") != NULL;

	if (!json_is_string(json_object_get(message, "role")))
		return err_set(err, ERR_INVALID, "messages[%zu] must be {\"role\": text, \"content\": text}", i);
	if (!content && !calls)
		return err_set(err, ERR_INVALID, "messages[%zu] must have \"content\", or \"tool_calls\"", i);
	if (content && !json_is_string(content) && !json_is_array(content) && !json_is_null(content))
		return err_set(err, ERR_INVALID, "messages[%zu] has a content that is no text, list of parts or null",
		               i);
	return 0;
}

static int messages_check(const json_t *messages, struct err *err)
{
	const json_t *message;
	size_t i;

	if (!json_is_array(messages) || json_array_size(messages) == 0)
		return err_set(err, ERR_INVALID, "messages must be a list of at least one {role, content}");
	json_array_foreach(messages, i, message)
		if (message_check(message, i, err) != 0)
			return err->code;
	return 0;
}

static int render(const struct chat *chat, json_t *messages, char **text, struct err *err)
{
	json_t *variables = json_copy(chat->variables);
	struct err why = {0};

	json_object_set(variables, "messages", messages);
	int code = jinja_render(chat->template, variables, text, &why);
	json_decref(variables);
	return code == 0 ? 0 : refuse(err, chat->path, &why);
}

int chat_render(const struct chat *chat, const char *messages_json, char **text, struct err *err)
{
	json_error_t error;

	*text = NULL;
	if (!chat->template) {
		*err = chat->refused;
		return err->code;
	}
	json_t *messages = json_loads(messages_json, 0, &error);
	if (!messages)
		return err_set(err, ERR_INVALID, "messages: %s", error.text);
	int code = messages_check(messages, err);
	if (code == 0)
		code = render(chat, messages, text, err);
	json_decref(messages);
	return code;
}

/* chat.c - chat templates recognised by fingerprint, rendered by a table of styles.
 *
 * A template is a Jinja program.  Its fingerprint is XXH3-64 of its text after three changes that do not
 * alter what it renders: "\n" becomes a newline, the default system message becomes a mark (so one entry
 * serves every model that only changed that message), and a final newline goes.  All known templates say,
 * for the roles system, user and assistant without tools:
 *
 *   [bos] { before_role ROLE after_role CONTENT [eos] after_content } ... generation
 */
#include "policy/chat.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "policy/file.h"
#include "policy/utf8.h"

struct style {
	const char *before_role, *after_role, *after_content, *generation;
	bool bos, eos, trim;
};

static const struct style chatml = {"<|im_start|>", "\n", "<|im_end|>\n", "<|im_start|>assistant\n", false,
                                    false, false};
static const struct style zephyr = {"<|", "|>\n", "\n", "<|assistant|>\n", false, true, false};
static const struct style llama3 = {"<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>",
                                    "<|start_header_id|>assistant<|end_header_id|>\n\n", true, false, true};

static const struct known {
	uint64_t fingerprint;
	const struct style *style;
} known[] = {
	{0xa04f41d813a07b13, &chatml}, /* plain ChatML */
	{0xda206a9e46a4ac01, &chatml}, /* the same after `if not add_generation_prompt is defined` */
	{0x52b3f96a9af927ba, &chatml}, /* Qwen2, SmolLM2: with a default system message */
	{0x1df34c361d159aa9, &chatml}, /* Qwen2.5 */
	{0x1b83964e044799b5, &chatml}, /* MiniMind2 */
	{0x1db34e9fc60441d8, &zephyr}, /* Zephyr, TinyLlama */
	{0x9799ad6e2dea0594, &llama3}, /* Llama 3 Instruct */
};
static const char known_names[] = "ChatML, SmolLM2, Qwen2, Qwen2.5, MiniMind2, Zephyr, TinyLlama, Llama 3";

static const char system_turn[] = "<|im_start|>system\n", turn_end[] = "<|im_end|>";

struct chat {
	bool has_template;
	uint64_t fingerprint;
	const struct style *style; /* NULL: none or unknown */
	char *system;              /* owned; default system message, or NULL */
	char *bos, *eos;           /* owned; "" if there is none */
};

/* A copy of text with the two characters \n, as they stand in a Jinja string, made a newline. */
static char *newlines_made(const char *text)
{
	char *out = xmalloc(strlen(text) + 1), *to = out;

	for (; *text; text++) {
		if (text[0] == '\\' && text[1] == 'n') {
			*to++ = '\n';
			text++;
		} else {
			if (text[0] == '\\' && text[1])
				*to++ = *text++;
			*to++ = *text;
		}
	}
	if (to > out && to[-1] == '\n')
		to--;
	*to = '\0';
	return out;
}

/* The default system message as it stands in the template, owned; NULL without one. */
static char *system_find(const char *template)
{
	for (const char *at = template; (at = strstr(at, system_turn)); ) {
		at += strlen(system_turn);
		const char *end = strstr(at, turn_end);
		if (end && end > at && *at != '\'' && *at != '"') {
			char *message = xmalloc((size_t)(end - at) + 1);
			memcpy(message, at, (size_t)(end - at));
			message[end - at] = '\0';
			return message;
		}
	}
	return NULL;
}

static uint64_t fingerprint(const char *template, const char *system)
{
	char *marked = xmalloc(strlen(template) + 1), *to = marked;
	size_t n = system ? strlen(system) : 0;

	while (*template) {
		if (n > 0 && strncmp(template, system, n) == 0) {
			*to++ = '\1';
			template += n;
		} else {
			*to++ = *template++;
		}
	}
	uint64_t hash = XXH3_64bits(marked, (size_t)(to - marked));
	free(marked);
	return hash;
}

/* Undo the escapes of a Jinja string in place. */
static void unescape(char *text)
{
	char *to = text;

	for (; *text; text++) {
		if (text[0] == '\\' && text[1])
			text++;
		*to++ = *text;
	}
	*to = '\0';
}

static void template_recognise(struct chat *chat, const char *source)
{
	char *template = newlines_made(source);

	free(chat->system);
	chat->has_template = true;
	chat->style = NULL;
	chat->system = system_find(template);
	chat->fingerprint = fingerprint(template, chat->system);
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (known[i].fingerprint == chat->fingerprint)
			chat->style = known[i].style;
	if (chat->system)
		unescape(chat->system);
	free(template);
}

/* A string, or an object with the string as content; "" if there is none. */
static char *special_text(const json_t *config, const char *key)
{
	const json_t *token = json_object_get(config, key);

	if (json_is_object(token))
		token = json_object_get(token, "content");
	return xstrdup(json_is_string(token) ? json_string_value(token) : "");
}

/* The text of chat_template: a string, or of a list of {name, template} the one called default. */
static const char *template_text(const json_t *config)
{
	const json_t *template = json_object_get(config, "chat_template"), *item;
	size_t i;

	if (json_is_string(template))
		return json_string_value(template);
	json_array_foreach(template, i, item) {
		const char *name = json_string_value(json_object_get(item, "name"));
		if (name && strcmp(name, "default") == 0)
			return json_string_value(json_object_get(item, "template"));
	}
	return NULL;
}

static int config_read(struct chat *chat, const char *path, const struct file_map *map, struct err *err)
{
	json_error_t error;
	json_t *config = json_loadb((const char *)map->bytes, map->n_bytes, 0, &error);

	if (!config)
		return err_set(err, ERR_INVALID, "%s: line %d: %s", path, error.line, error.text);
	const char *text = template_text(config);
	free(chat->bos);
	free(chat->eos);
	chat->bos = special_text(config, "bos_token");
	chat->eos = special_text(config, "eos_token");
	if (text)
		template_recognise(chat, text);
	json_decref(config);
	return 0;
}

/* chat_template.jinja, which newer models have in place of the config's field. */
static int template_read(struct chat *chat, const char *path, const struct file_map *map, struct err *err)
{
	char *text = xmalloc(map->n_bytes + 1);

	(void)path, (void)err;
	memcpy(text, map->bytes, map->n_bytes);
	text[map->n_bytes] = '\0';
	template_recognise(chat, text);
	free(text);
	return 0;
}

typedef int file_reader(struct chat *chat, const char *path, const struct file_map *map, struct err *err);

/* Read model_dir/name if it is there. */
static int optional_read(struct chat *chat, const char *model_dir, const char *name, file_reader *read,
                         struct err *err)
{
	struct err missing;
	struct file_map map;
	char path[4096];

	snprintf(path, sizeof path, "%s/%s", model_dir, name);
	if (file_map_open(&map, path, &missing) != 0) {
		if (missing.code != ERR_MISSING)
			*err = missing;
		return missing.code == ERR_MISSING ? 0 : missing.code;
	}
	int code = read(chat, path, &map, err);
	file_map_close(&map);
	return code;
}

int chat_open(struct chat **out, const char *model_dir, struct err *err)
{
	struct chat *chat = xcalloc(1, sizeof *chat);

	chat->bos = xstrdup("");
	chat->eos = xstrdup("");
	int code = optional_read(chat, model_dir, "tokenizer_config.json", config_read, err);
	if (code == 0)
		code = optional_read(chat, model_dir, "chat_template.jinja", template_read, err);
	*out = code == 0 ? chat : NULL;
	if (code != 0)
		chat_close(chat);
	return code;
}

void chat_close(struct chat *chat)
{
	if (!chat)
		return;
	free(chat->system);
	free(chat->bos);
	free(chat->eos);
	free(chat);
}

/* The content without white space around it. */
static void write_trimmed(FILE *out, const char *text)
{
	size_t n = strlen(text), start = 0, end = 0;

	for (size_t at = 0; at < n;) {
		int32_t code;
		size_t step = utf8_step(text + at, n - at, &code);
		if (!utf8_is_space(code))
			end = at + step;
		else if (end == 0)
			start = at + step;
		at += step;
	}
	if (end > start)
		fwrite(text + start, 1, end - start, out);
}

static void write_turn(const struct chat *chat, FILE *out, const char *role, const char *content)
{
	const struct style *style = chat->style;

	fprintf(out, "%s%s%s", style->before_role, role, style->after_role);
	if (style->trim)
		write_trimmed(out, content);
	else
		fputs(content, out);
	fprintf(out, "%s%s", style->eos ? chat->eos : "", style->after_content);
}

static int message_check(const json_t *message, size_t i, struct err *err)
{
	const json_t *role = json_object_get(message, "role"), *content = json_object_get(message, "content");
	const char *name = json_string_value(role);

	if (!name || !json_is_string(content))
		return err_set(err, ERR_INVALID, "messages[%zu] must be {\"role\": text, \"content\": text}", i);
	if (strcmp(name, "system") != 0 && strcmp(name, "user") != 0 && strcmp(name, "assistant") != 0)
		return err_set(err, ERR_UNSUPPORTED,
		               "messages[%zu] has role \"%.64s\"; supported: system, user, assistant; "
		               "render it yourself and use `prompt`",
		               i, name);
	if (json_object_get(message, "tool_calls"))
		return err_set(err, ERR_UNSUPPORTED,
		               "messages[%zu] has tool_calls, which are not supported; render it yourself "
		               "and use `prompt`",
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

static char *render(const struct chat *chat, const json_t *messages)
{
	const char *first = json_string_value(json_object_get(json_array_get(messages, 0), "role"));
	const json_t *message;
	char *text = NULL;
	size_t n = 0, i;
	FILE *out = open_memstream(&text, &n);

	if (!out)
		abort(); /* no memory */
	if (chat->style->bos)
		fputs(chat->bos, out);
	if (chat->system && strcmp(first, "system") != 0)
		write_turn(chat, out, "system", chat->system);
	json_array_foreach(messages, i, message)
		write_turn(chat, out, json_string_value(json_object_get(message, "role")),
		           json_string_value(json_object_get(message, "content")));
	fputs(chat->style->generation, out);
	fclose(out);
	return text;
}

int chat_render(const struct chat *chat, const char *messages_json, char **text, struct err *err)
{
	json_error_t error;

	*text = NULL;
	if (!chat->has_template)
		return err_set(err, ERR_UNSUPPORTED,
		               "the model has no chat template (tokenizer_config.json, chat_template.jinja); "
		               "use `prompt` instead of `messages`");
	if (!chat->style)
		return err_set(err, ERR_UNSUPPORTED,
		               "the model's chat template (fingerprint %016" PRIx64 ") is none of the known "
		               "ones (%s); use `prompt` with the rendered text instead of `messages`",
		               chat->fingerprint, known_names);
	json_t *messages = json_loads(messages_json, 0, &error);
	if (!messages)
		return err_set(err, ERR_INVALID, "messages: %s", error.text);
	int code = messages_check(messages, err);
	if (code == 0)
		*text = render(chat, messages);
	json_decref(messages);
	return code;
}

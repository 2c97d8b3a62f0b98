/* prompts.c - JSON lines to tokenized prompts, every line checked before any work starts.
 *
 * The prompt's value may be a text, or a list of messages as some data sets have it; `messages` is always
 * such a list.  A text goes through the template and gets the tokenizer's special tokens (BOS); messages
 * go through the model's chat template, which writes its own.
 */
#include "rollout/prompts.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "policy/file.h"

enum { LINE_BYTES_MAX = 64 << 20 };

static const char placeholder[] = "{prompt}";

/* What stays the same from line to line. */
struct loader {
	const struct tokenizer *tokenizer;
	const struct chat *chat;
	const char *prompt_key, *answer_key, *template;
	int max_context;
};

static const char *type_name(const json_t *json)
{
	static const char *const names[] = {"an object", "a list", "a string", "a number", "a number", "true",
	                                    "false", "null"};

	return json ? names[json_typeof(json)] : "nothing";
}

/* The id as given, or the line number from 0.  Returns owned, NULL on error. */
static char *id_read(const json_t *json, size_t line, struct err *err)
{
	const json_t *id = json_object_get(json, "id");
	char number[32];

	if (json_is_string(id) && json_string_length(id) > 0)
		return xstrdup(json_string_value(id));
	if (!id)
		snprintf(number, sizeof number, "%zu", line - 1);
	else if (json_is_integer(id))
		snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(id));
	else {
		err_set(err, ERR_INVALID, "id must be a non-empty string or an integer, found %s",
		        json_is_string(id) ? "an empty string" : type_name(id));
		return NULL;
	}
	return xstrdup(number);
}

/* A string as it is, a number as it is written in JSON, NULL if absent. */
static int answer_read(char **answer, const json_t *json, const char *key, struct err *err)
{
	const json_t *value = json_object_get(json, key);

	*answer = NULL;
	if (!value || json_is_null(value))
		return 0;
	if (json_is_string(value))
		*answer = xstrdup(json_string_value(value));
	else if (json_is_number(value))
		*answer = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
	else
		return err_set(err, ERR_INVALID, "%s must be a string or a number, found %s", key, type_name(value));
	return 0;
}

static int limit_read(int32_t *max_tokens, const json_t *json, struct err *err)
{
	const json_t *value = json_object_get(json, "max_tokens");

	*max_tokens = 0;
	if (!value || json_is_null(value))
		return 0;
	if (!json_is_integer(value) || json_integer_value(value) < 1 || json_integer_value(value) > INT32_MAX)
		return err_set(err, ERR_INVALID, "max_tokens must be a whole number from 1 to %d, found %s", INT32_MAX,
		               json_is_integer(value) ? "one outside" : type_name(value));
	*max_tokens = (int32_t)json_integer_value(value);
	return 0;
}

/* Every {prompt} of the template replaced by text.  Returns owned. */
static char *template_fill(const char *template, const char *text)
{
	size_t n_text = strlen(text), n_mark = strlen(placeholder), n = 0, marks = 0;

	for (const char *at = template; (at = strstr(at, placeholder)); at += n_mark)
		marks++;
	char *out = xmalloc(strlen(template) + marks * n_text + 1);
	for (const char *at = template; *at;) {
		bool mark = strncmp(at, placeholder, n_mark) == 0;
		memcpy(out + n, mark ? text : at, mark ? n_text : 1);
		n += mark ? n_text : 1;
		at += mark ? n_mark : 1;
	}
	out[n] = '\0';
	return out;
}

static int messages_render(const struct loader *loader, const json_t *messages, char **text, struct err *err)
{
	if (!loader->chat)
		return err_set(err, ERR_UNSUPPORTED, "messages need a model with a chat template; use `prompt`");
	char *json = json_dumps(messages, JSON_ENCODE_ANY);
	int code = chat_render(loader->chat, json, text, err);
	free(json);
	return code;
}

/* The text to continue, and whether it came from messages. */
static int text_read(const struct loader *loader, const json_t *json, char **text, bool *chat,
                     struct err *err)
{
	const json_t *prompt = json_object_get(json, loader->prompt_key);
	const json_t *messages = json_object_get(json, "messages");

	*text = NULL;
	if (prompt && messages)
		return err_set(err, ERR_INVALID, "has both \"%s\" and \"messages\"; expected one of them",
		               loader->prompt_key);
	*chat = messages || json_is_array(prompt);
	if (*chat)
		return messages_render(loader, messages ? messages : prompt, text, err);
	if (!prompt)
		return err_set(err, ERR_MISSING,
		               "has neither \"%s\" nor \"messages\" (data.prompt_key names the field)",
		               loader->prompt_key);
	if (!json_is_string(prompt))
		return err_set(err, ERR_INVALID, "\"%s\" must be a string, found %s", loader->prompt_key,
		               type_name(prompt));
	*text = template_fill(loader->template, json_string_value(prompt));
	return 0;
}

static int tokens_make(const struct loader *loader, struct prompt *prompt, bool chat, struct err *err)
{
	size_t n;

	if (tokenizer_encode(loader->tokenizer, prompt->text, strlen(prompt->text), !chat, &prompt->tokens, &n,
	                     err) != 0)
		return err->code;
	if (n == 0)
		return err_set(err, ERR_INVALID,
		               "the prompt is empty; at least one token is needed to continue from");
	if (n > INT32_MAX || (loader->max_context > 0 && n >= (size_t)loader->max_context))
		return err_set(err, ERR_TOO_BIG,
		               "the prompt has %zu tokens, expected fewer than the context of %d; shorten or "
		               "remove it",
		               n, loader->max_context > 0 ? loader->max_context : INT32_MAX);
	prompt->n_tokens = (int32_t)n;
	return 0;
}

/* What remains of the object, as compact JSON; NULL if nothing does.  Takes fields out of json. */
static char *meta_take(const struct loader *loader, json_t *json)
{
	json_object_del(json, "id");
	json_object_del(json, "messages");
	json_object_del(json, "max_tokens");
	json_object_del(json, loader->prompt_key);
	json_object_del(json, loader->answer_key);
	return json_object_size(json) > 0 ? json_dumps(json, JSON_COMPACT) : NULL;
}

static void prompt_free(struct prompt *prompt)
{
	free(prompt->id);
	free(prompt->text);
	free(prompt->answer);
	free(prompt->meta);
	free(prompt->tokens);
}

static int prompt_read(const struct loader *loader, struct prompt *prompt, json_t *json, size_t line,
                       struct err *err)
{
	bool chat = false;

	if (!json_is_object(json))
		return err_set(err, ERR_INVALID, "expected a JSON object, found %s", type_name(json));
	prompt->id = id_read(json, line, err);
	if (!prompt->id || answer_read(&prompt->answer, json, loader->answer_key, err) != 0 ||
	    limit_read(&prompt->max_tokens, json, err) != 0 ||
	    text_read(loader, json, &prompt->text, &chat, err) != 0 ||
	    tokens_make(loader, prompt, chat, err) != 0)
		return err->code;
	prompt->meta = meta_take(loader, json);
	return 0;
}

static int line_read(const struct loader *loader, struct prompt *prompt, const char *text, size_t n,
                     size_t line, struct err *err)
{
	json_error_t error;

	*prompt = (struct prompt){.id = NULL};
	if (n > LINE_BYTES_MAX)
		return err_set(err, ERR_TOO_BIG, "the line has %zu bytes; at most %d are read", n, LINE_BYTES_MAX);
	json_t *json = json_loadb(text, n, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &error);
	if (!json)
		return err_set(err, ERR_INVALID, "expected a JSON object: %s", error.text);
	int code = prompt_read(loader, prompt, json, line, err);
	json_decref(json);
	if (code != 0)
		prompt_free(prompt);
	return code;
}

static bool is_blank(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r')
			return false;
	return true;
}

/* Append the prompts of text[0, n); *lines gets the line of each. */
static int lines_read(struct prompts *prompts, size_t **lines, const struct loader *loader, const char *text,
                      size_t n, size_t limit, const char *path, struct err *err)
{
	size_t capacity = 0, line = 1;

	for (size_t at = 0; at < n && (limit == 0 || prompts->n < limit); line++) {
		const char *end = memchr(text + at, '\n', n - at);
		size_t length = end ? (size_t)(end - text) - at : n - at;
		if (!is_blank(text + at, length)) {
			if (prompts->n == capacity) {
				capacity = capacity ? 2 * capacity : 64;
				prompts->items = xrealloc(prompts->items, capacity * sizeof *prompts->items);
				*lines = xrealloc(*lines, capacity * sizeof **lines);
			}
			if (line_read(loader, &prompts->items[prompts->n], text + at, length, line, err) != 0)
				return err_context(err, "%s:%zu", path, line);
			(*lines)[prompts->n++] = line;
		}
		at += length + 1;
	}
	return 0;
}

struct id_line {
	const char *id;
	size_t line;
};

static int id_line_compare(const void *a, const void *b)
{
	const struct id_line *left = a, *right = b;
	int order = strcmp(left->id, right->id);

	return order ? order : (left->line > right->line) - (left->line < right->line);
}

static int ids_check(const struct prompts *prompts, const size_t *lines, const char *path, struct err *err)
{
	struct id_line *ids = xmalloc(prompts->n * sizeof *ids);
	int code = 0;

	for (size_t i = 0; i < prompts->n; i++)
		ids[i] = (struct id_line){prompts->items[i].id, lines[i]};
	qsort(ids, prompts->n, sizeof *ids, id_line_compare);
	for (size_t i = 1; i < prompts->n && code == 0; i++)
		if (strcmp(ids[i - 1].id, ids[i].id) == 0)
			code = err_set(err, ERR_INVALID,
			               "%s:%zu: the id \"%.100s\" is also that of line %zu; ids must be unique (one "
			               "that is not given is the line number from 0)",
			               path, ids[i].line, ids[i].id, ids[i - 1].line);
	free(ids);
	return code;
}

int prompts_load(struct prompts *prompts, const char *path, const struct tokenizer *tokenizer,
                 const struct chat *chat, const struct prompts_options *options, struct err *err)
{
	struct loader loader = {
		.tokenizer = tokenizer,
		.chat = chat,
		.prompt_key = options->prompt_key ? options->prompt_key : "prompt",
		.answer_key = options->answer_key ? options->answer_key : "answer",
		.template = options->template ? options->template : placeholder,
		.max_context = options->max_context,
	};
	struct file_map map;
	size_t *lines = NULL;

	*prompts = (struct prompts){.items = NULL};
	if (!strstr(loader.template, placeholder))
		return err_set(err, ERR_CONFIG, "the template must contain {prompt}, found \"%.200s\"",
		               loader.template);
	if (file_map_open(&map, path, err) != 0)
		return err_context(err, "prompts");
	const char *text = (const char *)map.bytes;
	int code = lines_read(prompts, &lines, &loader, text, map.n_bytes, options->limit, path, err);
	if (code == 0 && prompts->n == 0)
		code = err_set(err, ERR_INVALID, "%s: no prompts: the file has %zu bytes and no JSON object", path,
		               map.n_bytes);
	if (code == 0)
		code = ids_check(prompts, lines, path, err);
	file_map_close(&map);
	free(lines);
	if (code != 0)
		prompts_free(prompts);
	return code;
}

void prompts_free(struct prompts *prompts)
{
	for (size_t i = 0; i < prompts->n; i++)
		prompt_free(&prompts->items[i]);
	free(prompts->items);
	*prompts = (struct prompts){.items = NULL};
}

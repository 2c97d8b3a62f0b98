/* chat.h - `messages` to prompt text, as the model's own chat template renders it.
 *
 * The template is a Jinja program (jinja.h) with the variables that transformers' apply_chat_template gives
 * it: messages, tools and documents (none), add_generation_prompt (true), the special tokens, and what the
 * caller adds or sets instead (chat_variables_set).
 * strftime_now tells JINJA_NOW, so that a prompt is the same on every day. */
#ifndef POLICY_CHAT_CHAT_H
#define POLICY_CHAT_CHAT_H

#include "configs/err.h"

struct chat; /* immutable once its variables are set; threads may share it */

/* model_dir: the template is chat_template.jinja, or chat_template in tokenizer_config.json (a string, or a
 * list of {name, template} of which "default" is taken) or in chat_template.json.  A model without a
 * template, or with one that does not compile, opens fine and refuses at chat_render: it can still be
 * prompted by text. */
int chat_open(struct chat **chat, const char *model_dir, struct err *err);
void chat_close(struct chat *chat);

/* The file that the template was found in, borrowed until chat_close; NULL: the model has none. */
const char *chat_path(const struct chat *chat);

/* Further variables, which come before those of the same name: what apply_chat_template takes as keyword
 * arguments, such as {"enable_thinking": false}.  json: a JSON object, or "" for none.  ERR_CONFIG: no
 * object, or `messages` among them. */
int chat_variables_set(struct chat *chat, const char *json, struct err *err);

/* messages_json: JSON array of {role, content, ...}: content is a string, a list of parts ({"type": "text",
 * ...}) or null, and a template finds every other field as it stands.  *text with the generation prompt,
 * owned by caller; NULL on error, which names the template's line and the way out: `prompt`. */
int chat_render(const struct chat *chat, const char *messages_json, char **text, struct err *err);

#endif

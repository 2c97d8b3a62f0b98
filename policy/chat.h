/* chat.h - `messages` to prompt text, as the model's own chat template renders it.
 *
 * The template is a Jinja program (jinja.h) with the variables that transformers' apply_chat_template gives
 * it: messages, tools and documents (none), add_generation_prompt (true), and the special tokens.
 * strftime_now tells JINJA_NOW, so that a prompt is the same on every day. */
#ifndef POLICY_CHAT_H
#define POLICY_CHAT_H

#include "configs/err.h"

struct chat; /* immutable; threads may share it */

/* model_dir: the template is chat_template.jinja, or chat_template in tokenizer_config.json (a string, or a
 * list of {name, template} of which "default" is taken) or in chat_template.json.  A model without a
 * template, or with one that does not compile, opens fine and refuses at chat_render: it can still be
 * prompted by text. */
int chat_open(struct chat **chat, const char *model_dir, struct err *err);
void chat_close(struct chat *chat);

/* messages_json: JSON array of {role, content, ...}: content is a string, a list of parts ({"type": "text",
 * ...}) or null, and a template finds every other field as it stands.  *text with the generation prompt,
 * owned by caller; NULL on error, which names the template's line and the way out: `prompt`. */
int chat_render(const struct chat *chat, const char *messages_json, char **text, struct err *err);

#endif

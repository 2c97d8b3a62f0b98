/* chat.h - `messages` to prompt text, as the model's own chat template renders it.
 *
 * Templates are recognised, not interpreted: an unknown template is a clear error with the way
 * out (`prompt` instead of `messages`). */
#ifndef POLICY_CHAT_H
#define POLICY_CHAT_H

#include "configs/err.h"

struct chat;

/* model_dir: reads tokenizer_config.json (chat_template) or chat_template.jinja if there.  A model
 * without a template opens fine and refuses at chat_render. */
int chat_open(struct chat **chat, const char *model_dir, struct err *err);
void chat_close(struct chat *chat);

/* messages_json: JSON array of {role, content}; *text with the generation prompt, owned by caller. */
int chat_render(const struct chat *chat, const char *messages_json, char **text, struct err *err);

#endif

/* jinja.h - the part of Jinja in which chat templates are written: compile once, render often.
 *
 * What a template renders is what jinja2 renders with the settings of transformers' apply_chat_template:
 * ImmutableSandboxedEnvironment(trim_blocks, lstrip_blocks), loop controls, the `generation` block,
 * raise_exception, strftime_now, and a tojson that escapes no HTML.  What is left out is an error that
 * names the line and the construct, and only when that line is rendered: a filter that a template wants
 * for tools alone does not spoil it for plain messages.
 *
 * A compiled template is immutable, and threads may share it.  A render is one timeline with its own
 * memory; it reads no file, clock or environment, so its text is a function of template and variables.
 * strftime_now therefore tells one date, always: */
#ifndef POLICY_CHAT_JINJA_H
#define POLICY_CHAT_JINJA_H

#include <jansson.h>
#include <stddef.h>

#include "configs/err.h"

#define JINJA_NOW "Friday 26 July 2024, 12:00:00" /* the date that Llama's own templates fall back to */

/* Past one of these: ERR_TOO_BIG. */
enum {
	JINJA_SOURCE_MAX = 1 << 20,  /* bytes of a template */
	JINJA_OUTPUT_MAX = 32 << 20, /* bytes of a rendered text */
	JINJA_MEMORY_MAX = 256 << 20, /* bytes that one render, or one compilation, holds at once */
	JINJA_STEPS_MAX = 20000000,  /* nodes evaluated and elements visited by one render: seconds */
	JINJA_DEPTH_MAX = 500,       /* of nested expressions, blocks, macro calls, and of lists in lists */
};

struct jinja;

/* source: UTF-8, n bytes, borrowed for the call.  ERR_INVALID: a syntax error; ERR_UNSUPPORTED: a
 * statement or literal outside the subset. */
int jinja_compile(struct jinja **jinja, const char *source, size_t n, struct err *err);
void jinja_free(struct jinja *jinja);

/* variables: an object, borrowed for the call.  *text: NUL-terminated, owned by the caller; NULL on error.
 * ERR_INVALID: the template refused (raise_exception) or an operation failed; ERR_UNSUPPORTED: a filter,
 * test, method or function outside the subset. */
int jinja_render(const struct jinja *jinja, json_t *variables, char **text, struct err *err);

#endif

/* jinja.c - compile and render, and the job that both of them are: arena, limits, failure, output. */
#include "policy/chat/jinja.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/chat/jinja_internal.h"
#include "policy/utf8.h"

struct chunk {
	struct chunk *next;
	size_t n, used;
	max_align_t bytes[];
};

struct jinja {
	struct chunk *chunks; /* hold the nodes */
	const struct node *root;
};

enum { CHUNK_MIN = 1 << 14, CHUNK_MAX = 1 << 20, ALIGNMENT = sizeof(max_align_t) };

void jinja_fail(struct job *job, int code, const char *format, ...)
{
	char text[ERR_TEXT_MAX];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	err_set(job->err, code, "line %d: %s", job->line, text);
	longjmp(job->stop, 1);
}

/* Run work; the error code if it failed. */
static int job_protected(struct job *job, void (*work)(struct job *job, void *argument), void *argument)
{
	if (setjmp(job->stop) != 0)
		return job->err->code;
	work(job, argument);
	return 0;
}

static struct chunk *chunk_add(struct job *job, size_t n)
{
	size_t size = job->n_bytes < CHUNK_MIN ? CHUNK_MIN : job->n_bytes < CHUNK_MAX ? job->n_bytes : CHUNK_MAX;

	if (n > size)
		size = n;
	if (n > JINJA_MEMORY_MAX || job->n_bytes + size > JINJA_MEMORY_MAX)
		jinja_fail(job, ERR_TOO_BIG, "the template needs more than %d MiB of memory", JINJA_MEMORY_MAX >> 20);
	struct chunk *chunk = xmalloc(sizeof *chunk + size);
	chunk->next = job->chunks;
	chunk->n = size;
	chunk->used = 0;
	job->chunks = chunk;
	job->n_bytes += size;
	return chunk;
}

void *jinja_alloc(struct job *job, size_t n)
{
	struct chunk *chunk = job->chunks;

	if (n > JINJA_MEMORY_MAX)
		chunk_add(job, n); /* fails */
	n = (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	if (!chunk || chunk->n - chunk->used < n)
		chunk = chunk_add(job, n);
	void *bytes = (char *)chunk->bytes + chunk->used;
	chunk->used += n;
	return memset(bytes, 0, n);
}

static void chunks_free(struct chunk *chunk)
{
	while (chunk) {
		struct chunk *next = chunk->next;
		free(chunk);
		chunk = next;
	}
}

void jinja_charge(struct job *job, size_t steps)
{
	job->steps += steps;
	if (steps > JINJA_STEPS_MAX || job->steps > JINJA_STEPS_MAX)
		jinja_fail(job, ERR_TOO_BIG, "the template takes more than %d steps", JINJA_STEPS_MAX);
}

void jinja_descend(struct job *job)
{
	if (++job->depth > JINJA_DEPTH_MAX)
		jinja_fail(job, ERR_TOO_BIG, "nested more than %d deep", JINJA_DEPTH_MAX);
}

void jinja_put(struct job *job, const char *bytes, size_t n)
{
	if (n == 0)
		return;
	jinja_charge(job, n / STEP_BYTES);
	if (n > JINJA_OUTPUT_MAX || job->n_out + n > JINJA_OUTPUT_MAX)
		jinja_fail(job, ERR_TOO_BIG, "the template writes more than %d MiB", JINJA_OUTPUT_MAX >> 20);
	while (job->n_out + n > job->out_capacity) {
		job->out_capacity = 2 * job->out_capacity + 1024;
		job->out = xrealloc(job->out, job->out_capacity);
	}
	memcpy(job->out + job->n_out, bytes, n);
	job->n_out += n;
}

void jinja_puts(struct job *job, const char *bytes)
{
	jinja_put(job, bytes, strlen(bytes));
}

const struct text *jinja_cut(struct job *job, size_t mark)
{
	const struct text *text = jinja_text(job, job->out ? job->out + mark : "", job->n_out - mark);

	job->n_out = mark;
	return text;
}

struct source {
	const char *bytes;
	size_t n;
	const struct node *root;
};

static void compile(struct job *job, void *argument)
{
	struct source *source = argument;
	bool valid = true;

	if (source->n > JINJA_SOURCE_MAX)
		jinja_fail(job, ERR_TOO_BIG, "the template has %zu bytes, expected at most %d", source->n,
		           JINJA_SOURCE_MAX);
	if (source->n > 0 && (utf8_run(source->bytes, source->n, &valid) != source->n || !valid))
		jinja_fail(job, ERR_INVALID, "the template is not UTF-8");
	if (memchr(source->bytes, '\0', source->n))
		jinja_fail(job, ERR_INVALID, "the template contains the character U+0000");
	source->root = jinja_parse(job, jinja_lex(job, source->bytes, source->n));
}

int jinja_compile(struct jinja **out, const char *bytes, size_t n, struct err *err)
{
	struct job job = {.err = err, .line = 1};
	struct source source = {bytes, n, NULL};

	*out = NULL;
	if (job_protected(&job, compile, &source) != 0) {
		chunks_free(job.chunks);
		free(job.out);
		return err->code;
	}
	free(job.out);
	*out = xmalloc(sizeof **out);
	**out = (struct jinja){job.chunks, source.root};
	return 0;
}

void jinja_free(struct jinja *jinja)
{
	if (!jinja)
		return;
	chunks_free(jinja->chunks);
	free(jinja);
}

struct rendering {
	const struct jinja *jinja;
	json_t *variables;
};

static void render(struct job *job, void *argument)
{
	const struct rendering *rendering = argument;
	struct value variables = jinja_from_json(job, rendering->variables);

	job->globals = jinja_scope(job, NULL);
	for (size_t i = 0; i < variables.dict->n; i++)
		jinja_bind(job, job->globals, variables.dict->pairs[i].key.text, variables.dict->pairs[i].value);
	jinja_exec(job, jinja_scope(job, job->globals), rendering->jinja->root);
	jinja_put(job, "", 1);
}

int jinja_render(const struct jinja *jinja, json_t *variables, char **text, struct err *err)
{
	struct job job = {.err = err, .line = 1};
	struct rendering rendering = {jinja, variables};
	int code = job_protected(&job, render, &rendering);

	chunks_free(job.chunks);
	*text = code == 0 ? job.out : NULL;
	if (code != 0)
		free(job.out);
	return code;
}

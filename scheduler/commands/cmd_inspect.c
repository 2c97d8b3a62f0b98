/* cmd_inspect.c - `drumroll inspect DIR`: what a model directory holds, what it will take, and what of it
 * would be refused, without loading the weights.
 *
 * Everything goes into one JSON object first, in the order in which it is shown; the text is that object
 * printed for people.  What cannot be read is left out; the exit status is 1 if anything is refused.
 */
#include <dirent.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "policy/chat/chat.h"
#include "policy/file.h"
#include "policy/kv_cache.h"
#include "policy/policy.h"
#include "policy/tokenizer/tokenizer.h"
#include "policy/utf8.h"
#include "scheduler/commands/commands.h"

enum { PATH_BYTES = 4096, SPECIAL_SHOWN = 16, NAME_SHOWN = 60, FACTS_BYTES_MAX = 64 << 20 /* of a JSON file */ };

static const char usage[] =
	"usage: drumroll inspect DIR [--json]\n"
	"\n"
	"A Hugging Face model directory: architecture, shapes, parameters, the memory that weights and KV take,\n"
	"the tokenizer, and what would be refused and why.  Exit status 1 if anything is.\n";

struct inspection {
	const char *dir;
	json_t *facts, *refused; /* refused: also in facts, at the end */
	struct model_config config;
	bool has_config;
};

/* JSON has only Unicode; a text that was found in a file may be cut anywhere, or be none. */
static json_t *json_shown(const char *text)
{
	size_t n;
	char *shown = utf8_lossy(text, strlen(text), &n);
	json_t *json = json_stringn(shown, n);
	free(shown);
	return json;
}

static void refuse(struct inspection *in, const char *what, const struct err *err)
{
	json_array_append_new(in->refused, json_pack("{s:s, s:o}", "what", what, "why", json_shown(err->text)));
}

static void set(struct inspection *in, const char *key, json_t *value)
{
	json_object_set_new(in->facts, key, value);
}

/* A JSON file of the directory, or NULL. */
static json_t *load(const struct inspection *in, const char *name)
{
	char path[PATH_BYTES];
	struct file_map map;
	struct err err;
	snprintf(path, sizeof path, "%s/%s", in->dir, name);
	if (file_map_small(&map, path, FACTS_BYTES_MAX, &err)) return NULL;
	json_t *json = json_loadb((const char *)map.bytes, map.n_bytes, 0, NULL);
	file_map_close(&map);
	return json;
}

/* ---- the parts ---- */

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void inspect_files(struct inspection *in)
{
	char path[PATH_BYTES], **names = NULL;
	struct stat info;
	size_t n = 0;
	json_t *files = json_object();
	DIR *dir = opendir(in->dir);

	for (struct dirent *entry; dir && (entry = readdir(dir));) {
		const char *dot = strrchr(entry->d_name, '.');
		if (!dot || (strcmp(dot, ".json") && strcmp(dot, ".safetensors") && strcmp(dot, ".jinja"))) continue;
		names = xrealloc(names, (n + 1) * sizeof *names);
		names[n++] = xstrdup(entry->d_name);
	}
	if (dir) closedir(dir);
	if (n > 0) qsort(names, n, sizeof *names, by_name);
	for (size_t i = 0; i < n; i++) {
		snprintf(path, sizeof path, "%s/%s", in->dir, names[i]);
		if (stat(path, &info) == 0) json_object_set_new(files, names[i], json_integer(info.st_size));
		free(names[i]);
	}
	free(names);
	set(in, "files", files);
}

static json_t *options_json(const struct model_config *c)
{
	json_t *list = json_array();
	if (c->qkv_bias) json_array_append_new(list, json_string("biases of q, k and v"));
	if (c->o_bias) json_array_append_new(list, json_string("bias of o"));
	if (c->mlp_bias) json_array_append_new(list, json_string("biases of the feed-forward"));
	if (c->qk_norm) json_array_append_new(list, json_string("normed queries and keys"));
	return list;
}

static const char *scaling_name(enum rope_scaling scaling)
{
	static const char *const names[] = {"none", "linear", "llama3", "yarn"};
	return names[scaling];
}

static void inspect_config(struct inspection *in)
{
	const struct model_config *c = &in->config;
	struct err err;
	json_t *root = load(in, "config.json");
	const char *architecture = json_string_value(json_array_get(json_object_get(root, "architectures"), 0));

	int rc = model_config_read(&in->config, in->dir, &err);
	if (rc) refuse(in, "config.json", &err);
	in->has_config = c->vocab_size > 0 && c->max_context > 0;
	set(in, "architecture", architecture ? json_string(architecture) : json_null());
	set(in, "family", c->model_type[0] ? json_string(c->model_type) : json_null());
	json_decref(root);
	if (!in->has_config) return;
	set(in, "layers", json_integer(c->n_layers));
	set(in, "hidden", json_integer(c->dim));
	set(in, "feed_forward", json_integer(c->ffn_dim));
	set(in, "heads", json_integer(c->n_heads));
	set(in, "kv_heads", json_integer(c->n_kv_heads));
	set(in, "head_dim", json_integer(c->head_dim));
	set(in, "vocabulary", json_integer(c->vocab_size));
	set(in, "tied", json_boolean(c->tied));
	if (rc) return; /* what follows might mislead */
	set(in, "options", options_json(c));
	set(in, "rope_theta", json_real(c->rope_theta));
	set(in, "rope_scaling", json_string(scaling_name(c->rope_scaling)));
	set(in, "context", json_integer(c->max_context));
	if (c->context_note[0]) set(in, "context_note", json_string(c->context_note));
	json_t *eos = json_array();
	for (int i = 0; i < c->n_eos; i++) json_array_append_new(eos, json_integer(c->eos_ids[i]));
	set(in, "eos_ids", eos);
	set(in, "bos_id", c->bos_id >= 0 ? json_integer(c->bos_id) : json_null());
}

static void inspect_memory(struct inspection *in)
{
	const struct model_config *c = &in->config;
	struct weights layout;
	json_t *memory = json_object(), *kv = json_object();

	weights_layout(&layout, c);
	set(in, "parameters", json_integer((json_int_t)layout.n_elements));
	weights_free(&layout);
	double target = policy_bytes(c, NULL);
	json_object_set_new(memory, "bf16", json_integer((json_int_t)target));
	for (int f = 0; f < N_FORMATS; f++) {
		struct draft_options draft = {.format = (enum format)f, .head_format = (enum format)f};
		json_object_set_new(memory, format_info((enum format)f)->name,
		                    json_integer((json_int_t)(policy_bytes(c, &draft) - target)));
	}
	set(in, "weight_bytes", memory);
	json_object_set_new(kv, "bf16", json_integer((json_int_t)kv_bytes(c, KV_BF16, 1000)));
	json_object_set_new(kv, "f32", json_integer((json_int_t)kv_bytes(c, KV_F32, 1000)));
	set(in, "kv_bytes_per_1000", kv);
}

static void inspect_weights(struct inspection *in)
{
	struct weights weights;
	struct err err;
	json_t *types = json_object();

	if (weights_open(&weights, in->dir, &err)) {
		/* Said once: a refused config is refused here again. */
		if (json_array_size(in->refused) == 0) refuse(in, "weights", &err);
		json_decref(types);
		return;
	}
	for (int i = 0; i < weights.n_tensors; i++) {
		const char *type = weights_dtype(&weights, i);
		json_object_set_new(types, type, json_integer(json_integer_value(json_object_get(types, type)) + 1));
	}
	set(in, "tensors", types);
	if (json_object_get(types, "F32") || json_object_get(types, "F16"))
		set(in, "weights_note", json_string("rounded to BF16 when loaded"));
	weights_free(&weights);
}

static json_t *special_json(const json_t *tokenizer)
{
	json_t *special = json_object(), *token;
	size_t i;

	json_array_foreach(json_object_get(tokenizer, "added_tokens"), i, token) {
		const char *content = json_string_value(json_object_get(token, "content"));
		if (content && json_is_true(json_object_get(token, "special")))
			json_object_set(special, content, json_object_get(token, "id"));
	}
	return special;
}

static void inspect_tokenizer(struct inspection *in)
{
	struct tokenizer *tokenizer;
	struct err err;
	json_t *root = load(in, "tokenizer.json"), *facts = json_object();
	const char *kind = json_string_value(json_object_get(json_object_get(root, "model"), "type"));

	if (kind) json_object_set_new(facts, "kind", json_string(kind));
	if (root) json_object_set_new(facts, "special", special_json(root));
	json_decref(root);
	if (tokenizer_open(&tokenizer, in->dir, &err)) {
		refuse(in, "tokenizer", &err);
	} else {
		int n = tokenizer_vocab_size(tokenizer);
		json_object_set_new(facts, "vocabulary", json_integer(n));
		if (in->has_config && n > in->config.vocab_size) {
			err_set(&err, ERR_INVALID, "expected ids below the model's vocabulary of %d, found up to %d: prompts that use "
			        "them are refused", in->config.vocab_size, n - 1);
			refuse(in, "tokenizer", &err);
		}
		tokenizer_close(tokenizer);
	}
	set(in, "tokenizer", facts);
}

static void inspect_chat(struct inspection *in)
{
	char *text = NULL;
	struct chat *chat = NULL;
	struct err err;

	int rc = chat_open(&chat, in->dir, &err);
	const char *path = rc ? NULL : chat_path(chat), *slash = path ? strrchr(path, '/') : NULL;
	set(in, "chat_template", slash ? json_string(slash + 1) : json_null());
	if (path) rc = chat_render(chat, "[{\"role\":\"user\",\"content\":\"Hello\"}]", &text, &err);
	if (rc) refuse(in, "messages", &err);
	free(text);
	if (chat) chat_close(chat);
}

/* ---- for people ---- */

static json_int_t integer(const struct inspection *in, const char *key)
{
	return json_integer_value(json_object_get(in->facts, key));
}

/* A name out of a file: some of its bytes, none of which moves the cursor. */
static void print_name(const char *name)
{
	size_t n = strlen(name), shown = n < NAME_SHOWN ? n : NAME_SHOWN;
	while (shown < n && ((unsigned char)name[shown] & 0xC0) == 0x80) shown++; /* whole characters */
	for (size_t i = 0; i < shown; i++) putchar((unsigned char)name[i] < 0x20 || name[i] == 0x7f ? '?' : name[i]);
	if (shown < n) printf("...");
}

/* "1, 2": the values of a list, or the keys and values of an object, at most `most` of them. */
static void print_list(json_t *list, int most)
{
	size_t i, n = json_is_object(list) ? json_object_size(list) : json_array_size(list);
	const char *key;
	json_t *value;

	if (n == 0) printf("none");
	if (json_is_object(list)) {
		json_object_foreach(list, key, value) {
			if (most-- <= 0) continue;
			print_name(key);
			printf(" %" JSON_INTEGER_FORMAT "%s", json_integer_value(value), --n > 0 && most > 0 ? ", " : "");
		}
		if (n > 0) printf(", and %zu more", n);
	} else {
		json_array_foreach(list, i, value) {
			if (json_is_string(value)) printf("%s%s", i > 0 ? ", " : "", json_string_value(value));
			else printf("%s%" JSON_INTEGER_FORMAT, i > 0 ? ", " : "", json_integer_value(value));
		}
	}
	putchar('\n');
}

static void print_label(const char *label) { printf("%-14s ", label); }

static void print_shape(const struct inspection *in)
{
	const char *architecture = json_string_value(json_object_get(in->facts, "architecture"));

	print_label("architecture");
	print_name(architecture ? architecture : "unknown");
	putchar('\n');
	if (!in->has_config) return;
	print_label("shape");
	printf("%d layers of width %d, %d query and %d KV heads of %d, feed-forward %d\n", in->config.n_layers, in->config.dim,
	       in->config.n_heads, in->config.n_kv_heads, in->config.head_dim, in->config.ffn_dim);
	print_label("vocabulary");
	printf("%d, head %s\n", in->config.vocab_size, in->config.tied ? "tied to the embedding" : "of its own");
	print_label("parameters");
	printf("%" JSON_INTEGER_FORMAT "\n", integer(in, "parameters"));
	if (!json_object_get(in->facts, "context")) return;
	print_label("options");
	print_list(json_object_get(in->facts, "options"), 8);
	print_label("rotation");
	printf("base %g, scaling %s\n", in->config.rope_theta, scaling_name(in->config.rope_scaling));
	print_label("context");
	printf("%d%s%s\n", in->config.max_context, in->config.context_note[0] ? ": " : "", in->config.context_note);
	print_label("end tokens");
	print_list(json_object_get(in->facts, "eos_ids"), MODEL_EOS_MAX);
}

static void print_memory(const struct inspection *in)
{
	json_t *memory = json_object_get(in->facts, "weight_bytes"), *kv = json_object_get(in->facts, "kv_bytes_per_1000");
	const double MIB = 1024.0 * 1024.0;
	const char *key;
	json_t *value;

	if (!memory) return;
	print_label("memory, MiB");
	json_object_foreach(memory, key, value)
		printf("%s%s %.1f", strcmp(key, "bf16") ? ", " : "target ", key, (double)json_integer_value(value) / MIB);
	putchar('\n');
	print_label("KV, MiB");
	printf("per 1000 positions: bf16 %.1f, f32 %.1f\n", (double)json_integer_value(json_object_get(kv, "bf16")) / MIB,
	       (double)json_integer_value(json_object_get(kv, "f32")) / MIB);
}

static void print_text(const struct inspection *in)
{
	const json_t *tokenizer = json_object_get(in->facts, "tokenizer"), *item;
	const char *kind = json_string_value(json_object_get(tokenizer, "kind"));
	const char *template = json_string_value(json_object_get(in->facts, "chat_template"));
	size_t i;

	print_label("model");
	printf("%s\n", in->dir);
	print_shape(in);
	print_memory(in);
	if (json_object_get(in->facts, "tensors")) {
		print_label("tensors");
		print_list(json_object_get(in->facts, "tensors"), 8);
	}
	print_label("tokenizer");
	print_name(kind ? kind : "unknown");
	printf(", %" JSON_INTEGER_FORMAT " ids\n", json_integer_value(json_object_get(tokenizer, "vocabulary")));
	print_label("chat template");
	printf("%s\n", template ? template : "none");
	print_label("special tokens");
	print_list(json_object_get(tokenizer, "special"), SPECIAL_SHOWN);
	print_label("files");
	print_list(json_object_get(in->facts, "files"), SPECIAL_SHOWN);
	print_label("refused");
	if (json_array_size(in->refused) == 0) puts("nothing");
	json_array_foreach(in->refused, i, item)
		printf("%s%s: %s\n", i > 0 ? "               " : "", json_string_value(json_object_get(item, "what")),
		       json_string_value(json_object_get(item, "why")));
}

int inspect_command(int argc, char **argv)
{
	struct inspection in = {0};
	bool json = false, help = false;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0) json = true;
		else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) help = true;
		else if (!in.dir && argv[i][0] != '-') in.dir = argv[i];
		else return fprintf(stderr, "drumroll inspect: unexpected argument '%s'\n%s", argv[i], usage), EXIT_USAGE;
	}
	if (help || !in.dir) return fputs(usage, help ? stdout : stderr), help ? EXIT_SUCCESS : EXIT_USAGE;
	in.facts = json_object();
	in.refused = json_array();
	set(&in, "model", json_shown(in.dir));
	inspect_config(&in);
	if (in.has_config) inspect_memory(&in);
	inspect_weights(&in);
	inspect_tokenizer(&in);
	inspect_chat(&in);
	inspect_files(&in);
	json_object_set(in.facts, "refused", in.refused);
	if (json) {
		json_dumpf(in.facts, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		print_text(&in);
	}
	int status = json_array_size(in.refused) > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
	json_decref(in.refused);
	json_decref(in.facts);
	return status;
}

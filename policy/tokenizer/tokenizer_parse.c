/* tokenizer_parse.c - tokenizer.json, bytes to tables.
 *
 * `truncation` and `padding` are not read: a rollout's prompt is never cut in silence.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "policy/file.h"
#include "policy/tokenizer/tokenizer.h"
#include "policy/tokenizer/tokenizer_internal.h"

static int parts_parse(struct tokenizer *t, const json_t *json, struct err *err)
{
	const char *version = json_string_value(json_object_get(json, "version"));
	const json_t *normalizer = json_object_get(json, "normalizer");
	const json_t *pretokenizer = json_object_get(json, "pre_tokenizer");
	const json_t *decoder = json_object_get(json, "decoder");
	const json_t *added = json_object_get(json, "added_tokens");

	if (!json_is_object(json))
		return err_set(err, ERR_INVALID, "expected an object, found %s", json_type_name(json));
	if (version && strcmp(version, "1.0") != 0)
		return err_set(err, ERR_UNSUPPORTED, "version \"%.64s\" is not supported; expected \"1.0\"", version);
	t->has_decoder = decoder && !json_is_null(decoder);
	if (bpe_parse(&t->bpe, &t->vocab, json_object_get(json, "model"), err) != 0 ||
	    ops_parse(&t->normalizer, normalizer, &normalizer_family, err) != 0 ||
	    ops_parse(&t->pretokenizer, pretokenizer, &pretokenizer_family, err) != 0 ||
	    ops_parse(&t->decoder, decoder, &decoder_family, err) != 0 ||
	    added_parse(&t->literal, &t->normalized, &t->vocab, &t->normalizer, added, err) != 0)
		return err->code;
	return template_parse(&t->template, json_object_get(json, "post_processor"), &t->vocab, err);
}

int tokenizer_parse(struct tokenizer **out, const char *bytes, size_t n_bytes, struct err *err)
{
	json_error_t error;

	*out = NULL;
	if (n_bytes > TOKENIZER_FILE_BYTES_MAX)
		return err_set(err, ERR_TOO_BIG, "tokenizer.json has %zu bytes; at most %d are read", n_bytes,
		               TOKENIZER_FILE_BYTES_MAX);
	json_t *json = json_loadb(bytes, n_bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
	if (!json) {
		bool cut = json_error_code(&error) == json_error_premature_end_of_input;
		return err_set(err, cut ? ERR_INCOMPLETE : ERR_INVALID, "line %d, column %d: %s%s", error.line,
		               error.column, error.text, cut ? "; the file is cut short: download it again" : "");
	}
	struct tokenizer *tokenizer = xcalloc(1, sizeof *tokenizer);
	vocab_open(&tokenizer->vocab);
	int code = parts_parse(tokenizer, json, err);
	json_decref(json);
	if (code != 0)
		tokenizer_close(tokenizer);
	else
		*out = tokenizer;
	return code;
}

int tokenizer_open(struct tokenizer **tokenizer, const char *path, struct err *err)
{
	char file[4096];
	struct stat info;
	struct file_map map;
	bool directory = stat(path, &info) == 0 && S_ISDIR(info.st_mode);

	*tokenizer = NULL;
	if (snprintf(file, sizeof file, "%s%s", path, directory ? "/tokenizer.json" : "") >= (int)sizeof file)
		return err_set(err, ERR_TOO_BIG, "path too long: %.200s...", path);
	if (file_map_open(&map, file, err) != 0) {
		if (err->code == ERR_MISSING)
			err_set(err, ERR_MISSING, "%s is missing; a Hugging Face \"fast\" tokenizer file is needed "
			        "(AutoTokenizer.from_pretrained(...).save_pretrained(...) writes one)", file);
		return err->code;
	}
	int code = tokenizer_parse(tokenizer, (const char *)map.bytes, map.n_bytes, err);
	file_map_close(&map);
	return code == 0 ? 0 : err_context(err, "%s", file);
}

void tokenizer_close(struct tokenizer *tokenizer)
{
	if (!tokenizer)
		return;
	ops_free(&tokenizer->normalizer);
	ops_free(&tokenizer->pretokenizer);
	ops_free(&tokenizer->decoder);
	added_free(&tokenizer->literal);
	added_free(&tokenizer->normalized);
	bpe_free(&tokenizer->bpe);
	vocab_free(&tokenizer->vocab);
	free(tokenizer);
}

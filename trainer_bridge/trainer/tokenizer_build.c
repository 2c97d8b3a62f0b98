/* tokenizer_build.c - byte-pair encoding (Sennrich, Haddow, Birch 2016) over bytes (GPT-2, Radford et al.
 * 2019): merge the commonest adjacent pair, count again.  O(merges * corpus). */
#include "trainer_bridge/trainer/tokenizer_build.h"

#include <ctype.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/file.h"

enum { BYTES = 256, SYMBOLS_MAX = BYTES + TOKENIZER_BUILD_MERGES_MAX, NAME_MAX_BYTES = 256 };

/* The corpus as one row of symbols; -1 between pieces, which no merge may cross. */
struct corpus {
	int *symbols;
	size_t n;
};

struct vocabulary {
	int n;                                  /* symbols: bytes, then merges */
	int left[SYMBOLS_MAX], right[SYMBOLS_MAX];
	char name[SYMBOLS_MAX][NAME_MAX_BYTES]; /* in GPT-2's printable alphabet, UTF-8 */
};

static bool is_printable(int byte)
{
	return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/* GPT-2's bytes_to_unicode: printable Latin-1 bytes are themselves, the others U+0100 and on. */
static void byte_name(int byte, char *name)
{
	int code = byte;
	if (!is_printable(byte)) {
		code = 0x100;
		for (int b = 0; b < byte; b++) code += !is_printable(b);
	}
	if (code < 0x80) {
		name[0] = (char)code, name[1] = '\0';
	} else {
		name[0] = (char)(0xc0 | code >> 6), name[1] = (char)(0x80 | (code & 0x3f)), name[2] = '\0';
	}
}

/* What the pre-tokenizer's pattern makes of ASCII text: letters, single digits, other signs, white space. */
enum piece_kind { PIECE_NONE, PIECE_LETTERS, PIECE_DIGIT, PIECE_SIGNS, PIECE_SPACE };

static enum piece_kind kind_of(unsigned char c)
{
	if (c >= 0x80) return PIECE_NONE;
	return isalpha(c) ? PIECE_LETTERS : isdigit(c) ? PIECE_DIGIT : isspace(c) ? PIECE_SPACE : PIECE_SIGNS;
}

static void corpus_open(struct corpus *corpus, const char *const *texts, size_t n_texts)
{
	size_t bytes = 0, n = 0;
	for (size_t i = 0; i < n_texts; i++) bytes += strlen(texts[i]);
	corpus->symbols = xmalloc((2 * bytes + n_texts + 1) * sizeof *corpus->symbols);
	for (size_t i = 0; i < n_texts; i++) {
		enum piece_kind last = PIECE_NONE;
		for (const unsigned char *c = (const unsigned char *)texts[i]; *c; c++) {
			enum piece_kind kind = kind_of(*c);
			bool leading_space = last == PIECE_SPACE && c[-1] == ' ' && kind != PIECE_DIGIT;
			if ((kind != last && !leading_space) || kind == PIECE_DIGIT || kind == PIECE_NONE)
				corpus->symbols[n++] = -1;
			corpus->symbols[n++] = *c;
			last = kind;
		}
		corpus->symbols[n++] = -1;
	}
	corpus->n = n;
}

/* The commonest pair, ties to the lowest symbols; its count. */
static int commonest_pair(const struct corpus *corpus, int n_symbols, int *left, int *right)
{
	int *counts = xcalloc((size_t)n_symbols * (size_t)n_symbols, sizeof *counts), best = 0;
	for (size_t i = 0; i + 1 < corpus->n; i++) {
		int a = corpus->symbols[i], b = corpus->symbols[i + 1];
		if (a >= 0 && b >= 0) counts[a * n_symbols + b]++;
	}
	for (int i = 1; i < n_symbols * n_symbols; i++)
		if (counts[i] > counts[best]) best = i;
	int count = counts[best];
	*left = best / n_symbols;
	*right = best % n_symbols;
	free(counts);
	return count;
}

static void merge(struct corpus *corpus, int left, int right, int merged)
{
	size_t out = 0;
	for (size_t i = 0; i < corpus->n; i++) {
		bool pair = i + 1 < corpus->n && corpus->symbols[i] == left && corpus->symbols[i + 1] == right;
		corpus->symbols[out++] = pair ? merged : corpus->symbols[i];
		i += pair;
	}
	corpus->n = out;
}

static void learn(struct vocabulary *v, struct corpus *corpus, const struct tokenizer_build_options *options)
{
	v->n = BYTES;
	for (int b = 0; b < BYTES; b++) byte_name(b, v->name[b]);
	for (int i = 0; i < options->merges && v->n < SYMBOLS_MAX; i++) {
		int left, right;
		if (commonest_pair(corpus, v->n, &left, &right) < options->min_count) return;
		if (strlen(v->name[left]) + strlen(v->name[right]) >= NAME_MAX_BYTES) return;
		v->left[v->n] = left;
		v->right[v->n] = right;
		memcpy(v->name[v->n], v->name[left], strlen(v->name[left]) + 1);
		memcpy(v->name[v->n] + strlen(v->name[left]), v->name[right], strlen(v->name[right]) + 1);
		merge(corpus, left, right, v->n++);
	}
}

static json_t *model_json(const struct vocabulary *v, const char *end_token)
{
	json_t *vocab = json_object(), *merges = json_array();
	int id = 0;
	json_object_set_new(vocab, end_token, json_integer(id++));
	for (int pass = 0; pass < 2; pass++) /* GPT-2's order: printable bytes first */
		for (int b = 0; b < BYTES; b++)
			if (is_printable(b) == (pass == 0)) json_object_set_new(vocab, v->name[b], json_integer(id++));
	for (int i = BYTES; i < v->n; i++) {
		json_object_set_new(vocab, v->name[i], json_integer(id++));
		json_array_append_new(merges, json_pack("[s,s]", v->name[v->left[i]], v->name[v->right[i]]));
	}
	return json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout",
	                 "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
	                 "byte_fallback", 0, "ignore_merges", 0, "vocab", vocab, "merges", merges);
}

static json_t *byte_level(int use_regex)
{
	return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1,
	                 "use_regex", use_regex);
}

static json_t *tokenizer_json(const struct vocabulary *v, const char *end_token)
{
	json_t *added = json_pack("[{s:i, s:s, s:b, s:b, s:b, s:b, s:b}]", "id", 0, "content", end_token,
	                          "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1);
	json_t *split = json_pack("{s:s, s:[{s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type",
	                          "Digits", "individual_digits", 1, byte_level(1));
	return json_pack("{s:s, s:n, s:n, s:o, s:n, s:o, s:n, s:o, s:o}", "version", "1.0", "truncation",
	                 "padding", "added_tokens", added, "normalizer", "pre_tokenizer", split, "post_processor",
	                 "decoder", byte_level(1), "model", model_json(v, end_token));
}

/* Writes and releases the value. */
static int write_json(json_t *value, const char *dir, const char *name, struct err *err)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	char *text = json_dumps(value, JSON_INDENT(1));
	struct file_part parts[] = { { text, strlen(text) }, { "\n", 1 } };
	int code = file_replace(path, parts, 2, err);
	free(text);
	json_decref(value);
	return code;
}

int tokenizer_build(const char *dir, const char *const *texts, size_t n_texts,
                    const struct tokenizer_build_options *options, struct err *err)
{
	struct corpus corpus;
	struct vocabulary *v = xcalloc(1, sizeof *v);
	corpus_open(&corpus, texts, n_texts);
	learn(v, &corpus, options);
	int code = write_json(tokenizer_json(v, options->end_token), dir, "tokenizer.json", err);
	if (!code)
		code = write_json(json_pack("{s:s, s:s, s:b}", "tokenizer_class", "PreTrainedTokenizerFast",
		                            "eos_token", options->end_token, "clean_up_tokenization_spaces", 0),
		                  dir, "tokenizer_config.json", err);
	free(corpus.symbols);
	free(v);
	return code;
}

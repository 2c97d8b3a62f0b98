/* tokenizer_internal.h - the parts of a tokenizer, shared by the tokenizer_*.c files only.
 *
 * Text travels as `pieces`.  Normalizer, pre-tokenizer and decoder are each a flat list of `op`s; an op
 * reads one piece list and writes the next.  In between, added tokens cut the text and the BPE model
 * turns pieces into ids:
 *
 *   text -> added tokens (literal) -> normalizer ops -> added tokens (normalized)
 *        -> pre-tokenizer ops -> BPE -> template          and back: ids -> decoder ops -> text
 *
 * Everything here is immutable once tokenizer_parse has returned; scratch memory belongs to a call.
 */
#ifndef POLICY_TOKENIZER_TOKENIZER_INTERNAL_H
#define POLICY_TOKENIZER_TOKENIZER_INTERNAL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "configs/err.h"

enum {
	TOKENIZER_IDS_MAX = 1 << 22,            /* largest id + 1 */
	TOKENIZER_OPS_MAX = 64,                 /* of one normalizer, pre-tokenizer or decoder */
	TOKENIZER_TEMPLATE_MAX = 64,            /* special tokens around a text */
	TOKENIZER_FILE_BYTES_MAX = 64 << 20,    /* the largest published ones have 35 MB; parsed it takes 15 times that */
	TOKENIZER_GROWN_BYTES = 64 << 20,       /* what operations may make of a text, beyond 4 times its bytes */
	TOKENIZER_TEXT_BYTES_MAX = 256 << 20,   /* one text to encode */
};

/* ---- pieces (tokenizer_pieces.c) ---- */

struct piece {
	size_t start, n; /* into pieces.bytes */
	size_t origin;   /* so many bytes at its start come from the first character of the whole text */
	bool literal;    /* an added token: its content is text, not byte-level characters */
};

struct pieces {
	char *bytes;
	size_t n_bytes, bytes_capacity;
	struct piece *items;
	size_t n, capacity;
	size_t n_bytes_max; /* 0: none; what would go beyond is left out, and over is true */
	bool over;
	bool lossy; /* decoding to UTF-8: U+FFFD where Hugging Face's decoders write it */
};

void pieces_free(struct pieces *pieces);
void pieces_clear(struct pieces *pieces);
/* Begin a piece at the end of the bytes; an empty one may stay. */
void pieces_open(struct pieces *pieces, bool literal);
/* Append to the last piece. */
void pieces_write(struct pieces *pieces, const char *bytes, size_t n);
/* The same; first: they come from the first character of the whole text. */
void pieces_write_from(struct pieces *pieces, const char *bytes, size_t n, bool first);
/* Open and write, for n > 0; nothing for n = 0. */
void pieces_add(struct pieces *pieces, const char *bytes, size_t n, size_t origin);
/* Of `origin` bytes at the start of a text, those in [start, end). */
size_t origin_within(size_t origin, size_t start, size_t end);

/* ---- characters (tokenizer_unicode.c); all take -1 for ill-formed bytes ---- */

/* An older character of the same general category and length in UTF-8 for one of Unicode 15 or 16, which
 * PCRE2 may not know; any other stays itself. */
int32_t unicode_stand_in(int32_t code);
bool unicode_is_number(int32_t code);
bool unicode_is_word(int32_t code); /* \w of Rust's regex */
bool unicode_is_punctuation(int32_t code);
bool unicode_is_mark(int32_t code);
/* Takes no part in normal forms: the normalizers do not know it. */
bool unicode_is_inert(int32_t code);
/* Lower case; returns its length, up to 4. */
size_t unicode_lower(char out[4], int32_t code);

/* Normal form (tokenizer_forms.c) of well-formed text, appended to the last piece of out.  options:
 * UTF8PROC_COMPOSE, UTF8PROC_COMPAT. */
int form_write(int options, const char *text, size_t n, struct pieces *out, struct err *err);

/* ---- patterns (tokenizer_pattern.c; Ruby to PCRE2 syntax in tokenizer_regex.c) ---- */

struct span {
	size_t start, end; /* a match may be empty */
	bool match;
};

struct spans {
	struct span *items;
	size_t n, capacity;
};

void spans_add(struct spans *spans, size_t start, size_t end, bool match);

struct pattern; /* a literal string or a regular expression */

/* {"String": ...} or {"Regex": ...}. */
int pattern_parse(struct pattern **pattern, const json_t *json, const char *where, struct err *err);
/* The string at json[key], literally; required. */
int pattern_parse_literal(struct pattern **pattern, const json_t *json, const char *where, const char *key,
                          struct err *err);
int pattern_compile(struct pattern **pattern, const char *regex, size_t n, const char *where,
                    struct err *err);
void pattern_free(struct pattern *pattern);
bool pattern_matches_empty(const struct pattern *pattern); /* could match an empty text */
/* A pattern in PCRE2's syntax with the same meaning, as one piece of out.  ERR_UNSUPPORTED names what has
 * no equivalent. */
int regex_translate(const char *regex, size_t n, struct pieces *out, const char *where, struct err *err);
/* Cover text[0, n) with spans, appended in order.  Ill-formed UTF-8 matches no regular expression: a
 * run of such bytes is a span of its own and the text on its two sides is matched apart. */
int pattern_spans(const struct pattern *pattern, const char *text, size_t n, struct spans *spans,
                  struct err *err);

/* ---- ops (tokenizer_ops.c; the families in tokenizer_normalize.c, _pretokenize.c, _decode.c) ---- */

enum split_behavior {
	SPLIT_REMOVED,
	SPLIT_ISOLATED,
	SPLIT_MERGED_WITH_PREVIOUS,
	SPLIT_MERGED_WITH_NEXT,
	SPLIT_CONTIGUOUS
};
enum prepend_scheme { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER };

struct op {
	int (*apply)(const struct op *op, const struct pieces *in, struct pieces *out, struct err *err);
	struct pattern *pattern; /* owned; Split, Replace, ByteLevel with use_regex */
	char *text;              /* owned; what Prepend, Replace, Metaspace insert, Strip removes */
	size_t n_text;
	int mode;                /* split_behavior, prepend_scheme or utf8proc options */
	bool flag;               /* invert, add_prefix_space, Metaspace's split */
	size_t start, stop;      /* Strip: how much; FixedLength: start characters */
	bool (*is)(int32_t code); /* what a split by characters matches, or a filter takes away */
};

struct ops {
	struct op *items; /* [n], owned */
	int n;
};

/* Reads the fields of one component into a zeroed op (which is freed by the caller also on error). */
typedef int op_read(struct op *op, const json_t *json, const char *where, struct err *err);

struct op_type {
	const char *name;
	op_read *read;
};

struct op_family {
	const char *name;    /* "normalizer" */
	const char *members; /* the key of a Sequence's list: "normalizers" */
	const struct op_type *types; /* ends with a NULL name */
};

extern const struct op_family normalizer_family, pretokenizer_family, decoder_family;

/* null: no ops.  A component outside the family is ERR_UNSUPPORTED, by name. */
int ops_parse(struct ops *ops, const json_t *json, const struct op_family *family, struct err *err);
void ops_free(struct ops *ops);
/* Transform *pieces in place, with *scratch as the other buffer. */
int ops_run(const struct ops *ops, struct pieces *pieces, struct pieces *scratch, struct err *err);

/* Replace pattern matches by op->text in every piece; a normalizer and a decoder. */
op_read op_read_replace;
/* Every byte as its code point in the alphabet below; a pre-tokenizer and a normalizer. */
void byte_level_write(struct pieces *out, const char *text, size_t n, size_t origin);
/* replacement, prepend_scheme, split; a pre-tokenizer and a decoder. */
op_read op_read_metaspace;
/* Cut the text of a piece by its spans. */
void pieces_split(struct pieces *out, const char *text, size_t origin, const struct spans *spans,
                  enum split_behavior behavior);

/* The GPT-2 alphabet: a printable code point below 0x144 for each byte, and back (-1: not in it). */
int32_t byte_level_code(unsigned char byte);
int byte_level_byte(int32_t code);

/* ---- JSON fields with errors that name them (tokenizer_fields.c) ---- */

/* Absent or null: *value keeps what it holds. */
int component_bool(const json_t *json, const char *where, const char *key, bool *value, struct err *err);
/* Owned copy; required. */
int component_text(const json_t *json, const char *where, const char *key, char **text, size_t *n,
               struct err *err);
/* 0 <= value < limit; required. */
int component_index(const json_t *json, const char *where, const char *key, int32_t limit, int32_t *value,
                struct err *err);
const char *json_type_name(const json_t *json); /* "a string", "nothing" for NULL */
/* A printable name in quotes, shortened; for messages.  Uses and returns `out`. */
enum { QUOTED_MAX = 96 };
const char *quoted(char out[QUOTED_MAX], const char *text, size_t n);

/* ---- vocabulary (tokenizer_vocab.c) ---- */

struct token {
	const char *text; /* borrowed from a text_map; NULL: no token has this id */
	uint32_t n;
	bool added, special;
	const char *shown; /* what decoding starts from: text, or an added token's normalized text (borrowed) */
	uint32_t n_shown;
};

/* text -> id; open addressing by XXH3 of the text. */
struct text_map {
	struct text_id {
		char *text; /* owned, NUL-terminated */
		uint32_t n;
		int32_t id;
	} *items; /* [n] */
	uint32_t n, capacity, n_slots; /* n_slots: a power of two */
	int32_t *slots; /* [n_slots] index of an item or -1 */
};

struct vocab {
	struct text_map model, added; /* what BPE knows; the added tokens that it does not */
	struct token *tokens;         /* [n_ids] */
	int32_t n_ids;
};

void vocab_open(struct vocab *vocab);
void vocab_free(struct vocab *vocab);
/* A token of the model; text and id are new, or it is an error. */
int vocab_add(struct vocab *vocab, const char *text, size_t n, int32_t id, struct err *err);
/* An added token that the model lacks; its id may already be a token's, whose place it takes in decoding. */
void vocab_add_added(struct vocab *vocab, const char *text, size_t n, int32_t id);
int32_t vocab_find(const struct vocab *vocab, const char *text, size_t n); /* id in the model, or -1 */
int32_t vocab_find_any(const struct vocab *vocab, const char *text, size_t n); /* or of an added token */

/* ---- BPE model (parsed in tokenizer_merges.c, run in tokenizer_bpe.c) ---- */

struct merge {
	uint64_t pair; /* left id << 32 | right id; UINT64_MAX: empty slot */
	uint32_t rank;
	int32_t id;    /* of the merged token */
};

struct bpe {
	struct merge *merges; /* [n_slots], open addressing */
	uint32_t n_slots;
	int32_t byte_ids[256]; /* <0x00> ... <0xFF>, or -1 */
	char *unk;             /* owned; the unknown token, NULL: none */
	int32_t unk_id;        /* -1: none, or not in the vocabulary */
	char *prefix, *suffix; /* owned; of symbols but the first, and of the last; NULL: none */
	size_t n_prefix, n_suffix;
	bool byte_fallback, fuse_unk, ignore_merges;
};

struct ids {
	int32_t *items;
	size_t n, capacity;
};

void ids_push(struct ids *ids, int32_t id);

struct bpe_scratch; /* symbols and heap of one call */
struct bpe_scratch *bpe_scratch_open(void);
void bpe_scratch_close(struct bpe_scratch *scratch);

const struct merge *merge_find(const struct bpe *bpe, int32_t left, int32_t right); /* or NULL */
/* Also fills vocab. */
int bpe_parse(struct bpe *bpe, struct vocab *vocab, const json_t *json, struct err *err);
void bpe_free(struct bpe *bpe);
int bpe_encode(const struct bpe *bpe, const struct vocab *vocab, const char *text, size_t n,
               struct bpe_scratch *scratch, struct ids *ids, struct err *err);

/* ---- added tokens (tokenizer_added.c) ---- */

struct added_token {
	char *text; /* owned: what is looked for */
	size_t n;
	int32_t id;
	bool single_word, lstrip, rstrip;
};

struct added_set {
	struct added_token *items; /* [n], sorted by text */
	size_t n;
	size_t first[257]; /* items[first[b], first[b + 1]) begin with byte b */
};

/* The text from `done` to match.start is not of the token, match.end becomes `done`. */
struct added_scan {
	size_t done, at; /* where the text that was dealt with ends, and where to look on */
};

struct added_match {
	size_t start, end;
	int32_t id;
};

/* Tokens looked for in the text as given (literal) and after the normalizer (normalized). */
int added_parse(struct added_set *literal, struct added_set *normalized, struct vocab *vocab,
                const struct ops *normalizer, const json_t *json, struct err *err);
void added_free(struct added_set *set);
/* The next leftmost-longest match, white space that it takes along included; false if there is none.  It may
 * begin before scan->done, in space that another took; nothing is left of it where its end is its start. */
bool added_next(const struct added_set *set, const char *text, size_t n, struct added_scan *scan,
                struct added_match *match);

/* ---- post-processor (tokenizer_template.c) ---- */

struct template_ids {
	int32_t before[TOKENIZER_TEMPLATE_MAX], after[TOKENIZER_TEMPLATE_MAX];
	int n_before, n_after;
	bool there; /* one has been read: there can be no other */
};

int template_parse(struct template_ids *template, const json_t *json, const struct vocab *vocab,
                   struct err *err);

/* ---- the whole ---- */

struct tokenizer {
	struct vocab vocab;
	struct bpe bpe;
	struct added_set literal, normalized;
	struct ops normalizer, pretokenizer, decoder;
	bool has_decoder; /* without one, tokens are joined by spaces */
	struct template_ids template;
};

#endif

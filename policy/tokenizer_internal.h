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
#ifndef POLICY_TOKENIZER_INTERNAL_H
#define POLICY_TOKENIZER_INTERNAL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "configs/err.h"

enum {
	TOKENIZER_IDS_MAX = 1 << 22,            /* largest id + 1 */
	TOKENIZER_OPS_MAX = 64,                 /* of one normalizer, pre-tokenizer or decoder */
	TOKENIZER_TEMPLATE_MAX = 64,            /* special tokens around a text */
	TOKENIZER_FILE_BYTES_MAX = 256 << 20,
	TOKENIZER_TEXT_BYTES_MAX = 256 << 20,   /* one text to encode */
};

/* ---- pieces (tokenizer_pieces.c) ---- */

enum piece_flag {
	PIECE_FIRST = 1,   /* begins where the whole text begins */
	PIECE_LITERAL = 2, /* an added token: its content is text, not byte-level characters */
};

struct piece {
	size_t start, n; /* into pieces.bytes */
	unsigned flags;
};

struct pieces {
	char *bytes;
	size_t n_bytes, bytes_capacity;
	struct piece *items;
	size_t n, capacity;
};

void pieces_free(struct pieces *pieces);
void pieces_clear(struct pieces *pieces);
/* Begin a piece at the end of the bytes; an empty one may stay. */
void pieces_open(struct pieces *pieces, unsigned flags);
/* Append to the last piece. */
void pieces_write(struct pieces *pieces, const char *bytes, size_t n);
/* Both, for n > 0; nothing for n = 0. */
void pieces_add(struct pieces *pieces, const char *bytes, size_t n, unsigned flags);

/* ---- patterns (tokenizer_pattern.c) ---- */

struct span {
	size_t start, end;
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
int pattern_compile(struct pattern **pattern, const char *regex, size_t n, const char *where,
                    struct err *err);
void pattern_free(struct pattern *pattern);
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
	bool flag;               /* invert, add_prefix_space, individual_digits, Metaspace's split */
	size_t start, stop;      /* Strip */
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
/* replacement, prepend_scheme, split; a pre-tokenizer and a decoder. */
op_read op_read_metaspace;
/* Cut one piece by its spans; flags of the piece go to its parts (PIECE_FIRST to the first alone). */
void pieces_split(struct pieces *out, const char *text, unsigned flags, const struct spans *spans,
                  enum split_behavior behavior);

/* The GPT-2 alphabet: a printable code point below 0x144 for each byte, and back (-1: not in it). */
int32_t byte_level_code(unsigned char byte);
int byte_level_byte(int32_t code);

/* ---- JSON fields with errors that name them (tokenizer_fields.c) ---- */

/* Absent or null: *value keeps what it holds. */
int field_bool(const json_t *json, const char *where, const char *key, bool *value, struct err *err);
/* Owned copy; required. */
int field_text(const json_t *json, const char *where, const char *key, char **text, size_t *n,
               struct err *err);
/* 0 <= value < limit; required. */
int field_index(const json_t *json, const char *where, const char *key, int32_t limit, int32_t *value,
                struct err *err);
const char *json_type_name(const json_t *json); /* "a string", "nothing" for NULL */
/* A printable name in quotes, shortened; for messages.  Uses and returns `out`. */
enum { QUOTED_MAX = 96 };
const char *quoted(char out[QUOTED_MAX], const char *text, size_t n);

/* ---- vocabulary (tokenizer_vocab.c) ---- */

struct token {
	char *text; /* owned, NUL-terminated; NULL: no token has this id */
	uint32_t n;
	bool added, special;
	const char *shown; /* what decoding starts from: text, or an added token's normalized text (borrowed) */
	uint32_t n_shown;
};

struct vocab {
	struct token *tokens; /* [n_ids] */
	int32_t n_ids;
	int32_t *slots;       /* [n_slots] id or -1, open addressing by XXH3 of the text */
	uint32_t n_slots;     /* a power of two */
	int32_t n_tokens;
};

void vocab_open(struct vocab *vocab);
void vocab_free(struct vocab *vocab);
int vocab_add(struct vocab *vocab, const char *text, size_t n, int32_t id, struct err *err);
int32_t vocab_find(const struct vocab *vocab, const char *text, size_t n); /* id or -1 */

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
	int32_t unk_id;        /* -1: none */
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
};

struct added_match {
	size_t start, end;
	int32_t id;
};

/* Tokens looked for in the text as given (literal) and after the normalizer (normalized). */
int added_parse(struct added_set *literal, struct added_set *normalized, struct vocab *vocab,
                const struct ops *normalizer, const json_t *json, struct err *err);
void added_free(struct added_set *set);
/* The leftmost-longest match at or after `from`; false if there is none. */
bool added_next(const struct added_set *set, const char *text, size_t n, size_t from,
                struct added_match *match);

/* ---- post-processor (tokenizer_template.c) ---- */

struct template_ids {
	int32_t before[TOKENIZER_TEMPLATE_MAX], after[TOKENIZER_TEMPLATE_MAX];
	int n_before, n_after;
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

/* tokenizer.c - encode and decode: the pipeline of tokenizer_internal.h, end to end. */
#include "policy/tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "policy/tokenizer/tokenizer_internal.h"
#include "policy/utf8.h"

/* The scratch memory of one call. */
struct encoding {
	const struct tokenizer *tokenizer;
	struct pieces normalized, plain, scratch;
	struct bpe_scratch *bpe;
	struct ids ids;
};

int tokenizer_vocab_size(const struct tokenizer *tokenizer)
{
	return tokenizer->vocab.n_ids;
}

int32_t tokenizer_id(const struct tokenizer *tokenizer, const char *token)
{
	return vocab_find_any(&tokenizer->vocab, token, strlen(token));
}

bool tokenizer_is_special(const struct tokenizer *tokenizer, int32_t id)
{
	return id >= 0 && id < tokenizer->vocab.n_ids && tokenizer->vocab.tokens[id].special;
}

/* Normalized text without added tokens: pre-tokenizer and model. */
static int encode_plain(struct encoding *e, const char *text, size_t n, size_t origin, struct err *err)
{
	const struct tokenizer *t = e->tokenizer;

	pieces_clear(&e->plain);
	pieces_add(&e->plain, text, n, origin);
	if (ops_run(&t->pretokenizer, &e->plain, &e->scratch, err) != 0)
		return err->code;
	for (size_t i = 0; i < e->plain.n; i++) {
		const struct piece *piece = &e->plain.items[i];
		if (bpe_encode(&t->bpe, &t->vocab, e->plain.bytes + piece->start, piece->n, e->bpe, &e->ids, err) !=
		    0)
			return err->code;
	}
	return 0;
}

/* Text between literal added tokens: normalize, then cut at the normalized added tokens. */
static int encode_segment(struct encoding *e, const char *text, size_t n, size_t origin, struct err *err)
{
	const struct tokenizer *t = e->tokenizer;
	struct added_scan scan = {0};
	struct added_match match;

	pieces_clear(&e->normalized);
	pieces_add(&e->normalized, text, n, origin);
	if (ops_run(&t->normalizer, &e->normalized, &e->scratch, err) != 0)
		return err->code;
	text = e->normalized.bytes;
	n = e->normalized.n_bytes;
	origin = e->normalized.n > 0 ? e->normalized.items[0].origin : 0;
	while (added_next(&t->normalized, text, n, &scan, &match)) {
		if (match.start > scan.done &&
		    encode_plain(e, text + scan.done, match.start - scan.done,
		                 origin_within(origin, scan.done, match.start), err) != 0)
			return err->code;
		if (match.end > match.start)
			ids_push(&e->ids, match.id);
		scan.done = match.end;
	}
	return scan.done < n ? encode_plain(e, text + scan.done, n - scan.done, origin_within(origin, scan.done, n), err)
	                     : 0;
}

static int encode_text(struct encoding *e, const char *text, size_t n, struct err *err)
{
	struct added_scan scan = {0};
	struct added_match match;
	int32_t code;
	size_t first = n > 0 ? utf8_step(text, n, &code) : 0;

	while (added_next(&e->tokenizer->literal, text, n, &scan, &match)) {
		if (match.start > scan.done &&
		    encode_segment(e, text + scan.done, match.start - scan.done,
		                   origin_within(first, scan.done, match.start), err) != 0)
			return err->code;
		if (match.end > match.start)
			ids_push(&e->ids, match.id);
		scan.done = match.end;
	}
	return scan.done < n ? encode_segment(e, text + scan.done, n - scan.done, origin_within(first, scan.done, n), err)
	                     : 0;
}

int tokenizer_single(const struct tokenizer *tokenizer, const char *text, int32_t *id, struct err *err)
{
	int32_t *ids;
	size_t n_ids;
	int rc = tokenizer_encode(tokenizer, text, strlen(text), false, &ids, &n_ids, err);

	if (rc) return rc;
	if (n_ids == 1) *id = ids[0];
	free(ids);
	return n_ids == 1 ? 0 : err_set(err, ERR_CONFIG, "'%s' is %zu tokens of this tokenizer; expected a text that is one", text, n_ids);
}

int tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t n_bytes, bool add_special,
                     int32_t **ids, size_t *n_ids, struct err *err)
{
	const struct template_ids *template = &tokenizer->template;
	struct encoding e = {.tokenizer = tokenizer};

	*ids = NULL;
	*n_ids = 0;
	if (n_bytes > TOKENIZER_TEXT_BYTES_MAX)
		return err_set(err, ERR_TOO_BIG, "tokenizer: a text of %zu bytes; at most %d are encoded at once",
		               n_bytes, TOKENIZER_TEXT_BYTES_MAX);
	e.bpe = bpe_scratch_open();
	for (int i = 0; add_special && i < template->n_before; i++)
		ids_push(&e.ids, template->before[i]);
	int code = encode_text(&e, text, n_bytes, err);
	for (int i = 0; add_special && i < template->n_after; i++)
		ids_push(&e.ids, template->after[i]);
	bpe_scratch_close(e.bpe);
	pieces_free(&e.normalized);
	pieces_free(&e.plain);
	pieces_free(&e.scratch);
	if (code != 0) {
		free(e.ids.items);
		return code;
	}
	*ids = e.ids.items ? e.ids.items : xmalloc(sizeof **ids);
	*n_ids = e.ids.n;
	return 0;
}

/* The texts of the tokens; an id without a token (a padded embedding row) is nothing. */
static int token_pieces(const struct vocab *vocab, const int32_t *ids, size_t n_ids, bool skip_special,
                        struct pieces *pieces, struct err *err)
{
	for (size_t i = 0; i < n_ids; i++) {
		if (ids[i] < 0)
			return err_set(err, ERR_INVALID, "tokenizer: id %d at position %zu, expected 0 or more", ids[i],
			               i);
		if (ids[i] >= vocab->n_ids || !vocab->tokens[ids[i]].text)
			continue;
		const struct token *token = &vocab->tokens[ids[i]];
		if (skip_special && token->special)
			continue;
		pieces_open(pieces, token->added);
		pieces_write(pieces, token->shown, token->n_shown);
	}
	return 0;
}

static char *joined(const struct pieces *pieces, const char *between, size_t *n_bytes)
{
	size_t gap = strlen(between), n = 0;
	char *text = xmalloc(pieces->n_bytes + gap * pieces->n + 1);

	for (size_t i = 0; i < pieces->n; i++) {
		if (i > 0) {
			memcpy(text + n, between, gap);
			n += gap;
		}
		if (pieces->items[i].n > 0)
			memcpy(text + n, pieces->bytes + pieces->items[i].start, pieces->items[i].n);
		n += pieces->items[i].n;
	}
	text[n] = '\0';
	*n_bytes = n;
	return text;
}

static int decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t n_ids, bool skip_special,
                  bool lossy, char **text, size_t *n_bytes, struct err *err)
{
	struct pieces pieces = {.lossy = lossy}, scratch = {.lossy = lossy};

	*text = NULL;
	*n_bytes = 0;
	int code = token_pieces(&tokenizer->vocab, ids, n_ids, skip_special, &pieces, err);
	if (code == 0)
		code = ops_run(&tokenizer->decoder, &pieces, &scratch, err);
	if (code == 0)
		*text = joined(&pieces, tokenizer->has_decoder ? "" : " ", n_bytes);
	pieces_free(&pieces);
	pieces_free(&scratch);
	return code;
}

int tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t n_ids, bool skip_special,
                     char **text, size_t *n_bytes, struct err *err)
{
	return decode(tokenizer, ids, n_ids, skip_special, false, text, n_bytes, err);
}

int tokenizer_decode_utf8(const struct tokenizer *tokenizer, const int32_t *ids, size_t n_ids,
                          bool skip_special, char **text, size_t *n_bytes, struct err *err)
{
	return decode(tokenizer, ids, n_ids, skip_special, true, text, n_bytes, err);
}

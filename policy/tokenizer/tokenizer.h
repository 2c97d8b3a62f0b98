/* tokenizer.h - text to token ids and back, from a Hugging Face tokenizer.json.
 *
 * Immutable after open; safe to share between threads for encode and decode.
 *
 * Text is bytes.  Where it is not UTF-8, a byte-level tokenizer still gives it back exactly: a run of such
 * bytes is a piece of its own, which no regular expression sees and no normalizer changes.
 * BPE models are done, byte-level and SentencePiece-style; any other component is ERR_UNSUPPORTED, by name.
 * Ids are those of Hugging Face's tokenizers 0.23, and so is the text of tokenizer_decode_utf8.  Differences:
 * special tokens are skipped by id; `truncation` and `padding` are not applied.  A character for which the
 * vocabulary has no token is dropped, as there, if it has neither byte tokens nor an unknown token.
 */
#ifndef POLICY_TOKENIZER_TOKENIZER_H
#define POLICY_TOKENIZER_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "configs/err.h"

struct tokenizer;

/* path: a model directory or a tokenizer.json. */
int tokenizer_open(struct tokenizer **tokenizer, const char *path, struct err *err);
/* From bytes (no I/O; fuzzed). */
int tokenizer_parse(struct tokenizer **tokenizer, const char *json, size_t n_bytes, struct err *err);
void tokenizer_close(struct tokenizer *tokenizer);

int tokenizer_vocab_size(const struct tokenizer *tokenizer); /* largest id + 1 */
int32_t tokenizer_id(const struct tokenizer *tokenizer, const char *token); /* by content, or -1 */
bool tokenizer_is_special(const struct tokenizer *tokenizer, int32_t id);

/* Special tokens in the text are recognised; add_special applies the post-processor's template
 * (such as a leading BOS).  *ids is owned by the caller (free). */
int tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t n_bytes, bool add_special,
                     int32_t **ids, size_t *n_ids, struct err *err);

/* The id of a text that is exactly one token, such as a stop text; ERR_CONFIG if it is not. */
int tokenizer_single(const struct tokenizer *tokenizer, const char *text, int32_t *id, struct err *err);

/* *text is owned by the caller, NUL-terminated, *n_bytes without the NUL; may hold any bytes. */
int tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t n_ids, bool skip_special,
                     char **text, size_t *n_bytes, struct err *err);

/* The same as well-formed UTF-8, with U+FFFD where Hugging Face's tokenizers writes it. */
int tokenizer_decode_utf8(const struct tokenizer *tokenizer, const int32_t *ids, size_t n_ids,
                          bool skip_special, char **text, size_t *n_bytes, struct err *err);

#endif

/* tokenizer_build.h - a small byte-level BPE tokenizer from a corpus, as a Hugging Face tokenizer.json.
 *
 * Ids: the end token, the 256 bytes in GPT-2's order, then merges.  Digits stand alone (a Digits
 * pre-tokenizer before ByteLevel, as SmolLM2 has), so that numbers are read digit by digit.
 */
#ifndef TRAINER_BRIDGE_TRAINER_TOKENIZER_BUILD_H
#define TRAINER_BRIDGE_TRAINER_TOKENIZER_BUILD_H

#include <stddef.h>

#include "configs/err.h"

enum { TOKENIZER_BUILD_MERGES_MAX = 256 };

struct tokenizer_build_options {
	const char *end_token; /* special, id 0 */
	int merges;            /* at most so many, up to TOKENIZER_BUILD_MERGES_MAX */
	int min_count;         /* a pair must occur so often to be merged */
};

/* Writes dir/tokenizer.json and dir/tokenizer_config.json.  texts [n_texts] are ASCII (other bytes are
 * never merged). */
int tokenizer_build(const char *dir, const char *const *texts, size_t n_texts,
                    const struct tokenizer_build_options *options, struct err *err);

#endif

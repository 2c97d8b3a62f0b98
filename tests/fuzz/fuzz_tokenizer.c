/* fuzz_tokenizer.c - any bytes are a tokenizer.json or an error that says why; what is taken encodes and
 * decodes any text: a fixed one, and the first bytes of the file itself. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "policy/tokenizer/tokenizer.h"
#include "policy/utf8.h"
#include "tests/fuzz/fuzz.h"

enum { TEXT_MAX = 48 };

static const char fixed[] = " \xC3\xA9 a1\xEF\xAC\x81\n<s>\xCC\x81\xF0\x9F\x98\x80\xFF\xE2\x96\x81";

static void decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t n_ids)
{
	struct err err = {0};
	char *text;
	size_t n;
	bool valid = true;

	if (tokenizer_decode(tokenizer, ids, n_ids, true, &text, &n, &err) == 0)
		assert(text[n] == '\0');
	free(text);
	if (tokenizer_decode_utf8(tokenizer, ids, n_ids, false, &text, &n, &err) == 0)
		assert(n == 0 || (utf8_run(text, n, &valid) == n && valid));
	free(text);
}

static void encode(const struct tokenizer *tokenizer, const char *text, size_t n)
{
	struct err err = {0};
	int32_t *ids;
	size_t n_ids;

	if (tokenizer_encode(tokenizer, text, n, true, &ids, &n_ids, &err) != 0) {
		assert(err.code < 0 && err.text[0]);
		return;
	}
	for (size_t i = 0; i < n_ids; i++)
		assert(ids[i] >= 0 && ids[i] < tokenizer_vocab_size(tokenizer));
	decode(tokenizer, ids, n_ids);
	free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
	struct tokenizer *tokenizer;
	struct err err = {0};
	int32_t ids[16];

	if (tokenizer_parse(&tokenizer, (const char *)bytes, n_bytes, &err) != 0) {
		assert(!tokenizer && err.code < 0 && err.text[0]);
		return 0;
	}
	encode(tokenizer, fixed, sizeof fixed - 1);
	encode(tokenizer, (const char *)bytes, n_bytes < TEXT_MAX ? n_bytes : TEXT_MAX);
	for (int i = 0; i < 16; i++)
		ids[i] = i;
	decode(tokenizer, ids, 16);
	tokenizer_close(tokenizer);
	return 0;
}

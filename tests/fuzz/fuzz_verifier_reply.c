/* fuzz_verifier_reply.c - any line is a verifier's reply or an error that says why; a reward is finite, and an error is
 * no reward. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "policy/utf8.h"
#include "scheduler/verifier/verifier_lines.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
	struct verifier_reply reply;
	struct err err = {0};
	bool valid = true;

	if (verifier_reply_parse(&reply, (const char *)bytes, n_bytes, &err)) {
		assert(err.code < 0 && err.text[0]);
		return 0;
	}
	assert(reply.has_id && isfinite(reply.reward) && isfinite(reply.reward_answer) && isfinite(reply.reward_steps));
	assert(reply.answer == VERIFIER_JUDGED || (reply.reward == 0 && reply.reward_answer == 0));
	size_t n = strlen(reply.error);
	assert(n < VERIFIER_ERROR_MAX && (n == 0 || (utf8_run(reply.error, n, &valid) == n && valid)));
	return 0;
}

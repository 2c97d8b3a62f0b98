/* fuzz_messages.c - any bytes are a message of a rank or a trainer, or an error that says why; a trajectory that is
 * taken is written as one that is read back to the same checksum.
 *
 * A trajectory carries a checksum that no fuzzer finds; so what is left of a refused one does not show here but in
 * the sanitizers. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/ranks/rank_messages.h"
#include "tests/fuzz/fuzz.h"
#include "trainer_bridge/wire/codec.h"

static void goes_round(const struct trajectory *t)
{
	struct message_writer *w = message_writer_open();
	struct message *message;
	struct trajectory *again;
	struct err err = {0};
	size_t n_bytes;

	codec_put_trajectory(w, t);
	const void *bytes = message_bytes(w, &n_bytes);
	if (message_parse(&message, bytes, n_bytes, &err) || codec_get_trajectory(message_root(message), &again, &err)) abort();
	assert(trajectory_checksum(t) == trajectory_checksum(again));
	trajectory_free(again);
	message_close(message);
	message_writer_close(w);
}

/* Every reader of every field that any message has. */
static void read_fields(const struct message_node *root)
{
	static const char *const keys[] = {"type", "lease", "keep", "recall", "version", "offset", "bytes", "xxh3", "data",
	                                   "capacity", "active", "cpu", "text", "id", "context"};
	struct err err = {0};

	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		int64_t whole;
		uint64_t natural;
		double real;
		bool yes;
		const char *text;
		const void *bytes;
		size_t n_bytes;
		if (message_get_int(root, keys[i], -5, 5, &whole, &err) == 0) assert(whole >= -5 && whole <= 5);
		message_get_uint(root, keys[i], &natural, &err);
		message_get_real(root, keys[i], &real, &err);
		message_get_bool(root, keys[i], &yes, &err);
		if (message_get_text(root, keys[i], &text, &err) == 0 && text) assert(strlen(text) < SIZE_MAX / 2);
		if (message_get_bin(root, keys[i], &bytes, &n_bytes, &err) == 0 && n_bytes > 0) assert(bytes);
		const struct message_node *node = message_field(root, keys[i]);
		int64_t n = node ? message_count(node) : -1;
		for (int64_t k = 0; k < n && k < 16; k++) message_get_uint(message_item(node, (uint32_t)k), "id", &natural, &err);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
	struct message *message;
	struct trajectory *t = NULL;
	struct rank_cargo cargo;
	struct rank_stats sums = {0}, added;
	struct err err = {0};
	uint64_t lease;

	if (message_parse(&message, bytes, n_bytes, &err)) {
		assert(err.code < 0 && err.text[0]);
		return 0;
	}
	const struct message_node *root = message_root(message);
	read_fields(root);
	err.text[0] = '\0';
	if (rank_message_get_cargo(root, &cargo, &err)) assert(err.text[0]);
	if (rank_message_get_stats(root, &added, &err) == 0) rank_stats_add(&sums, &added);
	if (rank_message_get_trajectory(root, &lease, &t, &err) == 0) {
		goes_round(t);
		trajectory_free(t);
	}
	if (codec_get_trajectory(root, &t, &err) == 0) {
		goes_round(t);
		trajectory_free(t);
	}
	message_close(message);
	return 0;
}

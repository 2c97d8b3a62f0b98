/* fuzz_frames.c - any stream of bytes is frames or an end; however it is cut into reads, the same frames come out, and
 * each of them is a message or an error that says why. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "trainer_bridge/wire/frame.h"

enum { LIMIT = 2048 };

/* What came out of a stream: frames, a hash of their bytes, and how it ended. */
struct outcome {
	size_t frames;
	uint64_t hash;
	int end;
	bool partial;
};

static void parse(const void *payload, size_t n_bytes)
{
	struct message *message;
	struct err err = {0};
	const char *type;

	if (message_parse(&message, payload, n_bytes, &err)) {
		assert(err.code < 0 && err.text[0]);
		return;
	}
	if (message_get_text(message_root(message), "type", &type, &err) == 0 && type) frame_type_parse(type);
	message_close(message);
}

static struct outcome read_stream(const uint8_t *bytes, size_t n_bytes, size_t step)
{
	struct frame_reader *reader = frame_reader_open(LIMIT);
	struct outcome outcome = {.hash = 14695981039346656037u};
	size_t at = 0;

	while (outcome.end == 0 && at < n_bytes) {
		size_t room, n = n_bytes - at < step ? n_bytes - at : step;
		void *to = frame_reader_space(reader, &room);
		assert(room >= n);
		memcpy(to, bytes + at, n);
		frame_reader_filled(reader, n);
		at += n;
		const void *payload;
		size_t n_payload;
		struct err err = {0};
		int rc;
		while ((rc = frame_next(reader, &payload, &n_payload, &err)) > 0) {
			assert(n_payload > 0 && n_payload <= LIMIT);
			outcome.frames++;
			for (size_t i = 0; i < n_payload; i++) outcome.hash = (outcome.hash ^ ((const uint8_t *)payload)[i]) * 1099511628211u;
			if (step >= n_bytes) parse(payload, n_payload);
		}
		assert(rc == 0 || err.text[0]);
		outcome.end = rc;
	}
	outcome.partial = outcome.end == 0 && frame_reader_partial(reader);
	frame_reader_close(reader);
	return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
	struct outcome whole = read_stream(bytes, n_bytes, n_bytes + 1);

	for (size_t step = 1; step < 8; step += 3) {
		struct outcome cut = read_stream(bytes, n_bytes, step);
		assert(cut.frames == whole.frames && cut.hash == whole.hash && cut.end == whole.end && cut.partial == whole.partial);
	}
	return 0;
}

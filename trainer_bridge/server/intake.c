/* intake.c - one new version of the weights, assembled in its final place.
 *
 * Chunks are received, or copied, to where their tensor lies in the buffer that becomes the new version, and each
 * piece is summed and searched for NaN right then, while it is in the cache.  Chunks of a tensor come in ascending
 * order and without gaps, so "all bytes are there" is one number per tensor; tensors may come in any order.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "trainer_bridge/server/intake_internal.h"
#include "trainer_bridge/wire/sha256.h"

struct intake *intake_open(const struct model_config *config)
{
	struct intake *intake = xcalloc(1, sizeof *intake);

	weights_layout(&intake->layout, config);
	intake->progress = xcalloc((size_t)intake->layout.n_tensors, sizeof *intake->progress);
	intake->base = intake->pair = -1;
	intake->base_version = -1;
	intake->sum = checksum_open();
	return intake;
}

void intake_close(struct intake *intake)
{
	if (!intake)
		return;
	intake_abandon(intake);
	weights_free(&intake->layout);
	free(intake->buffers[0]);
	free(intake->buffers[1]);
	free(intake->model_dir);
	free(intake->progress);
	checksum_close(intake->sum);
	delta_close(intake->delta);
	free(intake);
}

void intake_observe(struct intake *intake, const struct intake_observer *observer)
{
	intake->observer = *observer;
}

void intake_set_model(struct intake *intake, const char *dir)
{
	assert(intake->base_version < 0);
	intake->model_dir = xstrdup(dir);
	intake->base_version = 0;
}

const struct weights *intake_restore(struct intake *intake, int64_t version, struct weights *weights)
{
	assert(!intake->buffers[0] && !intake->open && weights->n_elements == intake->layout.n_elements);
	intake->buffers[0] = weights->data;
	weights->data = NULL;
	weights_free(weights);
	intake->base = 0;
	intake->base_version = version;
	intake->incoming = intake->layout;
	intake->incoming.data = intake->buffers[0];
	return &intake->incoming;
}

const struct weights *intake_layout(const struct intake *intake)
{
	return &intake->layout;
}

/* ---- begin and end ---- */

static int incoming_buffer(const struct intake *intake)
{
	return intake->base < 0 ? 0 : 1 - intake->base;
}

bool intake_ready(const struct intake *intake)
{
	const struct intake_observer *observer = &intake->observer;
	return !observer->ready || observer->ready(observer->context, intake->buffers[incoming_buffer(intake)]);
}

bool intake_busy(const struct intake *intake)
{
	return intake->open;
}

static void end(struct intake *intake)
{
	intake->open = false;
	intake->place.at = NULL;
	intake->summed = NULL;
	intake_drop_pair(intake);
}

void intake_abandon(struct intake *intake)
{
	if (!intake->open)
		return;
	end(intake);
	if (intake->observer.dropped)
		intake->observer.dropped(intake->observer.context);
}

int intake_begin_push(struct intake *intake, const struct intake_push *push, int64_t current_version, struct err *err)
{
	if (intake->open)
		return err_set(err, ERR_STATE,
		               "version %" PRId64 " is being taken in: commit it before beginning %" PRId64,
		               intake->push.version, push->version);
	if (push->version <= current_version)
		return err_set(err, ERR_INVALID, "version %" PRId64 " is not new: the policy is at %" PRId64
		               ", push %" PRId64 " or more", push->version, current_version, current_version + 1);
	if (push->encoding != INTAKE_FULL && intake_check_base(intake, push, err))
		return err->code;
	int buffer = incoming_buffer(intake);
	if (!intake->buffers[buffer])
		intake->buffers[buffer] = xaligned(intake->layout.n_elements * sizeof(uint16_t));
	intake->incoming = intake->layout;
	intake->incoming.data = intake->buffers[buffer];
	memset(intake->progress, 0, (size_t)intake->layout.n_tensors * sizeof *intake->progress);
	intake->push = *push;
	intake->open = true;
	intake->last = 0;
	if (intake->observer.begun)
		intake->observer.begun(intake->observer.context, push->version, &intake->incoming);
	return 0;
}

int intake_begin(struct intake *intake, int64_t version, int64_t current_version, struct err *err)
{
	return intake_begin_push(intake, &(struct intake_push){.version = version}, current_version, err);
}

static int check_version(const struct intake *intake, int64_t version, struct err *err)
{
	if (!intake->open)
		return err_set(err, ERR_STATE, "no version is being taken in: begin version %" PRId64 " first",
		               version);
	if (version != intake->push.version)
		return err_set(err, ERR_INVALID, "version %" PRId64 " is being taken in, found %" PRId64,
		               intake->push.version, version);
	return 0;
}

static int check_complete(struct intake *intake, struct err *err)
{
	int n_missing = 0, first = -1;

	if (intake->push.encoding == INTAKE_LORA && intake_finish_base(intake, err))
		return err->code;
	for (int i = intake->layout.n_tensors - 1; i >= 0; i--)
		if (!intake->progress[i].closed)
			n_missing++, first = i;
	if (n_missing)
		return err_set(err, ERR_INCOMPLETE, "version %" PRId64 " lacks %d of %d tensors, the first is '%s'",
		               intake->push.version, n_missing, intake->layout.n_tensors,
		               intake->layout.tensors[first].name);
	return 0;
}

int intake_commit(struct intake *intake, int64_t version, const struct weights **weights, struct err *err)
{
	if (check_version(intake, version, err) || check_complete(intake, err))
		return err->code;
	*weights = &intake->incoming;
	return 0;
}

void intake_adopt(struct intake *intake)
{
	assert(intake->open);
	if (intake->push.encoding != INTAKE_LORA) {
		intake->base = incoming_buffer(intake);
		intake->base_version = intake->push.version;
	}
	end(intake);
}

/* ---- bytes ---- */

/* Index of the tensor, or an error with the policy's first name as a hint. */
int intake_find_tensor(struct intake *intake, const char *name, int *index, struct err *err)
{
	if (strcmp(intake->layout.tensors[intake->last].name, name) != 0) {
		int found = weights_find(&intake->layout, name);
		if (found < 0)
			return err_set(err, ERR_MISSING,
			               "the policy has no tensor '%.96s': its %d tensors are named as in the "
			               "checkpoint, the first is '%s'",
			               name, intake->layout.n_tensors, intake->layout.tensors[0].name);
		intake->last = found;
	}
	*index = intake->last;
	return 0;
}

/* Bytes [at, at + n) of what begins at `begin` follow those that were summed, or its sum is made at the end. */
void intake_sum(struct intake *intake, const void *whose, const uint8_t *begin, size_t at, size_t n)
{
	if (at == 0) {
		checksum_begin(intake->sum);
		intake->summed = whose;
		intake->n_summed = 0;
	}
	if (intake->summed != whose || intake->n_summed != at) {
		if (intake->summed == whose)
			intake->summed = NULL;
		return;
	}
	checksum_add(intake->sum, begin + at, n);
	intake->n_summed = at + n;
}

static uint64_t sum_of(struct intake *intake, const void *whose, const void *bytes, size_t n_bytes)
{
	if (intake->summed == whose && intake->n_summed == n_bytes)
		return checksum_end(intake->sum);
	return checksum(bytes, n_bytes);
}

void intake_arrived(struct intake *intake, int tensor, size_t n)
{
	struct progress *progress = &intake->progress[tensor];
	uint16_t *values = intake->incoming.data + intake->layout.tensors[tensor].offset;
	size_t begin = progress->arrived, end_at = begin + n;

	intake_sum(intake, progress, (const uint8_t *)values, begin, n);
	if (!weights_finite(values + begin / 2, end_at / 2 - begin / 2)) /* a number counts when its last byte is here */
		progress->bad = true;
	progress->arrived = end_at;
	size_t at = intake->layout.tensors[tensor].offset * sizeof(uint16_t);
	if (intake->observer.bytes && n > 0)
		intake->observer.bytes(intake->observer.context, at + begin, at + end_at);
}

static int check_place(const struct intake *intake, int i, uint64_t offset, size_t n_bytes, struct err *err)
{
	const struct weight_tensor *tensor = &intake->layout.tensors[i];
	const struct progress *progress = &intake->progress[i];

	if (progress->closed)
		return err_set(err, ERR_STATE, "tensor '%s': a chunk behind its checksum", tensor->name);
	if (i == intake->pair)
		return err_set(err, ERR_STATE, "tensor '%s' is being changed by a LoRA pair", tensor->name);
	if (offset != progress->arrived)
		return err_set(err, ERR_INVALID, "tensor '%s': expected the chunk at byte %zu, found byte %" PRIu64,
		               tensor->name, progress->arrived, offset);
	if (n_bytes > intake_tensor_bytes(tensor) - progress->arrived)
		return err_set(err, ERR_TOO_BIG, "tensor '%s': expected %zu bytes (%d x %d bf16), found %zu or more",
		               tensor->name, intake_tensor_bytes(tensor), tensor->rows, tensor->cols,
		               progress->arrived + n_bytes);
	return 0;
}

int intake_place(struct intake *intake, int64_t version, const char *name, uint64_t offset, size_t n_bytes,
                 struct err *err)
{
	int i = 0;

	if (check_version(intake, version, err))
		return err->code;
	if (intake->place.at && intake->place.left > 0)
		return err_set(err, ERR_STATE, "a chunk behind one that is not all there");
	if (intake_is_side(intake, name))
		return intake_place_side(intake, name, offset, n_bytes, err);
	if (intake_find_tensor(intake, name, &i, err) || check_place(intake, i, offset, n_bytes, err))
		return err->code;
	intake->place.at = (uint8_t *)(intake->incoming.data + intake->layout.tensors[i].offset) + offset;
	intake->place.left = n_bytes;
	intake->place.tensor = i;
	intake->place.side = NULL;
	return 0;
}

void *intake_at(const struct intake *intake, size_t *left)
{
	*left = intake->place.at ? intake->place.left : 0;
	return intake->place.at;
}

void intake_filled(struct intake *intake, size_t n_bytes)
{
	struct side *side = intake->place.side;

	assert(intake->place.at && n_bytes <= intake->place.left);
	intake->place.at += n_bytes;
	intake->place.left -= n_bytes;
	if (!side) {
		intake_arrived(intake, intake->place.tensor, n_bytes);
		return;
	}
	intake_sum(intake, side, (const uint8_t *)side->values, side->arrived, n_bytes);
	side->arrived += n_bytes;
}

enum { PIECE_BYTES = 1 << 18 }; /* copied, then summed and searched from the cache */

int intake_chunk(struct intake *intake, int64_t version, const char *name, uint64_t offset, const void *bytes,
                 size_t n_bytes, struct err *err)
{
	const uint8_t *from = bytes;

	if (intake_place(intake, version, name, offset, n_bytes, err))
		return err->code;
	for (size_t at = 0; at < n_bytes; at += PIECE_BYTES) {
		size_t n = n_bytes - at < PIECE_BYTES ? n_bytes - at : PIECE_BYTES;
		memcpy(intake->place.at, from + at, n);
		intake_filled(intake, n);
	}
	return 0;
}

int intake_delta(struct intake *intake, int64_t version, const char *name, uint64_t offset, int64_t xor_bytes,
                 const void *packed, size_t packed_bytes, struct err *err)
{
	size_t n = (size_t)xor_bytes;
	int i = 0;

	if (check_version(intake, version, err) || intake_find_tensor(intake, name, &i, err))
		return err->code;
	if (intake->push.encoding != INTAKE_DELTA)
		return err_set(err, ERR_INVALID, "field 'xor_bytes' in a push that states no base: begin it as 'delta'");
	if (check_place(intake, i, offset, n, err))
		return err->code;
	if (n % 2 || offset % 2)
		return err_set(err, ERR_INVALID, "tensor '%s': a delta piece of %zu bytes at byte %" PRIu64
		               ": both must be even, for numbers are not cut", name, n, offset);
	if (!intake->delta)
		intake->delta = delta_open();
	uint8_t *new = (uint8_t *)(intake->incoming.data + intake->layout.tensors[i].offset) + offset;
	const uint8_t *base = (const uint8_t *)intake_base_data(intake, i) + offset;
	if (delta_unpack(intake->delta, new, base, n, packed, packed_bytes, err))
		return err_context(err, "tensor '%s'", name);
	intake_arrived(intake, i, n);
	return 0;
}

/* ---- checksums ---- */

/* What a checksum closes: a whole tensor, or one of a LoRA pair. */
struct closing {
	int tensor;
	struct side *side;
	const void *bytes, *whose;
	size_t n_bytes;
};

static int find_arrived(struct intake *intake, int64_t version, const char *name, struct closing *closing, struct err *err)
{
	if (check_version(intake, version, err))
		return err->code;
	*closing = (struct closing){0};
	if (intake_is_side(intake, name)) {
		if (intake_find_side(intake, name, &closing->side, err))
			return err->code;
		closing->whose = closing->side;
		closing->bytes = closing->side->values;
		closing->n_bytes = closing->side->n_bytes;
		return 0;
	}
	if (intake_find_tensor(intake, name, &closing->tensor, err))
		return err->code;
	const struct weight_tensor *tensor = &intake->layout.tensors[closing->tensor];
	struct progress *progress = &intake->progress[closing->tensor];
	if (progress->closed)
		return err_set(err, ERR_STATE, "tensor '%s' came twice", name);
	if (intake->push.encoding == INTAKE_DELTA && progress->arrived == 0)
		intake_take_base(intake, closing->tensor);
	if (progress->arrived != intake_tensor_bytes(tensor))
		return err_set(err, ERR_INCOMPLETE, "tensor '%s': expected %zu bytes (%d x %d bf16), found %zu", name,
		               intake_tensor_bytes(tensor), tensor->rows, tensor->cols, progress->arrived);
	closing->whose = progress;
	closing->bytes = intake->incoming.data + tensor->offset;
	closing->n_bytes = intake_tensor_bytes(tensor);
	return 0;
}

int intake_close_tensor(struct intake *intake, int tensor, uint64_t xxh3, struct err *err)
{
	struct progress *progress = &intake->progress[tensor];

	if (progress->bad)
		return err_set(err, ERR_INVALID,
		               "tensor '%s' holds NaN or infinity: the training step that made version %" PRId64
		               " has diverged",
		               intake->layout.tensors[tensor].name, intake->push.version);
	progress->closed = true;
	if (intake->observer.tensor)
		intake->observer.tensor(intake->observer.context, tensor, xxh3);
	return 0;
}

static int close_it(struct intake *intake, const struct closing *closing, uint64_t xxh3, struct err *err)
{
	return closing->side ? intake_close_side(intake, closing->side, err)
	                     : intake_close_tensor(intake, closing->tensor, xxh3, err);
}

static const char *push_again(const struct intake *intake)
{
	return intake->push.encoding == INTAKE_DELTA ? "push in full, for the bases may differ" : "push the version again";
}

int intake_checksum(struct intake *intake, int64_t version, const char *name, uint64_t xxh3, struct err *err)
{
	struct closing closing;

	if (find_arrived(intake, version, name, &closing, err))
		return err->code;
	uint64_t found = sum_of(intake, closing.whose, closing.bytes, closing.n_bytes);
	if (found != xxh3)
		return err_set(err, ERR_INVALID,
		               "tensor '%s': its XXH3 is %016" PRIx64 ", the peer states %016" PRIx64 ": %s",
		               name, found, xxh3, push_again(intake));
	return close_it(intake, &closing, found, err);
}

int intake_checksum_sha256(struct intake *intake, int64_t version, const char *name, const uint8_t digest[32],
                           struct err *err)
{
	struct closing closing;
	struct sha256 sha;
	uint8_t found[SHA256_BYTES];

	if (find_arrived(intake, version, name, &closing, err))
		return err->code;
	sha256_begin(&sha);
	sha256_add(&sha, closing.bytes, closing.n_bytes);
	sha256_end(&sha, found);
	if (memcmp(found, digest, sizeof found) != 0)
		return err_set(err, ERR_INVALID,
		               "tensor '%s': its SHA-256 begins with %02x%02x%02x%02x, the peer states "
		               "%02x%02x%02x%02x: %s",
		               name, found[0], found[1], found[2], found[3], digest[0], digest[1], digest[2],
		               digest[3], push_again(intake));
	return close_it(intake, &closing, sum_of(intake, closing.whose, closing.bytes, closing.n_bytes), err);
}

int intake_seal(struct intake *intake, int64_t version, const char *name, struct err *err)
{
	struct closing closing;

	if (find_arrived(intake, version, name, &closing, err))
		return err->code;
	return close_it(intake, &closing, sum_of(intake, closing.whose, closing.bytes, closing.n_bytes), err);
}

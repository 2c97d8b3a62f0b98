/* intake.c - one new version of the weights, assembled in its final place.
 *
 * A push costs exactly one copy of the weights: chunks are copied to where their tensor lies in the
 * buffer that becomes the new version.  Chunks of a tensor come in ascending order and without gaps,
 * so "all bytes are there" is one number per tensor; tensors may come in any order.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "trainer_bridge/intake.h"
#include "trainer_bridge/sha256.h"

struct intake {
	struct weights layout;   /* names and offsets; no data */
	struct weights incoming; /* data is NULL between pushes */
	int64_t version;         /* being taken in; -1: none */
	struct progress {
		size_t arrived;      /* bytes */
		bool checked;
	} *progress;             /* [n_tensors] */
	int last;                /* tensor of the last chunk: most chunks follow their like */
};

struct intake *intake_open(const struct model_config *config)
{
	struct intake *intake = xcalloc(1, sizeof *intake);

	weights_layout(&intake->layout, config);
	intake->progress = xcalloc((size_t)intake->layout.n_tensors, sizeof *intake->progress);
	intake->version = -1;
	return intake;
}

void intake_abandon(struct intake *intake)
{
	if (intake->version >= 0)
		weights_free(&intake->incoming);
	memset(&intake->incoming, 0, sizeof intake->incoming);
	intake->version = -1;
}

void intake_close(struct intake *intake)
{
	if (!intake)
		return;
	intake_abandon(intake);
	weights_free(&intake->layout);
	free(intake->progress);
	free(intake);
}

const struct weights *intake_layout(const struct intake *intake)
{
	return &intake->layout;
}

int intake_begin(struct intake *intake, int64_t version, int64_t current_version, struct err *err)
{
	if (intake->version >= 0)
		return err_set(err, ERR_STATE,
		               "version %" PRId64 " is being taken in: commit it before beginning %" PRId64,
		               intake->version, version);
	if (version <= current_version)
		return err_set(err, ERR_INVALID, "version %" PRId64 " is not new: the policy is at %" PRId64
		               ", push %" PRId64 " or more", version, current_version, current_version + 1);
	weights_alloc(&intake->incoming, &intake->layout.config);
	memset(intake->progress, 0, (size_t)intake->layout.n_tensors * sizeof *intake->progress);
	intake->version = version;
	intake->last = 0;
	return 0;
}

static int check_version(const struct intake *intake, int64_t version, struct err *err)
{
	if (intake->version < 0)
		return err_set(err, ERR_STATE, "no version is being taken in: begin version %" PRId64 " first",
		               version);
	if (version != intake->version)
		return err_set(err, ERR_INVALID, "version %" PRId64 " is being taken in, found %" PRId64,
		               intake->version, version);
	return 0;
}

static size_t tensor_bytes(const struct weight_tensor *tensor)
{
	return (size_t)tensor->rows * (size_t)tensor->cols * sizeof(uint16_t);
}

/* Index of the tensor, or an error with the policy's first name as a hint. */
static int find_tensor(struct intake *intake, const char *name, int *index, struct err *err)
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

int intake_chunk(struct intake *intake, int64_t version, const char *name, uint64_t offset, const void *bytes,
                 size_t n_bytes, struct err *err)
{
	int i = 0;

	if (check_version(intake, version, err) || find_tensor(intake, name, &i, err))
		return err->code;
	const struct weight_tensor *tensor = &intake->layout.tensors[i];
	struct progress *progress = &intake->progress[i];
	if (progress->checked)
		return err_set(err, ERR_STATE, "tensor '%s': a chunk behind its checksum", name);
	if (offset != progress->arrived)
		return err_set(err, ERR_INVALID, "tensor '%s': expected the chunk at byte %zu, found byte %" PRIu64,
		               name, progress->arrived, offset);
	if (n_bytes > tensor_bytes(tensor) - progress->arrived)
		return err_set(err, ERR_TOO_BIG, "tensor '%s': expected %zu bytes (%d x %d bf16), found %zu or more",
		               name, tensor_bytes(tensor), tensor->rows, tensor->cols, progress->arrived + n_bytes);
	memcpy((uint8_t *)(intake->incoming.data + tensor->offset) + progress->arrived, bytes, n_bytes);
	progress->arrived += n_bytes;
	return 0;
}

/* Index of a tensor whose bytes are all there. */
static int find_arrived(struct intake *intake, int64_t version, const char *name, int *index, struct err *err)
{
	if (check_version(intake, version, err) || find_tensor(intake, name, index, err))
		return err->code;
	const struct weight_tensor *tensor = &intake->layout.tensors[*index];
	if (intake->progress[*index].arrived != tensor_bytes(tensor))
		return err_set(err, ERR_INCOMPLETE, "tensor '%s': expected %zu bytes (%d x %d bf16), found %zu", name,
		               tensor_bytes(tensor), tensor->rows, tensor->cols, intake->progress[*index].arrived);
	return 0;
}

int intake_checksum(struct intake *intake, int64_t version, const char *name, uint64_t xxh3, struct err *err)
{
	int i = 0;

	if (find_arrived(intake, version, name, &i, err))
		return err->code;
	const struct weight_tensor *tensor = &intake->layout.tensors[i];
	uint64_t found = XXH3_64bits(intake->incoming.data + tensor->offset, tensor_bytes(tensor));
	if (found != xxh3)
		return err_set(err, ERR_INVALID,
		               "tensor '%s': its XXH3 is %016" PRIx64 ", the peer states %016" PRIx64
		               ": push the version again",
		               name, found, xxh3);
	intake->progress[i].checked = true;
	return 0;
}

int intake_checksum_sha256(struct intake *intake, int64_t version, const char *name, const uint8_t digest[32],
                           struct err *err)
{
	struct sha256 sha;
	uint8_t found[SHA256_BYTES];
	int i = 0;

	if (find_arrived(intake, version, name, &i, err))
		return err->code;
	const struct weight_tensor *tensor = &intake->layout.tensors[i];
	sha256_begin(&sha);
	sha256_add(&sha, intake->incoming.data + tensor->offset, tensor_bytes(tensor));
	sha256_end(&sha, found);
	if (memcmp(found, digest, sizeof found) != 0)
		return err_set(err, ERR_INVALID,
		               "tensor '%s': its SHA-256 begins with %02x%02x%02x%02x, the peer states "
		               "%02x%02x%02x%02x: push the version again",
		               name, found[0], found[1], found[2], found[3], digest[0], digest[1], digest[2],
		               digest[3]);
	intake->progress[i].checked = true;
	return 0;
}

static int check_complete(const struct intake *intake, struct err *err)
{
	int n_missing = 0, first = -1;

	for (int i = intake->layout.n_tensors - 1; i >= 0; i--)
		if (!intake->progress[i].checked)
			n_missing++, first = i;
	if (n_missing)
		return err_set(err, ERR_INCOMPLETE, "version %" PRId64 " lacks %d of %d tensors, the first is '%s'",
		               intake->version, n_missing, intake->layout.n_tensors,
		               intake->layout.tensors[first].name);
	int bad = weights_find_nonfinite(&intake->incoming);
	if (bad >= 0)
		return err_set(err, ERR_INVALID,
		               "tensor '%s' holds NaN or infinity: the training step that made version %" PRId64
		               " has diverged",
		               intake->layout.tensors[bad].name, intake->version);
	return 0;
}

int intake_commit(struct intake *intake, int64_t version, struct weights *weights, struct err *err)
{
	if (check_version(intake, version, err) || check_complete(intake, err))
		return err->code;
	*weights = intake->incoming;
	memset(&intake->incoming, 0, sizeof intake->incoming);
	intake->version = -1;
	return 0;
}

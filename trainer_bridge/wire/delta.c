/* delta.c - xor, planes and zstd (level 1: higher ones cost three times the time for a few percent). */
#include "trainer_bridge/wire/delta.h"

#include <assert.h>
#include <stdlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "trainer_bridge/wire/protocol.h"

enum { LEVEL = 1 };

struct delta {
	ZSTD_CCtx *pack;
	ZSTD_DCtx *unpack;
	uint8_t *planes;  /* [DELTA_BYTES_MAX] */
	uint8_t *packed;  /* [packed_room] */
	size_t packed_room;
};

struct delta *delta_open(void)
{
	struct delta *delta = xcalloc(1, sizeof *delta);

	delta->planes = xmalloc(DELTA_BYTES_MAX);
	return delta;
}

void delta_close(struct delta *delta)
{
	if (!delta)
		return;
	ZSTD_freeCCtx(delta->pack);
	ZSTD_freeDCtx(delta->unpack);
	free(delta->planes);
	free(delta->packed);
	free(delta);
}

const void *delta_pack(struct delta *delta, const uint8_t *new, const uint8_t *base, size_t n_bytes,
                       size_t *packed_bytes)
{
	size_t half = n_bytes / 2;
	uint8_t *low = delta->planes, *high = delta->planes + half;

	assert(n_bytes % 2 == 0 && n_bytes <= DELTA_BYTES_MAX);
	if (!delta->pack) {
		delta->pack = ZSTD_createCCtx();
		delta->packed_room = ZSTD_compressBound(DELTA_BYTES_MAX);
		delta->packed = xmalloc(delta->packed_room);
		assert(delta->pack);
	}
	for (size_t i = 0; i < half; i++) {
		low[i] = new[2 * i] ^ base[2 * i];
		high[i] = new[2 * i + 1] ^ base[2 * i + 1];
	}
	*packed_bytes = ZSTD_compressCCtx(delta->pack, delta->packed, delta->packed_room, delta->planes, n_bytes, LEVEL);
	assert(!ZSTD_isError(*packed_bytes));
	return delta->packed;
}

int delta_unpack(struct delta *delta, uint8_t *new, const uint8_t *base, size_t n_bytes, const void *packed,
                 size_t packed_bytes, struct err *err)
{
	size_t half = n_bytes / 2;
	const uint8_t *low = delta->planes, *high = delta->planes + half;

	assert(n_bytes % 2 == 0 && n_bytes <= DELTA_BYTES_MAX);
	if (!delta->unpack) {
		delta->unpack = ZSTD_createDCtx();
		assert(delta->unpack);
	}
	/* Into memory of just this size, in one call: a frame that claims or holds more ends there. */
	size_t n = ZSTD_decompressDCtx(delta->unpack, delta->planes, n_bytes, packed, packed_bytes);
	if (ZSTD_isError(n) && ZSTD_getErrorCode(n) == ZSTD_error_dstSize_tooSmall)
		return err_set(err, ERR_TOO_BIG, "a delta piece unpacks to more than the %zu bytes it states", n_bytes);
	if (ZSTD_isError(n))
		return err_set(err, ERR_INVALID, "a delta piece is no zstd frame: %s", ZSTD_getErrorName(n));
	if (n != n_bytes)
		return err_set(err, ERR_INVALID, "a delta piece unpacks to %zu bytes, expected the %zu it states", n, n_bytes);
	for (size_t i = 0; i < half; i++) {
		new[2 * i] = base[2 * i] ^ low[i];
		new[2 * i + 1] = base[2 * i + 1] ^ high[i];
	}
	return 0;
}

/* checkpoint.c - see checkpoint.h. */
#include "trainer_bridge/trainer/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "policy/file.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the arrays are little-endian");

static const char MAGIC[16] = "drumroll train 1";

struct header {
	char magic[16], run_id[CHECKPOINT_RUN_ID_MAX];
	uint64_t batch_id;
	int64_t version, updates; /* updates: adamw.step */
	uint64_t n;               /* parameters */
};
_Static_assert(sizeof(struct header) == 112, "as it is in the file");

int checkpoint_lock(const char *path, double seconds, struct err *err)
{
	char name[PATH_MAX];
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (snprintf(name, sizeof name, "%s.lock", path) >= (int)sizeof name)
		return err_set(err, ERR_TOO_BIG, "trainer.checkpoint: path too long: %s", path);
	int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0666); /* until the process ends */
	if (fd < 0) return err_set_errno(err, ERR_IO, "trainer.checkpoint: cannot write %s", name);
	for (double waited = 0; fcntl(fd, F_SETLK, &lock) != 0; waited += 0.05) {
		if (errno != EACCES && errno != EAGAIN) return err_set_errno(err, ERR_IO, "cannot lock %s", name);
		if (waited > seconds)
			return err_set(err, ERR_STATE, "trainer.checkpoint: another trainer writes to %s; end it, or name another file", path);
		nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
	}
	return 0;
}

int checkpoint_write(const char *path, const struct checkpoint *checkpoint, struct learner *learner, bool sync,
                     struct err *err)
{
	const struct adamw *a = learner_adamw(learner);
	struct header header = { .batch_id = checkpoint->batch_id, .version = checkpoint->version, .updates = a->step, .n = a->n };
	size_t n_bytes = a->n * sizeof(float);
	XXH3_state_t *state = XXH3_createState();

	if (!state) abort(); /* no memory at start */
	memcpy(header.magic, MAGIC, sizeof MAGIC);
	memcpy(header.run_id, checkpoint->run_id, sizeof header.run_id);
	struct file_part parts[] = { { &header, sizeof header }, { a->master, n_bytes }, { a->m, n_bytes }, { a->v, n_bytes },
	                             { NULL, sizeof(uint64_t) } };
	XXH3_64bits_reset(state);
	for (int i = 0; i < 4; i++) XXH3_64bits_update(state, parts[i].bytes, parts[i].n_bytes);
	uint64_t sum = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	parts[4].bytes = &sum;
	return sync ? file_replace(path, parts, 5, err) : file_swap(path, parts, 5, err);
}

static int check_file(const char *path, const struct file_map *map, struct header *header, size_t n, struct err *err)
{
	uint64_t sum;

	if (map->n_bytes < sizeof *header + sizeof sum)
		return err_set(err, ERR_INCOMPLETE, "%s: expected a trainer's checkpoint, found %zu bytes", path, map->n_bytes);
	memcpy(header, map->bytes, sizeof *header);
	memcpy(&sum, map->bytes + map->n_bytes - sizeof sum, sizeof sum);
	if (memcmp(header->magic, MAGIC, sizeof MAGIC) != 0)
		return err_set(err, ERR_INVALID, "%s: expected a trainer's checkpoint, found something else", path);
	if (header->n != n || map->n_bytes != sizeof *header + 3 * n * sizeof(float) + sizeof sum)
		return err_set(err, ERR_INVALID, "%s: expected a checkpoint of %zu parameters, found %llu in %zu bytes: it is of another "
		               "model, or truncated", path, n, (unsigned long long)header->n, map->n_bytes);
	if (XXH3_64bits(map->bytes, map->n_bytes - sizeof sum) != sum || header->version < 0 || header->updates < 0)
		return err_set(err, ERR_INVALID, "%s is damaged: its checksum does not match; restore a copy", path);
	return 0;
}

int checkpoint_read(const char *path, struct checkpoint *checkpoint, struct learner *learner, struct err *err)
{
	struct adamw *a = learner_adamw(learner);
	struct header header;
	struct file_map map;

	int rc = file_map_open(&map, path, err);
	if (rc) return rc;
	rc = check_file(path, &map, &header, a->n, err);
	if (!rc) {
		const unsigned char *at = map.bytes + sizeof header;
		size_t n_bytes = a->n * sizeof(float);
		memcpy(a->master, at, n_bytes);
		memcpy(a->m, at + n_bytes, n_bytes);
		memcpy(a->v, at + 2 * n_bytes, n_bytes);
		a->step = header.updates;
		learner_take_master(learner);
		*checkpoint = (struct checkpoint){ .version = header.version, .batch_id = header.batch_id };
		memcpy(checkpoint->run_id, header.run_id, sizeof checkpoint->run_id);
		checkpoint->run_id[sizeof checkpoint->run_id - 1] = '\0';
	}
	file_map_close(&map);
	return rc;
}

/* run_directory.c - plain files of a run. */
#include "scheduler/store/run_directory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* text with every `key` replaced by `value`; owned by the caller. */
static char *replace(const char *text, const char *key, const char *value)
{
	size_t n_key = strlen(key), n_value = strlen(value), n = strlen(text), count = 0;
	for (const char *p = text; (p = strstr(p, key)); p += n_key) count++;
	char *out = xmalloc(n + count * n_value + 1), *to = out;
	for (const char *p = text; *p;) {
		if (strncmp(p, key, n_key) == 0) {
			memcpy(to, value, n_value);
			to += n_value;
			p += n_key;
		} else {
			*to++ = *p++;
		}
	}
	*to = '\0';
	return out;
}

char *run_directory_expand(const char *text, const char *run_dir)
{
	return replace(text, "{run}", run_dir);
}

static int make_parents(const char *path, struct err *err)
{
	char *copy = xstrdup(path);
	int rc = 0;
	for (char *slash = strchr(copy + 1, '/'); slash && !rc; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(copy, 0777) && errno != EEXIST)
			rc = err_set_errno(err, ERR_IO, "cannot make directory %s for the run", copy);
		*slash = '/';
	}
	free(copy);
	return rc;
}

static char unborn[RUN_PATH_MAX];

static void remove_unborn(void)
{
	run_directory_remove(unborn);
}

void run_directory_began(void)
{
	err_on_no_memory(NULL);
}

int run_directory_create(char path[RUN_PATH_MAX], const struct config *config, struct err *err)
{
	char *wanted = replace(config->run.dir, "{name}", config->run.name);
	size_t n = strlen(wanted);
	while (n > 1 && wanted[n - 1] == '/') wanted[--n] = '\0';
	int rc = 0;

	if (n == 0) rc = err_set(err, ERR_CONFIG, "run.dir is empty: name a directory for the run");
	else if (n > RUN_PATH_MAX - 16) rc = err_set(err, ERR_TOO_BIG, "run.dir is %zu characters long, at most %d are taken", n, RUN_PATH_MAX - 16);
	if (!rc) rc = make_parents(wanted, err);
	for (int i = 1; !rc; i++) {
		if (i == 1) snprintf(path, RUN_PATH_MAX, "%s", wanted);
		else snprintf(path, RUN_PATH_MAX, "%s-%d", wanted, i);
		if (mkdir(path, 0777) == 0) break;
		if (errno != EEXIST) rc = err_set_errno(err, ERR_IO, "cannot make the run directory %s", path);
	}
	free(wanted);
	if (rc) path[0] = '\0';
	memcpy(unborn, path, RUN_PATH_MAX);
	err_on_no_memory(remove_unborn);
	return rc;
}

int run_directory_write(const char *run_dir, const char *name, const char *text, struct err *err)
{
	char path[RUN_PATH_MAX + 64], temporary[RUN_PATH_MAX + 80];
	snprintf(path, sizeof path, "%s/%s", run_dir, name);
	snprintf(temporary, sizeof temporary, "%s.new", path);
	FILE *f = fopen(temporary, "w");
	if (!f) return err_set_errno(err, ERR_IO, "cannot write %s", temporary);
	bool good = fputs(text, f) >= 0;
	if (fclose(f) || !good || rename(temporary, path)) return err_set_errno(err, ERR_IO, "cannot write %s", path);
	return 0;
}

int run_directory_append(const char *run_dir, const char *name, const char *line, struct err *err)
{
	char path[RUN_PATH_MAX + 64];
	snprintf(path, sizeof path, "%s/%s", run_dir, name);
	FILE *f = fopen(path, "a");
	if (!f) return err_set_errno(err, ERR_IO, "cannot append to %s", path);
	bool good = fprintf(f, "%s\n", line) > 0;
	if (fclose(f) || !good) return err_set_errno(err, ERR_IO, "cannot append to %s", path);
	return 0;
}

char *run_directory_config_text(const struct config *config)
{
	char *text = NULL;
	size_t n = 0;
	FILE *memory = open_memstream(&text, &n);

	if (!memory) abort(); /* no memory at start */
	config_print(config, memory, false);
	fclose(memory);
	return text;
}

void run_directory_remove(const char *run_dir)
{
	static const char *const files[] = { "config.yaml", "drumroll.db", "drumroll.db-wal", "drumroll.db-shm", "drumroll.lock",
	                                     "trainer.log", "trainer.ckpt.lock", "verifier.log",
	                                     "timeline.jsonl", "status.json", "serving.json" };
	char path[RUN_PATH_MAX + 64];

	if (!run_dir[0]) return; /* none was made */
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		snprintf(path, sizeof path, "%s/%s", run_dir, files[i]);
		unlink(path);
	}
	snprintf(path, sizeof path, "%s/weights", run_dir);
	rmdir(path);
	rmdir(run_dir); /* stays if it holds anything else */
}

/* status_source.c - see status_source.h. */
#include "scheduler/status/status_source.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "trainer_bridge/wire/address.h"

enum { PATIENCE_SECONDS = 3, STATUS_BYTES_MAX = 64 << 20 };

int status_source_find(struct status_source *source, const char *text, struct err *err)
{
	static const char scheme[] = "http://";
	struct address address;
	struct stat about;

	source->is_directory = stat(text, &about) == 0 && S_ISDIR(about.st_mode);
	if (strlen(text) > sizeof source->where - 8) return err_set(err, ERR_TOO_BIG, "'%.40s...' is too long", text);
	snprintf(source->where, sizeof source->where, "%s", text);
	if (source->is_directory || strncmp(text, "unix:", 5) == 0) return 0;
	if (strncmp(text, scheme, strlen(scheme)) == 0) text += strlen(scheme);
	else if (strncmp(text, "tcp:", 4) == 0) text += 4;
	snprintf(source->where, sizeof source->where, "tcp:%.*s", (int)strcspn(text, "/"), text);
	if (!strchr(text, ':') || address_parse(&address, source->where, err))
		return err_set(err, ERR_USAGE, "'%s' is neither the directory of a run nor an address such as 127.0.0.1:9464 (its metrics.listen)", text);
	return 0;
}

/* ---- over HTTP ---- */

static int dial(const char *where, int *fd, struct err *err)
{
	struct timeval patience = { .tv_sec = PATIENCE_SECONDS };
	struct address address;

	int rc = address_parse(&address, where, err);
	if (rc) return rc;
	*fd = socket(address.socket.ss_family, SOCK_STREAM, 0);
	if (*fd < 0) return err_set_errno(err, ERR_IO, "cannot make a socket");
	setsockopt(*fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	setsockopt(*fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	if (connect(*fd, (const struct sockaddr *)&address.socket, address.socket_bytes) == 0) return 0;
	rc = err_set_errno(err, ERR_PEER, "cannot reach %s: is a run with this metrics.listen going on there", where);
	close(*fd);
	return rc;
}

/* Until the other side closes; *text is owned by the caller, terminated. */
static int read_answer(int fd, char **text, size_t *n_bytes, struct err *err)
{
	size_t capacity = 1 << 16, n = 0;
	char *bytes = xmalloc(capacity);

	for (;;) {
		ssize_t got = read(fd, bytes + n, capacity - 1 - n);
		if (got == 0) break;
		if (got < 0) {
			free(bytes);
			return err_set_errno(err, ERR_PEER, "the run's answer broke off");
		}
		n += (size_t)got;
		if (n > STATUS_BYTES_MAX) {
			free(bytes);
			return err_set(err, ERR_TOO_BIG, "the answer is longer than %d MiB", STATUS_BYTES_MAX >> 20);
		}
		if (capacity - n < 2) bytes = xrealloc(bytes, capacity *= 2);
	}
	bytes[n] = '\0';
	*text = bytes;
	*n_bytes = n;
	return 0;
}

static int read_http(const char *where, char **json, struct err *err)
{
	static const char request[] = "GET /status HTTP/1.1\r\nHost: drumroll\r\nConnection: close\r\n\r\n";
	size_t n_bytes;
	char *answer = NULL;
	int fd;

	int rc = dial(where, &fd, err);
	if (rc) return rc;
	if (write(fd, request, sizeof request - 1) != sizeof request - 1) rc = err_set_errno(err, ERR_PEER, "cannot ask %s", where);
	if (!rc) rc = read_answer(fd, &answer, &n_bytes, err);
	close(fd);
	if (rc) return rc;
	const char *body = strstr(answer, "\r\n\r\n");
	if (strncmp(answer, "HTTP/1.1 200 ", 13) != 0 || !body)
		rc = err_set(err, ERR_PEER, "%s does not answer as a run would: expected HTTP/1.1 200, found '%.*s'", where,
		             (int)strcspn(answer, "\r\n"), answer);
	else *json = xstrdup(body + 4);
	free(answer);
	return rc;
}

/* ---- from a directory ---- */

static char *read_file(const char *dir, const char *name)
{
	char path[1100];
	struct stat about;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "r");
	if (!f) return NULL;
	char *text = NULL;
	if (fstat(fileno(f), &about) == 0 && about.st_size <= STATUS_BYTES_MAX) {
		text = xmalloc((size_t)about.st_size + 1);
		text[fread(text, 1, (size_t)about.st_size, f)] = '\0';
	}
	fclose(f);
	return text;
}

/* The last whole line of a step. */
static json_t *last_step(const char *dir)
{
	char path[1100], *line = NULL;
	json_t *last = NULL;
	size_t size = 0;
	ssize_t n;

	snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
	FILE *f = fopen(path, "r");
	while (f && (n = getline(&line, &size, f)) > 0) {
		if (line[n - 1] != '\n' || !strstr(line, "\"reward/mean\"")) continue;
		json_decref(last);
		last = json_loads(line, 0, NULL);
	}
	free(line);
	if (f) fclose(f);
	return last;
}

/* What an unwatched run has left. */
static int read_traces(const char *dir, char **json, struct err *err)
{
	char *text = read_file(dir, "summary.json"), *config = read_file(dir, "config.yaml");
	json_t *summary = text ? json_loads(text, 0, NULL) : NULL, *step = last_step(dir);
	const char *status = json_string_value(json_object_get(summary, "status"));
	int rc = config ? 0 : err_set(err, ERR_MISSING, "%s: expected the directory of a run, found no status.json and no config.yaml", dir);

	if (!rc) {
		json_t *o = json_pack("{s:s, s:s, s:i, s:o, s:o, s:[]}", "run_dir", dir, "state", status ? status : "running", "step",
			(int)json_integer_value(json_object_get(step, "step")), "seconds",
			json_real(json_number_value(json_object_get(summary, "seconds"))), "last_step", step ? json_incref(step) : json_null(), "ranks");
		*json = json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER);
		json_decref(o);
	}
	json_decref(summary);
	json_decref(step);
	free(text);
	free(config);
	return rc;
}

int status_source_read(const struct status_source *source, char **json, struct err *err)
{
	*json = NULL;
	if (!source->is_directory) return read_http(source->where, json, err);
	*json = read_file(source->where, "status.json");
	return *json ? 0 : read_traces(source->where, json, err);
}

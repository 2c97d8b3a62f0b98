/* verifier_log.c - a bucket of bytes that fills with time. */
#include "scheduler/verifier/verifier_log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct verifier_log {
	FILE *file;
	double allowance, filled; /* bytes that may be written; when that was */
	uint64_t written, left_out, told; /* bytes; told: of left_out, as the file says */
};

int verifier_log_open(struct verifier_log **log, const char *path, struct err *err)
{
	FILE *file = fopen(path, "ae");

	*log = NULL;
	if (!file) return err_set_errno(err, ERR_IO, "cannot write the verifiers' log %s", path);
	setvbuf(file, NULL, _IOLBF, 4096);
	*log = xcalloc(1, sizeof **log);
	(*log)->file = file;
	(*log)->allowance = LOG_BURST_BYTES;
	return 0;
}

/* Once there is room again: how much is missing here. */
static void tell_left_out(struct verifier_log *log)
{
	if (log->told == log->left_out) return;
	fprintf(log->file, "[%" PRIu64 " bytes left out]\n", log->left_out - log->told);
	log->told = log->left_out;
}

void verifier_log_close(struct verifier_log *log)
{
	if (!log) return;
	tell_left_out(log);
	fclose(log->file);
	free(log);
}

void verifier_log_line(struct verifier_log *log, int process, const char *line, size_t n_bytes, double now)
{
	if (now > log->filled) {
		log->allowance += LOG_BYTES_PER_SECOND * (now - log->filled);
		log->filled = now;
	}
	if (log->allowance > LOG_BURST_BYTES) log->allowance = LOG_BURST_BYTES;
	double cost = (double)n_bytes + 16;
	if (log->allowance < cost || log->written + n_bytes > LOG_BYTES_MAX) {
		log->left_out += n_bytes;
		return;
	}
	log->allowance -= cost;
	tell_left_out(log);
	log->written += (uint64_t)cost;
	fprintf(log->file, "verifier %d: ", process);
	fwrite(line, 1, n_bytes, log->file);
	fputc('\n', log->file);
}

void verifier_log_note(struct verifier_log *log, int process, const char *text)
{
	tell_left_out(log);
	fprintf(log->file, "drumroll: verifier %d %s\n", process, text);
}

uint64_t verifier_log_left_out(const struct verifier_log *log)
{
	return log->left_out;
}

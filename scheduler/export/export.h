/* export.h - a run's trajectories for analysis, in one of several formats; what each has is in the head of its file. */
#ifndef SCHEDULER_EXPORT_EXPORT_H
#define SCHEDULER_EXPORT_EXPORT_H

#include <stdio.h>

#include "scheduler/store/store_read.h"

/* One trajectory. */
struct export_row {
	const struct trajectory *t;
	enum store_state state;
	int64_t step;   /* in which its group was delivered, evaluated or dropped; -1: none of these */
	bool stable;    /* leave out what may differ between two runs of one config */
};

/* X(name, word) */
#define EXPORT_FORMAT_LIST(X) X(EXPORT_JSONL, "jsonl") X(EXPORT_CSV, "csv") X(EXPORT_NPZ, "npz")
enum export_format {
#define X(name, word) name,
	EXPORT_FORMAT_LIST(X)
#undef X
	EXPORT_FORMATS
};

/* What follows is per format.  Errors of the stream itself are found by the caller (ferror). */

/* export_jsonl.c */
void export_jsonl_row(FILE *out, const struct export_row *row);

/* export_csv.c */
void export_csv_head(FILE *out, bool stable);
void export_csv_row(FILE *out, const struct export_row *row);

/* export_npz.c: what is gathered lies in temporary files until end. */
struct export_npz;
int export_npz_open(struct export_npz **npz, bool stable, struct err *err);
void export_npz_row(struct export_npz *npz, const struct export_row *row);
int export_npz_end(struct export_npz *npz, FILE *out, struct err *err);
void export_npz_close(struct export_npz *npz); /* NULL is allowed */

const char *export_state_name(enum store_state state);

/* Segment *index of what is exported, which moves on; stable: runs of one version, whichever ranks and modes they were
 * made on, in mode nothing but SEGMENT_KV_KEPT and in rank -1. */
struct segment export_segment(const struct export_row *row, int *index);

#endif

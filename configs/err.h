/* err.h - how every layer tells a person what is wrong.
 *
 * A user, file or peer error is a negative code and one sentence that names what was
 * expected, what was found and what to do.  Bugs are assert()s and never come this way.
 *
 *     int policy_open(..., struct err *err);   returns 0, or err->code (< 0) with err->text set
 *
 * A struct err is plain memory owned by the caller; nothing in it is allocated.
 */
#ifndef CONFIGS_ERR_H
#define CONFIGS_ERR_H

enum { ERR_TEXT_MAX = 1024 };
enum { EXIT_USAGE = 2 }; /* exit status where the request itself was wrong; EXIT_FAILURE: the work failed */

/* X(name, value, short name for logs and wire) */
#define ERR_LIST(X) \
	X(ERR_USAGE, -1, "usage")             /* command line or option is wrong */ \
	X(ERR_CONFIG, -2, "config")           /* config file is wrong */ \
	X(ERR_MISSING, -3, "missing")         /* file, tensor or field is not there */ \
	X(ERR_IO, -4, "io")                   /* the system refused a read, write, bind, ... */ \
	X(ERR_INCOMPLETE, -5, "incomplete")   /* more bytes were promised than are there */ \
	X(ERR_INVALID, -6, "invalid")         /* the bytes are there and break the format */ \
	X(ERR_TOO_BIG, -7, "too_big")         /* a stated limit is exceeded */ \
	X(ERR_UNSUPPORTED, -8, "unsupported") /* valid, but not done by this program */ \
	X(ERR_MEMORY, -9, "memory")           /* a memory budget cannot hold what is asked */ \
	X(ERR_PEER, -10, "peer")              /* the other end of a socket or rank misbehaved */ \
	X(ERR_TIMEOUT, -11, "timeout")        /* nothing happened for the configured time */ \
	X(ERR_STATE, -12, "state")            /* right request, wrong moment */ \
	X(ERR_BASE, -13, "base")              /* a delta against weights that are not held */

#define ERR_ENUM(name, value, text) name = (value),
enum err_code { ERR_LIST(ERR_ENUM) };
#undef ERR_ENUM

struct err {
	int code;                /* 0 or one of enum err_code */
	char text[ERR_TEXT_MAX]; /* one sentence, no trailing newline */
};

/* Set code and text; returns code, so `return err_set(err, ERR_INVALID, ...)`. */
int err_set(struct err *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Put "context: " before the text that is already there; returns err->code. */
int err_context(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Like err_set with ": strerror(errno)" appended. */
int err_set_errno(struct err *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* "invalid" for ERR_INVALID and so on; "unknown" otherwise.  Static string. */
const char *err_name(int code);

/* Allocation at start: aborts with a message when there is no memory. */
void err_on_no_memory(void (*clean_up)(void)); /* called before that; NULL: nothing */
void *xmalloc(unsigned long size);
void *xcalloc(unsigned long count, unsigned long size);
void *xrealloc(void *old, unsigned long size);
char *xstrdup(const char *text);
void *xaligned(unsigned long size); /* 64-byte aligned, large blocks in huge pages; free with free() */

#endif

/* bench.h - the parts of `drumroll bench`; argv[0] is the part's name.  0, or a negative code with err set.
 * Results go to standard output: tables, or with --json one line each. */
#ifndef SCHEDULER_BENCH_BENCH_H
#define SCHEDULER_BENCH_BENCH_H

#include "configs/err.h"

int bench_kernels(int argc, char **argv, struct err *err); /* bench_kernels.c */
int bench_decode(int argc, char **argv, struct err *err);  /* bench_decode.c */
int bench_formats(int argc, char **argv, struct err *err); /* bench_formats.c */
int bench_speculation(int argc, char **argv, struct err *err); /* bench_speculation.c */
int bench_explore(int argc, char **argv, struct err *err);  /* bench_explore.c */
int bench_grow(int argc, char **argv, struct err *err);    /* bench_grow.c */
int bench_gguf(int argc, char **argv, struct err *err);    /* bench_gguf.c */

#endif

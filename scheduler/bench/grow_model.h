/* grow_model.h - a model directory grown to a size (policy/grow.h): `drumroll bench grow`, and before a sweep. */
#ifndef SCHEDULER_BENCH_GROW_MODEL_H
#define SCHEDULER_BENCH_GROW_MODEL_H

#include "configs/err.h"

/* Write the model at `from`, grown to `parameters` with at most `layers` layers, with its tokenizer, to the directory `to`, which
 * is made if absent and must not be `from`; says in a line what was made. */
int grow_model(const char *from, const char *to, double parameters, int layers, struct err *err);

#endif

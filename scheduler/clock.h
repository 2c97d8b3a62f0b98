/* clock.h - the one clock of the controller, the workers and the commands. */
#ifndef SCHEDULER_CLOCK_H
#define SCHEDULER_CLOCK_H

#include <time.h>

/* Seconds, monotonic. */
static inline double clock_seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline void clock_sleep_ms(double ms)
{
	nanosleep(&(struct timespec){ .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)((ms - 1000 * (long)(ms / 1000)) * 1e6) }, 0);
}

#endif

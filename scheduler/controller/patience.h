/* patience.h - how long others have been silent while we listened.
 *
 * A process that was stopped, starved or busy finds old clocks and unread messages when it goes on: what it did
 * not listen to is nobody's silence.  So this clock moves with the turns of the listener's loop, and by no more
 * than TURN_SECONDS_MAX in each. */
#ifndef SCHEDULER_CONTROLLER_PATIENCE_H
#define SCHEDULER_CONTROLLER_PATIENCE_H

#include "scheduler/clock.h"

struct patience {
	double seconds; /* listened so far */
	double turned;  /* clock_seconds() of the last turn; 0: none yet */
};

/* Once a turn, after everything that had arrived was taken in.  Returns the seconds that are not counted. */
static inline double patience_turn(struct patience *patience)
{
	static const double TURN_SECONDS_MAX = 0.1;
	double now = clock_seconds(), passed = patience->turned > 0 ? now - patience->turned : 0;
	double counted = passed < TURN_SECONDS_MAX ? passed : TURN_SECONDS_MAX;

	patience->seconds += counted;
	patience->turned = now;
	return passed - counted;
}

#endif

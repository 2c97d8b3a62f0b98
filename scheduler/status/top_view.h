/* top_view.h - a run's state as a screen of text: what `drumroll top` shows.  Knows no terminal, clock or file. */
#ifndef SCHEDULER_STATUS_TOP_VIEW_H
#define SCHEDULER_STATUS_TOP_VIEW_H

#include <stdbool.h>

#include "configs/err.h"

enum { TOP_WIDTH_MIN = 20, TOP_WIDTH_MAX = 250, TOP_HEIGHT_MAX = 1000 };

struct top_screen {
	int width, height; /* columns, lines */
	bool colour;
	int first_rank;    /* row of the table that comes first; clipped to what there is */
	double time;       /* of day: how old the state is */
	const char *note;  /* for the last line, NULL: none */
};

/* At most `height` lines of at most `width` columns, with '\n' between them; owned by the caller.  Texts of the state are
 * shown without control characters.  ERR_INVALID: not a state. */
int top_view_draw(const char *json, struct top_screen *screen, char **text, struct err *err);

/* Is it over?  False also where it cannot be told. */
bool top_view_is_over(const char *json);

#endif

/* replay_progress.c - see replay_progress.h. */
#include "scheduler/replay/replay_progress.h"

#include <stdio.h>
#include <unistd.h>

#include "scheduler/clock.h"

static const double TERMINAL_SECONDS = 0.25, LOG_SECONDS = 30;

void progress_line_open(struct progress_line *line, const char *who, bool quiet)
{
	*line = (struct progress_line){ .who = who, .quiet = quiet, .terminal = isatty(STDERR_FILENO), .began = clock_seconds() };
	line->next = line->began + (line->terminal ? TERMINAL_SECONDS : LOG_SECONDS);
}

void progress_line_show(struct progress_line *line, uint64_t tokens, uint64_t tokens_all)
{
	double now = clock_seconds(), seconds = now - line->began, rate = (double)tokens / seconds;

	if (line->quiet || now < line->next || tokens_all == 0) return;
	line->next = now + (line->terminal ? TERMINAL_SECONDS : LOG_SECONDS);
	line->shown = true;
	double rest = rate > 0 && tokens < tokens_all ? (double)(tokens_all - tokens) / rate : 0;
	fprintf(stderr, "%s%s: %.1f %% of %llu tokens, %.0f tokens/s, %dm%02ds left%s", line->terminal ? "\r" : "", line->who,
	        100 * (double)tokens / (double)tokens_all, (unsigned long long)tokens_all, rate, (int)(rest / 60), (int)rest % 60,
	        line->terminal ? "\033[K" : "\n");
	fflush(stderr);
}

void progress_line_close(struct progress_line *line)
{
	if (line->shown && line->terminal) fputs("\r\033[K", stderr);
	line->shown = false;
}

/* terminal.c - see terminal.h. */
#include "scheduler/status/terminal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static const char enter[] = "\033[?1049h\033[?25l\033[2J"; /* another screen, no cursor */
static const char leave[] = "\033[0m\033[?25h\033[?1049l";

static struct termios before;
static bool taken;
static volatile sig_atomic_t ended, interrupted, resized, suspended;

static void on_signal(int number)
{
	if (number == SIGWINCH) resized = 1;
	else if (number == SIGTSTP) suspended = 1;
	else if (number == SIGINT) interrupted = 1;
	else ended = number;
}

bool terminal_is_there(void)
{
	const char *term = getenv("TERM");
	return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && term && strcmp(term, "dumb") != 0 && term[0];
}

static void say(const char *text)
{
	for (size_t n = strlen(text); n > 0;) {
		ssize_t got = write(STDOUT_FILENO, text, n);
		if (got < 0 && errno != EINTR && errno != EAGAIN) return;
		if (got > 0) text += got, n -= (size_t)got;
	}
}

static void take(void)
{
	struct termios raw = before;

	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO); /* signals stay: Ctrl-C and Ctrl-Z */
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw);
	say(enter);
	taken = true;
}

void terminal_open(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP };

	tcgetattr(STDIN_FILENO, &before);
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		sigaction(signals[i], &(struct sigaction){ .sa_handler = on_signal }, NULL);
	take();
}

void terminal_close(void)
{
	if (!taken) return;
	taken = false;
	say(leave);
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
}

/* Ctrl-Z: as if nothing had been here, until somebody brings it back. */
static void suspend(void)
{
	suspended = 0;
	terminal_close();
	raise(SIGSTOP);
	take();
}

int terminal_signal(void) { return ended; }

void terminal_size(int *width, int *height)
{
	struct winsize size = { 0 };

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0) size = (struct winsize){ .ws_col = 80, .ws_row = 24 };
	*width = size.ws_col;
	*height = size.ws_row;
}

void terminal_draw(const char *text)
{
	char *screen = NULL;
	size_t n;
	FILE *f = open_memstream(&screen, &n);

	if (!f) return;
	fputs("\033[H", f);
	for (; *text; text++) {
		if (*text == '\n') fputs("\033[K\r\n", f);
		else fputc(*text, f);
	}
	fputs("\033[K\033[J", f);
	fclose(f);
	say(screen);
	free(screen);
}

static enum terminal_key key_of(const char *bytes, ssize_t n)
{
	static const struct { const char *bytes; enum terminal_key key; } keys[] = {
		{ "q", TERMINAL_QUIT }, { "Q", TERMINAL_QUIT }, { "\003", TERMINAL_QUIT }, { "k", TERMINAL_UP }, { "j", TERMINAL_DOWN },
		{ "\033[A", TERMINAL_UP }, { "\033[B", TERMINAL_DOWN }, { "\033OA", TERMINAL_UP }, { "\033OB", TERMINAL_DOWN },
		{ "\033[5~", TERMINAL_PAGE_UP }, { "\033[6~", TERMINAL_PAGE_DOWN }, { " ", TERMINAL_PAGE_DOWN },
	};

	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if ((size_t)n == strlen(keys[i].bytes) && memcmp(bytes, keys[i].bytes, (size_t)n) == 0) return keys[i].key;
	return TERMINAL_NOTHING;
}

enum terminal_key terminal_wait(double seconds)
{
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
	char bytes[16];

	int ready = ended || interrupted || resized || suspended ? 0 : poll(&input, 1, (int)(1000 * seconds));
	if (interrupted || ended) return TERMINAL_QUIT;
	if (suspended) suspend();
	if (resized) {
		resized = 0;
		return TERMINAL_RESIZED;
	}
	if (ready <= 0) return TERMINAL_NOTHING;
	ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);
	if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) return TERMINAL_QUIT; /* the terminal is gone */
	return n > 0 ? key_of(bytes, n) : TERMINAL_NOTHING;
}

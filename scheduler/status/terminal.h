/* terminal.h - a terminal taken over for a full-screen view, and given back as it was: on the way out, on Ctrl-Z, and on
 * every signal that ends the program.  Escape sequences that every terminal of this century knows; no library. */
#ifndef SCHEDULER_STATUS_TERMINAL_H
#define SCHEDULER_STATUS_TERMINAL_H

#include <stdbool.h>

enum terminal_key { TERMINAL_NOTHING, TERMINAL_QUIT /* q or Ctrl-C */, TERMINAL_UP, TERMINAL_DOWN, TERMINAL_PAGE_UP, TERMINAL_PAGE_DOWN, TERMINAL_RESIZED };

/* Are standard input and output a terminal that can be taken over? */
bool terminal_is_there(void);

void terminal_open(void);
void terminal_close(void);

void terminal_size(int *width, int *height);
/* A whole screen: lines with '\n' between them. */
void terminal_draw(const char *text);
/* The next key, or TERMINAL_NOTHING after `seconds`. */
enum terminal_key terminal_wait(double seconds);
int terminal_signal(void); /* that ends the program, such as SIGTERM; 0: none has come */

#endif

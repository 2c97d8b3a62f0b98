/* latex_number.h - what the math verifier needs of LaTeX: a normal form of short answers, and the number in one. */
#ifndef ROLLOUT_REWARD_LATEX_NUMBER_H
#define ROLLOUT_REWARD_LATEX_NUMBER_H

#include <stdbool.h>
#include <stddef.h>

/* The normal form of an answer, NUL-terminated, owned by the caller: without spaces, spacing commands, \left and \right,
 * dollar, percent and degree signs, units (\text{ cm} behind something), thousands commas, a full stop at the end, and
 * what stands before a single `x=`; \dfrac and \tfrac as \frac, \frac12 as \frac{1}{2}, \sqrt2 as \sqrt{2}, \cdot and
 * \times as *, other \text{} and fonts as what they hold. */
char *latex_normal(const char *text, size_t n_bytes);

/* The value of a normal form made of numbers, + - * / ^, parentheses, \frac, \sqrt, \pi, where nothing is left over;
 * 3\frac{1}{2} is 3.5 and 2\pi a product.  False where it is anything else, or not finite. */
bool latex_number(const char *normal, double *value);

#endif

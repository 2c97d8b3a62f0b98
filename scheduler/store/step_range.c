/* step_range.c - see step_range.h. */
#include "scheduler/store/step_range.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Digits from *at on, which moves behind them; false without any. */
static bool read_number(const char **at, int64_t *value)
{
	size_t digits = strspn(*at, "0123456789");

	errno = 0;
	*value = strtoll(*at, NULL, 10);
	*at += digits;
	return digits > 0 && errno == 0;
}

int step_range_parse(struct step_range *range, const char *text, struct err *err)
{
	const char *at = text;

	*range = (struct step_range){ .first = -1, .last = INT64_MAX };
	if (!text) return 0;
	bool has_first = read_number(&at, &range->first), dash = *at == '-';
	if (dash) at++;
	bool has_last = read_number(&at, &range->last);
	if (!has_first) range->first = 0;
	if (!has_last) range->last = dash ? INT64_MAX : range->first;
	if (*at == '\0' && (has_first || has_last) && (has_first || dash) && range->first <= range->last) return 0;
	return err_set(err, ERR_USAGE, "--steps: expected A-B, A-, -B or A, found '%s'", text);
}

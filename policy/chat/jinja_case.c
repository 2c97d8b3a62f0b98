/* jinja_case.c - upper and lower case, and the str.is...() questions, by Unicode's simple mappings.
 *
 * Python also knows mappings to several characters and the final sigma; of those only the sharp s is here. */
#include <string.h>
#include <utf8proc.h>

#include "policy/chat/jinja_internal.h"
#include "policy/utf8.h"

static int32_t mapped(int32_t code, enum letter_case letter_case)
{
	switch (letter_case) {
	case CASE_LOWER: return utf8proc_tolower(code);
	case CASE_UPPER: return utf8proc_toupper(code);
	default: return utf8proc_totitle(code);
	}
}

void jinja_put_case(struct job *job, const char *bytes, size_t n, enum letter_case letter_case)
{
	jinja_charge(job, n / STEP_CHARACTERS);
	for (size_t at = 0; at < n;) {
		char out[4];
		int32_t code;
		at += utf8_step(bytes + at, n - at, &code);
		if (code == 0xDF && letter_case != CASE_LOWER)
			jinja_puts(job, letter_case == CASE_UPPER ? "SS" : "Ss");
		else
			jinja_put(job, out, utf8_write(out, mapped(code, letter_case)));
	}
}

static bool is_cased(int32_t code)
{
	utf8proc_category_t category = utf8proc_category(code);

	return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
	       category == UTF8PROC_CATEGORY_LT;
}

static size_t first_length(const struct text *text)
{
	int32_t code;

	return text->n > 0 ? utf8_step(text->bytes, text->n, &code) : 0;
}

struct value jinja_capitalize(struct job *job, const struct text *text)
{
	size_t mark = job->n_out, first = first_length(text);

	jinja_put_case(job, text->bytes, first, CASE_TITLE);
	jinja_put_case(job, text->bytes + first, text->n - first, CASE_LOWER);
	return value_text(jinja_cut(job, mark));
}

/* str.title(): a letter is lower case after a letter. */
struct value jinja_title(struct job *job, const struct text *text)
{
	size_t mark = job->n_out;
	bool inside = false;

	for (size_t at = 0; at < text->n;) {
		int32_t code;
		size_t step = utf8_step(text->bytes + at, text->n - at, &code);
		jinja_put_case(job, text->bytes + at, step, inside ? CASE_LOWER : CASE_TITLE);
		inside = is_cased(code);
		at += step;
	}
	return value_text(jinja_cut(job, mark));
}

bool jinja_is_case(struct job *job, const struct text *text, enum letter_case letter_case)
{
	int wanted = letter_case == CASE_UPPER ? UTF8PROC_CATEGORY_LU : UTF8PROC_CATEGORY_LL;
	bool some = false;

	jinja_charge(job, text->n / STEP_CHARACTERS);
	for (size_t at = 0; at < text->n;) {
		int32_t code;
		at += utf8_step(text->bytes + at, text->n - at, &code);
		if (!is_cased(code))
			continue;
		if ((int)utf8proc_category(code) != wanted)
			return false;
		some = true;
	}
	return some;
}

static struct value upper(struct job *job, const struct call *call)
{
	size_t mark = job->n_out;

	jinja_put_case(job, call->args[0].text->bytes, call->args[0].text->n, CASE_UPPER);
	return value_text(jinja_cut(job, mark));
}

static struct value lower(struct job *job, const struct call *call)
{
	size_t mark = job->n_out;

	jinja_put_case(job, call->args[0].text->bytes, call->args[0].text->n, CASE_LOWER);
	return value_text(jinja_cut(job, mark));
}

static struct value capitalize(struct job *job, const struct call *call)
{
	return jinja_capitalize(job, call->args[0].text);
}

static struct value title(struct job *job, const struct call *call)
{
	return jinja_title(job, call->args[0].text);
}

static struct value is_upper(struct job *job, const struct call *call)
{
	return value_bool(jinja_is_case(job, call->args[0].text, CASE_UPPER));
}

static struct value is_lower(struct job *job, const struct call *call)
{
	return value_bool(jinja_is_case(job, call->args[0].text, CASE_LOWER));
}

/* Whether there is a character and all are in the general categories from first to last, or holds(). */
static struct value all_are(struct job *job, const struct text *text, int first, int last,
                            bool (*holds)(int32_t code))
{
	jinja_charge(job, text->n / STEP_CHARACTERS);
	for (size_t at = 0; at < text->n;) {
		int32_t code;
		at += utf8_step(text->bytes + at, text->n - at, &code);
		int category = utf8proc_category(code);
		if ((category < first || category > last) && !(holds && holds(code)))
			return value_bool(false);
	}
	return value_bool(text->n > 0);
}

static bool is_superscript(int32_t code)
{
	return code == 0xB2 || code == 0xB3 || code == 0xB9 || code == 0x2070 ||
	       (code >= 0x2074 && code <= 0x2079) || (code >= 0x2080 && code <= 0x2089);
}

static bool is_numeric(int32_t code)
{
	int category = utf8proc_category(code);

	return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

static struct value is_space(struct job *job, const struct call *call)
{
	return all_are(job, call->args[0].text, 1, 0, jinja_is_space);
}

static struct value is_alpha(struct job *job, const struct call *call)
{
	return all_are(job, call->args[0].text, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LO, NULL);
}

static struct value is_alnum(struct job *job, const struct call *call)
{
	return all_are(job, call->args[0].text, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LO, is_numeric);
}

static struct value is_decimal(struct job *job, const struct call *call)
{
	return all_are(job, call->args[0].text, UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_ND, NULL);
}

static struct value is_digit(struct job *job, const struct call *call)
{
	return all_are(job, call->args[0].text, UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_ND, is_superscript);
}

static struct value is_numeric_text(struct job *job, const struct call *call)
{
	return all_are(job, call->args[0].text, UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NO, NULL);
}

const struct builtin jinja_case_methods[] = {
	{"upper", upper, 1, {"self"}},
	{"lower", lower, 1, {"self"}},
	{"capitalize", capitalize, 1, {"self"}},
	{"title", title, 1, {"self"}},
	{"isupper", is_upper, 1, {"self"}},
	{"islower", is_lower, 1, {"self"}},
	{"isspace", is_space, 1, {"self"}},
	{"isalpha", is_alpha, 1, {"self"}},
	{"isalnum", is_alnum, 1, {"self"}},
	{"isdecimal", is_decimal, 1, {"self"}},
	{"isdigit", is_digit, 1, {"self"}},
	{"isnumeric", is_numeric_text, 1, {"self"}},
	{NULL},
};

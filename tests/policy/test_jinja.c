/* test_jinja.c - the interpreter construct by construct against jinja2 (goldens), what its errors say, its
 * limits, and damaged templates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/chat/jinja.h"
#include "tests/support/tokens_fixture.h"

/* Compile and render; the error code.  *text is owned by the caller, NULL on error. */
static int run(const char *template, json_t *variables, char **text, struct err *err)
{
	struct jinja *jinja;

	*text = NULL;
	*err = (struct err){0};
	if (jinja_compile(&jinja, template, strlen(template), err) != 0)
		return err->code;
	int code = jinja_render(jinja, variables, text, err);
	jinja_free(jinja);
	return code;
}

static void expect(const char *template, const char *expected)
{
	json_t *variables = json_pack("{s:[i,i,i], s:s}", "xs", 3, 1, 2, "s", "text");
	struct err err;
	char *text;

	if (run(template, variables, &text, &err) != 0)
		fail_msg("%s: %s", template, err.text);
	assert_string_equal(text, expected);
	free(text);
	json_decref(variables);
}

static void expect_error(const char *template, int code, const char *says)
{
	json_t *variables = json_pack("{s:[i,i,i], s:s}", "xs", 3, 1, 2, "s", "text");
	struct err err;
	char *text;

	if (run(template, variables, &text, &err) != code)
		fail_msg("%.80s: expected error %d, found %d %s", template, code, err.code, err.text);
	assert_null(text);
	if (!strstr(err.text, says))
		fail_msg("%.80s: \"%s\" does not say \"%s\"", template, err.text, says);
	json_decref(variables);
}

static void test_goldens(void **state)
{
	json_t *goldens = tokens_golden("jinja.json"), *variables = json_object_get(goldens, "variables"), *item;
	size_t i, differ = 0;

	(void)state;
	json_array_foreach(json_object_get(goldens, "cases"), i, item) {
		const char *template = json_string_value(json_object_get(item, "template"));
		const char *expected = json_string_value(json_object_get(item, "text"));
		struct err err;
		char *text;
		run(template, variables, &text, &err);
		if ((text == NULL) != (expected == NULL) || (text && strcmp(text, expected) != 0)) {
			print_error("%s\n  expected %s\n  found    %s\n", template, expected ? expected : "an error",
			            text ? text : err.text);
			differ++;
		}
		free(text);
	}
	assert_true(i > 300);
	assert_int_equal(differ, 0);
	json_decref(goldens);
}

/* ---- errors ---- */

static void test_syntax_errors(void **state)
{
	(void)state;
	expect_error("a\nb {{ 1 + }}", ERR_INVALID, "line 2: expected an expression, found }}");
	expect_error("{% if s %}", ERR_INVALID, "line 1: expected endif, found the end of the template");
	expect_error("{% endfor %}", ERR_INVALID, "unknown statement \"endfor\"");
	expect_error("{{ 'x }}", ERR_INVALID, "missing end of string");
	expect_error("{{ (1] }}", ERR_INVALID, "unexpected ']'");
	expect_error("{{ a ! b }}", ERR_INVALID, "unexpected character '!'");
	expect_error("{% set none = 1 %}", ERR_INVALID, "a name to assign to");
	expect_error("{% break %}", ERR_INVALID, "in a loop only");
	expect_error("{{ '\\ud800' }}", ERR_UNSUPPORTED, "escape of U+D800");
	expect_error("\xff", ERR_INVALID, "not UTF-8");
}

static void test_render_errors(void **state)
{
	(void)state;
	expect_error("\n\n{{ 'a' + 1 }}", ERR_INVALID, "line 3: cannot compute a string + an integer");
	expect_error("{{ gone.x }}", ERR_INVALID, "\"gone\" is undefined");
	expect_error("{{ {}.x.y }}", ERR_INVALID, "\".x\" is not there");
	expect_error("{{ xs.append(4) }}", ERR_INVALID, "\".append\" is not there, or a template may not use it");
	expect_error("{{ {}['k'] + 'x' }}", ERR_INVALID, "[\"k\"] is not there");
	expect_error("{% for x in 5 %}{% endfor %}", ERR_INVALID, "an integer has no elements");
	expect_error("{{ raise_exception('no ' ~ s) }}", ERR_INVALID, "the template refuses: no text");
	expect_error("{% set s.x = 1 %}", ERR_INVALID, "\"s\" is no namespace");
	expect_error("{% set a, b = xs %}", ERR_INVALID, "expected 2 values to unpack, found 3");
	expect_error("{{ s.split('') }}", ERR_INVALID, "separator is empty");
	expect_error("{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", ERR_INVALID, "takes at most 1 arguments");
	expect_error("{{ s | replace('a') }}", ERR_INVALID, "replace needs its argument \"new\"");
	expect_error("{{ s | trim(x=1) }}", ERR_INVALID, "trim has no parameter \"x\"");
}

/* What is left out is an error where it is reached, and only there. */
static void test_unsupported(void **state)
{
	(void)state;
	expect_error("a\n{{ s | wordwrap }}", ERR_UNSUPPORTED, "line 2: the filter \"wordwrap\" is not supported");
	expect("{% if not s %}{{ s | wordwrap }}{% endif %}ok", "ok");
	expect_error("{{ s is weird }}", ERR_UNSUPPORTED, "the test \"weird\"");
	expect_error("{{ s.translate(1) }}", ERR_UNSUPPORTED, "\"translate\" is not supported");
	expect_error("{{ cycler(1) }}", ERR_UNSUPPORTED, "\"cycler\" is not supported");
	expect_error("{% extends 'x' %}", ERR_UNSUPPORTED, "the statement \"extends\"");
	expect_error("{% for x in xs recursive %}{% endfor %}", ERR_UNSUPPORTED, "a recursive loop");
	expect_error("{{ range(*xs) }}", ERR_UNSUPPORTED, "* and **");
	expect_error("{{ 9223372036854775807 + 1 }}", ERR_UNSUPPORTED, "past 64 bits");
	expect_error("{{ 9223372036854775808 }}", ERR_UNSUPPORTED, "past 64 bits");
	expect_error("{{ strftime_now('%G') }}", ERR_UNSUPPORTED, "strftime_now: %G");
}

/* ---- limits ---- */

/* part, n times. */
static char *repeated(const char *part, size_t n)
{
	size_t length = strlen(part);
	char *text = malloc(n * length + 1);

	for (size_t i = 0; i < n; i++)
		memcpy(text + i * length, part, length);
	text[n * length] = '\0';
	return text;
}

static void expect_deep(const char *before, const char *part, const char *between, const char *after_part,
                        const char *after)
{
	char *opened = repeated(part, 3000), *closed = repeated(after_part, 3000);
	size_t n = strlen(opened) + strlen(closed) + 200;
	char *template = malloc(n);

	snprintf(template, n, "%s%s%s%s%s", before, opened, between, closed, after);
	expect_error(template, ERR_TOO_BIG, " deep");
	free(template);
	free(opened);
	free(closed);
}

static void test_depth(void **state)
{
	(void)state;
	expect_deep("{{ ", "(", "1", ")", " }}");
	expect_deep("{{ ", "[", "1", "]", " }}");
	expect_deep("{{ ", "not ", "1", "", " }}");
	expect_deep("{{ ", "- ", "1", "", " }}");
	expect_deep("{{ 1", " + 1", "", "", " }}");
	expect_deep("{{ 1", " if 1 else 1", "", "", " }}");
	expect_deep("{{ s", "[0:]", "", "", " }}");
	expect_deep("{{ s", "|trim", "", "", " }}");
	expect_deep("", "{% if s %}", "", "{% endif %}", "");
	expect_deep("{% set ", "(", "a", ")", " = 1 %}");
	expect_error("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", ERR_TOO_BIG, " deep");
	expect_error("{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}", ERR_TOO_BIG, " deep");
	expect_error("{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}"
	             "{{ ns.x == ns.x }}",
	             ERR_TOO_BIG, " deep");
	char *deep = repeated("[", 1000), *closed = repeated("]", 1000);
	char text[2001];
	snprintf(text, sizeof text, "%s%s", deep, closed);
	json_t *variables = json_pack("{s:o}", "x", json_loads(text, 0, NULL));
	struct err err;
	char *out;
	assert_int_equal(run("{{ x }}", variables, &out, &err), ERR_TOO_BIG);
	json_decref(variables);
	free(deep);
	free(closed);
}

static void test_size(void **state)
{
	(void)state;
	expect_error("{{ 'a' * 99999999999 }}", ERR_TOO_BIG, "writes more than");
	expect_error("{{ xs * 99999999999 }}", ERR_TOO_BIG, "too long");
	expect_error("{{ s.ljust(99999999999) }}", ERR_TOO_BIG, "writes more than");
	expect_error("{{ range(100001) }}", ERR_TOO_BIG, "a range");
	expect_error("{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
	             ERR_TOO_BIG, "MiB");
	expect_error("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", ERR_TOO_BIG,
	             "more than");
	expect_error("{% set x = 'ab' * 1000000 %}{% for i in range(100000) %}{{ x is upper }}{% endfor %}", ERR_TOO_BIG,
	             "steps");
	char *long_template = repeated(" ", JINJA_SOURCE_MAX + 1);
	expect_error(long_template, ERR_TOO_BIG, "expected at most");
	free(long_template);
}

/* ---- purity ---- */

static void test_date(void **state)
{
	(void)state;
	expect("{{ strftime_now('%A %-d %B %Y, %H:%M:%S') }}", JINJA_NOW);
	expect("{{ strftime_now('%Y-%m-%d %a %b %y %j %p %I %%') }}", "2024-07-26 Fri Jul 24 208 PM 12 %");
	expect("{{ strftime_now is defined }}", "True");
}

/* One compiled template renders twice, and what a render sets is gone with it. */
static void test_again(void **state)
{
	static const char source[] = "{{ x is defined }}{% set x = 1 %}{{ x }}{{ y }}";
	json_t *first = json_pack("{s:i}", "y", 1), *second = json_pack("{s:i}", "y", 2);
	struct jinja *jinja;
	struct err err = {0};
	char *text;

	(void)state;
	assert_int_equal(jinja_compile(&jinja, source, strlen(source), &err), 0);
	assert_int_equal(jinja_render(jinja, first, &text, &err), 0);
	assert_string_equal(text, "False11");
	free(text);
	assert_int_equal(jinja_render(jinja, second, &text, &err), 0);
	assert_string_equal(text, "False12");
	free(text);
	jinja_free(jinja);
	json_decref(first);
	json_decref(second);
}

/* ---- damaged templates ---- */

static uint32_t next(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return *seed >> 8;
}

/* One of: insert a fragment, cut a piece out, double a piece, change a character. */
static void damage(char *text, size_t capacity, uint32_t *seed)
{
	static const char *const fragments[] = {"{{", "}}", "{%", "%}", "-", "(", ")", "[", "]", "{", "'", "\\", "|",
	                                        "~", " if ", "[::-1]", "|tojson", "**", "loop.", "*9999", "\xc3"};
	size_t n = strlen(text), at = n ? next(seed) % n : 0, length = next(seed) % 20;
	const char *fragment = fragments[next(seed) % (sizeof fragments / sizeof *fragments)];

	if (length > n - at)
		length = n - at;
	switch (next(seed) % 4) {
	case 0:
		if (n + strlen(fragment) < capacity) {
			memmove(text + at + strlen(fragment), text + at, n - at + 1);
			memcpy(text + at, fragment, strlen(fragment));
		}
		break;
	case 1: memmove(text + at, text + at + length, n - at - length + 1); break;
	case 2:
		if (n + length < capacity)
			memmove(text + at + length, text + at, n - at + 1);
		break;
	default:
		if (n > 0)
			text[at] = (char)(1 + next(seed) % 127);
	}
}

/* Each one renders, or fails with a sentence. */
static void test_damaged(void **state)
{
	json_t *goldens = tokens_golden("jinja.json"), *chats = tokens_golden("chat_templates.json"), *item;
	json_t *variables = json_object_get(goldens, "variables"), *sources = json_object_get(goldens, "cases");
	static char text[1 << 14];
	uint32_t seed = 7;
	size_t i;

	(void)state;
	json_array_extend(sources, json_object_get(chats, "templates"));
	json_array_foreach(sources, i, item) {
		const char *source = json_string_value(json_object_get(item, "template"));
		for (int round = 0; source && strlen(source) < sizeof text / 2 && round < 40; round++) {
			struct err err;
			char *out;
			strcpy(text, source);
			for (uint32_t n = 1 + next(&seed) % 4; n > 0; n--)
				damage(text, sizeof text, &seed);
			int code = run(text, variables, &out, &err);
			assert_true(code == 0 ? out != NULL : code < 0 && !out && strncmp(err.text, "line ", 5) == 0);
			free(out);
		}
	}
	json_decref(goldens);
	json_decref(chats);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_goldens),
		cmocka_unit_test(test_syntax_errors),
		cmocka_unit_test(test_render_errors),
		cmocka_unit_test(test_unsupported),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_date),
		cmocka_unit_test(test_again),
		cmocka_unit_test(test_damaged),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

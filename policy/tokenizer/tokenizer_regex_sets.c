/* tokenizer_regex_sets.c - character classes, properties and escapes of an expression, for regex_translate. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "policy/tokenizer/tokenizer_regex.h"
#include "policy/utf8.h"

enum { PROPERTY_MAX = 40 };

#if PCRE2_MAJOR > 10 || PCRE2_MINOR >= 40 /* a bare script name means its extensions since */
#define SCRIPT "sc:"
#else
#define SCRIPT ""
#endif

/* Members of a character class, and of its complement (NULL: not to be written that way). */
struct set {
	const char *names; /* of \p{...}, between commas */
	const char *in, *out;
	enum { PLAIN, FOLDS, CASED } cased; /* FOLDS: has ligatures; CASED: ignoring case would change it */
	const char *alone; /* more members where it does not stand in a class, or NULL */
};

#define SPACE_IN "\\x09-\\x0D\\x20\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define SPACE_OUT \
	"\\x00-\\x08\\x0E-\\x1F\\x21-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}\\x{1681}-\\x{1FFF}\\x{200B}-\\x{2027}" \
	"\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}\\x{3001}-\\x{10FFFF}"
#define WORD_IN \
	"\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}" \
	"\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}"

#define WORD_ALONE "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}" /* Oniguruma's table of Latin-1 has them, its classes not */
/* With characters that became so since Unicode 14. */
#define ALPHABETIC_IN \
	"\\p{Alphabetic}\\x{363}-\\x{36F}\\x{C04}\\x{F82}\\x{F83}\\x{1DD3}-\\x{1DE6}\\x{11080}\\x{11081}"
#define LOWERCASE_IN "\\p{Lowercase}\\x{10FC}\\x{A7F2}-\\x{A7F4}\\x{AB69}"

static const struct set space = {NULL, SPACE_IN, SPACE_OUT, PLAIN};
static const struct set word = {NULL, WORD_IN, NULL, FOLDS, WORD_ALONE};
static const struct set digit = {NULL, "\\p{Nd}", "\\P{Nd}", PLAIN};
static const struct set posix_punctuation = {NULL, "\\p{P}\\p{S}", NULL, PLAIN};
static const struct set hex = {NULL, "0-9A-Fa-f", "\\x00-/:-@G-`g-\\x{10FFFF}", PLAIN};

static const struct set properties[] = {
	{",l,letter,", "\\p{L}", "\\P{L}", FOLDS},
	{",m,mark,combiningmark,", "\\p{M}", "\\P{M}", FOLDS},
	{",n,number,", "\\p{N}", "\\P{N}", FOLDS},
	{",p,punctuation,punct,", "\\p{P}", "\\P{P}", PLAIN},
	{",s,symbol,", "\\p{S}", "\\P{S}", FOLDS},
	{",z,separator,", "\\p{Z}", "\\P{Z}", PLAIN},
	{",c,other,", "\\p{C}", "\\P{C}", PLAIN},
	{",lu,uppercaseletter,", "\\p{Lu}", "\\P{Lu}", CASED},
	{",ll,lowercaseletter,", "\\p{Ll}", "\\P{Ll}", CASED},
	{",lt,titlecaseletter,", "\\p{Lt}", "\\P{Lt}", CASED},
	{",lm,modifierletter,", "\\p{Lm}", "\\P{Lm}", CASED},
	{",lo,otherletter,", "\\p{Lo}", "\\P{Lo}", CASED},
	{",mn,nonspacingmark,", "\\p{Mn}", "\\P{Mn}", CASED},
	{",mc,spacingmark,", "\\p{Mc}", "\\P{Mc}", PLAIN},
	{",me,enclosingmark,", "\\p{Me}", "\\P{Me}", PLAIN},
	{",nd,decimalnumber,digit,", "\\p{Nd}", "\\P{Nd}", PLAIN},
	{",nl,letternumber,", "\\p{Nl}", "\\P{Nl}", FOLDS},
	{",no,othernumber,", "\\p{No}", "\\P{No}", PLAIN},
	{",pc,connectorpunctuation,", "\\p{Pc}", "\\P{Pc}", PLAIN},
	{",pd,dashpunctuation,", "\\p{Pd}", "\\P{Pd}", PLAIN},
	{",ps,openpunctuation,", "\\p{Ps}", "\\P{Ps}", PLAIN},
	{",pe,closepunctuation,", "\\p{Pe}", "\\P{Pe}", PLAIN},
	{",pi,initialpunctuation,", "\\p{Pi}", "\\P{Pi}", PLAIN},
	{",pf,finalpunctuation,", "\\p{Pf}", "\\P{Pf}", PLAIN},
	{",po,otherpunctuation,", "\\p{Po}", "\\P{Po}", PLAIN},
	{",sm,mathsymbol,", "\\p{Sm}", "\\P{Sm}", PLAIN},
	{",sc,currencysymbol,", "\\p{Sc}", "\\P{Sc}", PLAIN},
	{",sk,modifiersymbol,", "\\p{Sk}", "\\P{Sk}", PLAIN},
	{",so,othersymbol,", "\\p{So}", "\\P{So}", FOLDS},
	{",zs,spaceseparator,", "\\p{Zs}", "\\P{Zs}", PLAIN},
	{",zl,lineseparator,", "\\p{Zl}", "\\P{Zl}", PLAIN},
	{",zp,paragraphseparator,", "\\p{Zp}", "\\P{Zp}", PLAIN},
	{",cc,control,cntrl,", "\\p{Cc}", "\\P{Cc}", PLAIN},
	{",cf,format,", "\\p{Cf}", "\\P{Cf}", PLAIN},
	{",cn,unassigned,", "\\p{Cn}", "\\P{Cn}", PLAIN},
	{",co,privateuse,", "\\p{Co}", "\\P{Co}", PLAIN},
	{",space,whitespace,", SPACE_IN, SPACE_OUT, PLAIN},
	{",word,", WORD_IN, NULL, FOLDS, WORD_ALONE},
	{",alpha,alphabetic,", ALPHABETIC_IN, NULL, FOLDS},
	{",alnum,", ALPHABETIC_IN "\\p{Nd}", NULL, FOLDS},
	{",upper,uppercase,", "\\p{Uppercase}", "\\P{Uppercase}", CASED},
	{",lower,lowercase,", LOWERCASE_IN, NULL, CASED},
	{",blank,", "\\p{Zs}\\x09", NULL, PLAIN},
	{",xdigit,", "0-9A-Fa-f", "\\x00-/:-@G-`g-\\x{10FFFF}", PLAIN},
	{",ascii,", "\\x00-\\x7F", "\\x{80}-\\x{10FFFF}", CASED},
	{",any,", "\\x00-\\x{10FFFF}", NULL, FOLDS},
};

/* Letters and digits of text[0, n) in lower case between commas, or false if something else is in it. */
static bool property_key(char key[PROPERTY_MAX], const char *text, size_t n)
{
	size_t length = 1;

	key[0] = ',';
	for (size_t i = 0; i < n; i++) {
		char c = text[i];
		if (c == '_' || c == ' ' || c == '-')
			continue;
		c = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) || length + 3 > PROPERTY_MAX)
			return false;
		key[length++] = c;
	}
	key[length] = ',';
	key[length + 1] = '\0';
	return length > 1;
}

static bool put_set(struct translation *t, const struct set *set, bool negated, bool in_class)
{
	/* Where case is ignored, a class matches "st" by its ligature, but not the complement of one. */
	bool folds = set->cased == FOLDS || negated, in_complement = in_class && t->complement;
	if (t->caseless[t->depth] && (set->cased == CASED || (folds && !in_complement)))
		return regex_refuse(t, "a property that depends on case where case is ignored");
	bool property = set->out && set->out[0] == '\\' && set->out[1] == 'P'; /* needs no brackets */
	if (in_class ? !negated || set->out : property) {
		regex_put(t, negated ? set->out : set->in);
		return true;
	}
	struct pieces *out = t->out;
	t->out = in_class ? t->inner : out;
	regex_put(t, in_class ? "|" : "");
	regex_put(t, negated ? "[^" : "[");
	regex_put(t, set->in);
	regex_put(t, set->alone && !in_class ? set->alone : "");
	regex_put(t, "]");
	t->out = out;
	return true;
}

/* A property that is none of the table's is a script, which PCRE2 knows or refuses. */
static bool put_script(struct translation *t, const char *name, size_t n, bool negated)
{
	if (t->caseless[t->depth])
		return regex_refuse(t, "a property that depends on case where case is ignored");
	regex_put(t, negated ? "\\P{" SCRIPT : "\\p{" SCRIPT);
	pieces_write(t->out, name, n);
	regex_put(t, "}");
	return true;
}

/* At \p{ or \P{. */
static bool property(struct translation *t, bool in_class)
{
	bool negated = t->regex[t->at + 1] == 'P';
	char key[PROPERTY_MAX];

	t->at += 2;
	if (!regex_here(t, "{"))
		return regex_refuse(t, "\\p without {");
	t->at++;
	if (regex_here(t, "^")) {
		negated = !negated;
		t->at++;
	}
	const char *name = t->regex + t->at, *close = memchr(name, '}', t->n - t->at);
	size_t n = close ? (size_t)(close - name) : 0;
	if (!close || !property_key(key, name, n))
		return regex_refuse(t, "a property without a plain name");
	t->at += n + 1;
	for (size_t i = 0; i < sizeof properties / sizeof *properties; i++)
		if (strstr(properties[i].names, key))
			return put_set(t, &properties[i], negated, in_class);
	return put_script(t, name, n, negated);
}


/* The value of text[0, n) in hexadecimal, or -1. */
static int hex_value(const char *text, size_t n)
{
	static const char digits[] = "0123456789abcdef0123456789ABCDEF";
	int value = 0;

	for (size_t i = 0; i < n; i++) {
		const char *found = text[i] ? strchr(digits, text[i]) : NULL;
		if (!found)
			return -1;
		value = value << 4 | (int)((found - digits) & 15);
	}
	return value;
}

/* At \x or \u: a code point by number. */
static bool by_number(struct translation *t)
{
	bool braces = t->n - t->at > 2 && t->regex[t->at + 2] == '{';
	size_t n = t->regex[t->at + 1] == 'u' ? 4 : 2, from = t->at + 2 + braces;
	char text[16];

	if (braces) {
		const char *close = memchr(t->regex + from, '}', t->n - from);
		n = close ? (size_t)(close - (t->regex + from)) : 0;
	}
	int value = n >= 1 && n <= 6 && from + n <= t->n ? hex_value(t->regex + from, n) : -1;
	if (value < 0 || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
		return regex_refuse(t, "what is no character's number");
	if (!braces && n == 2 && value >= 0x80)
		return regex_refuse(t, "\\x of 80 or more, which is a byte");
	snprintf(text, sizeof text, "\\x{%X}", (unsigned)value);
	regex_put(t, text);
	t->at = from + n + braces;
	return true;
}

bool regex_escape(struct translation *t, bool in_class)
{
	static const struct { char name; const struct set *set; } sets[] = {
		{'s', &space}, {'w', &word}, {'d', &digit}, {'h', &hex},
	};
	char c = t->at + 1 < t->n ? t->regex[t->at + 1] : '\0';
	bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');

	if (c == 'p' || c == 'P')
		return property(t, in_class);
	if (c == 'x' || c == 'u')
		return by_number(t);
	for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
		if ((c | 0x20) != sets[i].name)
			continue;
		t->at += 2;
		return put_set(t, sets[i].set, c < 'a', in_class);
	}
	if (!c || (letter && !strchr("ntrfaev", c)))
		return regex_refuse(t, "an escape that is not known here");
	if (c == 'v') {
		regex_put(t, "\\x0B");
	} else {
		regex_put(t, (unsigned char)c < 0x80 ? "\\" : "");
		pieces_write(t->out, &c, 1); /* the other bytes of a character follow as themselves */
	}
	t->at += 2;
	return true;
}

bool regex_word_boundary(struct translation *t, bool negated)
{
	static const char behind[] = "(?<=[" WORD_IN WORD_ALONE "])", not_behind[] = "(?<![" WORD_IN WORD_ALONE "])";
	static const char ahead[] = "(?=[" WORD_IN WORD_ALONE "])", not_ahead[] = "(?![" WORD_IN WORD_ALONE "])";

	regex_put(t, "(?:");
	regex_put(t, behind);
	regex_put(t, negated ? ahead : not_ahead);
	regex_put(t, "|");
	regex_put(t, not_behind);
	regex_put(t, negated ? not_ahead : ahead);
	regex_put(t, ")");
	return true;
}

/* At "[:" inside a class: [:name:] or [:^name:]. */
static bool posix_bracket(struct translation *t)
{
	bool negated = t->at + 2 < t->n && t->regex[t->at + 2] == '^';
	const char *name = t->regex + t->at + 2 + negated;
	size_t left = t->n - (t->at + 2 + negated), n = 0;
	char key[PROPERTY_MAX];

	while (n < left && name[n] >= 'a' && name[n] <= 'z')
		n++;
	if (n < 3 || left - n < 2 || name[n] != ':' || name[n + 1] != ']' || !property_key(key, name, n))
		return regex_refuse(t, "a bracket that is not known here");
	t->at += 2 + negated + n + 2;
	if (strcmp(key, ",punct,") == 0)
		return put_set(t, &posix_punctuation, negated, true);
	for (size_t i = 0; i < sizeof properties / sizeof *properties; i++)
		if (strstr(properties[i].names, key))
			return put_set(t, &properties[i], negated, true);
	return regex_refuse(t, "a bracket that is not known here");
}

/* What stood last in a class, which decides what a '-' is. */
enum last { LAST_NOTHING, LAST_CHARACTER, LAST_SET, LAST_HALF_RANGE };

static bool at_set(const struct translation *t)
{
	return regex_here(t, "[:") ||
	       (regex_here(t, "\\") && t->at + 1 < t->n && strchr("sSwWdDhHpP", t->regex[t->at + 1]));
}

/* At a single character of a class. */
static bool class_character(struct translation *t)
{
	unsigned char c = (unsigned char)t->regex[t->at];
	bool plain = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c <= ' ' || c >= 0x7F;

	if (c == '\\' && regex_here(t, "\\b")) {
		regex_put(t, "\\x08");
		t->at += 2;
		return true;
	}
	if (c == '\\')
		return regex_escape(t, true);
	int32_t code;
	size_t n = utf8_step(t->regex + t->at, t->n - t->at, &code);
	if (t->caseless[t->depth] && !regex_fold_is_plain(code))
		return regex_refuse(t, "a letter that is not ASCII where case is ignored");
	regex_put(t, plain ? "" : "\\");
	pieces_write(t->out, t->regex + t->at, n);
	t->at += n;
	return true;
}

/* At a '-': between two characters it makes a range, else it is a character. */
static bool class_hyphen(struct translation *t, enum last *last)
{
	t->at++;
	if (*last == LAST_CHARACTER && t->at < t->n && !regex_here(t, "]") && !regex_here(t, "&&")) {
		if (at_set(t) || regex_here(t, "["))
			return regex_refuse(t, "a range that ends in a set");
		regex_put(t, "-");
		*last = LAST_HALF_RANGE;
		return true;
	}
	regex_put(t, "\\-");
	*last = LAST_SET;
	return true;
}

/* Members up to ']', '&&' or an inner class. */
static bool class_members(struct translation *t, bool first)
{
	enum last last = LAST_NOTHING;

	for (; t->at < t->n && !regex_here(t, "&&"); first = false) {
		bool set = at_set(t), done = true;
		if ((regex_here(t, "]") && !first) || (regex_here(t, "[") && !set))
			break;
		if (regex_here(t, "-")) {
			done = class_hyphen(t, &last);
		} else {
			done = regex_here(t, "[:") ? posix_bracket(t) : class_character(t);
			last = set || last == LAST_HALF_RANGE ? LAST_SET : LAST_CHARACTER;
		}
		if (!done)
			return false;
	}
	return true;
}

/* One operand of &&: plain members, and alternatives for inner classes, each with a '|' in front. */
struct operand {
	struct pieces plain, inner;
};

static bool operand_write(struct translation *t, struct operand *operand, struct pieces *out)
{
	bool any = operand->plain.n_bytes > 0;

	if (!any && operand->inner.n_bytes == 0)
		return regex_refuse(t, "an empty class");
	pieces_write(out, "(?:[", any ? 4 : 3);
	pieces_write(out, operand->plain.bytes, operand->plain.n_bytes);
	pieces_write(out, "]", any);
	if (operand->inner.n_bytes > 0)
		pieces_write(out, operand->inner.bytes + !any, operand->inner.n_bytes - !any);
	pieces_write(out, ")", 1);
	pieces_clear(&operand->plain);
	pieces_clear(&operand->inner);
	pieces_open(&operand->plain, 0);
	pieces_open(&operand->inner, 0);
	return true;
}

/* The body of a class behind its [ or [^, up to and with its ].  *simple: plain members alone, which are left
 * in operand->plain; else `body` has an expression for one character. */
static bool class_body(struct translation *t, int level, struct operand *operand, struct pieces *body,
                       bool *simple)
{
	for (bool first = true;; first = false) {
		t->out = &operand->plain;
		t->inner = &operand->inner;
		if (!class_members(t, first))
			return false;
		if (t->at == t->n)
			return regex_refuse(t, "a class without end");
		if (regex_here(t, "]"))
			break;
		if (regex_here(t, "[")) {
			t->out = &operand->inner;
			regex_put(t, "|");
			if (!regex_class(t, level + 1))
				return false;
			continue;
		}
		t->at += 2; /* && */
		pieces_write(body, "(?=", 3);
		if (!operand_write(t, operand, body))
			return false;
		pieces_write(body, ")", 1);
	}
	t->at++;
	*simple = body->n_bytes == 0 && operand->inner.n_bytes == 0;
	if (*simple && operand->plain.n_bytes == 0)
		return regex_refuse(t, "an empty class");
	return *simple || operand_write(t, operand, body);
}

bool regex_class(struct translation *t, int level)
{
	struct operand operand = {.plain = {0}};
	struct pieces body = {0}, *out = t->out, *inner = t->inner;
	bool complement = t->complement;
	bool negated = t->at + 1 < t->n && t->regex[t->at + 1] == '^', simple = true;

	if (level == REGEX_CLASSES_MAX)
		return regex_refuse(t, "classes nested too deeply");
	t->at += 1 + negated;
	t->complement = negated && level == 0;
	pieces_open(&operand.plain, 0);
	pieces_open(&operand.inner, 0);
	pieces_open(&body, 0);
	bool done = class_body(t, level, &operand, &body, &simple);
	t->out = out;
	t->inner = inner;
	t->complement = complement;
	if (done && simple) {
		regex_put(t, negated ? "[^" : "[");
		pieces_write(out, operand.plain.bytes, operand.plain.n_bytes);
		regex_put(t, "]");
	} else if (done) {
		regex_put(t, negated ? "(?:(?!" : "(?:");
		pieces_write(out, body.bytes, body.n_bytes);
		regex_put(t, negated ? ")[\\x00-\\x{10FFFF}])" : ")");
	}
	pieces_free(&operand.plain);
	pieces_free(&operand.inner);
	pieces_free(&body);
	return done;
}

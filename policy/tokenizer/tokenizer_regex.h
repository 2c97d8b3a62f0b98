/* tokenizer_regex.h - the two halves of regex_translate: sets of characters, and all else. */
#ifndef POLICY_TOKENIZER_TOKENIZER_REGEX_H
#define POLICY_TOKENIZER_TOKENIZER_REGEX_H

#include "policy/tokenizer/tokenizer_internal.h"

enum { REGEX_GROUPS_MAX = 250, REGEX_CLASSES_MAX = 8 /* nested */ };

struct translation {
	const char *regex; /* [n], borrowed */
	size_t n, at;
	struct pieces *out;
	struct pieces *inner; /* alternatives of the class that is being read */
	bool complement;      /* within [^ ] itself */
	const char *refused;  /* why it was given up, or NULL */
	int depth;
	bool caseless[REGEX_GROUPS_MAX + 1]; /* of the group at each depth */
	size_t starts[REGEX_GROUPS_MAX + 1]; /* of that group in out */
	size_t atom; /* in out, what a quantifier would repeat */
};

/* Each of these reads one construct at t->at and writes its equivalent; false: refused. */
bool regex_class(struct translation *t, int level);          /* [ */
bool regex_escape(struct translation *t, bool in_class);     /* \ and what both places share */
/* False for letters that have case, ligatures and the like: what folds to or from more than one character. */
bool regex_fold_is_plain(int32_t code);
bool regex_word_boundary(struct translation *t, bool negated);

bool regex_refuse(struct translation *t, const char *why); /* false */
bool regex_here(const struct translation *t, const char *text);
void regex_put(struct translation *t, const char *text);

#endif

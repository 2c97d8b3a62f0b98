/* tokens_fixture.h - what the tests of tokenizer, chat and prompts share: data, goldens, a small
 * tokenizer made up here, and a folder to write files in. */
#ifndef TESTS_SUPPORT_TOKENS_FIXTURE_H
#define TESTS_SUPPORT_TOKENS_FIXTURE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct tokenizer;

enum { TOKENS_PATH_MAX = 512 };

/* $DRUMROLL_DATA/below, or ../shared/data/below; false (and a printed reason) if it is not there. */
bool tokens_data_path(char path[TOKENS_PATH_MAX], const char *below);

/* tests/policy/goldens/name; never NULL. */
json_t *tokens_golden(const char *name);

/* A byte-level tokenizer.json: id = byte for the 256 bytes, then
 *     256 th, 257 the, 258 " the", 259 aa, 260 aaaa; 261 <|end|> and 262 <|user|>, both special. */
json_t *tokens_small_json(void);

/* The same with a component given as JSON text in place of the one at key; that key inside model. */
json_t *tokens_small_with(const char *key, const char *text);
json_t *tokens_small_model_with(const char *key, const char *text);
enum {
	TOKENS_TH = 256,
	TOKENS_THE,
	TOKENS_SPACE_THE,
	TOKENS_AA,
	TOKENS_AAAA,
	TOKENS_END,
	TOKENS_USER,
	TOKENS_N
};

/* Opened from json, which is given up; never NULL. */
struct tokenizer *tokens_open(json_t *json);

/* A new empty folder, and a file in it; tokens_folder_remove removes both. */
void tokens_folder_make(char path[TOKENS_PATH_MAX]);
void tokens_folder_write(const char *folder, const char *name, const char *text);
void tokens_folder_remove(const char *folder);

#endif

/* tokens_fixture.c - see tokens_fixture.h. */
#include "tests/support/tokens_fixture.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "policy/tokenizer/tokenizer.h"
#include "policy/utf8.h"

static void require(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "tokens_fixture: %s\n", what);
	abort();
}

bool tokens_data_path(char path[TOKENS_PATH_MAX], const char *below)
{
	const char *data = getenv("DRUMROLL_DATA");

	snprintf(path, TOKENS_PATH_MAX, "%s/%s", data ? data : "../shared/data", below);
	if (access(path, R_OK) == 0)
		return true;
	printf("skipped: no %s\n", path);
	return false;
}

json_t *tokens_golden(const char *name)
{
	char path[TOKENS_PATH_MAX];
	json_error_t error;

	snprintf(path, sizeof path, "tests/policy/goldens/%s", name);
	json_t *golden = json_load_file(path, JSON_ALLOW_NUL, &error);
	if (!golden)
		fprintf(stderr, "%s:%d: %s\n", path, error.line, error.text);
	require(golden, "tests run from the top of the repository");
	return golden;
}

/* The byte-level alphabet, written down again: printable Latin-1, then U+0100 and on. */
static void byte_name(char name[5], int byte)
{
	int32_t code = byte, skipped = 0;

	for (int other = 0; other < byte; other++)
		skipped += other <= 0x20 || (other >= 0x7F && other <= 0xA0) || other == 0xAD;
	if (byte <= 0x20 || (byte >= 0x7F && byte <= 0xA0) || byte == 0xAD)
		code = 0x100 + skipped;
	name[utf8_write(name, code)] = '\0';
}

json_t *tokens_small_json(void)
{
	static const char *const merged[] = {"th", "the", "\xC4\xA0the", "aa", "aaaa"};
	json_t *vocab = json_object();

	for (int byte = 0; byte < 256; byte++) {
		char name[5];
		byte_name(name, byte);
		json_object_set_new(vocab, name, json_integer(byte));
	}
	for (int i = 0; i < 5; i++)
		json_object_set_new(vocab, merged[i], json_integer(256 + i));
	json_t *json = json_pack(
		"{s:s, s:[{s:i,s:s,s:b,s:b},{s:i,s:s,s:b,s:b}], s:n, s:{s:s,s:b,s:b}, s:n, s:{s:s},"
		" s:{s:s,s:o,s:[sssss]}}",
		"version", "1.0", "added_tokens", "id", TOKENS_END, "content", "<|end|>", "special", 1, "normalized",
		0, "id", TOKENS_USER, "content", "<|user|>", "special", 1, "normalized", 0, "normalizer",
		"pre_tokenizer", "type", "ByteLevel", "add_prefix_space", 0, "use_regex", 1, "post_processor",
		"decoder", "type", "ByteLevel", "model", "type", "BPE", "vocab", vocab, "merges", "t h", "th e",
		"\xC4\xA0 the", "a a", "aa aa");
	require(json, "json_pack");
	return json;
}

struct tokenizer *tokens_open(json_t *json)
{
	struct tokenizer *tokenizer;
	struct err err = {0};
	char *text = json_dumps(json, 0);

	tokenizer_parse(&tokenizer, text, strlen(text), &err);
	require(tokenizer, err.text);
	free(text);
	json_decref(json);
	return tokenizer;
}

void tokens_folder_make(char path[TOKENS_PATH_MAX])
{
	const char *base = getenv("TMPDIR");

	snprintf(path, TOKENS_PATH_MAX, "%s/drumroll-test-XXXXXX", base ? base : "/tmp");
	require(mkdtemp(path), "mkdtemp");
}

void tokens_folder_write(const char *folder, const char *name, const char *text)
{
	char path[2 * TOKENS_PATH_MAX];

	snprintf(path, sizeof path, "%s/%s", folder, name);
	FILE *file = fopen(path, "w");
	require(file, path);
	fputs(text, file);
	fclose(file);
}

void tokens_folder_remove(const char *folder)
{
	char path[2 * TOKENS_PATH_MAX];
	DIR *entries = opendir(folder);

	require(entries, folder);
	for (struct dirent *entry; (entry = readdir(entries));) {
		snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
		unlink(path);
	}
	closedir(entries);
	rmdir(folder);
}

json_t *tokens_small_with(const char *key, const char *text)
{
	json_error_t error;
	json_t *json = tokens_small_json(), *value = json_loads(text, JSON_DECODE_ANY, &error);

	if (!value)
		fail_msg("%s: %s", text, error.text);
	json_object_set_new(json, key, value);
	return json;
}

json_t *tokens_small_model_with(const char *key, const char *text)
{
	json_t *json = tokens_small_json();

	json_object_set_new(json_object_get(json, "model"), key, json_loads(text, JSON_DECODE_ANY, NULL));
	return json;
}

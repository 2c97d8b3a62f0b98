/* fuzz_config.c - any bytes are a config or an error that says why; what is taken prints as a config that loads to the
 * same, and is taken by --set line by line or refused. */
#define _GNU_SOURCE /* memfd_create */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/config.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_file.h"

enum { ASSIGNMENT_MAX = 128 };

static char *print(const struct config *config, size_t *n_bytes)
{
	char *text = NULL;
	FILE *memory = open_memstream(&text, n_bytes);

	if (!memory) abort();
	config_print(config, memory, false);
	fclose(memory);
	return text;
}

static void load_again(struct config *config)
{
	struct config again;
	struct err err = {0};
	size_t n, n_again;
	char *text = print(config, &n);

	if (config_load(&again, fuzz_file(text, n), NULL, 0, &err)) abort();
	char *text_again = print(&again, &n_again);
	assert(n == n_again && !memcmp(text, text_again, n));
	config_free(&again);
	free(text_again);
	free(text);
}

static void set(struct config *config, const uint8_t *bytes, size_t n_bytes)
{
	char assignment[ASSIGNMENT_MAX];
	struct err err = {0};
	size_t n = n_bytes < sizeof assignment ? n_bytes : sizeof assignment - 1;

	memcpy(assignment, bytes, n);
	assignment[n] = '\0';
	assert(config_set(config, assignment, &err) == 0 || (err.code < 0 && err.text[0]));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
	struct config config;
	struct err err = {0};

	if (config_load(&config, fuzz_file(bytes, n_bytes), NULL, 0, &err)) {
		assert(err.code < 0 && err.text[0] && !strchr(err.text, '\n'));
		if (config_load(&config, NULL, NULL, 0, &err)) abort();
	}
	set(&config, bytes, n_bytes);
	load_again(&config);
	config_free(&config);
	return 0;
}

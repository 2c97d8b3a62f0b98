/* replay.c - a fuzz target without a fuzzer: every file named on the command line is one input. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/fuzz/fuzz.h"

/* The bytes of a file in memory of exactly that size, so that the sanitizers see a read past it. */
static uint8_t *read_file(const char *path, size_t *n_bytes)
{
	FILE *file = fopen(path, "rb");
	uint8_t *bytes = NULL;
	size_t capacity = 0, n = 0;

	while (file && !feof(file) && !ferror(file)) {
		capacity = 2 * capacity + 4096;
		bytes = realloc(bytes, capacity);
		if (!bytes)
			abort();
		n += fread(bytes + n, 1, capacity - n, file);
	}
	if (!file || ferror(file)) {
		perror(path);
		exit(1);
	}
	fclose(file);
	*n_bytes = n;
	return realloc(bytes, n > 0 ? n : 1);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		size_t n;
		uint8_t *bytes = read_file(argv[i], &n);
		printf("%s\n", argv[i]); /* the last one named is the one that failed */
		fflush(stdout);
		LLVMFuzzerTestOneInput(bytes, n);
		free(bytes);
	}
	return argc > 1 ? 0 : 1;
}

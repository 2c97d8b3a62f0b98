/* cmd_tokenize.c - `drumroll tokenize`: text to token ids and back, one JSON value per line. */
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/tokenizer/tokenizer.h"
#include "scheduler/commands/commands.h"

static const char usage[] =
	"usage: drumroll tokenize --model DIR [--special] <STRINGS >IDS\n"
	"       drumroll tokenize --model DIR --decode [--skip-special] <IDS >STRINGS\n"
	"\n"
	"Each line of standard input is a JSON string, and its token ids are printed as a JSON list;\n"
	"--decode goes the other way.  --special adds what the model puts around a text (such as BOS).\n"
	"Decoded bytes that are not UTF-8 are shown as U+FFFD, as Hugging Face's tokenizers does.\n";

struct options {
	const char *model;
	bool decode, special, skip_special;
};

static int options_read(struct options *options, int argc, char **argv, struct err *err)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--model") == 0 && i + 1 < argc)
			options->model = argv[++i];
		else if (strcmp(argv[i], "--decode") == 0)
			options->decode = true;
		else if (strcmp(argv[i], "--special") == 0)
			options->special = true;
		else if (strcmp(argv[i], "--skip-special") == 0)
			options->skip_special = true;
		else
			return err_set(err, ERR_USAGE, "unexpected argument '%s'", argv[i]);
	}
	if (!options->model)
		return err_set(err, ERR_USAGE, "--model DIR is missing");
	if (options->decode ? options->special : options->skip_special)
		return err_set(err, ERR_USAGE, "--special is for encoding and --skip-special for decoding");
	return 0;
}

/* A JSON list; a million ids are common, and printf is slow. */
static void ids_print(const int32_t *ids, size_t n)
{
	putchar('[');
	for (size_t i = 0; i < n; i++) {
		char digits[10];
		int length = 0;
		for (int32_t left = ids[i]; length == 0 || left > 0; left /= 10)
			digits[length++] = (char)('0' + left % 10);
		if (i > 0)
			putc_unlocked(',', stdout);
		while (length > 0)
			putc_unlocked(digits[--length], stdout);
	}
	puts("]");
}

static int encode_line(const struct tokenizer *tokenizer, const json_t *line, bool special, struct err *err)
{
	int32_t *ids;
	size_t n;

	if (!json_is_string(line))
		return err_set(err, ERR_INVALID, "expected a JSON string");
	if (tokenizer_encode(tokenizer, json_string_value(line), json_string_length(line), special, &ids, &n,
	                     err) != 0)
		return err->code;
	ids_print(ids, n);
	free(ids);
	return 0;
}

static int ids_read(const json_t *line, int32_t *ids, struct err *err)
{
	const json_t *item;
	size_t i;

	json_array_foreach(line, i, item) {
		json_int_t id = json_integer_value(item);
		if (!json_is_integer(item) || id < 0 || id > INT32_MAX)
			return err_set(err, ERR_INVALID, "element %zu is not a token id", i);
		ids[i] = (int32_t)id;
	}
	return 0;
}

static int decode_line(const struct tokenizer *tokenizer, const json_t *line, bool skip_special,
                       struct err *err)
{
	size_t n = json_array_size(line), n_text;
	char *text = NULL;

	if (!json_is_array(line))
		return err_set(err, ERR_INVALID, "expected a JSON list of token ids");
	int32_t *ids = xmalloc(n * sizeof *ids);
	if (ids_read(line, ids, err) == 0 &&
	    tokenizer_decode_utf8(tokenizer, ids, n, skip_special, &text, &n_text, err) == 0) {
		json_t *string = json_stringn(text, n_text);
		json_dumpf(string, stdout, JSON_ENCODE_ANY);
		putchar('\n');
		json_decref(string);
	}
	bool failed = !text;
	free(text);
	free(ids);
	return failed ? err->code : 0;
}

static int lines_convert(const struct tokenizer *tokenizer, const struct options *options, struct err *err)
{
	char *line = NULL;
	size_t capacity = 0, number = 1;
	ssize_t n;
	int code = 0;

	for (; code == 0 && (n = getline(&line, &capacity, stdin)) >= 0; number++) {
		json_error_t error;
		json_t *json = json_loadb(line, (size_t)n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
		if (!json)
			code = err_set(err, ERR_INVALID, "not JSON: %s", error.text);
		else if (options->decode)
			code = decode_line(tokenizer, json, options->skip_special, err);
		else
			code = encode_line(tokenizer, json, options->special, err);
		json_decref(json);
		if (code != 0)
			err_context(err, "standard input, line %zu", number);
	}
	free(line);
	if (code == 0 && (ferror(stdin) || fflush(stdout) != 0 || ferror(stdout)))
		code = err_set_errno(err, ERR_IO, "standard input or output");
	return code;
}

int tokenize_command(int argc, char **argv)
{
	struct options options = {.model = NULL};
	struct tokenizer *tokenizer = NULL;
	struct err err = {0};

	if (argc == 2 && strcmp(argv[1], "--help") == 0) {
		fputs(usage, stdout);
		return 0;
	}
	if (options_read(&options, argc, argv, &err) != 0) {
		fprintf(stderr, "drumroll tokenize: %s\n\n%s", err.text, usage);
		return 2;
	}
	if (tokenizer_open(&tokenizer, options.model, &err) == 0)
		lines_convert(tokenizer, &options, &err);
	tokenizer_close(tokenizer);
	if (err.code != 0)
		fprintf(stderr, "drumroll tokenize: %s\n", err.text);
	return err.code != 0;
}

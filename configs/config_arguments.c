/* config_arguments.c - see config_arguments.h. */
#include "configs/config_arguments.h"

#include <string.h>

static int add_set(struct config_arguments *arguments, const char *assignment, struct err *err)
{
	if (arguments->n_sets == CONFIG_SETS_MAX)
		return err_set(err, ERR_USAGE, "more than %d times --set: put them into the config file", CONFIG_SETS_MAX);
	arguments->sets[arguments->n_sets++] = assignment;
	return 0;
}

int config_arguments_read(struct config_arguments *arguments, int argc, char **argv, const char *own_option,
                          const char *own_flag, struct err *err)
{
	memset(arguments, 0, sizeof *arguments);
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i];
		bool is_set = strcmp(word, "--set") == 0, is_own = own_option && strcmp(word, own_option) == 0;
		if (own_flag && strcmp(word, own_flag) == 0) {
			arguments->flag = true;
		} else if (is_set || is_own) {
			if (++i == argc)
				return err_set(err, ERR_USAGE, "%s: expected %s after it", word, is_set ? "section.key=value" : "a value");
			if (is_own) arguments->value = argv[i];
			else if (add_set(arguments, argv[i], err)) return err->code;
		} else if (word[0] == '-') {
			const char *own = own_option ? own_option : own_flag;
			return err_set(err, ERR_USAGE, "unknown option %s; known are --set%s%s", word, own ? " and " : "", own ? own : "");
		} else if (arguments->path) {
			return err_set(err, ERR_USAGE, "one config at a time: found %s and %s", arguments->path, word);
		} else {
			arguments->path = word;
		}
	}
	if (arguments->flag && arguments->path)
		return err_set(err, ERR_USAGE, "%s holds without a file: leave %s out", own_flag, arguments->path);
	if (!arguments->flag && !arguments->path)
		return err_set(err, ERR_USAGE, "expected a config file%s%s", own_flag ? ", or " : "", own_flag ? own_flag : "");
	return 0;
}

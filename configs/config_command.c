/* config_command.c - `drumroll config`: check a config and print what it comes to. */
#include <stdlib.h>
#include <string.h>

#include "configs/config.h"
#include "configs/config_arguments.h"

static const char usage[] =
	"usage: drumroll config CONFIG [--set section.key=value ...]   print the effective config\n"
	"       drumroll config --default                              print every option, annotated\n";

int config_command(int argc, char **argv)
{
	struct config_arguments arguments;
	struct err err;
	if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		fputs(usage, stdout);
		return EXIT_SUCCESS;
	}
	if (config_arguments_read(&arguments, argc, argv, NULL, "--default", &err)) {
		fprintf(stderr, "drumroll: %s\n%s", err.text, usage);
		return EXIT_USAGE;
	}
	struct config config;
	if (config_load(&config, arguments.path, arguments.sets, arguments.n_sets, &err)) {
		fprintf(stderr, "drumroll: %s\n", err.text);
		return EXIT_USAGE;
	}
	config_print(&config, stdout, arguments.flag);
	config_free(&config);
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "drumroll: cannot write to standard output\n");
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}

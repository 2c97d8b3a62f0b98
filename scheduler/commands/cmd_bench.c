/* cmd_bench.c - `drumroll bench`: measurements, each beside the limit of the machine that it is up against. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/bench/bench.h"
#include "scheduler/commands/commands.h"

static const struct part {
	const char *name, *help;
	int (*run)(int argc, char **argv, struct err *err);
} parts[] = {
	{"kernels", "every kernel as a share of the machine's limits", bench_kernels},
	{"decode", "whole-model tokens per second of target and drafter", bench_decode},
	{"formats", "how well and how fast each format's drafter predicts the target", bench_formats},
	{"speculation", "generation with drafts against without, on the same samples", bench_speculation},
	{"explore", "pools drawn by the quantized copy against pools drawn by the target", bench_explore},
	{"grow", "write a larger model that computes the same function", bench_grow},
	{"gguf", "write the same weights as a file of llama.cpp", bench_gguf},
};
enum { N_PARTS = sizeof parts / sizeof *parts };

static void usage(FILE *out)
{
	fprintf(out, "drumroll bench: measurements beside the machine's limits\n\n");
	for (int i = 0; i < N_PARTS; i++) fprintf(out, "  drumroll bench %-11s %s\n", parts[i].name, parts[i].help);
	fprintf(out, "\n--help after any of them lists its options.\n");
}

int bench_command(int argc, char **argv)
{
	struct err err;
	if (argc < 2) {
		usage(stderr);
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
		usage(stdout);
		return EXIT_SUCCESS;
	}
	for (int i = 0; i < N_PARTS; i++) {
		if (strcmp(argv[1], parts[i].name) != 0) continue;
		int rc = parts[i].run(argc - 1, argv + 1, &err);
		if (rc) fprintf(stderr, "drumroll bench %s: %s\n", parts[i].name, err.text);
		return rc == ERR_USAGE ? EXIT_USAGE : rc ? EXIT_FAILURE : EXIT_SUCCESS;
	}
	fprintf(stderr, "drumroll bench: unknown part '%s'\n\n", argv[1]);
	usage(stderr);
	return EXIT_USAGE;
}

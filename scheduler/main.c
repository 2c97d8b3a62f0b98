/* main.c - the program: finds the command and runs it. */
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "configs/config.h"
#include "scheduler/commands/commands.h"
#include "scheduler/ranks/rank_guard.h"
#include "trainer_bridge/trainer/trainer.h"

static const struct command {
	const char *name, *arguments, *help;
	int (*run)(int argc, char **argv);
	bool explains_itself; /* answers --help */
} commands[] = {
	{ "run", "CONFIG | --resume DIR [--json] [--set ...]", "a rollout cluster: mpirun -n 3 drumroll run CONFIG", run_command },
	{ "launch", "-n RANKS CONFIG [--set ...]", "the same, mpirun included: on this machine, a hostfile, or in a Slurm job", launch_command, true },
	{ "top", "RUN_DIR|HOST:PORT [--json]", "a run as it goes, live on a terminal", top_command, true },
	{ "trainer", "CONFIG [--connect ADDRESS]", "the reference trainer, connected to a run's socket", trainer_command },
	{ "inspect", "DIR [--json]", "a model directory: shapes, memory, and what would be refused", inspect_command, true },
	{ "generate", "--model DIR --prompts FILE ...", "samples from prompts, one process", generate_command, true },
	{ "score", "--model DIR --in FILE ...", "log-probabilities of given tokens", score_command, true },
	{ "tokenize", "--model DIR [--decode]", "text to token ids and back, JSON lines", tokenize_command, true },
	{ "replay", "RUN_DIR [--mode M] [--serve CONFIG] ...", "draw recorded trajectories again and compare; or feed a trainer from them", replay_command, true },
	{ "export", "RUN_DIR [--format jsonl|csv|npz] ...", "a run's trajectories as JSON lines, a table, or NumPy arrays", export_command, true },
	{ "calibrate", "--model DIR [--out FILE]", "what calls cost on this machine, for speculation.costs", calibrate_command, true },
	{ "bench", "kernels|decode|speculation ...", "measurements beside the machine's limits", bench_command, true },
	{ "throughput", "CONFIG [--list] [--out DIR]", "experiments: whole runs of what a config varies, compared", throughput_command, true },
	{ "simulate", "CONFIG [--set section.key=value]", "a cluster of thousands of ranks in virtual time", simulate_command, true },
	{ "report", "DIR... [--out FILE.html]", "what runs and sweeps did, as one HTML file with plots", report_command, true },
	{ "pretrain", "CONFIG --out DIR", "make the quickstart model from nothing", pretrain_command },
	{ "config", "CONFIG | --default", "the effective config, or every option explained", config_command, true },
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void usage(FILE *out)
{
	fprintf(out, "drumroll: rollouts for LLM post-training on CPU clusters\n\n");
	for (int i = 0; i < N_COMMANDS; i++)
		fprintf(out, "  drumroll %-10s %-40s %s\n", commands[i].name, commands[i].arguments, commands[i].help);
}

/* Ranks, trainer and verifiers share cores, so a thread that spins at a barrier for a descheduled
 * partner costs milliseconds (policy/README.md).  libgomp reads its environment before main: set a
 * short spin and start again, unless the user has chosen. */
static void shorten_openmp_spin(char **argv)
{
	if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
	if (setenv("GOMP_SPINCOUNT", "1000", 0) == 0) execv("/proc/self/exe", argv);
}

static bool asks_for_help(const char *word)
{
	return strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* Told so by trainer_process.c. */
static void follow_parent(void)
{
	const char *parent = getenv("DRUMROLL_PARENT");

	if (!parent) return;
	rank_guard_follow_parent(strtol(parent, NULL, 10));
	unsetenv("DRUMROLL_PARENT"); /* its children are its own */
}

int main(int argc, char **argv)
{
	json_set_alloc_funcs(xmalloc, free); /* or a field that found no memory would just be missing */
	shorten_openmp_spin(argv);
	follow_parent();
	if (argc >= 2 && asks_for_help(argv[1])) {
		usage(stdout);
		return 0;
	}
	for (int i = 0; argc >= 2 && i < N_COMMANDS; i++) {
		const struct command *c = &commands[i];
		if (strcmp(argv[1], c->name) != 0) continue;
		if (c->explains_itself || argc < 3 || !asks_for_help(argv[2])) return c->run(argc - 1, argv + 1);
		printf("usage: drumroll %s %s\n       %s\n", c->name, c->arguments, c->help);
		return 0;
	}
	if (argc >= 2) fprintf(stderr, "drumroll: unknown command '%s'\n\n", argv[1]);
	usage(stderr);
	return EXIT_USAGE;
}

/* cmd_export.c - `drumroll export RUN_DIR [--format jsonl] [--out FILE] [--stable]`: a run's stored
 * trajectories, one JSON object per line, in order of trajectory id.
 *
 * Log-probabilities have the 9 digits that give a float back exactly, rewards the 17 of a double; a seed
 * is text, 16 hexadecimal digits, since many JSON readers do not hold 64 bits.
 * --stable leaves out what may differ between two runs of the same config (ranks, modes, timings,
 * counters, how often a sample was put aside), so that equal runs give equal bytes.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/commands.h"
#include "scheduler/store.h"

#define USAGE "drumroll export RUN_DIR [--format jsonl] [--out FILE] [--stable]"


struct export_options {
	const char *run_dir, *out; /* out NULL: standard output */
	bool stable;
};

struct export_walk {
	FILE *out;
	bool stable;
	struct err *err;
};

static const char *state_name(enum store_state state)
{
	static const char *const names[] = {"partial", "done", "delivered", "dropped"};
	return state <= STORE_DROPPED ? names[state] : "unknown";
}

/* A JSON string; the bytes are UTF-8 already. */
static void write_text(FILE *out, const char *text)
{
	if (!text) {
		fputs("null", out);
		return;
	}
	fputc('"', out);
	for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
		if (*c == '"' || *c == '\\')
			fprintf(out, "\\%c", *c);
		else if (*c < 0x20 || *c == 0x7f)
			fprintf(out, "\\u%04x", *c);
		else
			fputc(*c, out);
	}
	fputc('"', out);
}

/* JSON has no NaN or infinity: null. */
static void write_real(FILE *out, double value, int digits)
{
	if (isfinite(value))
		fprintf(out, "%.*g", digits, value);
	else
		fputs("null", out);
}

static void write_real_field(FILE *out, const char *key, double value, int digits)
{
	fprintf(out, ",\"%s\":", key);
	write_real(out, value, digits);
}

static void write_identity(FILE *out, const struct trajectory *t, enum store_state state)
{
	fprintf(out,
	        "{\"id\":%" PRIu64 ",\"group_id\":%" PRIu64 ",\"sample\":%d,\"group_size\":%d,\"prompt_id\":",
	        t->id, t->group_id, t->sample, t->group_size);
	write_text(out, t->prompt_id);
	fprintf(out,
	        ",\"epoch\":%d,\"eval\":%s,\"seed\":\"%016" PRIx64 "\",\"state\":\"%s\",\"answer\":", t->epoch,
	        t->eval ? "true" : "false", t->seed, state_name(state));
	write_text(out, t->answer);
	fprintf(out, ",\"meta\":%s", t->meta ? t->meta : "null");
	write_real_field(out, "temperature", (double)t->sampling.temperature, 9);
	write_real_field(out, "top_p", (double)t->sampling.top_p, 9);
	fprintf(out, ",\"top_k\":%d", t->sampling.top_k);
	write_real_field(out, "min_p", (double)t->sampling.min_p, 9);
	fprintf(out, ",\"max_tokens\":%d,\"n_prompt\":%d", t->max_tokens, t->n_prompt);
}

static void write_ints(FILE *out, const char *key, const int32_t *values, int32_t n)
{
	fprintf(out, ",\"%s\":[", key);
	for (int32_t i = 0; i < n; i++)
		fprintf(out, i ? ",%d" : "%d", values[i]);
	fputc(']', out);
}

static void write_floats(FILE *out, const char *key, const float *values, int32_t n)
{
	fprintf(out, ",\"%s\":[", key);
	for (int32_t i = 0; i < n; i++) {
		if (i)
			fputc(',', out);
		write_real(out, (double)values[i], 9);
	}
	fputc(']', out);
}

static void write_tokens(FILE *out, const struct trajectory *t)
{
	write_ints(out, "tokens", t->tokens, t->n_tokens);
	write_floats(out, "logprobs", t->logprobs, t->n_tokens);
	if (t->target_logprobs)
		write_floats(out, "target_logprobs", t->target_logprobs, t->n_tokens);
	write_ints(out, "versions", t->versions, t->n_tokens);
	fputs(",\"loss_mask\":[", out);
	for (int32_t i = 0; i < t->n_tokens; i++)
		fprintf(out, i ? ",%d" : "%d", t->loss_mask[i]);
	fputc(']', out);
}

/* Stable: runs of one version, whichever ranks and modes they were made on. */
static void write_segments(FILE *out, const struct trajectory *t, bool stable)
{
	fputs(",\"segments\":[", out);
	for (int32_t i = 0; i < t->n_segments; i++) {
		struct segment s = t->segments[i];
		if (i)
			fputc(',', out);
		while (stable && i + 1 < t->n_segments && t->segments[i + 1].version == s.version)
			s.length += t->segments[++i].length;
		fprintf(out, "{\"start\":%d,\"length\":%d,\"version\":%d", s.start, s.length, s.version);
		if (!stable)
			fprintf(out, ",\"rank\":%d,\"mode\":%d", s.rank, s.mode);
		fputc('}', out);
	}
	fputc(']', out);
}

static void write_outcome(FILE *out, const struct trajectory *t)
{
	fprintf(out, ",\"finish_reason\":\"%s\",\"error\":", finish_name(t->finish));
	write_text(out, t->error);
	if (t->has_reward) {
		write_real_field(out, "reward", t->reward, 17);
		write_real_field(out, "reward_answer", t->reward_answer, 17);
		write_real_field(out, "reward_steps", t->reward_steps, 17);
	} else {
		fputs(",\"reward\":null", out);
	}
	if (t->has_advantage) {
		write_real_field(out, "advantage", (double)t->advantage, 9);
		write_real_field(out, "baseline", (double)t->baseline, 9);
		write_real_field(out, "scale", (double)t->scale, 9);
		fprintf(out, ",\"pivot\":%s", t->pivot ? "true" : "false");
	} else {
		fputs(",\"advantage\":null", out);
	}
	write_real_field(out, "loss_weight", (double)t->loss_weight, 9);
	fprintf(out, ",\"staleness_max\":%d,\"staleness_min\":%d", t->staleness_max, t->staleness_min);
}

static void write_circumstances(FILE *out, const struct trajectory *t)
{
	fprintf(out, ",\"deferrals\":%d,\"drafted\":%d,\"accepted\":%d,\"verify_calls\":%d", t->deferrals,
	        t->drafted, t->accepted, t->verify_calls);
	write_real_field(out, "queue_seconds", t->queue_seconds, 9);
	write_real_field(out, "prefill_seconds", t->prefill_seconds, 9);
	write_real_field(out, "decode_seconds", t->decode_seconds, 9);
	write_real_field(out, "reward_seconds", t->reward_seconds, 9);
}

static int export_line(void *context, const struct trajectory *trajectory, enum store_state state)
{
	struct export_walk *walk = context;
	write_identity(walk->out, trajectory, state);
	write_tokens(walk->out, trajectory);
	write_segments(walk->out, trajectory, walk->stable);
	write_outcome(walk->out, trajectory);
	if (!walk->stable)
		write_circumstances(walk->out, trajectory);
	fputs("}\n", walk->out);
	return ferror(walk->out) ? err_set_errno(walk->err, ERR_IO, "cannot write") : 0;
}

static int parse_arguments(int argc, char **argv, struct export_options *options, struct err *err)
{
	*options = (struct export_options){0};
	for (int i = 1; i < argc; i++) {
		bool format = strcmp(argv[i], "--format") == 0;
		if (strcmp(argv[i], "--stable") == 0) {
			options->stable = true;
		} else if (format || strcmp(argv[i], "--out") == 0) {
			if (i + 1 == argc)
				return err_set(err, ERR_USAGE, "%s needs a value after it: " USAGE, argv[i]);
			const char *value = argv[++i];
			if (!format)
				options->out = value;
			else if (strcmp(value, "jsonl") != 0)
				return err_set(err, ERR_USAGE, "--format: expected jsonl, found %s", value);
		} else if (argv[i][0] == '-') {
			return err_set(err, ERR_USAGE, "unknown option %s: " USAGE, argv[i]);
		} else if (options->run_dir) {
			return err_set(err, ERR_USAGE, "two run directories are given (%s and %s), expected one",
			               options->run_dir, argv[i]);
		} else {
			options->run_dir = argv[i];
		}
	}
	return options->run_dir ? 0 : err_set(err, ERR_USAGE, "no run directory is given: " USAGE);
}

static int export_run(const struct export_options *options, struct err *err)
{
	struct store *store;
	if (store_open_existing(&store, options->run_dir, err))
		return err->code;
	FILE *out = options->out ? fopen(options->out, "w") : stdout;
	int code = out ? 0 : err_set_errno(err, ERR_IO, "cannot write %s", options->out);
	if (out) {
		struct export_walk walk = {.out = out, .stable = options->stable, .err = err};
		code = store_each_trajectory(store, export_line, &walk, err);
		/* A full disk may show itself only when the last bytes leave the buffer. */
		bool written = (options->out ? fclose(out) : fflush(out)) == 0;
		if (code == 0 && !written)
			code = err_set_errno(err, ERR_IO, "cannot write %s",
			                     options->out ? options->out : "standard output");
	}
	struct err ignored;
	store_close(store, &ignored);
	return code;
}

int export_command(int argc, char **argv)
{
	struct export_options options;
	struct err err;
	int code = parse_arguments(argc, argv, &options, &err);
	if (code == 0)
		code = export_run(&options, &err);
	if (code == 0)
		return EXIT_SUCCESS;
	fprintf(stderr, "drumroll export: %s\n", err.text);
	return code == ERR_USAGE ? EXIT_USAGE : EXIT_FAILURE;
}

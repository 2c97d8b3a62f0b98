/* replay_report.c - see replay_report.h; the fields of a difference are those of replay_compare.h. */
#include "scheduler/replay/replay_report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { VERSIONS_SHOWN = 8 };

void replay_report_json(const struct replay_report *report, FILE *out)
{
	const struct replay_result *r = report->result;
	json_t *o = replay_result_json(r);

	json_object_set_new(o, "run", json_string(report->run_dir));
	json_object_set_new(o, "mode", json_string(report->mode));
	json_object_set_new(o, "ranks", json_integer(report->ranks));
	json_object_set_new(o, "threads", json_integer(report->threads));
	json_object_set_new(o, "seconds", json_real(report->seconds));
	json_object_set_new(o, "tokens_per_sec", json_real((double)r->tokens_replayed / report->seconds));
	json_object_set_new(o, "all_equal", json_boolean(r->different == 0 && r->equal > 0));
	json_dumpf(o, out, JSON_COMPACT | JSON_REAL_PRECISION(17));
	fputc('\n', out);
	json_decref(o);
}

/* ---- a difference ---- */

static const char *text_field(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));
	return text ? text : "";
}

static json_int_t int_field(const json_t *o, const char *key) { return json_integer_value(json_object_get(o, key)); }

/* As a JSON string: in quotes, control characters escaped. */
static void print_quoted(const char *text, FILE *out)
{
	json_t *json = json_string(text);
	char *quoted = json ? json_dumps(json, JSON_ENCODE_ANY) : NULL;

	fputs(quoted ? quoted : "\"?\"", out);
	free(quoted);
	json_decref(json);
}

static void print_logprob(const json_t *side, const char *key, const char *words, FILE *out)
{
	const json_t *value = json_object_get(side, key);
	char hex[48];

	if (!value) return;
	snprintf(hex, sizeof hex, "%s_hex", key);
	fprintf(out, ", %s ", words);
	if (json_is_number(value)) fprintf(out, "%.9g", json_number_value(value));
	else fputs("not finite", out);
	fprintf(out, " (%s)", text_field(side, hex));
}

static void print_side(const json_t *difference, const char *name, FILE *out)
{
	const json_t *side = json_object_get(difference, name), *reward = json_object_get(side, "reward");

	if (!side || json_object_size(side) == 0) return;
	fprintf(out, "  %s  ", name);
	if (json_object_get(side, "token")) {
		fprintf(out, "token %" JSON_INTEGER_FORMAT " ", int_field(side, "token"));
		print_quoted(text_field(side, "text"), out);
		print_logprob(side, "logprob", "log-probability", out);
		print_logprob(side, "target_logprob", "the target's", out);
		fputs(", then ", out);
		print_quoted(text_field(side, "after"), out);
	} else if (json_object_get(difference, "position")) fputs("no token", out);
	if (json_object_get(side, "finish_reason")) fprintf(out, "  [finish reason %s]", text_field(side, "finish_reason"));
	if (reward && json_is_null(reward)) fputs("  [no reward]", out);
	else if (reward)
		fprintf(out, "  [reward %.17g, answer %.17g, steps %.17g]", json_number_value(reward),
		        json_number_value(json_object_get(side, "reward_answer")), json_number_value(json_object_get(side, "reward_steps")));
	if (json_object_get(side, "checksum")) fprintf(out, "  [checksum %s]", text_field(side, "checksum"));
	fputc('\n', out);
}

static void print_names(const json_t *difference, FILE *out)
{
	const json_t *list = json_object_get(difference, "differs");
	const json_t *item;
	size_t i;

	json_array_foreach(list, i, item) fprintf(out, "%s%s", i ? ", " : "", json_string_value(item));
}

static void print_head(const json_t *d, FILE *out)
{
	fprintf(out, "trajectory %" JSON_INTEGER_FORMAT " (group %" JSON_INTEGER_FORMAT ", sample %" JSON_INTEGER_FORMAT,
	        int_field(d, "trajectory"), int_field(d, "group"), int_field(d, "sample"));
	if (json_object_get(d, "prompt_id"))
		fprintf(out, ", prompt %s, epoch %" JSON_INTEGER_FORMAT, text_field(d, "prompt_id"), int_field(d, "epoch"));
	if (json_is_integer(json_object_get(d, "step"))) fprintf(out, ", step %" JSON_INTEGER_FORMAT, int_field(d, "step"));
	fprintf(out, ", %s%s): ", text_field(d, "state"), json_is_true(json_object_get(d, "eval")) ? ", evaluation" : "");
	print_names(d, out);
	fputc('\n', out);
}

static void print_difference(const json_t *d, FILE *out)
{
	const json_t *segment = json_object_get(d, "segment");

	print_head(d, out);
	if (json_object_get(d, "prompt")) {
		fputs("  prompt    ", out);
		print_quoted(text_field(d, "prompt"), out);
		fputc('\n', out);
	}
	if (segment)
		fprintf(out, "  position  %d (%d of the response), in segment %d [%d, +%d) of version %d, rank %d, %s\n  before    ",
		        (int)int_field(d, "position"), (int)int_field(d, "response_position"), (int)int_field(segment, "index"),
		        (int)int_field(segment, "start"), (int)int_field(segment, "length"), (int)int_field(segment, "version"),
		        (int)int_field(segment, "rank"), text_field(segment, "mode"));
	if (segment) print_quoted(text_field(d, "before"), out);
	if (segment) fputc('\n', out);
	print_side(d, "recorded", out);
	print_side(d, "replayed", out);
	if (json_object_get(d, "note")) fprintf(out, "  %s\n", text_field(d, "note"));
}

static void print_differences(const struct replay_result *r, FILE *out)
{
	size_t n = json_array_size(r->differences);

	if (n == 0) return;
	fputs("first difference: ", out);
	print_difference(json_array_get(r->differences, 0), out);
	for (size_t i = 1; i < n; i++) {
		fputs("then: ", out);
		print_head(json_array_get(r->differences, i), out);
	}
	if (r->different > n) fprintf(out, "and others, %" PRIu64 " trajectories in all\n", r->different);
}

/* ---- what could not be compared ---- */

static void print_not_kept(const struct replay_result *r, FILE *out)
{
	const char *key;
	json_t *value;
	int shown = 0;

	fprintf(out, "  %" PRIu64 " trajectories have %" PRIu64 " tokens of versions whose weights were not kept (", r->with_not_kept,
	        r->tokens_not_kept);
	json_object_foreach(r->not_kept, key, value) {
		if (shown++ == VERSIONS_SHOWN) break;
		fprintf(out, "%s%s: %" JSON_INTEGER_FORMAT, shown > 1 ? ", " : "version ", key, json_integer_value(value));
	}
	fprintf(out, "%s): run with weights.keep_versions to keep more\n", shown > VERSIONS_SHOWN ? ", ..." : "");
}

static void print_left_out(const struct replay_result *r, FILE *out)
{
	if (r->with_not_kept) print_not_kept(r, out);
	if (r->with_kv_kept)
		fprintf(out, "  %" PRIu64 " have %" PRIu64 " tokens over keys and values of older versions (scheduler.kv: keep), which "
		        "cannot be drawn again from the record\n", r->with_kv_kept, r->tokens_kv_kept);
	if (r->with_maximal)
		fprintf(out, "  %" PRIu64 " have %" PRIu64 " tokens of maximal coupling, which depend on draft lengths and cannot be drawn "
		        "again\n", r->with_maximal, r->tokens_maximal);
	if (r->empty) fprintf(out, "  %" PRIu64 " have no token yet\n", r->empty);
	if (r->rewards_not_asked)
		fprintf(out, "  %" PRIu64 " rewards were not asked for again: they are an external verifier's or the trainer's\n",
		        r->rewards_not_asked);
}

void replay_report_text(const struct replay_report *report, FILE *out)
{
	const struct replay_result *r = report->result;

	fprintf(out, "replay of %s: %" PRIu64 " of %" PRIu64 " tokens of %" PRIu64 " trajectories drawn again in %.2f s "
	        "(%.0f tokens/s), mode %s, %d %s of %d %s\n", report->run_dir, r->tokens_replayed, r->tokens, r->trajectories,
	        report->seconds, (double)r->tokens_replayed / report->seconds, report->mode, report->ranks,
	        report->ranks == 1 ? "process" : "ranks", report->threads, report->threads == 1 ? "thread" : "threads");
	fprintf(out, "  %" PRIu64 " trajectories whole, %" PRIu64 " in part, %" PRIu64 " not at all; %" PRIu64 " rewards judged "
	        "again, %" PRIu64 " checksums compared\n", r->replayed, r->replayed_partly, r->not_replayed, r->rewards, r->checksums);
	print_left_out(r, out);
	print_differences(r, out);
	if (r->different) fprintf(out, "%" PRIu64 " trajectories differ, %" PRIu64 " are equal\n", r->different, r->equal);
	else if (r->equal) fprintf(out, "all equal, bit for bit\n");
}

/* export_jsonl.c - one JSON object per line and trajectory.
 *
 * Log-probabilities have the 9 digits that give a float back exactly, rewards the 17 of a double; a seed
 * is text, 16 hexadecimal digits, since many JSON readers do not hold 64 bits.
 * Stable: without what may differ between two runs of the same config (ranks, modes, timings, counters, the step,
 * how often a sample was put aside), so that equal runs give equal bytes; what was drawn over keys and values of older
 * versions says so still.
 */
#include "scheduler/export/export.h"

#include <inttypes.h>
#include <math.h>

const char *export_state_name(enum store_state state)
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
	        t->eval ? "true" : "false", t->seed, export_state_name(state));
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

struct segment export_segment(const struct export_row *row, int *index)
{
	const struct trajectory *t = row->t;
	struct segment s = t->segments[(*index)++];

	if (!row->stable) return s;
	for (; *index < t->n_segments; s.length += t->segments[(*index)++].length) {
		const struct segment *next = &t->segments[*index];
		if (next->version != s.version || ((next->mode ^ s.mode) & SEGMENT_KV_KEPT)) break;
	}
	s.mode &= SEGMENT_KV_KEPT;
	s.rank = -1;
	return s;
}

static void write_segments(FILE *out, const struct export_row *row)
{
	fputs(",\"segments\":[", out);
	for (int i = 0; i < row->t->n_segments;) {
		fputs(i ? ",{" : "{", out);
		struct segment s = export_segment(row, &i);
		fprintf(out, "\"start\":%d,\"length\":%d,\"version\":%d", s.start, s.length, s.version);
		if (!row->stable)
			fprintf(out, ",\"rank\":%d,\"mode\":%d", s.rank, s.mode);
		else if (s.mode & SEGMENT_KV_KEPT)
			fputs(",\"kv_kept\":true", out);
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

static void write_circumstances(FILE *out, const struct trajectory *t, int64_t step)
{
	if (step >= 0)
		fprintf(out, ",\"step\":%" PRId64, step);
	fprintf(out, ",\"deferrals\":%d,\"drafted\":%d,\"accepted\":%d,\"verify_calls\":%d", t->deferrals,
	        t->drafted, t->accepted, t->verify_calls);
	write_real_field(out, "queue_seconds", t->queue_seconds, 9);
	write_real_field(out, "prefill_seconds", t->prefill_seconds, 9);
	write_real_field(out, "decode_seconds", t->decode_seconds, 9);
	write_real_field(out, "reward_seconds", t->reward_seconds, 9);
}

void export_jsonl_row(FILE *out, const struct export_row *row)
{
	write_identity(out, row->t, row->state);
	write_tokens(out, row->t);
	write_segments(out, row);
	write_outcome(out, row->t);
	if (!row->stable)
		write_circumstances(out, row->t, row->step);
	fputs("}\n", out);
}

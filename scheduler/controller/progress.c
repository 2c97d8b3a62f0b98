/* progress.c - plain lines: mpirun forwards them whole, and a log keeps them. */
#include "scheduler/controller/progress.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "configs/config.h"
#include "quant/format.h"
#include "scheduler/clock.h"

enum { HEADER_EVERY = 20 };

static bool as_json;
static double spoken; /* clock_seconds() when something was last said */

void progress_use_json(void) { as_json = true; }

double progress_silence(void) { return clock_seconds() - spoken; }

static void said(void)
{
	fflush(stdout);
	spoken = clock_seconds();
}

/* A line of JSON; takes the object. */
static void say_json(json_t *o)
{
	char *text = json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));

	printf("%s\n", text ? text : "{\"event\":\"note\",\"text\":\"something was said that is not UTF-8\"}");
	said();
	free(text);
	json_decref(o);
}

static const char *count_text(char text[16], double n)
{
	if (n >= 1e9) snprintf(text, 16, "%.2f G", n / 1e9);
	else if (n >= 1e6) snprintf(text, 16, "%.2f M", n / 1e6);
	else if (n >= 1e4) snprintf(text, 16, "%.1f k", n / 1e3);
	else snprintf(text, 16, "%.0f", n);
	return text;
}

static const char *time_text(char text[16], double seconds)
{
	int s = (int)(seconds + 0.5);
	if (s >= 3600) snprintf(text, 16, "%dh%02dm", s / 3600, s / 60 % 60);
	else snprintf(text, 16, "%dm%02ds", s / 60, s % 60);
	return text;
}

static void print_drafter(const struct progress_banner *b)
{
	const char *format = b->draft.choose ? "int8 or int4" : format_info(b->draft.format)->name;

	if (b->drafter == DRAFTER_KIND_SUFFIX) printf("  drafter  repeated text");
	else printf("  drafter  %s copy of the same weights%s", format, b->drafter == DRAFTER_KIND_QUANT ? "" : " or repeated text");
	if (b->draft_length > 0) printf(", %lld tokens a round", (long long)b->draft_length);
	else printf(", as many tokens as pay");
	printf("; verified by the BF16 target\n");
}

static void say_banner_json(const struct progress_banner *b)
{
	say_json(json_pack("{s:s, s:s, s:s, s:s, s:f, s:i, s:i, s:s?, s:s?, s:s?}", "event", "begin", "run", b->run_name, "run_dir", b->run_dir,
		"model", b->model_path, "parameters", b->parameters, "workers", b->workers, "threads", b->threads, "cpu", b->cpu,
		"bridge", b->bridge, "metrics", b->metrics));
}

void progress_banner(const struct progress_banner *b)
{
	char parameters[16];

	if (as_json) {
		say_banner_json(b);
		return;
	}
	printf("drumroll run '%s': controller and %d worker%s of %d thread%s (%s)\n", b->run_name, b->workers,
	       b->workers == 1 ? "" : "s", b->threads, b->threads == 1 ? "" : "s", b->cpu);
	printf("  policy   %s: %s parameters, %d layers of %d, vocabulary %d, BF16%s\n", b->model_path,
	       count_text(parameters, b->parameters), b->model->n_layers, b->model->dim, b->model->vocab_size,
	       b->mode == ROLLOUT_EXACT ? " (no drafter)" : "");
	if (b->mode == ROLLOUT_SPECULATIVE)
		print_drafter(b);
	if (b->mode == ROLLOUT_QUANTIZED)
		printf("  samples  drawn by the %s copy of the same weights; the BF16 target's log-probabilities are added\n",
		       format_info(b->draft.format)->name);
	if (b->mode == ROLLOUT_EXPLORE)
		printf("  samples  pools drawn by the %s copy of the same weights; the most contrastive drawn again by the BF16 target\n",
		       format_info(b->draft.format)->name);
	if (b->bridge) printf("  trainer  at %s\n", b->bridge);
	if (b->metrics) printf("  metrics  at %s: /metrics for Prometheus, /status as JSON\n", b->metrics);
	printf("  results  %s\n", b->run_dir);
	printf("  reward and pass: samples of complete groups; accept: drafted tokens that the target drew too; length:\n"
	       "  mean/longest response; partials: resumed/put aside; stale: versions that a sample's oldest token lags\n");
	said();
}

void progress_eval(int64_t step, double pass_rate, int n, double seconds)
{
	if (as_json) {
		say_json(json_pack("{s:s, s:I, s:f, s:i, s:f}", "event", "evaluation", "step", (json_int_t)step, "pass_rate", pass_rate,
			"samples", n, "seconds", seconds));
		return;
	}
	printf("  pass rate on held-out prompts after step %lld: %.1f %% of %d samples (%.1f s)\n", (long long)step,
	       100 * pass_rate, n, seconds);
	said();
}

static void say_step_json(const struct step_metrics *m, int64_t steps, double eta_seconds)
{
	char *line = step_metrics_json(m);

	say_json(json_pack("{s:s, s:I, s:I, s:f, s:o}", "event", "step", "step", (json_int_t)m->step, "steps", (json_int_t)steps, "eta_seconds",
		eta_seconds, "metrics", json_loads(line, 0, NULL)));
	free(line);
}

void progress_step(const struct step_metrics *m, int64_t steps, double step_seconds_mean)
{
	char rate[16], eta[16];

	if (as_json) {
		say_step_json(m, steps, step_seconds_mean * (double)(steps - m->step));
		return;
	}
	if ((m->step - 1) % HEADER_EVERY == 0)
		printf("%10s %7s %6s %8s %7s %9s %9s %6s %9s %7s %7s\n", "step", "reward", "pass", "tokens/s", "accept",
		       "length", "partials", "stale", "loss", "seconds", "ETA");
	char step[32], length[32], partial[32], reward[16] = "-", pass[16] = "-", accept[16] = "-", loss[16] = "-";
	snprintf(step, sizeof step, "%lld/%lld", (long long)m->step, (long long)steps);
	if (m->completed) snprintf(reward, sizeof reward, "%.3f", step_metrics_reward(m));
	if (m->completed) snprintf(pass, sizeof pass, "%.1f%%", 100 * step_metrics_pass_rate(m));
	if (m->drafted) snprintf(accept, sizeof accept, "%.3f", step_metrics_acceptance(m));
	snprintf(length, sizeof length, "%.0f/%d", step_metrics_length_mean(m), step_metrics_length_max(m));
	snprintf(partial, sizeof partial, "%d/%d", m->resumed, m->put_aside);
	if (m->has_report) snprintf(loss, sizeof loss, "%.4f", m->report.loss);
	printf("%10s %7s %6s %8s %7s %9s %9s %6.2f %9s %7.1f %7s\n", step, reward, pass,
	       count_text(rate, step_metrics_tokens_per_sec(m)), accept, length, partial,
	       m->trajectories ? m->staleness_sum / m->trajectories : 0, loss,
	       m->rollout_seconds + m->train_seconds + m->broadcast_seconds,
	       time_text(eta, step_seconds_mean * (double)(steps - m->step)));
	said();
}

void progress_within(int64_t step, int64_t steps, int complete, int wanted, int in_flight, double tokens_per_sec)
{
	char rate[16];

	progress_note("step %lld/%lld: %d groups complete of %d, %d samples in flight, %s tokens/s", (long long)step, (long long)steps,
	              complete, wanted, in_flight, count_text(rate, tokens_per_sec));
}

void progress_note(const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	if (as_json) {
		say_json(json_pack("{s:s, s:s}", "event", "note", "text", text));
		return;
	}
	printf("  %s\n", text);
	said();
}

static double rate_of(double a, double b) { return b > 0 ? a / b : 0; }

void run_summary_add(struct run_summary *s, const struct step_metrics *m)
{
	double reward = step_metrics_reward(m);

	s->steps = m->step;
	s->tokens += m->tokens;
	s->drafted += m->drafted;
	s->accepted += m->accepted;
	s->trajectories += m->trajectories;
	s->samples += m->completed;
	s->delivered_tokens += m->delivered_tokens;
	s->staleness_sum += m->staleness_sum;
	s->rollout_seconds += m->rollout_seconds;
	s->train_seconds += m->train_seconds;
	s->broadcast_seconds += m->broadcast_seconds;
	if (m->step == 1) s->reward_first = reward;
	if (m->completed > 0) s->reward_last = reward;
}

void progress_summary(const struct run_summary *s)
{
	char tokens[16], rate[16], time[16];

	if (as_json) return;
	printf("\n%lld steps in %s: %s tokens, %s tokens/s while rolling out, %lld trajectories delivered, %lld partials resumed\n",
	       (long long)s->steps, time_text(time, s->seconds), count_text(tokens, (double)s->tokens),
	       count_text(rate, rate_of((double)s->tokens, s->rollout_seconds)), (long long)s->trajectories,
	       (long long)s->partials_resumed);
	if (s->drafted) printf("drafts accepted: %.1f %%\n", 100 * rate_of((double)s->accepted, (double)s->drafted));
	printf("time: rollout %.0f s, trainer %.0f s, weights to the ranks %.1f s\n", s->rollout_seconds, s->train_seconds,
	       s->broadcast_seconds);
	if (s->pass_rate_start >= 0 && s->pass_rate_end >= 0)
		printf("pass rate on held-out prompts: %.1f %% -> %.1f %% (%+.1f points)\n", 100 * s->pass_rate_start,
		       100 * s->pass_rate_end, 100 * (s->pass_rate_end - s->pass_rate_start));
	fflush(stdout);
}

static json_t *summary_object(const struct run_summary *s)
{
	json_t *o = json_object();
	json_object_set_new(o, "status", json_string(s->status));
	json_object_set_new(o, "pass_rate_start", s->pass_rate_start >= 0 ? json_real(s->pass_rate_start) : json_null());
	json_object_set_new(o, "pass_rate_end", s->pass_rate_end >= 0 ? json_real(s->pass_rate_end) : json_null());
	json_object_set_new(o, "steps", json_integer(s->steps));
	json_object_set_new(o, "seconds", json_real(s->seconds));
	json_object_set_new(o, "tokens_per_sec", json_real(rate_of((double)s->tokens, s->rollout_seconds)));
	json_object_set_new(o, "acceptance", json_real(rate_of((double)s->accepted, (double)s->drafted)));
	json_object_set_new(o, "trajectories", json_integer(s->trajectories));
	json_object_set_new(o, "partials_resumed", json_integer(s->partials_resumed));
	json_object_set_new(o, "tokens", json_integer((json_int_t)s->tokens));
	json_object_set_new(o, "rollout_seconds", json_real(s->rollout_seconds));
	json_object_set_new(o, "train_seconds", json_real(s->train_seconds));
	json_object_set_new(o, "update_weights_seconds", json_real(s->broadcast_seconds));
	json_object_set_new(o, "samples", json_integer((json_int_t)s->samples));
	json_object_set_new(o, "steps_seconds", json_real(s->steps_seconds));
	json_object_set_new(o, "step_seconds", json_real(rate_of(s->steps_seconds, (double)s->steps)));
	json_object_set_new(o, "rollout_step_seconds", json_real(rate_of(s->rollout_seconds, (double)s->steps)));
	json_object_set_new(o, "eval_seconds", json_real(s->eval_seconds));
	json_object_set_new(o, "delivered_tokens", json_real(s->delivered_tokens));
	json_object_set_new(o, "delivered_tokens_per_sec", json_real(rate_of(s->delivered_tokens, s->steps_seconds)));
	json_object_set_new(o, "trajectories_per_sec", json_real(rate_of((double)s->trajectories, s->steps_seconds)));
	json_object_set_new(o, "response_len_mean", json_real(rate_of(s->delivered_tokens, (double)s->trajectories)));
	json_object_set_new(o, "staleness_mean", json_real(rate_of(s->staleness_sum, (double)s->trajectories)));
	json_object_set_new(o, "reward_first_step", json_real(s->reward_first));
	json_object_set_new(o, "reward_last_step", json_real(s->reward_last));
	return o;
}

void progress_end(const struct run_summary *s, const char *run_dir, const char *error)
{
	if (as_json) {
		json_t *o = json_pack("{s:s, s:s, s:s?}", "event", "end", "run_dir", run_dir, "error", error);
		json_t *summary = summary_object(s);
		json_object_update(o, summary);
		json_decref(summary);
		say_json(o);
	} else printf("run directory: %s\n", run_dir);
	said();
}

char *run_summary_json(const struct run_summary *s)
{
	json_t *o = summary_object(s);
	char *text = json_dumps(o, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
	json_decref(o);
	return text;
}

/* progress.c - plain lines: mpirun forwards them whole, and a log keeps them. */
#include "scheduler/progress.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>

#include "configs/config.h"
#include "quant/format.h"

enum { HEADER_EVERY = 20 };

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

void progress_banner(const struct progress_banner *b)
{
	char parameters[16];
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
	if (b->bridge) printf("  trainer  at %s\n", b->bridge);
	printf("  results  %s\n", b->run_dir);
	printf("  reward and pass: samples of complete groups; accept: drafted tokens that the target drew too; length:\n"
	       "  mean/longest response; partials: resumed/put aside; stale: versions that a sample's oldest token lags\n");
	fflush(stdout);
}

void progress_eval(int64_t step, double pass_rate, int n, double seconds)
{
	printf("  pass rate on held-out prompts after step %lld: %.1f %% of %d samples (%.1f s)\n", (long long)step,
	       100 * pass_rate, n, seconds);
	fflush(stdout);
}

void progress_step(const struct step_metrics *m, int64_t steps, double step_seconds_mean)
{
	char rate[16], eta[16];
	if ((m->step - 1) % HEADER_EVERY == 0)
		printf("%10s %7s %6s %8s %7s %9s %9s %6s %9s %7s %7s\n", "step", "reward", "pass", "tokens/s", "accept",
		       "length", "partials", "stale", "loss", "seconds", "ETA");
	char step[32], length[32], partial[32], accept[16] = "-", loss[16] = "-";
	snprintf(step, sizeof step, "%lld/%lld", (long long)m->step, (long long)steps);
	if (m->drafted) snprintf(accept, sizeof accept, "%.3f", step_metrics_acceptance(m));
	snprintf(length, sizeof length, "%.0f/%d", step_metrics_length_mean(m), step_metrics_length_max(m));
	snprintf(partial, sizeof partial, "%d/%d", m->resumed, m->put_aside);
	if (m->has_report) snprintf(loss, sizeof loss, "%.4f", m->report.loss);
	printf("%10s %7.3f %5.1f%% %8s %7s %9s %9s %6.2f %9s %7.1f %7s\n", step, step_metrics_reward(m),
	       100 * step_metrics_pass_rate(m), count_text(rate, step_metrics_tokens_per_sec(m)), accept, length, partial,
	       m->trajectories ? m->staleness_sum / m->trajectories : 0, loss,
	       m->rollout_seconds + m->train_seconds + m->broadcast_seconds,
	       time_text(eta, step_seconds_mean * (double)(steps - m->step)));
	fflush(stdout);
}

void progress_note(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	printf("  ");
	vprintf(format, args);
	printf("\n");
	va_end(args);
	fflush(stdout);
}

static double rate_of(double a, double b) { return b > 0 ? a / b : 0; }

void progress_summary(const struct run_summary *s)
{
	char tokens[16], rate[16], time[16];
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

char *run_summary_json(const struct run_summary *s)
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
	json_object_set_new(o, "reward_first_step", json_real(s->reward_first));
	json_object_set_new(o, "reward_last_step", json_real(s->reward_last));
	char *text = json_dumps(o, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
	json_decref(o);
	return text;
}

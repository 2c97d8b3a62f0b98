/* step_history.c - see step_history.h. */
#include "scheduler/controller/step_history.h"

#include <jansson.h>

char *step_history_complete(const char *line, const struct step_metrics *since)
{
	const struct trainer_report *r = &since->report;
	const struct { const char *key; double value; } reals[] = {
		{ "trainer/loss", r->loss }, { "trainer/grad_norm", r->grad_norm }, { "trainer/kl", r->kl },
		{ "trainer/clip_frac", r->clip_frac }, { "trainer/entropy", r->entropy },
		{ "rollout_corr/rollout_is_mean", r->tis_mean }, { "trainer/learning_rate", r->learning_rate },
		{ "trainer/seconds", r->seconds },
	};
	json_t *o = json_loads(line, 0, NULL);

	if (!json_is_object(o)) {
		json_decref(o);
		return NULL;
	}
	json_object_set_new(o, "timing_s/train", json_real(since->train_seconds));
	json_object_set_new(o, "timing_s/update_weights", json_real(since->broadcast_seconds));
	for (size_t i = 0; i < sizeof reals / sizeof *reals && since->has_report; i++)
		json_object_set_new(o, reals[i].key, json_real(reals[i].value));
	if (since->has_report) json_object_set_new(o, "trainer/tokens", json_integer(r->tokens));
	char *text = json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
	json_decref(o);
	return text;
}

static double number(const json_t *o, const char *key)
{
	return json_number_value(json_object_get(o, key));
}

void step_history_add(struct run_summary *s, const char *line)
{
	json_t *o = json_loads(line, 0, NULL);
	int64_t step = json_integer_value(json_object_get(o, "step"));

	if (json_object_get(o, "eval/pass_rate")) {
		double rate = number(o, "eval/pass_rate");
		if (step == 0) s->pass_rate_start = rate;
		s->pass_rate_end = rate;
	} else if (json_object_get(o, "reward/mean")) {
		s->steps = step;
		s->tokens += (uint64_t)number(o, "rollout/tokens");
		s->drafted += (uint64_t)number(o, "rollout/sd/total_draft_tokens");
		s->accepted += (uint64_t)number(o, "rollout/sd/total_accepted_tokens");
		s->trajectories += (int64_t)number(o, "rollout/trajectories");
		s->samples += (int64_t)number(o, "allocation/samples");
		s->delivered_tokens += number(o, "rollout/trajectories") * number(o, "rollout/response_len/mean");
		s->staleness_sum += number(o, "rollout/trajectories") * number(o, "staleness/mean");
		s->partials_resumed += (int64_t)number(o, "partial/resumed");
		s->rollout_seconds += number(o, "perf/rollout_time");
		s->train_seconds += number(o, "timing_s/train");
		s->broadcast_seconds += number(o, "timing_s/update_weights");
		s->steps_seconds += number(o, "perf/rollout_time") + number(o, "timing_s/train") + number(o, "timing_s/update_weights");
		if (step == 1) s->reward_first = number(o, "reward/mean");
		if (json_is_number(json_object_get(o, "reward/mean"))) s->reward_last = number(o, "reward/mean");
	}
	json_decref(o);
}

/* part_trainer.c - what the trainer reported, where it does. */
#include "scheduler/report/report_page.h"

int part_trainer(struct page *page)
{
	static const struct metric_figure figures[] = {
		{ .key = "trainer/loss", .factor = 1, .what = "Loss", .unit = "", .y_label = "loss" },
		{ .key = "trainer/grad_norm", .factor = 1, .what = "Gradient norm", .unit = "", .y_label = "norm before clipping", .from_zero = true },
		{ .key = "trainer/entropy", .factor = 1, .what = "Entropy", .unit = "", .y_label = "nats a token", .from_zero = true },
		{ .key = "trainer/kl", .factor = 1, .what = "KL to the initial policy", .unit = "", .y_label = "nats a token" },
		{ .key = "trainer/clip_frac", .factor = 100, .what = "Clipped tokens", .unit = " %", .y_label = "tokens whose ratio was clipped, %",
		  .from_zero = true },
		{ .key = "rollout_corr/rollout_is_mean", .factor = 1, .what = "Importance weight", .unit = "",
		  .y_label = "mean truncated weight of tokens, trainer against rollout" },
		{ .key = "rollout_corr/k3_kl", .factor = 1, .what = "KL of behaviour to target", .unit = "", .y_label = "nats a token (k3)",
		  .from_zero = true },
	};
	int code = 0;

	section_open(page, "trainer", "Training", "As the trainer reported it with each new version of the weights.");
	if (!any_has(page, "trainer/loss")) page_lack(page, NULL, "no trainer reported anything (trainer.kind: none, or it does not say)");
	figures_open(page);
	for (size_t k = 0; k < sizeof figures / sizeof *figures && !code; k++) {
		bool changes = false;
		for (int i = 0; i < page->n_runs && !changes; i++) {
			struct series s = table_series(&page->runs[i].steps, "step", figures[k].key, 1);
			for (int j = 0; j < s.n && !changes; j++) changes = s.y[j] != 0;
			series_free(&s);
		}
		if (changes) code = page_metric(page, &figures[k]);
	}
	figures_close(page);
	section_close(page);
	return code;
}

/* sample_context.c - see sample_context.h. */
#include "scheduler/controller/sample_context.h"

#include <stdio.h>

void sample_context_find(struct sample_context *context, const struct model_config *model,
                         const struct prompts *const *sets, int n_sets, int64_t max_tokens, const char *option)
{
	int64_t longest = 0;
	bool noted = model->context_note[0] != '\0';

	for (int s = 0; s < n_sets; s++)
		for (size_t i = 0; i < sets[s]->n; i++)
			if (sets[s]->items[i].n_tokens > longest) longest = sets[s]->items[i].n_tokens;
	longest += max_tokens;
	context->note[0] = '\0';
	context->positions = longest < model->max_context ? (int)longest : model->max_context;
	if (longest <= model->max_context) return;
	snprintf(context->note, sizeof context->note,
	         "the longest prompt and %s come to %lld tokens, but the model's context is %d%s%s%s: samples end there "
	         "(finish_reason length)",
	         option, (long long)longest, model->max_context, noted ? " (" : "", model->context_note, noted ? ")" : "");
}

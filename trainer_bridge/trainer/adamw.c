/* adamw.c - see adamw.h.  Memory: 12 bytes per parameter beside the gradient. */
#include "trainer_bridge/trainer/adamw.h"

#include <math.h>
#include <stdlib.h>

#include "configs/err.h"
#include "quant/bf16.h"

void adamw_open(struct adamw *adamw, const uint16_t *initial, size_t n)
{
	adamw->n = n;
	adamw->step = 0;
	adamw->master = xmalloc(n * sizeof(float));
	adamw->m = xcalloc(n, sizeof(float));
	adamw->v = xcalloc(n, sizeof(float));
	for (size_t i = 0; i < n; i++) adamw->master[i] = bf16_to_f32(initial[i]);
}

void adamw_close(struct adamw *adamw)
{
	free(adamw->master);
	free(adamw->m);
	free(adamw->v);
}

void adamw_begin(struct adamw *adamw)
{
	adamw->step++;
}

void adamw_update(struct adamw *adamw, const struct adamw_options *options, const float *grads,
                  float grad_scale, size_t begin, size_t end, bool decay, uint16_t *rounded, float *params)
{
	float b1 = options->beta1, b2 = options->beta2, lr = options->learning_rate;
	float shrink = decay ? 1.0f - lr * options->weight_decay : 1.0f;
	float correct1 = (float)(1.0 / (1.0 - pow(b1, (double)adamw->step)));
	float correct2 = (float)(1.0 / (1.0 - pow(b2, (double)adamw->step)));
	float *master = adamw->master, *m = adamw->m, *v = adamw->v;
	for (size_t i = begin; i < end; i++) {
		float g = grads[i] * grad_scale;
		m[i] = b1 * m[i] + (1.0f - b1) * g;
		v[i] = b2 * v[i] + (1.0f - b2) * g * g;
		master[i] = master[i] * shrink - lr * (m[i] * correct1) / (sqrtf(v[i] * correct2) + ADAMW_EPS);
		rounded[i] = bf16_from_f32(master[i]);
		params[i] = bf16_to_f32(rounded[i]);
	}
}

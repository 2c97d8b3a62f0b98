/* model_config_rope.c - rope_theta and `rope_scaling`, which transformers 5 writes as one object
 * `rope_parameters`; the type is `rope_type`, formerly `type`.
 *
 * Dynamic NTK leaves the angles plain up to the trained context and makes them depend on the length of the
 * sequence beyond, so that no cached key would stay right: it is done up to there, and the context ends
 * there.  YaRN is meant for factor times the trained context, whatever max_position_embeddings says.
 */
#include "policy/model_config_json.h"

#include <stdio.h>
#include <string.h>

static int read_llama3(struct model_config *c, const json_t *scaling, struct err *err)
{
	int code = 0;
	if ((code = model_field_real(scaling, "factor", 1.0, 1e6, 0, &c->rope_factor, err)) ||
	    (code = model_field_real(scaling, "low_freq_factor", 1e-3, 1e6, 0, &c->rope_low_freq_factor, err)) ||
	    (code = model_field_real(scaling, "high_freq_factor", 1e-3, 1e6, 0, &c->rope_high_freq_factor, err)) ||
	    (code = model_field_int(scaling, "original_max_position_embeddings", 1, MODEL_CONTEXT_MAX, 0,
	                      &c->rope_original_context, err)))
		return code;
	if (c->rope_high_freq_factor <= c->rope_low_freq_factor)
		return err_set(err, ERR_INVALID, "high_freq_factor must be above low_freq_factor, found %g and %g",
		               c->rope_high_freq_factor, c->rope_low_freq_factor);
	return 0;
}

/* A number above 0; 0 and null stand for the default, as in transformers. */
static int read_positive(const json_t *scaling, const char *key, double fallback, double *out, struct err *err)
{
	int code = model_field_real(scaling, key, 0, 1e6, fallback, out, err);
	if (*out == 0) *out = fallback;
	return code;
}

static int read_yarn(struct model_config *c, const json_t *scaling, struct err *err)
{
	bool truncate = true;
	int code = 0;
	if ((code = model_field_int(scaling, "original_max_position_embeddings", 1, MODEL_CONTEXT_MAX, c->max_context,
	                      &c->rope_original_context, err)) ||
	    (code = model_field_real(scaling, "factor", 1.0, 1e6, (double)c->max_context / c->rope_original_context,
	                       &c->rope_factor, err)) ||
	    (code = read_positive(scaling, "beta_fast", 32, &c->rope_beta_fast, err)) ||
	    (code = read_positive(scaling, "beta_slow", 1, &c->rope_beta_slow, err)) ||
	    (code = read_positive(scaling, "attention_factor", 0, &c->rope_attention_factor, err)) ||
	    (code = read_positive(scaling, "mscale", 0, &c->rope_mscale, err)) ||
	    (code = read_positive(scaling, "mscale_all_dim", 0, &c->rope_mscale_all_dim, err)) ||
	    (code = model_field_bool(scaling, "truncate", true, &truncate, err)))
		return code;
	if (c->rope_beta_fast <= c->rope_beta_slow)
		return err_set(err, ERR_INVALID, "beta_fast must be above beta_slow, found %g and %g", c->rope_beta_fast,
		               c->rope_beta_slow);
	if (c->rope_theta <= 1.0)
		return err_set(err, ERR_INVALID, "rope_theta: expected more than 1 with yarn, found %g", c->rope_theta);
	c->rope_exact_ramp = !truncate;
	double reach = c->rope_factor * c->rope_original_context;
	if (reach < c->max_context + 1.0) return 0;
	snprintf(c->context_note, sizeof c->context_note, "yarn extends %d positions by %g", c->rope_original_context,
	         c->rope_factor);
	c->max_context = reach < MODEL_CONTEXT_MAX ? (int)reach : MODEL_CONTEXT_MAX;
	return 0;
}

static int read_dynamic(struct model_config *c, const json_t *scaling, struct err *err)
{
	int trained = 0;
	int code = model_field_int(scaling, "original_max_position_embeddings", 1, MODEL_CONTEXT_MAX, c->max_context,
	                     &trained, err);
	if (code) return code;
	if (trained < c->max_context) c->max_context = trained;
	snprintf(c->context_note, sizeof c->context_note,
	         "dynamic NTK scaling rotates by the sequence's length beyond %d positions, which is not done",
	         c->max_context);
	return 0;
}

static int read_scaling(struct model_config *c, const json_t *scaling, struct err *err)
{
	char text[64];
	const json_t *type = model_field(scaling, "rope_type");
	if (!type) type = model_field(scaling, "type");
	const json_t *partial = model_field(scaling, "partial_rotary_factor");
	const char *name = type ? json_string_value(type) : "default";
	if (partial && json_number_value(partial) != 1.0)
		return err_set(err, ERR_UNSUPPORTED, "partial_rotary_factor: expected 1, found %s",
		               model_field_text(partial, text));
	if (model_field(scaling, "full_attention") || model_field(scaling, "sliding_attention"))
		return err_set(err, ERR_UNSUPPORTED, "expected one rotation for all layers, found one per type of layer");
	if (name && strcmp(name, "default") == 0) return 0;
	if (name && strcmp(name, "dynamic") == 0) return read_dynamic(c, scaling, err);
	if (name && strcmp(name, "linear") == 0) {
		c->rope_scaling = ROPE_LINEAR;
		return model_field_real(scaling, "factor", 1.0, 1e6, 0, &c->rope_factor, err);
	}
	if (name && strcmp(name, "llama3") == 0) {
		c->rope_scaling = ROPE_LLAMA3;
		return read_llama3(c, scaling, err);
	}
	if (name && strcmp(name, "yarn") == 0) {
		c->rope_scaling = ROPE_YARN;
		return read_yarn(c, scaling, err);
	}
	return err_set(err, ERR_UNSUPPORTED, "expected type default, linear, dynamic, llama3 or yarn, found %s",
	               model_field_text(type, text));
}

int model_config_read_rope(struct model_config *c, const json_t *root, double theta_default, struct err *err)
{
	char text[64];
	const char *key = model_field(root, "rope_parameters") ? "rope_parameters" : "rope_scaling";
	const json_t *scaling = model_field(root, key);
	if (scaling && !json_is_object(scaling))
		return err_set(err, ERR_INVALID, "%s: expected null or an object, found %s", key,
		               model_field_text(scaling, text));
	const json_t *holder = model_field(scaling, "rope_theta") ? scaling : root;
	int code = model_field_real(holder, "rope_theta", 1.0, 1e12, theta_default, &c->rope_theta, err);
	if (code || !scaling) return code;
	return read_scaling(c, scaling, err) ? err_context(err, "%s", key) : 0;
}

json_t *model_config_rope_json(const struct model_config *c)
{
	switch (c->rope_scaling) {
	case ROPE_PLAIN: return json_null();
	case ROPE_LINEAR: return json_pack("{s:s, s:f}", "rope_type", "linear", "factor", c->rope_factor);
	case ROPE_LLAMA3:
		return json_pack("{s:s, s:f, s:f, s:f, s:i}", "rope_type", "llama3", "factor", c->rope_factor,
		                 "low_freq_factor", c->rope_low_freq_factor, "high_freq_factor",
		                 c->rope_high_freq_factor, "original_max_position_embeddings",
		                 c->rope_original_context);
	case ROPE_YARN: break;
	}
	json_t *json = json_pack("{s:s, s:f, s:i, s:f, s:f}", "rope_type", "yarn", "factor", c->rope_factor,
	                         "original_max_position_embeddings", c->rope_original_context, "beta_fast",
	                         c->rope_beta_fast, "beta_slow", c->rope_beta_slow);
	if (c->rope_attention_factor > 0)
		json_object_set_new(json, "attention_factor", json_real(c->rope_attention_factor));
	if (c->rope_mscale > 0) json_object_set_new(json, "mscale", json_real(c->rope_mscale));
	if (c->rope_mscale_all_dim > 0)
		json_object_set_new(json, "mscale_all_dim", json_real(c->rope_mscale_all_dim));
	if (c->rope_exact_ramp) json_object_set_new(json, "truncate", json_false());
	return json;
}

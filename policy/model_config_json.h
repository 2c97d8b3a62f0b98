/* model_config_json.h - inside policy's model_config*.c only: fields of a config.json, each read with its
 * bounds, and refused in words. */
#ifndef POLICY_MODEL_CONFIG_JSON_H
#define POLICY_MODEL_CONFIG_JSON_H

#include <jansson.h>

#include "policy/model_config.h"

/* The value as it stands in the file, shortened, for messages; returns text. */
const char *model_field_text(const json_t *value, char text[64]);

/* NULL where absent or null. */
const json_t *model_field(const json_t *object, const char *key);

/* Where the field is absent *out is fallback, and an error if that is below min. */
int model_field_int(const json_t *object, const char *key, int min, int max, int fallback, int *out, struct err *err);
int model_field_real(const json_t *object, const char *key, double min, double max, double fallback, double *out,
               struct err *err);
int model_field_bool(const json_t *object, const char *key, bool fallback, bool *out, struct err *err);

/* model_config_rope.c: rope_theta and its scaling, into config; out of it as a `rope_scaling` object or null. */
int model_config_read_rope(struct model_config *config, const json_t *root, double theta_default, struct err *err);
json_t *model_config_rope_json(const struct model_config *config);

/* model_config_refuse.c: everything in the file that would change the arithmetic and is not done, each by
 * name, in one message. */
int model_config_refuse(const json_t *root, struct err *err);

#endif

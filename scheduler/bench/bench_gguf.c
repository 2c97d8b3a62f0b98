/* bench_gguf.c - `drumroll bench gguf`: a model directory as a file of llama.cpp, to measure both on the same weights.
 *
 *     bf16   every matrix as it is
 *     q4_0   matrices are what our int4 drafter has: the same integers, its BF16 scales as F16.  The embedding
 *            stays BF16, since our drafter reads the target's, and a head tied to it is written beside it
 *
 * Vectors are F32.  Families are llama (Mistral and MiniMind too), qwen2 and qwen3.  llama.cpp rotates neighbouring
 * pairs of a llama's heads where Hugging Face's layout pairs i with i + D/2: rows of Q and K are reordered.
 * There is no tokenizer in it: it is for programs that talk in token ids.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "policy/rope.h"
#include "policy/weights.h"
#include "quant/bf16.h"
#include "quant/kernels.h"
#include "scheduler/bench/bench.h"
#include "scheduler/bench/gguf.h"
#include "scheduler/commands/arguments.h"
#include "scheduler/commands/output_file.h"

struct gguf_options {
	const char *model, *out;
	int q4_0;
};

/* A tensor of the file and where it comes from. */
struct entry {
	int source;   /* of weights; -1: the rope factors */
	int heads;    /* > 0: of a rotated matrix or bias whose rows are reordered */
};

struct export {
	struct weights weights;
	const char *family;
	bool q4_0;
	struct gguf_tensor *tensors; /* [n] */
	struct entry *entries;       /* [n] */
	size_t n;
};

static int options_read(struct gguf_options *o, int argc, char **argv, struct err *err)
{
	struct argument table[] = {
		{"--model", ARGUMENT_FILE, &o->model, "Hugging Face model directory", true},
		{"--format", ARGUMENT_CHOICE, &o->q4_0, "of matrices", .choices = "bf16|q4_0"},
		{"--out", ARGUMENT_TEXT, &o->out, "file to write", true},
	};
	int n = sizeof table / sizeof *table;

	*o = (struct gguf_options){0};
	if (!arguments_want_help(argc, argv)) return arguments_parse(table, n, argc, argv, err);
	arguments_print_help(table, n, "bench gguf", "the same weights as a file of llama.cpp, without a tokenizer", stdout);
	exit(EXIT_SUCCESS);
}

static int check(struct export *e, struct err *err)
{
	const struct model_config *c = &e->weights.config;
	bool qwen2 = strcmp(c->model_type, "qwen2") == 0, qwen3 = strcmp(c->model_type, "qwen3") == 0;

	e->family = qwen2 ? "qwen2" : qwen3 ? "qwen3" : "llama";
	bool biases = c->o_bias || c->mlp_bias || (qwen3 && c->qkv_bias), scaled = c->rope_scaling == ROPE_LLAMA3;
	if (c->rope_scaling == ROPE_YARN || (scaled && (qwen2 || qwen3)))
		return err_set(err, ERR_UNSUPPORTED, "expected plain or linear RoPE, or llama3's in a llama; this %s has another: "
		               "bench gguf does not write it", c->model_type);
	if (((qwen2 || qwen3) && biases) || c->qk_norm != qwen3)
		return err_set(err, ERR_UNSUPPORTED, "expected the biases and head norms that llama.cpp reads for %s, found others: "
		               "such a file would not load there", e->family);
	if (e->q4_0 && (c->dim % Q_BLOCK || c->ffn_dim % Q_BLOCK || c->n_heads * c->head_dim % Q_BLOCK))
		return err_set(err, ERR_UNSUPPORTED, "--format q4_0: expected widths that are multiples of %d, found %d, %d and %d: "
		               "use bf16", Q_BLOCK, c->dim, c->n_heads * c->head_dim, c->ffn_dim);
	return 0;
}

/* ---- the table ---- */

static void add(struct export *e, const char *name, enum gguf_type type, int rows, int cols, int n_dims, struct entry entry)
{
	struct gguf_tensor *t = &e->tensors[e->n];
	*t = (struct gguf_tensor){.type = type, .rows = rows, .cols = cols, .n_dims = n_dims};
	snprintf(t->name, sizeof t->name, "%s", name);
	e->entries[e->n++] = entry;
}

/* "model.layers.3.self_attn.q_proj.weight" is "blk.3.attn_q.weight". */
static void name_of(char name[GGUF_NAME_MAX], const char *from)
{
	static const char *const names[][2] = {
		{"input_layernorm", "attn_norm"}, {"self_attn.q_proj", "attn_q"}, {"self_attn.k_proj", "attn_k"},
		{"self_attn.v_proj", "attn_v"}, {"self_attn.o_proj", "attn_output"}, {"self_attn.q_norm", "attn_q_norm"},
		{"self_attn.k_norm", "attn_k_norm"}, {"post_attention_layernorm", "ffn_norm"}, {"mlp.gate_proj", "ffn_gate"},
		{"mlp.up_proj", "ffn_up"}, {"mlp.down_proj", "ffn_down"}, {"model.embed_tokens", "token_embd"},
		{"model.norm", "output_norm"}, {"lm_head", "output"},
	};
	const char *kind = strrchr(from, '.');
	int layer = -1, at = 0;
	if (sscanf(from, "model.layers.%d.%n", &layer, &at) == 1) from += at;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		if (strlen(names[i][0]) != (size_t)(kind - from) || strncmp(from, names[i][0], (size_t)(kind - from)) != 0) continue;
		if (layer < 0) snprintf(name, GGUF_NAME_MAX, "%s%s", names[i][1], kind);
		else snprintf(name, GGUF_NAME_MAX, "blk.%d.%s%s", layer, names[i][1], kind);
	}
}

static void make_table(struct export *e)
{
	const struct weights *w = &e->weights;
	const struct model_config *c = &w->config;
	bool llama = strcmp(e->family, "llama") == 0;
	char name[GGUF_NAME_MAX];

	e->tensors = xcalloc((unsigned long)w->n_tensors + 2, sizeof *e->tensors);
	e->entries = xcalloc((unsigned long)w->n_tensors + 2, sizeof *e->entries);
	for (int i = 0; i < w->n_tensors; i++) {
		const struct weight_tensor *t = &w->tensors[i];
		bool matrix = t->n_dims == 2, embedding = i == 0;
		struct entry entry = {.source = i};
		if (llama && strstr(t->name, "q_proj")) entry.heads = c->n_heads;
		if (llama && strstr(t->name, "k_proj")) entry.heads = c->n_kv_heads;
		name_of(name, t->name);
		add(e, name, !matrix ? GGUF_F32 : e->q4_0 && !embedding ? GGUF_Q4_0 : GGUF_BF16, t->rows, t->cols, t->n_dims, entry);
	}
	if (e->q4_0 && c->tied)
		add(e, "output.weight", GGUF_Q4_0, c->vocab_size, c->dim, 2, (struct entry){.source = 0});
	if (c->rope_scaling == ROPE_LLAMA3)
		add(e, "rope_freqs.weight", GGUF_F32, 1, c->head_dim / 2, 1, (struct entry){.source = -1});
}

static void write_head(const struct export *e, FILE *out)
{
	const struct model_config *c = &e->weights.config;
	const struct { const char *name; int value; } numbers[] = {
		{"vocab_size", c->vocab_size}, {"context_length", c->max_context}, {"embedding_length", c->dim},
		{"block_count", c->n_layers}, {"feed_forward_length", c->ffn_dim}, {"attention.head_count", c->n_heads},
		{"attention.head_count_kv", c->n_kv_heads}, {"attention.key_length", c->head_dim},
		{"attention.value_length", c->head_dim}, {"rope.dimension_count", c->head_dim},
	};
	size_t n_numbers = sizeof numbers / sizeof *numbers;
	bool linear = c->rope_scaling == ROPE_LINEAR;
	char name[GGUF_NAME_MAX];

	gguf_begin(out, e->n, 4 + n_numbers + 2 + (linear ? 2 : 0));
	gguf_key_text(out, "general.architecture", e->family);
	gguf_key_text(out, "general.name", c->model_type);
	gguf_key_u32(out, "general.file_type", e->q4_0 ? 2 : 32);
	gguf_key_text(out, "tokenizer.ggml.model", "none");
	for (size_t i = 0; i < n_numbers; i++) {
		snprintf(name, sizeof name, "%s.%s", e->family, numbers[i].name);
		gguf_key_u32(out, name, (uint32_t)numbers[i].value);
	}
	snprintf(name, sizeof name, "%s.attention.layer_norm_rms_epsilon", e->family);
	gguf_key_f32(out, name, c->rms_eps);
	snprintf(name, sizeof name, "%s.rope.freq_base", e->family);
	gguf_key_f32(out, name, (float)c->rope_theta);
	if (linear) {
		snprintf(name, sizeof name, "%s.rope.scaling.type", e->family);
		gguf_key_text(out, name, "linear");
		snprintf(name, sizeof name, "%s.rope.scaling.factor", e->family);
		gguf_key_f32(out, name, (float)c->rope_factor);
	}
	gguf_table(out, e->tensors, e->n);
}

/* ---- data ---- */

/* The row of ours that stands in the file's row. */
static int source_row(const struct model_config *c, const struct entry *entry, int row)
{
	int half = c->head_dim / 2, within = row % c->head_dim;
	return entry->heads ? row - within + within / 2 + within % 2 * half : row;
}

/* What llama.cpp divides each pair's plain frequency by. */
static void write_rope_factors(const struct model_config *c, FILE *out)
{
	struct model_config plain = *c;
	float *scaled = xcalloc((unsigned long)c->head_dim, sizeof *scaled), *own = scaled + c->head_dim / 2;
	plain.rope_scaling = ROPE_PLAIN;
	rope_frequencies(scaled, c);
	rope_frequencies(own, &plain);
	for (int i = 0; i < c->head_dim / 2; i++) scaled[i] = own[i] / scaled[i];
	fwrite(scaled, sizeof *scaled, (size_t)c->head_dim / 2, out);
	free(scaled);
}

static void write_vector(const struct export *e, const struct gguf_tensor *t, const struct entry *entry, FILE *out)
{
	uint16_t *scratch = xcalloc((unsigned long)t->cols, sizeof *scratch);
	const uint16_t *values = weights_rows(&e->weights, entry->source, 0, 1, scratch);
	for (int i = 0; i < t->cols; i++) {
		float value = bf16_to_f32(values[source_row(&e->weights.config, entry, i)]);
		fwrite(&value, sizeof value, 1, out);
	}
	free(scratch);
}

/* One output as blocks; false: a scale is beyond F16. */
static bool q4_0_row(struct gguf_q4_0 *blocks, const struct qmatrix *m, int output)
{
	bool fits = true;
	for (int b = 0; b < m->k / Q_BLOCK; b++) {
		float scale = format_scale(m, output, b);
		blocks[b].d = f16_from_f32(scale);
		fits &= fabsf(scale) < 65520.0f;
		for (int i = 0; i < Q_BLOCK / 2; i++)
			blocks[b].q[i] = (uint8_t)(format_code(m, output, Q_BLOCK * b + i) |
			                           format_code(m, output, Q_BLOCK * b + Q_BLOCK / 2 + i) << 4);
	}
	return fits;
}

/* A panel of rows at a time. */
static int write_matrix(const struct export *e, const struct gguf_tensor *t, const struct entry *entry, FILE *out,
                        struct err *err)
{
	size_t cols = (size_t)t->cols;
	uint16_t *scratch = xcalloc(cols, sizeof *scratch), *rows = xcalloc(PANEL * cols, sizeof *rows);
	uint16_t *packed = xaligned(packed_panel_elements(t->cols) * sizeof *packed);
	struct gguf_q4_0 *blocks = xcalloc(cols / Q_BLOCK + 1, sizeof *blocks);
	void *planes = xaligned(qmatrix_bytes(FORMAT_INT4, PANEL, t->cols));
	bool fits = true;

	for (int row = 0; row < t->rows; row += PANEL) {
		int n = t->rows - row < PANEL ? t->rows - row : PANEL;
		for (int i = 0; i < n; i++) {
			int from = source_row(&e->weights.config, entry, row + i);
			memcpy(rows + (size_t)i * cols, weights_rows(&e->weights, entry->source, from, 1, scratch), cols * sizeof *rows);
		}
		if (t->type == GGUF_BF16) {
			fwrite(rows, sizeof *rows, (size_t)n * cols, out);
			continue;
		}
		struct qmatrix m;
		pack_bf16(packed, rows, n, t->cols, 0, 1);
		qmatrix_place(&m, FORMAT_INT4, n, t->cols, planes);
		kernels_best()->quantize(&m, packed, QUANTIZE_SEARCH, NULL, 0, 1);
		for (int i = 0; i < n; i++) {
			fits &= q4_0_row(blocks, &m, i);
			fwrite(blocks, sizeof *blocks, cols / Q_BLOCK, out);
		}
	}
	free(scratch);
	free(rows);
	free(packed);
	free(blocks);
	free(planes);
	return fits ? 0 : err_set(err, ERR_UNSUPPORTED, "%s: expected scales within F16, found a larger one: q4_0 cannot hold it",
	                          t->name);
}

static int write_data(const struct export *e, FILE *out, struct err *err)
{
	int rc = 0;
	for (size_t i = 0; !rc && i < e->n; i++) {
		const struct gguf_tensor *t = &e->tensors[i];
		if (e->entries[i].source < 0) write_rope_factors(&e->weights.config, out);
		else if (t->n_dims == 1) write_vector(e, t, &e->entries[i], out);
		else rc = write_matrix(e, t, &e->entries[i], out, err);
		gguf_pad(out, gguf_tensor_bytes(t));
	}
	return rc;
}

int bench_gguf(int argc, char **argv, struct err *err)
{
	struct gguf_options options;
	struct output_file file;
	struct export e = {0};

	int rc = options_read(&options, argc, argv, err);
	if (!rc) rc = weights_open(&e.weights, options.model, err);
	if (rc) return rc;
	e.q4_0 = options.q4_0;
	rc = check(&e, err);
	if (!rc) rc = output_file_open(&file, options.out, err);
	if (!rc) {
		make_table(&e);
		write_head(&e, file.stream);
		rc = write_data(&e, file.stream, err);
		if (rc) output_file_abandon(&file);
		else rc = output_file_commit(&file, err);
	}
	if (!rc) fprintf(stderr, "%s: %zu tensors of %s, %s\n", options.out, e.n, e.family, e.q4_0 ? "q4_0" : "bf16");
	free(e.tensors);
	free(e.entries);
	weights_free(&e.weights);
	return rc;
}

/* theirs.c - llama.cpp's side of `make bench-peer`: a GGUF model that obeys the commands of turns.h.
 *
 *     theirs MODEL.gguf THREADS BACKEND [key=value ...]
 *
 * Uses the public C API alone, with the headers of the very release that the libraries are of.  BACKEND: `best`, the
 * CPU library that llama.cpp itself picks among those beside it, or the path of one.  Settings, each with what was
 * fastest as its default: fa=0|1 (flash attention), ubatch=N, kv=f16|bf16|f32, unified=0|1 (one KV buffer for all
 * sequences), poll=0..100 (how eagerly threads of its pool wait), repack=0|1.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <llama.h>

#include "tests/bench/peer/turns.h"

struct settings {
	int n_threads, fa, ubatch, unified, poll, repack;
	enum ggml_type kv;
};

struct side {
	struct settings settings;
	struct llama_model *model;
	struct ggml_threadpool *pool;
	int vocabulary;
};

struct session {
	struct llama_context *context;
	struct llama_batch batch;
};

static void die(const char *text)
{
	fprintf(stderr, "theirs: %s\n", text);
	exit(EXIT_FAILURE);
}

static void quiet(enum ggml_log_level level, const char *text, void *user)
{
	(void)user;
	if (level >= GGML_LOG_LEVEL_ERROR && level != GGML_LOG_LEVEL_CONT) fputs(text, stderr);
}

static struct settings settings_read(int argc, char **argv)
{
	struct settings s = {.fa = 1, .ubatch = 512, .unified = 0, .poll = 50, .repack = 1, .kv = GGML_TYPE_F16};
	s.n_threads = atoi(argv[2]);
	for (int i = 4; i < argc; i++) {
		if (sscanf(argv[i], "fa=%d", &s.fa) == 1 || sscanf(argv[i], "ubatch=%d", &s.ubatch) == 1 ||
		    sscanf(argv[i], "unified=%d", &s.unified) == 1 || sscanf(argv[i], "poll=%d", &s.poll) == 1 ||
		    sscanf(argv[i], "repack=%d", &s.repack) == 1)
			continue;
		if (strcmp(argv[i], "kv=f16") == 0) s.kv = GGML_TYPE_F16;
		else if (strcmp(argv[i], "kv=bf16") == 0) s.kv = GGML_TYPE_BF16;
		else if (strcmp(argv[i], "kv=f32") == 0) s.kv = GGML_TYPE_F32;
		else die(argv[i]);
	}
	return s;
}

/* The CPU library's own functions are reached through its registry. */
static void *cpu_function(const char *name)
{
	ggml_backend_reg_t reg = ggml_backend_reg_by_name("CPU");
	return reg ? ggml_backend_reg_get_proc_address(reg, name) : NULL;
}

static void pool_open(struct side *side)
{
	struct ggml_threadpool *(*pool_new)(struct ggml_threadpool_params *) = NULL;
	void *found = cpu_function("ggml_threadpool_new");
	struct ggml_threadpool_params params = {
		.n_threads = side->settings.n_threads, .prio = GGML_SCHED_PRIO_NORMAL, .poll = (uint32_t)side->settings.poll};

	if (!found) die("this release has no ggml_threadpool_new");
	memcpy(&pool_new, &found, sizeof pool_new);
	side->pool = pool_new(&params);
	if (!side->pool) die("no thread pool");
}

/* For n sequences of up to n_positions each. */
static void session_open(struct session *s, const struct side *side, int n, int n_positions)
{
	struct llama_context_params p = llama_context_default_params();
	int each = (n_positions + 255) / 256 * 256;

	p.n_ctx = (uint32_t)(n * each);
	p.n_batch = p.n_ubatch = (uint32_t)side->settings.ubatch;
	p.n_seq_max = (uint32_t)n;
	p.n_threads = p.n_threads_batch = side->settings.n_threads;
	p.flash_attn_type = side->settings.fa ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
	p.type_k = p.type_v = side->settings.kv;
	p.kv_unified = side->settings.unified;
	p.no_perf = true;
	s->context = llama_init_from_model(side->model, p);
	if (!s->context) die("no context");
	llama_attach_threadpool(s->context, side->pool, side->pool);
	s->batch = llama_batch_init(side->settings.ubatch, 0, 1);
}

static void session_close(struct session *s)
{
	llama_batch_free(s->batch);
	llama_detach_threadpool(s->context);
	llama_free(s->context);
}

/* Returns its index in the batch. */
static int add(struct llama_batch *batch, int32_t token, int position, int sequence, bool logits)
{
	int i = batch->n_tokens++;
	batch->token[i] = token;
	batch->pos[i] = position;
	batch->n_seq_id[i] = 1;
	batch->seq_id[i][0] = sequence;
	batch->logits[i] = logits;
	return i;
}

/* The batch that was filled; returns the seconds, and empties it. */
static double run(struct session *s)
{
	double start = turn_seconds();
	if (llama_decode(s->context, s->batch) != 0) die("llama_decode failed");
	llama_synchronize(s->context);
	double seconds = turn_seconds() - start;
	s->batch.n_tokens = 0;
	return seconds;
}

/* Positions [0, n) of a sequence, the logits of the last. */
static double prompt(struct session *s, const struct side *side, int sequence, int n)
{
	double seconds = 0;
	for (int p = 0; p < n; p++) {
		add(&s->batch, turn_token(side->vocabulary, sequence, p), p, sequence, p == n - 1);
		if (s->batch.n_tokens == side->settings.ubatch || p == n - 1) seconds += run(s);
	}
	return seconds;
}

/* The first sequence's prompt is that of all. */
static void prompt_all(struct session *s, const struct side *side, int n, int context)
{
	prompt(s, side, 0, context);
	for (int i = 1; i < n; i++) llama_memory_seq_cp(llama_get_memory(s->context), 0, i, -1, -1);
}

static void greedy(const struct side *side, int n_prompt, int steps)
{
	struct session s;
	session_open(&s, side, 1, n_prompt + steps);
	prompt(&s, side, 0, n_prompt);
	for (int n = n_prompt; n < n_prompt + steps; n++) {
		const float *logits = llama_get_logits_ith(s.context, -1);
		int best = TOKENS_SKIPPED;
		for (int i = best + 1; i < side->vocabulary; i++)
			if (logits[i] > logits[best]) best = i;
		printf("%d ", best);
		add(&s.batch, best, n, 0, true);
		run(&s);
	}
	session_close(&s);
}

static void prefill(const struct side *side, int n)
{
	struct session s;
	session_open(&s, side, 1, n);
	prompt(&s, side, 0, n);
	llama_memory_clear(llama_get_memory(s.context), false);
	printf("%.9f", prompt(&s, side, 0, n));
	session_close(&s);
}

static void decode(const struct side *side, int n, int context, int steps)
{
	struct session s;
	double samples[STEPS_MAX];

	session_open(&s, side, n, context + steps + 1);
	prompt_all(&s, side, n, context);
	for (int step = -1; step < steps; step++) { /* the first also copies prompts, and is not counted */
		for (int i = 0; i < n; i++)
			add(&s.batch, turn_token(side->vocabulary, i, context + 1 + step), context + 1 + step, i, true);
		double seconds = run(&s);
		if (step >= 0) samples[step] = seconds;
	}
	session_close(&s);
	printf("%.9f", turn_median(samples, steps));
}

/* Temperature 1 without truncation: a draw from the distribution as it is. */
static struct llama_sampler *sampler_open(int seed)
{
	struct llama_sampler *chain = llama_sampler_chain_init((struct llama_sampler_chain_params){.no_perf = true});
	llama_sampler_chain_add(chain, llama_sampler_init_dist((uint32_t)seed));
	return chain;
}

static void generate(const struct side *side, int n, int context, int steps)
{
	struct session s;
	struct llama_sampler *samplers[SEQUENCES_MAX];
	int32_t tokens[SEQUENCES_MAX];

	double start = 0;
	session_open(&s, side, n, context + steps + 1);
	for (int i = 0; i < n; i++) {
		samplers[i] = sampler_open(i + 1);
		tokens[i] = turn_token(side->vocabulary, i, context);
	}
	prompt_all(&s, side, n, context);
	for (int step = 0; step <= steps; step++) { /* the first also copies prompts, and is not counted */
		for (int i = 0; i < n; i++) add(&s.batch, tokens[i], context + step, i, true);
		run(&s);
		for (int i = 0; i < n; i++) tokens[i] = llama_sampler_sample(samplers[i], s.context, i);
		if (step == 0) start = turn_seconds();
	}
	printf("%d %.9f", n * steps, turn_seconds() - start);
	for (int i = 0; i < n; i++) llama_sampler_free(samplers[i]);
	session_close(&s);
}

/* ---- whole steps, continuously batched ---- */

enum { REQUESTS_MAX = 4096, PROMPT_MAX = 1024 };

struct request {
	int step, group, n_tokens, n_prompt;
	int32_t prompt[PROMPT_MAX];
};

/* A sequence at work; request NULL: free. */
struct slot {
	const struct request *request;
	int position, made;   /* tokens that the cache holds; response tokens */
	int32_t token;        /* to come next, where position >= n_prompt */
	int row;              /* of its logits in the batch that runs, or -1 */
};

struct server {
	const struct side *side;
	struct session session;
	struct slot slots[SEQUENCES_MAX];
	struct llama_sampler *sampler;
	int n_slots;
	bool shared; /* prompts are computed once a group, as long as a sibling is at work */
};

/* Lines of: step group response-tokens prompt-tokens, then the prompt.  Returns how many. */
static int requests_read(struct request *requests, const char *path)
{
	FILE *in = fopen(path, "r");
	int n = 0;

	if (!in) die(path);
	for (struct request *r = requests; n < REQUESTS_MAX; n++, r++) {
		if (fscanf(in, "%d %d %d %d", &r->step, &r->group, &r->n_tokens, &r->n_prompt) != 4) break;
		if (r->n_prompt < 1 || r->n_prompt > PROMPT_MAX) die("a prompt is longer than 1024 tokens");
		for (int i = 0; i < r->n_prompt; i++)
			if (fscanf(in, "%d", &r->prompt[i]) != 1) die("a request ends early");
	}
	fclose(in);
	return n;
}

/* A slot of the same group: with its prompt whole, else any, else NULL. */
static const struct slot *sibling(const struct server *s, int group)
{
	const struct slot *found = NULL;
	for (int i = 0; i < s->n_slots; i++) {
		const struct slot *slot = &s->slots[i];
		if (!slot->request || slot->request->group != group) continue;
		if (slot->position >= slot->request->n_prompt) return slot;
		found = slot;
	}
	return found;
}

/* False: it waits until a sibling has computed the prompt. */
static bool slot_begin(struct server *s, struct slot *slot, const struct request *request)
{
	const struct slot *from = s->shared ? sibling(s, request->group) : NULL;
	int known = 0;

	if (from && from->position < request->n_prompt) return false;
	if (from) known = request->n_prompt - 1;
	if (known)
		llama_memory_seq_cp(llama_get_memory(s->session.context), (llama_seq_id)(from - s->slots),
		                    (llama_seq_id)(slot - s->slots), 0, known);
	*slot = (struct slot){.request = request, .position = known, .row = -1};
	return true;
}

/* Every sequence that decodes, then as much of the prompts as there is room for. */
static void batch_fill(struct server *s)
{
	struct llama_batch *batch = &s->session.batch;
	for (int i = 0; i < s->n_slots; i++) {
		struct slot *slot = &s->slots[i];
		slot->row = -1;
		if (slot->request && slot->position >= slot->request->n_prompt)
			slot->row = add(batch, slot->token, slot->position++, i, true);
	}
	for (int i = 0; i < s->n_slots; i++) {
		struct slot *slot = &s->slots[i];
		if (!slot->request || slot->row >= 0) continue;
		for (int last = slot->request->n_prompt - 1; slot->row < 0 && slot->position <= last; slot->position++) {
			if (batch->n_tokens == s->side->settings.ubatch) return;
			int row = add(batch, slot->request->prompt[slot->position], slot->position, i, slot->position == last);
			if (slot->position == last) slot->row = row;
		}
	}
}

static int sample_all(struct server *s)
{
	int ended = 0;
	for (int i = 0; i < s->n_slots; i++) {
		struct slot *slot = &s->slots[i];
		if (!slot->request || slot->row < 0) continue;
		slot->token = llama_sampler_sample(s->sampler, s->session.context, slot->row);
		if (++slot->made < slot->request->n_tokens) continue;
		llama_memory_seq_rm(llama_get_memory(s->session.context), i, -1, -1);
		slot->request = NULL;
		ended++;
	}
	return ended;
}

/* Seconds of one step's requests, in their order, from the first to the end of the last. */
static double serve_step(struct server *s, const struct request *requests, int n)
{
	double start = turn_seconds();
	for (int next = 0, ended = 0; ended < n;) {
		for (int i = 0; next < n && i < s->n_slots; i++)
			if (!s->slots[i].request && slot_begin(s, &s->slots[i], &requests[next])) next++;
		batch_fill(s);
		run(&s->session);
		ended += sample_all(s);
	}
	return turn_seconds() - start;
}

static void serve(struct side *side, const char *path, int n_slots, bool shared)
{
	struct request *requests = calloc(REQUESTS_MAX, sizeof *requests);
	struct server server = {.side = side, .n_slots = n_slots, .shared = shared, .sampler = sampler_open(1)};
	int longest = 0, unified = side->settings.unified;

	if (!requests) die("no memory");
	int n = requests_read(requests, path);
	for (int i = 0; i < n; i++)
		if (requests[i].n_prompt + requests[i].n_tokens > longest) longest = requests[i].n_prompt + requests[i].n_tokens;
	side->settings.unified = shared || unified;
	session_open(&server.session, side, n_slots, longest);
	for (int from = 0, to; from < n; from = to) {
		for (to = from; to < n && requests[to].step == requests[from].step;) to++;
		printf("%.6f ", serve_step(&server, requests + from, to - from));
	}
	side->settings.unified = unified;
	session_close(&server.session);
	llama_sampler_free(server.sampler);
	free(requests);
}

static void obey(struct side *side)
{
	char line[LINE_MAX_BYTES], word[16], path[1024];
	int a, b, c;

	while (fgets(line, sizeof line, stdin)) {
		int n = sscanf(line, "%15s %d %d %d", word, &a, &b, &c);
		if (n == 3 && strcmp(word, "greedy") == 0) greedy(side, a, b);
		else if (n == 2 && strcmp(word, "prefill") == 0) prefill(side, a);
		else if (n == 4 && strcmp(word, "decode") == 0 && c <= STEPS_MAX) decode(side, a, b, c);
		else if (n == 4 && strcmp(word, "generate") == 0 && a <= SEQUENCES_MAX) generate(side, a, b, c);
		else if (sscanf(line, "serve %1023s %d %d", path, &a, &b) == 3 && a <= SEQUENCES_MAX) serve(side, path, a, b);
		else die(line);
		printf("\n");
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	struct side side;
	struct llama_model_params params;

	if (argc < 4) die("theirs MODEL.gguf THREADS best|BACKEND.so [key=value ...]");
	llama_log_set(quiet, NULL);
	llama_backend_init();
	if (strcmp(argv[3], "best") == 0) ggml_backend_load_all_from_path(BACKEND_DIR);
	else if (!ggml_backend_load(argv[3])) die("cannot load the CPU library that was named");
	side.settings = settings_read(argc, argv);
	params = llama_model_default_params();
	params.use_extra_bufts = side.settings.repack;
	side.model = llama_model_load_from_file(argv[1], params);
	if (!side.model) die("cannot load the model");
	side.vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(side.model));
	pool_open(&side);
	printf("ready llama.cpp %s, %d threads\n", llama_version(), side.settings.n_threads);
	fflush(stdout);
	obey(&side);
	llama_model_free(side.model);
	return EXIT_SUCCESS;
}

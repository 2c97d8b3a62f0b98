/* bench_kernels.c - `drumroll bench kernels`: every kernel as a share of what the machine could do.
 *
 * Rounds: each takes one sample of every subject, so that a machine whose speed drifts slows all alike;
 * before, between and after them the limits are measured anew.  What is compared are medians of one run.
 */
#include <stdlib.h>
#include <string.h>

#include "scheduler/bench/bench.h"
#include "scheduler/bench/bench_subjects.h"
#include "scheduler/clock.h"
#include "scheduler/commands/arguments.h"

#define SAMPLE_SECONDS 0.06        /* no sample takes much longer */
#define QUICK_SAMPLE_SECONDS 0.003
#define CACHED_SAMPLE_SECONDS 0.005
#define PEAK_SECONDS 0.05
#define QUICK_PEAK_SECONDS 0.01

enum { ROUNDS = 7, QUICK_ROUNDS = 3, WEIGHTS_MIB_MIN = 192, QUICK_BUFFER_MIB = 64 };

struct kernels_options {
	const char *isa;
	int64_t threads, rounds;
	bool quick, json;
};

struct measurement {
	const struct kernels_options *options;
	const struct kernels *kernels;
	int rounds;
	size_t cache_bytes;
	struct bench_subjects *subjects;
	struct bench_peaks peaks;
	struct machine_peaks median;
};

static int options_read(struct kernels_options *o, int argc, char **argv, struct err *err)
{
	struct argument table[] = {
		{"--isa", ARGUMENT_TEXT, &o->isa, "table of kernels, such as avx2; none: the best of this CPU"},
		{"--threads", ARGUMENT_INT, &o->threads, "threads", .min = 1, .max = 1024},
		{"--rounds", ARGUMENT_INT, &o->rounds, "samples of each kernel; 0: 7, or 3 with --quick", .min = 0,
		 .max = SUBJECT_ROUNDS_MAX},
		{"--quick", ARGUMENT_FLAG, &o->quick, "little data, which the cache may hold: to see that all runs"},
		{"--json", ARGUMENT_FLAG, &o->json, "a JSON line for each measurement"},
	};
	int n = sizeof table / sizeof *table;

	*o = (struct kernels_options){.threads = bench_threads_default()};
	if (!arguments_want_help(argc, argv)) return arguments_parse(table, n, argc, argv, err);
	arguments_print_help(table, n, "bench kernels", "every kernel beside the machine's limits", stdout);
	exit(EXIT_SUCCESS);
}

/* ---- samples ---- */

struct sample {
	const struct bench_subject *subject;
	struct range units;
	double seconds;
};

/* Timed between barriers: waking the threads takes up to a tenth of what the shortest samples take, while a
 * forward pass wakes them once for all its layers. */
static void run_sample(const struct team *team, void *arg)
{
	struct sample *sample = arg;
	team_wait(team);
	double start = clock_seconds();
	sample->subject->run(sample->subject, team, sample->units);
	team_wait(team);
	if (team->thread == 0) sample->seconds = clock_seconds() - start;
}

/* Seconds of the subject's next `window` units. */
static double take_sample(struct bench_subject *s, int n_threads)
{
	if (!s->cached && *s->cursor + s->window > s->units) *s->cursor = 0;
	struct sample sample = {s, {*s->cursor, *s->cursor + s->window}, 0.0};
	team_run(n_threads, run_sample, &sample);
	if (!s->cached) *s->cursor += s->window;
	return sample.seconds;
}

/* A window that takes as long as a sample may, or the whole pass. */
static void choose_window(struct bench_subject *s, const struct kernels_options *o)
{
	double wanted = o->quick ? QUICK_SAMPLE_SECONDS : s->cached ? CACHED_SAMPLE_SECONDS : SAMPLE_SECONDS, took;
	int most = s->cached ? 1 << 28 : s->units;
	s->window = (int)o->threads < most ? (int)o->threads : most;
	while ((took = take_sample(s, (int)o->threads)) < 0.1 * wanted && s->window < most)
		s->window = s->window < most / 4 ? s->window * 4 : most;
	double units = s->window * wanted / took;
	s->window = units < 1 ? 1 : units < most ? (int)units : most;
}

static int take_rounds(struct measurement *m, struct err *err)
{
	int n_threads = (int)m->options->threads;
	for (int i = 0; i < m->subjects->n; i++) choose_window(&m->subjects->list[i], m->options);
	int rc = bench_peaks_measure(&m->peaks, err);
	for (int r = 0; !rc && r < m->rounds; r++) {
		bench_progress("round", r, m->rounds);
		for (int i = 0; i < m->subjects->n; i++) {
			struct bench_subject *s = &m->subjects->list[i];
			s->seconds[r] = take_sample(s, n_threads) / s->window;
		}
		rc = bench_peaks_measure(&m->peaks, err);
	}
	bench_progress("round", m->rounds, m->rounds);
	return rc;
}

/* ---- results ---- */

struct result {
	double seconds; /* of a unit */
	double gbps, gops, fraction;
	enum bench_bound bound;
};

static struct result result_of(const struct measurement *m, const struct bench_subject *s)
{
	double samples[SUBJECT_ROUNDS_MAX];
	memcpy(samples, s->seconds, sizeof samples);
	struct result r = {.seconds = bench_median(samples, m->rounds)};
	struct bench_work limit = s->work;
	if (s->cached && limit.fma_ops + limit.int8_ops > 0) limit.bytes = 0; /* read from the cache */
	r.gbps = s->work.bytes / r.seconds * 1e-9;
	r.gops = (s->work.fma_ops + s->work.int8_ops) / r.seconds * 1e-9;
	r.fraction = bench_bound_seconds(&m->median, &limit, &r.bound) / r.seconds;
	return r;
}

static const struct bench_subject *find(const struct measurement *m, const char *kernel, const char *format, int rows,
                                        bool cached)
{
	for (int i = 0; i < m->subjects->n; i++) {
		const struct bench_subject *s = &m->subjects->list[i];
		if (strcmp(s->kernel, kernel) == 0 && strcmp(s->format, format) == 0 && s->m == rows && s->cached == cached)
			return s;
	}
	return NULL;
}

/* Seconds of a draw on one thread, as a share of the head's product on all threads. */
static double sampling_of_head(const struct measurement *m)
{
	const struct bench_subject *draw = find(m, "sampling", "f32", 1, true);
	const struct bench_subject *head = find(m, "head_bf16", "bf16", 1, false);
	return result_of(m, draw).seconds * (double)m->options->threads / (result_of(m, head).seconds * head->units);
}

static void print_json(const struct measurement *m)
{
	for (int i = 0; i < m->subjects->n; i++) {
		const struct bench_subject *s = &m->subjects->list[i];
		struct result r = result_of(m, s);
		json_t *line = json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:f, s:f, s:s, s:f, s:s, s:b, s:i, s:f}",
			"kernel", s->kernel, "isa", m->kernels->name, "m", s->m, "n", s->n, "k", s->k,
			"threads", (int)m->options->threads, "gbps", r.gbps, "gflops", r.gops,
			"bound", bench_bound_names[r.bound], "fraction", r.fraction,
			"format", s->format, "cached", s->cached, "runs", m->rounds, "seconds", r.seconds * s->units);
		if (strcmp(s->kernel, "sampling") == 0) json_object_set_new(line, "of_head", json_real(sampling_of_head(m)));
		bench_json(line);
	}
}

static bool is_measured(const struct measurement *m, int rows) { return find(m, "matmul_bf16", "bf16", rows, false); }

/* "87 r"; subject may be NULL. */
static void print_share(const struct measurement *m, struct bench_table *table, const struct bench_subject *subject)
{
	if (!subject) {
		bench_cell(table, "-  ");
		return;
	}
	struct result r = result_of(m, subject);
	bench_cell(table, r.fraction < 0.1 ? "%.1f %c" : "%.0f %c", 100 * r.fraction, "rfi"[r.bound]);
}

/* One row of the products' table. */
static void print_product(const struct measurement *m, struct bench_table *table, const char *kernel,
                          const char *format)
{
	const struct bench_subject *few = find(m, kernel, format, 1, false);
	const struct bench_subject *many = find(m, kernel, format, subject_rows[SUBJECT_ROWS - 1], false);
	if (!few || !many) return;
	bench_cell(table, "%s", kernel);
	bench_cell(table, "%s", format);
	for (int i = 0; i < SUBJECT_ROWS; i++)
		if (is_measured(m, subject_rows[i])) print_share(m, table, find(m, kernel, format, subject_rows[i], false));
	for (int rows = 16; rows <= 64; rows += 48) print_share(m, table, find(m, kernel, format, rows, true));
	bench_cell(table, "%.1f", result_of(m, few).gbps);
	bench_cell(table, result_of(m, many).gops < 10 ? "%.1f" : "%.0f", result_of(m, many).gops);
}

static void print_products(const struct measurement *m)
{
	int n_rows = 0;
	for (int i = 0; i < SUBJECT_ROWS; i++) n_rows += is_measured(m, subject_rows[i]);
	struct bench_table *table = bench_table_open(2 + n_rows + 4, 2);
	printf("\nproducts, %% of the limit that binds (r reading, f FMA, i INT8), by rows; then the same in cache\n");
	bench_cell(table, "kernel");
	bench_cell(table, "weights");
	for (int i = 0; i < SUBJECT_ROWS; i++)
		if (is_measured(m, subject_rows[i])) bench_cell(table, "%d  ", subject_rows[i]);
	for (int rows = 16; rows <= 64; rows += 48) bench_cell(table, "cache %d  ", rows);
	bench_cell(table, "GB/s at 1");
	bench_cell(table, "Gop/s at %d", subject_rows[SUBJECT_ROWS - 1]);
	print_product(m, table, "matmul_bf16", "bf16");
	for (enum format format = 0; format < N_FORMATS; format++)
		print_product(m, table, "matmul_q8", format_info(format)->name);
	for (enum format format = 0; format < N_FORMATS; format++)
		print_product(m, table, "matmul_q32", format_info(format)->name);
	bench_table_close(table, stdout);
}

static void print_others(const struct measurement *m)
{
	struct bench_table *table = bench_table_open(7, 3);
	printf("\n");
	bench_cell(table, "kernel");
	bench_cell(table, "format");
	bench_cell(table, "shape");
	bench_cell(table, "GB/s");
	bench_cell(table, "Gop/s");
	bench_cell(table, "bound");
	bench_cell(table, "%%");
	for (int i = 0; i < m->subjects->n; i++) {
		const struct bench_subject *s = &m->subjects->list[i];
		struct result r = result_of(m, s);
		bool attend = strcmp(s->kernel, "attend") == 0;
		if (strncmp(s->kernel, "matmul", 6) == 0) continue;
		bench_cell(table, "%s", s->kernel);
		bench_cell(table, "%s", s->format);
		if (attend) bench_cell(table, "%d of %d, %d positions", s->m, s->k, s->n);
		else if (s->n && s->k) bench_cell(table, "%d x %d", s->n, s->k);
		else bench_cell(table, "%d", s->n ? s->n : s->k);
		bench_cell(table, "%.2f", r.gbps);
		if (r.gops > 0) bench_cell(table, "%.1f", r.gops);
		else bench_cell(table, "-");
		bench_cell(table, "%s", bench_bound_names[r.bound]);
		bench_cell(table, "%.1f", 100 * r.fraction);
	}
	bench_table_close(table, stdout);
	printf("\na draw with its log-probability from %d logits on one thread takes %.1f %% of the time of the head's product "
	       "on all (%d x 896, one row)\n", m->subjects->vocabulary, 100 * sampling_of_head(m), m->subjects->vocabulary);
}

static void print_human(struct measurement *m)
{
	printf("%s, %d thread(s), kernels %s, medians of %d\n", bench_cpu_name(), (int)m->options->threads,
	       m->kernels->name, m->rounds);
	bench_peaks_print(&m->peaks, stdout);
	printf("weights of all formats together %zu MiB, last-level cache %zu MiB%s\n", m->subjects->weight_bytes >> 20,
	       m->cache_bytes >> 20, m->subjects->weight_bytes < 2 * m->cache_bytes
	       ? ": the cache may hold them, so more than the limit of reading is possible" : "");
	print_products(m);
	print_others(m);
}

/* ---- the command ---- */

static int choose_kernels(struct measurement *m, struct err *err)
{
	const char *isa = m->options->isa;
	m->kernels = isa ? kernels_named(isa) : kernels_best();
	if (!m->kernels)
		return err_set(err, ERR_USAGE, "--isa: '%s' is no table of kernels that this CPU can run; the best it has is %s",
		               isa, kernels_best()->name);
	return 0;
}

int bench_kernels(int argc, char **argv, struct err *err)
{
	struct kernels_options options;
	struct measurement m = {.options = &options};

	int rc = options_read(&options, argc, argv, err);
	if (!rc) rc = choose_kernels(&m, err);
	if (rc) return rc;
	const struct kernels *fill = kernels_best();
	setenv("DRUMROLL_CPU", m.kernels->name, 1); /* sampling follows it */
	m.rounds = options.rounds ? (int)options.rounds : options.quick ? QUICK_ROUNDS : ROUNDS;
	m.cache_bytes = bench_cache_bytes();
	size_t wanted = m.cache_bytes * 11 / 5, least = (size_t)WEIGHTS_MIB_MIN << 20;
	if (wanted < least) wanted = least;
	m.peaks = (struct bench_peaks){
		.kernels = m.kernels, .n_threads = (int)options.threads,
		.buffer_bytes = options.quick ? (size_t)QUICK_BUFFER_MIB << 20 : wanted,
		.seconds_each = options.quick ? QUICK_PEAK_SECONDS : PEAK_SECONDS,
	};
	m.subjects = bench_subjects_open(m.kernels, fill, (int)options.threads, options.quick, options.quick ? 0 : wanted);
	rc = take_rounds(&m, err);
	if (!rc) {
		m.median = bench_peaks_median(&m.peaks);
		if (options.json) print_json(&m);
		else print_human(&m);
	}
	bench_subjects_close(m.subjects);
	return rc;
}

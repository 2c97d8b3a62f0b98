/* bench_report.c - the machine's name, medians, tables and JSON lines. */
#include "scheduler/bench/bench_report.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "policy/team.h"

const char *const bench_bound_names[] = {"read", "fma", "int8"};

/* ---- the machine ---- */

/* The first line of a file, without its end; false if there is none. */
static bool read_line(char *line, int size, const char *path)
{
	FILE *in = fopen(path, "r");
	bool read = in && fgets(line, size, in);
	if (in) fclose(in);
	if (read) line[strcspn(line, "\n")] = '\0';
	return read;
}

const char *bench_cpu_name(void)
{
	static char line[256];
	FILE *in = fopen("/proc/cpuinfo", "r");
	const char *name = NULL;
	while (in && !name && fgets(line, sizeof line, in)) {
		if (strncmp(line, "model name", 10) != 0 || !strchr(line, ':')) continue;
		line[strcspn(line, "\n")] = '\0';
		name = strchr(line, ':') + 1;
		while (*name == ' ') name++;
	}
	if (in) fclose(in);
	return name ? name : "unknown CPU";
}

/* The highest level of cache of a CPU: its bytes, and the first CPU that it serves. */
static size_t cache_of(int cpu, int *first)
{
	for (int index = 4; index >= 0; index--) {
		char path[128], line[64];
		snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cache/index%d/size", cpu, index);
		if (!read_line(line, sizeof line, path)) continue;
		char *unit;
		unsigned long n = strtoul(line, &unit, 10);
		size_t bytes = (size_t)n << (*unit == 'M' ? 20 : *unit == 'K' ? 10 : 0);
		snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cache/index%d/shared_cpu_list", cpu, index);
		*first = read_line(line, sizeof line, path) ? atoi(line) : cpu;
		return bytes;
	}
	return 0;
}

size_t bench_cache_bytes(void)
{
	long n_cpus = sysconf(_SC_NPROCESSORS_CONF);
	size_t bytes = 0;
	for (int cpu = 0; cpu < n_cpus; cpu++) {
		int first = cpu;
		size_t cache = cache_of(cpu, &first);
		if (first == cpu) bytes += cache;
	}
#ifdef _SC_LEVEL3_CACHE_SIZE
	if (bytes == 0 && sysconf(_SC_LEVEL3_CACHE_SIZE) > 0) bytes = (size_t)sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
	return bytes;
}

int bench_threads_default(void)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	return cores > 0 ? (int)cores : 1;
}

/* ---- limits and bounds ---- */

struct body {
	void (*run)(int thread, int n_threads, void *arg);
	void *arg;
};

static void run_body(const struct team *team, void *arg)
{
	const struct body *body = arg;
	body->run(team->thread, team->n_threads, body->arg);
}

static void run_on_team(int n_threads, void (*run)(int thread, int n_threads, void *arg), void *arg)
{
	team_run(n_threads, run_body, &(struct body){run, arg});
}

int bench_peaks_measure(struct bench_peaks *peaks, struct err *err)
{
	struct machine_peaks now;
	assert(peaks->n < BENCH_PEAKS_MAX);
	machine_peaks_measure(&now, peaks->kernels, peaks->n_threads, peaks->buffer_bytes, peaks->seconds_each,
	                      run_on_team);
	if (!(now.read_gbps > 0))
		return err_set(err, ERR_MEMORY, "no %zu MiB of memory to measure how fast it is read", peaks->buffer_bytes >> 20);
	peaks->read[peaks->n] = now.read_gbps;
	peaks->fma[peaks->n] = now.fma_gflops;
	peaks->int8[peaks->n++] = now.int8_gops;
	return 0;
}

struct machine_peaks bench_peaks_median(struct bench_peaks *peaks)
{
	return (struct machine_peaks){
		.read_gbps = bench_median(peaks->read, peaks->n),
		.fma_gflops = bench_median(peaks->fma, peaks->n),
		.int8_gops = bench_median(peaks->int8, peaks->n),
	};
}

void bench_peaks_print(struct bench_peaks *peaks, FILE *out)
{
	struct machine_peaks median = bench_peaks_median(peaks);
	int last = peaks->n - 1;
	fprintf(out, "limits (median of %d, least to most): reading %zu MiB %.1f GB/s (%.1f to %.1f), FP32 FMA %.0f GFLOP/s "
	        "(%.0f to %.0f), INT8 %.0f GOP/s (%.0f to %.0f)\n", peaks->n, peaks->buffer_bytes >> 20,
	        median.read_gbps, peaks->read[0], peaks->read[last], median.fma_gflops, peaks->fma[0],
	        peaks->fma[last], median.int8_gops, peaks->int8[0], peaks->int8[last]);
}

double bench_bound_seconds(const struct machine_peaks *peaks, const struct bench_work *work,
                           enum bench_bound *bound)
{
	double read = work->bytes / peaks->read_gbps * 1e-9, fma = work->fma_ops / peaks->fma_gflops * 1e-9;
	double int8 = work->int8_ops / peaks->int8_gops * 1e-9;
	*bound = read >= fma + int8 ? BOUND_READ : fma >= int8 ? BOUND_FMA : BOUND_INT8;
	return read > fma + int8 ? read : fma + int8;
}

/* ---- numbers ---- */

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

double bench_median(double *samples, int n)
{
	assert(n >= 1);
	qsort(samples, (size_t)n, sizeof *samples, compare);
	return n % 2 ? samples[n / 2] : 0.5 * (samples[n / 2 - 1] + samples[n / 2]);
}

int bench_list(int *numbers, int n_max, const char *option, const char *text, int min, int max, struct err *err)
{
	const char *at = text;
	for (int n = 0; n < n_max;) {
		char *end;
		errno = 0;
		long value = strtol(at, &end, 10);
		if (end == at || errno != 0 || value < min || value > max || (*end != ',' && *end != '\0')) break;
		numbers[n++] = (int)value;
		if (*end == '\0') return n;
		at = end + 1;
	}
	return err_set(err, ERR_USAGE, "%s: expected up to %d numbers from %d to %d as in 1,8,32, found '%s'", option,
	               n_max, min, max, text);
}

/* ---- output ---- */

void bench_json(json_t *record)
{
	assert(record);
	json_dumpf(record, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
	putchar('\n');
	fflush(stdout);
	json_decref(record);
}

void bench_progress(const char *what, int done, int all)
{
	if (!isatty(STDERR_FILENO)) return;
	if (done < all) fprintf(stderr, "\r%s %d of %d", what, done + 1, all);
	else fprintf(stderr, "\r\033[K");
}

struct bench_table {
	char **cells; /* row by row */
	int n_cells, capacity, n_columns, n_left;
};

struct bench_table *bench_table_open(int n_columns, int n_left)
{
	struct bench_table *table = xcalloc(1, sizeof *table);
	table->n_columns = n_columns;
	table->n_left = n_left;
	return table;
}

void bench_cell(struct bench_table *table, const char *format, ...)
{
	char text[256];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	if (table->n_cells == table->capacity) {
		table->capacity = 2 * table->capacity + 64;
		table->cells = xrealloc(table->cells, (size_t)table->capacity * sizeof *table->cells);
	}
	table->cells[table->n_cells++] = xstrdup(text);
}

void bench_row_end(struct bench_table *table)
{
	while (table->n_cells % table->n_columns != 0) bench_cell(table, "%s", "");
}

void bench_table_close(struct bench_table *table, FILE *out)
{
	int n = table->n_columns;
	int *widths = xcalloc((size_t)n, sizeof *widths);
	bench_row_end(table);
	for (int i = 0; i < table->n_cells; i++) {
		int width = (int)strlen(table->cells[i]);
		if (width > widths[i % n]) widths[i % n] = width;
	}
	for (int i = 0; out && i < table->n_cells; i++) {
		int column = i % n;
		bool last = column == n - 1;
		if (column < table->n_left) fprintf(out, "%-*s", last ? 0 : widths[column], table->cells[i]);
		else fprintf(out, "%*s", widths[column], table->cells[i]);
		fputs(last ? "\n" : "  ", out);
	}
	for (int i = 0; i < table->n_cells; i++) free(table->cells[i]);
	free(table->cells);
	free(widths);
	free(table);
}

/* kernels_dispatch.c - which table of kernels this CPU runs: the only file that knows CPU features.
 *
 * The AVX2 files are compiled for x86-64-v3 and the AVX-512 files for x86-64-v4, so a table may be
 * used only where the whole level is there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/kernels_tables.h"

static bool always(void) { return true; }

#if defined(__x86_64__)
static bool has_v3(void)
{
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
	       __builtin_cpu_supports("bmi2");
}

static bool has_v4(void)
{
	return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
	       __builtin_cpu_supports("avx512vl");
}

static bool has_vnni(void) { return has_v4() && __builtin_cpu_supports("avx512vnni"); }
#endif

/* Best first. */
static const struct {
	const struct kernels *table;
	bool (*supported)(void);
} choices[] = {
#if defined(__x86_64__)
	{&kernels_avx512vnni, has_vnni},
	{&kernels_avx512, has_v4},
	{&kernels_avx2, has_v3},
#endif
	{&kernels_scalar, always},
};

enum { N_CHOICES = sizeof choices / sizeof choices[0] };

const struct kernels *kernels_named(const char *name)
{
	for (int i = 0; i < N_CHOICES; i++)
		if (strcmp(choices[i].table->name, name) == 0)
			return choices[i].supported() ? choices[i].table : NULL;
	return NULL;
}

static void refuse(const char *name)
{
	fprintf(stderr,
	        "drumroll: DRUMROLL_CPU is '%s', which this CPU or this build does not support; it supports",
	        name);
	for (int i = 0; i < N_CHOICES; i++)
		if (choices[i].supported()) fprintf(stderr, " %s", choices[i].table->name);
	fprintf(stderr, "; unset DRUMROLL_CPU or set it to one of these\n");
	exit(EXIT_FAILURE);
}

const struct kernels *kernels_best(void)
{
	const char *name = getenv("DRUMROLL_CPU");
	if (name && *name) {
		const struct kernels *table = kernels_named(name);
		if (!table) refuse(name);
		return table;
	}
	for (int i = 0; i < N_CHOICES; i++)
		if (choices[i].supported()) return choices[i].table;
	abort();
}

/* fail_malloc.c - for LD_PRELOAD: the FAIL_MALLOC-th allocation fails, once.
 *
 * Counted are allocations of `drumroll`, from its first own one on: asked for by itself, by its libraries for parsing and
 * storing, and by libc on their behalf unless FAIL_MALLOC_LIBC is 0; not those of MPI, OpenMP and the dynamic linker,
 * which may do without memory what they please.  FAIL_MALLOC_COUNT names a file that gets the count at the end. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static atomic_long count;
static long wanted = -1; /* -1: the environment has not been read; 0: none fails */
static bool with_libc, is_drumroll, begun;

static void read_environment(void)
{
	const char *n = getenv("FAIL_MALLOC"), *libc = getenv("FAIL_MALLOC_LIBC");

	with_libc = !libc || strcmp(libc, "0");
	is_drumroll = !strcmp(program_invocation_short_name, "drumroll");
	wanted = n && is_drumroll ? atol(n) : 0;
}

__attribute__((destructor)) static void write_count(void)
{
	const char *path = getenv("FAIL_MALLOC_COUNT"), *rank = getenv("PMI_RANK");
	FILE *file = path && is_drumroll && (!rank || !strcmp(rank, "0")) ? fopen(path, "w") : NULL;

	if (!file) return;
	fprintf(file, "%ld\n", (long)count);
	fclose(file);
}

static bool concerns(const void *caller)
{
	static const char *const names[] = { "libjansson", "libcyaml", "libyaml", "libsqlite3", "libuv", "libmsgpack",
	                                     "libpcre2", "libutf8proc", "libzstd", "libxxhash", "libc.so" };
	Dl_info info;

	if (!is_drumroll || !dladdr(caller, &info) || !info.dli_fname) return false;
	if (strstr(info.dli_fname, "drumroll")) return begun = true;
	if (!begun || (!with_libc && strstr(info.dli_fname, "libc.so"))) return false;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strstr(info.dli_fname, names[i])) return true;
	return false;
}

static bool fails(const void *caller)
{
	static _Thread_local bool inside; /* dladdr may allocate */

	if (inside) return false;
	inside = true;
	if (wanted < 0) read_environment();
	bool now = concerns(caller) && ++count == wanted;
	inside = false;
	if (now) errno = ENOMEM;
	return now;
}

void *malloc(size_t n) { return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size); }
void *realloc(void *old, size_t n) { return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(old, n); }
void *aligned_alloc(size_t to, size_t n) { return fails(__builtin_return_address(0)) ? NULL : __libc_memalign(to, n); }

int posix_memalign(void **out, size_t to, size_t n)
{
	void *p = fails(__builtin_return_address(0)) ? NULL : __libc_memalign(to, n);
	if (p) *out = p;
	return p ? 0 : ENOMEM;
}

/* pages.c - madvise(2), which POSIX has no equal of.  Refused hints are no errors. */
#define _DEFAULT_SOURCE
#include "policy/pages.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

/* Advise the whole pages within. */
static void advise(const void *memory, size_t n_bytes, int advice)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)memory, end = begin + n_bytes;
	begin = (begin + page - 1) / page * page;
	end = end / page * page;
	if (begin < end) (void)madvise((void *)begin, end - begin, advice);
}

void pages_prefer_huge(void *memory, size_t n_bytes)
{
#ifdef MADV_HUGEPAGE
	advise(memory, n_bytes, MADV_HUGEPAGE);
#else
	(void)memory, (void)n_bytes;
#endif
}

void pages_release(const void *mapped, size_t n_bytes) { advise(mapped, n_bytes, MADV_DONTNEED); }

/* pages.h - what the kernel is told about memory: hints, without effect on what it holds. */
#ifndef POLICY_PAGES_H
#define POLICY_PAGES_H

#include <stddef.h>

/* Back it by huge pages where they fit in whole: fewer faults when it is filled, fewer misses when read. */
void pages_prefer_huge(void *memory, size_t n_bytes);

/* Mapped file bytes that need not stay in memory; they are read again if touched. */
void pages_release(const void *mapped, size_t n_bytes);

#endif

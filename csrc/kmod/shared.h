/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Atomics on words that another kernel changes as well. The kernel's own will not do: one that runs on a
 * single CPU patches their lock prefix away, while the other root's CPUs are still there. (xchg() is fine, its
 * instruction locks by itself, and so is smp_mb().)
 */
#ifndef _MULTIROOT_SHARED_H
#define _MULTIROOT_SHARED_H

#include <linux/types.h>

static inline void mr_shared_or(u32 *word, u32 bits)
{
	asm volatile("lock orl %1, %0" : "+m" (*word) : "r" (bits) : "memory", "cc");
}

/* Returns what the word was before. */
static inline u32 mr_shared_add(u32 *word, u32 value)
{
	asm volatile("lock xaddl %0, %1" : "+r" (value), "+m" (*word) : : "memory", "cc");
	return value;
}

/* Returns what the word was before: @old when it is @new now. */
static inline u32 mr_shared_cmpxchg(u32 *word, u32 old, u32 new)
{
	asm volatile("lock cmpxchgl %2, %1" : "+a" (old), "+m" (*word) : "r" (new) : "memory", "cc");
	return old;
}

#endif /* _MULTIROOT_SHARED_H */

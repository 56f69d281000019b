// SPDX-License-Identifier: GPL-2.0-only
/* Zeroing memory that is about to change hands. */
#include <linux/types.h>
#include <asm/barrier.h>

#include "core/arch.h"

/*
 * Nobody reads it soon, and VMs run beside this: the stores pass the caches by. They are plain stores, because an
 * emulated CPU takes memset()'s string instruction byte by byte. count is a multiple of 4.
 */
void mr_zero_out(u64 *words, u64 count)
{
	u64 *end = words + count;

	for (; words < end; words += 4)
		asm volatile("movnti %4, %0\n\tmovnti %4, %1\n\tmovnti %4, %2\n\tmovnti %4, %3"
			     : "=m" (words[0]), "=m" (words[1]), "=m" (words[2]), "=m" (words[3]) : "r" (0UL));
	wmb();	/* they are weakly ordered */
}

// SPDX-License-Identifier: GPL-2.0-only
/* Zeroing memory that is about to change hands. */
#include <linux/mm.h>
#include <linux/string.h>
#include <asm/barrier.h>
#include <asm/cpufeature.h>

#include "core/arch.h"

/*
 * Under a hypervisor, a page that nobody has written yet costs its host a page of memory, and the time to find one,
 * with the first write; to read it costs next to nothing. Hardware has no such pages, and there a read can meet an
 * error of the memory that a write mends.
 */
static bool mr_zero_already(const u64 *words)
{
	return boot_cpu_has(X86_FEATURE_HYPERVISOR) && !memchr_inv(words, 0, PAGE_SIZE);
}

/*
 * Nobody reads it soon, and VMs run beside this: the stores pass the caches by. They are plain stores, because an
 * emulated CPU takes memset()'s string instruction byte by byte.
 */
void mr_zero_page(u64 *words)
{
	u64 *end = words + PAGE_SIZE / sizeof(u64);

	if (mr_zero_already(words))
		return;
	for (; words < end; words += 4)
		asm volatile("movnti %4, %0\n\tmovnti %4, %1\n\tmovnti %4, %2\n\tmovnti %4, %3"
			     : "=m" (words[0]), "=m" (words[1]), "=m" (words[2]), "=m" (words[3]) : "r" (0UL));
	wmb();	/* they are weakly ordered */
}

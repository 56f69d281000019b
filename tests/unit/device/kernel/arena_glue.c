// SPDX-License-Identifier: GPL-2.0-or-later
/* Persistent memory for csrc/kmod/arena/find.c: a range of one kind, and the block in it that says what it holds. */
#include "arena/arena.h"

u64 memory_start, memory_size, memory_kind;
u8 info[SZ_4K];

int region_intersects(u64 start, size_t size, unsigned long flags, unsigned long desc)
{
	bool within = start >= memory_start && start + size <= memory_start + memory_size;

	return desc == memory_kind && within ? REGION_INTERSECTS : REGION_DISJOINT;
}

void *memremap(phys_addr_t phys, size_t size, int how)
{
	assert(phys >= memory_start && phys + size <= memory_start + memory_size);
	return info;
}

void memunmap(void *address)
{
	assert(address == info);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Configuration space of segment 0 by its two I/O ports ("configuration mechanism 1"): the first 256 bytes of each
 * function. A root that came up without PCI has no other way where firmware tells of no ECAM.
 */
#include <linux/bits.h>
#include <linux/io.h>
#include <linux/spinlock.h>

#include "core/arch.h"

#define ADDRESS		0xcf8
#define DATA		0xcfc
#define ENABLE		BIT(31)
#define REACH		256	/* bytes of a function */

static DEFINE_RAW_SPINLOCK(mr_conf1_lock);

/* True when the machine has these ports: the address is then a register, 32 bits wide. */
bool mr_conf1_works(void)
{
	unsigned long flags;
	bool works;
	u32 before;

	raw_spin_lock_irqsave(&mr_conf1_lock, flags);
	before = inl(ADDRESS);
	outl(ENABLE, ADDRESS);
	works = inl(ADDRESS) == ENABLE;
	outl(before, ADDRESS);
	raw_spin_unlock_irqrestore(&mr_conf1_lock, flags);
	return works;
}

/* @rid is bus << 8 | device << 3 | function; @size 1, 2 or 4 bytes, aligned. Beyond its reach there is nothing. */
u32 mr_conf1_read(u32 rid, int where, int size)
{
	unsigned long flags;
	u32 value;

	if (where >= REACH)
		return ~0U;
	raw_spin_lock_irqsave(&mr_conf1_lock, flags);
	outl(ENABLE | rid << 8 | (where & ~3), ADDRESS);
	value = size == 1 ? inb(DATA + (where & 3)) : size == 2 ? inw(DATA + (where & 2)) : inl(DATA);
	raw_spin_unlock_irqrestore(&mr_conf1_lock, flags);
	return value;
}

/* As mr_conf1_read(). */
void mr_conf1_write(u32 rid, int where, int size, u32 value)
{
	unsigned long flags;

	if (where >= REACH)
		return;
	raw_spin_lock_irqsave(&mr_conf1_lock, flags);
	outl(ENABLE | rid << 8 | (where & ~3), ADDRESS);
	if (size == 1)
		outb(value, DATA + (where & 3));
	else if (size == 2)
		outw(value, DATA + (where & 2));
	else
		outl(value, DATA);
	raw_spin_unlock_irqrestore(&mr_conf1_lock, flags);
}

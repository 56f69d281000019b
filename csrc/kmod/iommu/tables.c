// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory that roots share: a page that says who owns which device, the root and context tables, and for each root a
 * part of its own for page tables. Roots take turns (parent and child), so two parts are enough; a root's number
 * says which is its.
 */
#include <linux/bitmap.h>
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <asm/apic.h>

#include "iommu/iommu.h"

#define ENTRY_PRESENT	1ULL
#define ENTRY_THROUGH	(2ULL << 2)
#define WIDTH_48	2ULL
/* Whoever holds the lock does two register writes; who holds it longer than this is dead. */
#define LOCK_US		1000000

static struct multiroot_iommu_tables *tables;
static phys_addr_t base;
static u64 size;
static u32 self;
static unsigned long *used;		/* pages of our part */
static u64 part;			/* where it begins, from base */
static unsigned long part_pages;
static DEFINE_SPINLOCK(page_lock);
static DEFINE_SPINLOCK(local_lock);

/**
 * mr_tables_lock() - keep others off the registers and the shared tables, in this root and in the other
 * @flags: of the interrupts
 */
void mr_tables_lock(unsigned long *flags)
{
	unsigned int waited = 0;
	u32 holder;

	spin_lock_irqsave(&local_lock, *flags);
	while ((holder = cmpxchg(&tables->lock, 0, self)) != 0) {
		udelay(1);
		if (++waited < LOCK_US)
			continue;
		pr_warn("taking the lock of root %u, which seems to be dead\n", holder);
		if (cmpxchg(&tables->lock, holder, self) == holder)
			return;
		waited = 0;
	}
}

void mr_tables_unlock(unsigned long flags)
{
	/* What was done under the lock is seen before it is free. */
	smp_store_release(&tables->lock, 0);
	spin_unlock_irqrestore(&local_lock, flags);
}

/* Mapping of a physical address in the tables; NULL for one outside, which other roots may have written. */
void *mr_tables_at(phys_addr_t phys)
{
	if (phys < base || phys >= base + size || !IS_ALIGNED(phys, 8))
		return NULL;
	return (void *)tables + (phys - base);
}

phys_addr_t mr_tables_page(void)
{
	unsigned long index, flags;

	spin_lock_irqsave(&page_lock, flags);
	index = find_first_zero_bit(used, part_pages);
	if (index < part_pages)
		__set_bit(index, used);
	spin_unlock_irqrestore(&page_lock, flags);
	if (index >= part_pages)
		return 0;
	memset(mr_tables_at(base + part + index * PAGE_SIZE), 0, PAGE_SIZE);
	return base + part + index * PAGE_SIZE;
}

void mr_tables_free_page(phys_addr_t phys)
{
	unsigned long flags;

	spin_lock_irqsave(&page_lock, flags);
	__clear_bit((phys - base - part) >> PAGE_SHIFT, used);
	spin_unlock_irqrestore(&page_lock, flags);
}

/* From the part that all share, never given back; 0 when it is full. Under the lock. */
static phys_addr_t shared_page(void)
{
	phys_addr_t page = base + tables->next;

	if (tables->next >= MR_IOMMU_SHARED_END)
		return 0;
	tables->next += PAGE_SIZE;
	memset(mr_tables_at(page), 0, PAGE_SIZE);
	return page;
}

static void fill_through(u64 *context)
{
	int i;

	for (i = 0; i < 256; i++) {
		context[2 * i + 1] = WIDTH_48 | MR_DID_THROUGH << 8;
		context[2 * i] = ENTRY_PRESENT | ENTRY_THROUGH;
	}
}

phys_addr_t mr_tables_root(void)
{
	return tables->root_table;
}

/* The interrupt remapping table, NULL when interrupts are not remapped. */
u64 *mr_tables_remapping(void)
{
	return tables->remapping ? mr_tables_at(tables->remapping) : NULL;
}

u32 mr_tables_self(void)
{
	return self;
}

void mr_tables_fill_info(struct multiroot_iommu_info *info)
{
	info->tables = base;
	info->size = size;
	info->registers = tables->registers;
	info->remapping = tables->remapping;
}

/* Slot of a device, -ENOENT when it never had tables of its own. */
int mr_tables_find(u16 rid)
{
	int i;

	for (i = 0; i < MULTIROOT_IOMMU_DEVICES; i++)
		if (READ_ONCE(tables->device[i].owner) && tables->device[i].rid == rid)
			return i;
	return -ENOENT;
}

bool mr_tables_own(int slot)
{
	return READ_ONCE(tables->device[slot].owner) == self;
}

u32 mr_tables_owner(int slot)
{
	return READ_ONCE(tables->device[slot].owner);
}

int mr_tables_take(int slot, u32 from)
{
	return cmpxchg(&tables->device[slot].owner, from, self) == from ? 0 : -ESTALE;
}

phys_addr_t mr_tables_context(int slot)
{
	return tables->device[slot].context;
}

/* Its context entry: two words. NULL when a root wrote nonsense. */
u64 *mr_tables_entry(int slot)
{
	return mr_tables_at(tables->device[slot].context);
}

/* The context table of a bus, one of its own from now on; 0 when there is no room. Under the lock. */
static phys_addr_t own_context(u8 bus)
{
	u64 *root = mr_tables_at(tables->root_table);
	phys_addr_t context;

	if (root[2 * bus] != root[2 * 255])
		return root[2 * bus] & PAGE_MASK;
	context = shared_page();
	if (!context)
		return 0;
	fill_through(mr_tables_at(context));
	WRITE_ONCE(root[2 * bus], context | ENTRY_PRESENT);
	mr_unit_flush_contexts();
	return context;
}

/* Slot of a device of this root, a new one if need be. -ENOSPC, -EBUSY. */
int mr_tables_claim(u16 rid)
{
	int slot = mr_tables_find(rid), i;
	phys_addr_t context;
	unsigned long flags;

	if (slot >= 0)
		return slot;
	if (rid >> 8 == 255)
		return -ENOSPC;	/* its root entry stands for all buses without a table of their own */
	mr_tables_lock(&flags);
	for (i = 0; i < MULTIROOT_IOMMU_DEVICES && tables->device[i].owner; i++)
		;
	context = i < MULTIROOT_IOMMU_DEVICES ? own_context(rid >> 8) : 0;
	if (context) {
		tables->device[i].rid = rid;
		tables->device[i].context = context + (rid & 0xff) * 16;
		/* A record with an owner is complete. */
		smp_store_release(&tables->device[i].owner, self);
	}
	mr_tables_unlock(flags);
	return context ? i : -ENOSPC;
}

static int map_tables(const struct multiroot_iommu_start *start)
{
	base = start->tables;
	size = start->size;
	self = start->root;
	part_pages = (size - MR_IOMMU_SHARED_END) / 2 / PAGE_SIZE;
	part = MR_IOMMU_SHARED_END + (self & 1) * part_pages * PAGE_SIZE;
	used = bitmap_zalloc(part_pages, GFP_KERNEL);
	tables = memremap(base, size, MEMREMAP_WB);
	if (used && tables)
		return 0;
	if (tables)
		memunmap(tables);
	bitmap_free(used);
	return -ENOMEM;
}

/* Persistent memory only: this kernel uses it for nothing else than what user space does with it. */
static bool is_good(const struct multiroot_iommu_start *start)
{
	u64 first = start->tables, length = start->size;

	return start->root && !(start->flags & ~MULTIROOT_IOMMU_REMAP) &&
	       length >= MULTIROOT_IOMMU_SIZE_MIN && length <= SZ_1G &&
	       IS_ALIGNED(first | length, SZ_2M) && first + length > first &&
	       (region_intersects(first, length, IORESOURCE_MEM, IORES_DESC_PERSISTENT_MEMORY) == REGION_INTERSECTS ||
		region_intersects(first, length, IORESOURCE_MEM, IORES_DESC_PERSISTENT_MEMORY_LEGACY) ==
			REGION_INTERSECTS);
}

/* -ENODEV when a root that made the tables wrote nonsense. */
static int open_unit(void)
{
	struct mr_queue queue = {
		.orders = mr_tables_at(tables->queue),
		.orders_at = tables->queue,
		.done = &tables->done,
		.done_at = base + offsetof(struct multiroot_iommu_tables, done),
	};

	return queue.orders ? mr_unit_open(tables->registers, &queue) : -ENODEV;
}

/* Pages of the shared part follow each other: as long as nobody else takes any, they are one table. */
static phys_addr_t remapping_table(void)
{
	phys_addr_t table = shared_page();
	int i;

	for (i = 1; i < MR_REMAP_ENTRIES * 16 / PAGE_SIZE; i++)
		shared_page();
	return table;
}

int mr_tables_create(const struct multiroot_iommu_start *start)
{
	phys_addr_t common;
	u64 *root;
	int err, i;

	if (!is_good(start) || !start->registers || !IS_ALIGNED(start->registers, PAGE_SIZE))
		return -EINVAL;
	err = map_tables(start);
	if (err)
		return err;
	memset(tables, 0, PAGE_SIZE);
	tables->abi = MULTIROOT_IOMMU_ABI;
	tables->size = size;
	tables->registers = start->registers;
	tables->next = PAGE_SIZE;
	tables->queue = shared_page();
	tables->root_table = shared_page();
	common = shared_page();
	fill_through(mr_tables_at(common));
	root = mr_tables_at(tables->root_table);
	for (i = 0; i < 256; i++)
		root[2 * i] = common | ENTRY_PRESENT;
	err = open_unit();
	if (err)
		goto undo;
	/* With 32-bit APIC ids every interrupt would have to be remapped. */
	if ((start->flags & MULTIROOT_IOMMU_REMAP) && mr_unit_can_remap() && !x2apic_enabled())
		tables->remapping = remapping_table();
	/* Tables with a magic number are complete; pairs with mr_tables_join(). */
	smp_store_release(&tables->magic, MR_IOMMU_MAGIC);
	err = mr_unit_turn_on(tables->root_table, tables->remapping);
	if (!err)
		return 0;
	mr_unit_close();
undo:
	mr_tables_close();
	return err;
}

/* A table of another root in the part that is ours by our number: left by one that lives, or never flipped. */
static bool part_is_free(void)
{
	int i;

	for (i = 0; i < MULTIROOT_IOMMU_DEVICES; i++) {
		u64 *entry = tables->device[i].owner ? mr_tables_entry(i) : NULL;
		u64 table = entry ? entry[0] & PAGE_MASK : 0;

		if (table >= base + part && table < base + part + part_pages * PAGE_SIZE)
			return false;
	}
	return true;
}

int mr_tables_join(const struct multiroot_iommu_start *start)
{
	int err;

	if (!is_good(start) || start->registers || start->flags)
		return -EINVAL;
	err = map_tables(start);
	if (err)
		return err;
	err = -ENODEV;
	/* Nothing else is looked at before the magic number; pairs with mr_tables_create(). */
	if (smp_load_acquire(&tables->magic) != MR_IOMMU_MAGIC || tables->abi != MULTIROOT_IOMMU_ABI ||
	    tables->size != size || !mr_tables_at(tables->root_table))
		goto undo;
	err = -EBUSY;
	if (!part_is_free())
		goto undo;
	err = open_unit();
	if (err)
		goto undo;
	if (mr_unit_translates(tables->root_table))
		return 0;
	err = -ENODEV;
	mr_unit_close();
undo:
	mr_tables_close();
	return err;
}

void mr_tables_close(void)
{
	memunmap(tables);
	bitmap_free(used);
}

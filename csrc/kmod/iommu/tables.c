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
#include <linux/pci.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <asm/apic.h>

#include "iommu/iommu.h"

/* Whoever holds the lock does two register writes; who holds it longer than this is dead. */
#define LOCK_US		1000000

/* The unit's tables that this root takes part in; there is one unit. */
static struct {
	struct multiroot_iommu_tables *shared;	/* mapping of base; the records at its start */
	phys_addr_t base;
	u64 size;
	u32 self;				/* this root's number, 0: it takes no part yet */
	unsigned long *used;			/* pages of our part, under page_lock */
	u64 part;				/* where it begins, from base */
	unsigned long part_pages;
	spinlock_t page_lock;			/* for used */
	spinlock_t local_lock;			/* before the lock that roots share */
} mr_tables = {
	.page_lock = __SPIN_LOCK_UNLOCKED(mr_tables.page_lock),
	.local_lock = __SPIN_LOCK_UNLOCKED(mr_tables.local_lock),
};

/**
 * mr_tables_lock() - keep others off the registers and the shared tables, in this root and in the other
 * @flags: of the interrupts
 */
void mr_tables_lock(unsigned long *flags)
{
	unsigned int waited = 0;
	u32 holder;

	spin_lock_irqsave(&mr_tables.local_lock, *flags);
	while ((holder = cmpxchg(&mr_tables.shared->lock, 0, mr_tables.self)) != 0) {
		udelay(1);
		if (++waited < LOCK_US)
			continue;
		pr_warn("taking the lock of root %u, which seems to be dead\n", holder);
		if (cmpxchg(&mr_tables.shared->lock, holder, mr_tables.self) == holder)
			return;
		waited = 0;
	}
}

void mr_tables_unlock(unsigned long flags)
{
	/* What was done under the lock is seen before it is free. */
	smp_store_release(&mr_tables.shared->lock, 0);
	spin_unlock_irqrestore(&mr_tables.local_lock, flags);
}

/* Mapping of a physical address in the tables; NULL for one outside, which other roots may have written. */
void *mr_tables_at(phys_addr_t phys)
{
	if (phys < mr_tables.base || phys >= mr_tables.base + mr_tables.size || !IS_ALIGNED(phys, 8))
		return NULL;
	return (void *)mr_tables.shared + (phys - mr_tables.base);
}

phys_addr_t mr_tables_page(void)
{
	unsigned long index, flags;

	spin_lock_irqsave(&mr_tables.page_lock, flags);
	index = find_first_zero_bit(mr_tables.used, mr_tables.part_pages);
	if (index < mr_tables.part_pages)
		__set_bit(index, mr_tables.used);
	spin_unlock_irqrestore(&mr_tables.page_lock, flags);
	if (index >= mr_tables.part_pages)
		return 0;
	memset(mr_tables_at(mr_tables.base + mr_tables.part + index * PAGE_SIZE), 0, PAGE_SIZE);
	return mr_tables.base + mr_tables.part + index * PAGE_SIZE;
}

void mr_tables_free_page(phys_addr_t phys)
{
	unsigned long flags;

	spin_lock_irqsave(&mr_tables.page_lock, flags);
	__clear_bit((phys - mr_tables.base - mr_tables.part) >> PAGE_SHIFT, mr_tables.used);
	spin_unlock_irqrestore(&mr_tables.page_lock, flags);
}

/* From the part that all share, never given back; 0 when it is full. Under the lock. */
static phys_addr_t mr_tables_shared_page(void)
{
	phys_addr_t page = mr_tables.base + mr_tables.shared->next;

	if (mr_tables.shared->next >= MR_IOMMU_SHARED_END)
		return 0;
	mr_tables.shared->next += PAGE_SIZE;
	memset(mr_tables_at(page), 0, PAGE_SIZE);
	return page;
}

static void mr_tables_fill_through(u64 *context)
{
	int i;

	for (i = 0; i < 256; i++) {
		context[2 * i + 1] = MR_WIDTH_48 | MR_ENTRY_DID(MR_DID_THROUGH);
		context[2 * i] = MR_ENTRY_PRESENT | MR_ENTRY_THROUGH;
	}
}

phys_addr_t mr_tables_root(void)
{
	return mr_tables.shared->root_table;
}

/* The interrupt remapping table, NULL when interrupts are not remapped. */
u64 *mr_tables_remapping(void)
{
	return mr_tables.shared->remapping ? mr_tables_at(mr_tables.shared->remapping) : NULL;
}

u32 mr_tables_self(void)
{
	return mr_tables.self;
}

void mr_tables_fill_info(struct multiroot_iommu_info *info)
{
	info->tables = mr_tables.base;
	info->size = mr_tables.size;
	info->registers = mr_tables.shared->registers;
	info->remapping = mr_tables.shared->remapping;
}

/* Slot of a device, -ENOENT when it never had tables of its own. */
int mr_tables_find(u16 rid)
{
	int i;

	for (i = 0; i < MULTIROOT_IOMMU_DEVICES; i++)
		if (READ_ONCE(mr_tables.shared->device[i].owner) && mr_tables.shared->device[i].rid == rid)
			return i;
	return -ENOENT;
}

/* The same for a function, also when this root takes no part in any tables yet. */
int mr_tables_slot(struct pci_dev *pdev)
{
	return mr_tables_self() ? mr_tables_find(pci_dev_id(pdev)) : -ENOENT;
}

bool mr_tables_own(int slot)
{
	return READ_ONCE(mr_tables.shared->device[slot].owner) == mr_tables.self;
}

u32 mr_tables_owner(int slot)
{
	return READ_ONCE(mr_tables.shared->device[slot].owner);
}

int mr_tables_take(int slot, u32 from)
{
	return cmpxchg(&mr_tables.shared->device[slot].owner, from, mr_tables.self) == from ? 0 : -ESTALE;
}

phys_addr_t mr_tables_context(int slot)
{
	return mr_tables.shared->device[slot].context;
}

/* Its context entry: two words. NULL when a root wrote nonsense. */
u64 *mr_tables_entry(int slot)
{
	return mr_tables_at(mr_tables.shared->device[slot].context);
}

/* The context table of a bus, one of its own from now on; 0 when there is no room. Under the lock. */
static phys_addr_t mr_tables_own_context(u8 bus)
{
	u64 *root = mr_tables_at(mr_tables.shared->root_table);
	phys_addr_t context;

	if (root[2 * bus] != root[2 * 255])
		return root[2 * bus] & PAGE_MASK;
	context = mr_tables_shared_page();
	if (!context)
		return 0;
	mr_tables_fill_through(mr_tables_at(context));
	WRITE_ONCE(root[2 * bus], context | MR_ENTRY_PRESENT);
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
	for (i = 0; i < MULTIROOT_IOMMU_DEVICES && mr_tables.shared->device[i].owner; i++)
		;
	context = i < MULTIROOT_IOMMU_DEVICES ? mr_tables_own_context(rid >> 8) : 0;
	if (context) {
		mr_tables.shared->device[i].rid = rid;
		mr_tables.shared->device[i].context = context + (rid & 0xff) * 16;
		/* A record with an owner is complete. */
		smp_store_release(&mr_tables.shared->device[i].owner, mr_tables.self);
	}
	mr_tables_unlock(flags);
	return context ? i : -ENOSPC;
}

static int mr_tables_map_tables(const struct multiroot_iommu_start *start)
{
	mr_tables.base = start->tables;
	mr_tables.size = start->size;
	mr_tables.self = start->root;
	mr_tables.part_pages = (mr_tables.size - MR_IOMMU_SHARED_END) / 2 / PAGE_SIZE;
	mr_tables.part = MR_IOMMU_SHARED_END + (mr_tables.self & 1) * mr_tables.part_pages * PAGE_SIZE;
	mr_tables.used = bitmap_zalloc(mr_tables.part_pages, GFP_KERNEL);
	mr_tables.shared = memremap(mr_tables.base, mr_tables.size, MEMREMAP_WB);
	if (mr_tables.used && mr_tables.shared)
		return 0;
	if (mr_tables.shared)
		memunmap(mr_tables.shared);
	bitmap_free(mr_tables.used);
	return -ENOMEM;
}

/* Persistent memory only: this kernel uses it for nothing else than what user space does with it. */
static bool mr_tables_is_good(const struct multiroot_iommu_start *start)
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
static int mr_tables_open_unit(void)
{
	struct mr_queue queue = {
		.orders = mr_tables_at(mr_tables.shared->queue),
		.orders_at = mr_tables.shared->queue,
		.done = &mr_tables.shared->done,
		.done_at = mr_tables.base + offsetof(struct multiroot_iommu_tables, done),
	};

	return queue.orders ? mr_unit_open(mr_tables.shared->registers, &queue) : -ENODEV;
}

/* Pages of the shared part follow each other: as long as nobody else takes any, they are one table. */
static phys_addr_t mr_tables_remapping_table(void)
{
	phys_addr_t table = mr_tables_shared_page();
	int i;

	for (i = 1; i < MR_REMAP_ENTRIES * 16 / PAGE_SIZE; i++)
		mr_tables_shared_page();
	return table;
}

int mr_tables_create(const struct multiroot_iommu_start *start)
{
	phys_addr_t common;
	u64 *root;
	int err, i;

	if (!mr_tables_is_good(start) || !start->registers || !IS_ALIGNED(start->registers, PAGE_SIZE))
		return -EINVAL;
	err = mr_tables_map_tables(start);
	if (err)
		return err;
	memset(mr_tables.shared, 0, PAGE_SIZE);
	mr_tables.shared->abi = MULTIROOT_IOMMU_ABI;
	mr_tables.shared->size = mr_tables.size;
	mr_tables.shared->registers = start->registers;
	mr_tables.shared->next = PAGE_SIZE;
	mr_tables.shared->queue = mr_tables_shared_page();
	mr_tables.shared->root_table = mr_tables_shared_page();
	common = mr_tables_shared_page();
	mr_tables_fill_through(mr_tables_at(common));
	root = mr_tables_at(mr_tables.shared->root_table);
	for (i = 0; i < 256; i++)
		root[2 * i] = common | MR_ENTRY_PRESENT;
	err = mr_tables_open_unit();
	if (err)
		goto undo;
	/* With 32-bit APIC ids every interrupt would have to be remapped. */
	if ((start->flags & MULTIROOT_IOMMU_REMAP) && mr_unit_can_remap() && !x2apic_enabled())
		mr_tables.shared->remapping = mr_tables_remapping_table();
	/* Tables with a magic number are complete; pairs with mr_tables_join(). */
	smp_store_release(&mr_tables.shared->magic, MR_IOMMU_MAGIC);
	err = mr_unit_turn_on(mr_tables.shared->root_table, mr_tables.shared->remapping);
	if (!err)
		return 0;
	mr_unit_close();
undo:
	mr_tables_close();
	return err;
}

/* A table of another root in the part that is ours by our number: left by one that lives, or never flipped. */
static bool mr_tables_part_is_free(void)
{
	phys_addr_t first = mr_tables.base + mr_tables.part;
	int i;

	for (i = 0; i < MULTIROOT_IOMMU_DEVICES; i++) {
		u64 *entry = mr_tables.shared->device[i].owner ? mr_tables_entry(i) : NULL;
		u64 table = entry ? entry[0] & PAGE_MASK : 0;

		if (table >= first && table < first + mr_tables.part_pages * PAGE_SIZE)
			return false;
	}
	return true;
}

int mr_tables_join(const struct multiroot_iommu_start *start)
{
	int err;

	if (!mr_tables_is_good(start) || start->registers || start->flags)
		return -EINVAL;
	err = mr_tables_map_tables(start);
	if (err)
		return err;
	err = -ENODEV;
	/* Nothing else is looked at before the magic number; pairs with mr_tables_create(). */
	if (smp_load_acquire(&mr_tables.shared->magic) != MR_IOMMU_MAGIC ||
	    mr_tables.shared->abi != MULTIROOT_IOMMU_ABI || mr_tables.shared->size != mr_tables.size ||
	    !mr_tables_at(mr_tables.shared->root_table))
		goto undo;
	err = -EBUSY;
	if (!mr_tables_part_is_free())
		goto undo;
	err = mr_tables_open_unit();
	if (err)
		goto undo;
	if (mr_unit_translates(mr_tables.shared->root_table))
		return 0;
	err = -ENODEV;
	mr_unit_close();
undo:
	mr_tables_close();
	return err;
}

void mr_tables_close(void)
{
	memunmap(mr_tables.shared);
	bitmap_free(mr_tables.used);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory that roots share: a page that says who owns which device, the root and context tables, and for each root a
 * part of its own for page tables. No more than two roots live at a time (parent and child), so two parts are enough:
 * a root takes the one that its peer does not have.
 */
#include <linux/bitmap.h>
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/ktime.h>
#include <linux/pci.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <asm/apic.h>

#include "core/core.h"
#include "iommu/iommu.h"
#include "shared.h"

/*
 * Whoever holds the lock does some register writes. A root that has ended may have a CPU that is on its way into the
 * park. One that lives may have a virtual CPU that is kept from running: that is waited for, but not until watchdogs of
 * this kernel take this CPU for hung. After twice that time nobody is asked: a word that keeps changing is no lock.
 */
#define LOCK_NS		(1 * NSEC_PER_SEC)
#define LOCK_LIVING_NS	(4 * NSEC_PER_SEC)

/* The unit's tables that this root takes part in; there is one unit. */
static struct {
	struct multiroot_iommu_tables *shared;	/* mapping of base; the records at its start */
	phys_addr_t base;
	u64 size;
	u32 self;				/* this root's number, 0: it takes no part yet */
	bool settled;				/* it takes part for good: nothing is unmapped any more */
	unsigned long *used;			/* pages of our part, under page_lock */
	u64 part;				/* where it begins, from base */
	unsigned long part_pages;
	spinlock_t page_lock;			/* for used */
	raw_spinlock_t local_lock;		/* before the lock that roots share; who has that never sleeps */
} mr_tables = {
	.page_lock = __SPIN_LOCK_UNLOCKED(mr_tables.page_lock),
	.local_lock = __RAW_SPIN_LOCK_UNLOCKED(mr_tables.local_lock),
};

static bool mr_tables_may_rob(u32 holder, u64 waited_ns)
{
	if (waited_ns < LOCK_NS)
		return false;
	return waited_ns >= LOCK_LIVING_NS || holder == mr_tables.self || !multiroot_root_lives(holder);
}

/**
 * mr_tables_lock() - keep others off the registers and the shared tables, in this root and in the other
 * @flags: of the interrupts
 */
void mr_tables_lock(unsigned long *flags)
{
	u32 *lock = &mr_tables.shared->lock, holder;
	u64 began = 0, waited_ns;

	raw_spin_lock_irqsave(&mr_tables.local_lock, *flags);
	while ((holder = mr_shared_cmpxchg(lock, 0, mr_tables.self)) != 0) {
		began = began ?: ktime_get_mono_fast_ns();
		udelay(1);
		waited_ns = ktime_get_mono_fast_ns() - began;
		if (!mr_tables_may_rob(holder, waited_ns))
			continue;
		/* Of two that find a dead root's lock one has it. */
		if (mr_shared_cmpxchg(lock, holder, mr_tables.self) != holder && waited_ns < 2 * LOCK_LIVING_NS)
			continue;
		pr_warn_ratelimited("taking the lock of root %u, which does not give it back\n", holder);
		return;
	}
}

void mr_tables_unlock(unsigned long flags)
{
	/* A full barrier: what was done under the lock is seen before it is free. */
	if (mr_shared_cmpxchg(&mr_tables.shared->lock, mr_tables.self, 0) != mr_tables.self)
		pr_err_ratelimited("the lock of the tables was taken from this root\n");
	raw_spin_unlock_irqrestore(&mr_tables.local_lock, flags);
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

/* Give a page of our part back; one of elsewhere, which other roots may have written into our tables, is left alone. */
void mr_tables_free_page(phys_addr_t phys)
{
	u64 index = (phys - mr_tables.base - mr_tables.part) >> PAGE_SHIFT;
	unsigned long flags;

	if (index >= mr_tables.part_pages)
		return;
	spin_lock_irqsave(&mr_tables.page_lock, flags);
	__clear_bit(index, mr_tables.used);
	spin_unlock_irqrestore(&mr_tables.page_lock, flags);
}

/* How many pages there are in all parts: no walk through tables that are in order visits more. */
unsigned long mr_tables_pages(void)
{
	return mr_tables.size >> PAGE_SHIFT;
}

/* From the part that all share, never given back; 0 when it is full. Under the lock. */
static phys_addr_t mr_tables_shared_page(void)
{
	u64 next = READ_ONCE(mr_tables.shared->next);

	if (!next || !PAGE_ALIGNED(next) || next >= MR_IOMMU_SHARED_END)
		return 0;
	mr_tables.shared->next = next + PAGE_SIZE;
	memset(mr_tables_at(mr_tables.base + next), 0, PAGE_SIZE);
	return mr_tables.base + next;
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
	phys_addr_t table = READ_ONCE(mr_tables.shared->remapping);

	/* It was made in the shared part: one elsewhere, or not all there, is nonsense. */
	if (!table || table > mr_tables.base + MR_IOMMU_SHARED_END - MR_REMAP_ENTRIES * 16)
		return NULL;
	return mr_tables_at(table);
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

/* The same for a function, also when this root takes no part in any tables yet, or fails to. */
int mr_tables_slot(struct pci_dev *pdev)
{
	/* Pairs with mr_tables_settle(). */
	return smp_load_acquire(&mr_tables.settled) ? mr_tables_find(pci_dev_id(pdev)) : -ENOENT;
}

/* From now on multiroot_vfio.ko sees the tables, whose mapping stays. */
void mr_tables_settle(void)
{
	/* Whoever sees this sees the mapping. */
	smp_store_release(&mr_tables.settled, true);
}

bool mr_tables_own(int slot)
{
	return READ_ONCE(mr_tables.shared->device[slot].owner) == mr_tables.self;
}

u32 mr_tables_owner(int slot)
{
	return READ_ONCE(mr_tables.shared->device[slot].owner);
}

u16 mr_tables_rid(int slot)
{
	return READ_ONCE(mr_tables.shared->device[slot].rid);
}

int mr_tables_take(int slot, u32 from)
{
	u32 *owner = &mr_tables.shared->device[slot].owner;

	return mr_shared_cmpxchg(owner, from, mr_tables.self) == from ? 0 : -ESTALE;
}

phys_addr_t mr_tables_context(int slot)
{
	return mr_tables.shared->device[slot].context;
}

/* Its context entry: two words. NULL when a root wrote nonsense. */
u64 *mr_tables_entry(int slot)
{
	u64 context = READ_ONCE(mr_tables.shared->device[slot].context);

	return IS_ALIGNED(context, 16) ? mr_tables_at(context) : NULL;
}

/* The context table of a bus, one of its own from now on; 0 when there is no room. Under the lock. */
static phys_addr_t mr_tables_own_context(u8 bus)
{
	u64 *root = mr_tables_at(READ_ONCE(mr_tables.shared->root_table) & PAGE_MASK);
	phys_addr_t context;

	if (!root)
		return 0;
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

/* Parts of roots that have ended are nobody's. */
void mr_tables_free_parts(void)
{
	unsigned long flags;
	int i;

	mr_tables_lock(&flags);
	for (i = 0; i < MULTIROOT_IOMMU_PARTS; i++)
		if (mr_tables.shared->part[i] != mr_tables.self && !multiroot_root_lives(mr_tables.shared->part[i]))
			mr_tables.shared->part[i] = 0;
	mr_tables_unlock(flags);
}

static void mr_tables_use_part(int part)
{
	mr_tables.shared->part[part] = mr_tables.self;
	mr_tables.part = MR_IOMMU_SHARED_END + part * mr_tables.part_pages * PAGE_SIZE;
}

/* Page tables of this root need a part that nobody has. -EBUSY. */
int mr_tables_take_part(void)
{
	unsigned long flags;
	int i;

	mr_tables_lock(&flags);
	for (i = 0; i < MULTIROOT_IOMMU_PARTS && mr_tables.shared->part[i]; i++)
		;
	if (i < MULTIROOT_IOMMU_PARTS)
		mr_tables_use_part(i);
	mr_tables_unlock(flags);
	return i < MULTIROOT_IOMMU_PARTS ? 0 : -EBUSY;
}

static void mr_tables_unmap(void)
{
	memunmap(mr_tables.shared);
	mr_tables.shared = NULL;
	mr_tables.self = 0;
	mr_tables.base = 0;
	mr_tables.size = 0;
	bitmap_free(mr_tables.used);
	mr_tables.used = NULL;
}

static int mr_tables_map(const struct multiroot_iommu_start *start)
{
	mr_tables.base = start->tables;
	mr_tables.size = start->size;
	mr_tables.part_pages = (mr_tables.size - MR_IOMMU_SHARED_END) / MULTIROOT_IOMMU_PARTS / PAGE_SIZE;
	mr_tables.used = bitmap_zalloc(mr_tables.part_pages, GFP_KERNEL);
	if (!mr_tables.used)
		return -ENOMEM;
	mr_tables.shared = memremap(mr_tables.base, mr_tables.size, MEMREMAP_WB);
	if (!mr_tables.shared) {
		bitmap_free(mr_tables.used);
		mr_tables.used = NULL;
		return -ENOMEM;
	}
	mr_tables.self = multiroot_root();
	return 0;
}

/* Persistent memory only: this kernel uses it for nothing else than what user space does with it. */
static bool mr_tables_is_good(const struct multiroot_iommu_start *start)
{
	u64 first = start->tables, length = start->size;

	return !(start->flags & ~MULTIROOT_IOMMU_REMAP) && !start->pad &&
	       length >= MULTIROOT_IOMMU_SIZE_MIN && length <= SZ_1G &&
	       IS_ALIGNED(first | length, SZ_2M) && first + length > first &&
	       (region_intersects(first, length, IORESOURCE_MEM, IORES_DESC_PERSISTENT_MEMORY) == REGION_INTERSECTS ||
		region_intersects(first, length, IORESOURCE_MEM, IORES_DESC_PERSISTENT_MEMORY_LEGACY) ==
			REGION_INTERSECTS);
}

/* -ENODEV when a root that made the tables wrote nonsense. */
static int mr_tables_use_queue(void)
{
	phys_addr_t orders_at = READ_ONCE(mr_tables.shared->queue);
	struct mr_queue queue = {
		.orders = mr_tables_at(orders_at),
		.orders_at = orders_at,
		.done = &mr_tables.shared->done,
		.done_at = mr_tables.base + offsetof(struct multiroot_iommu_tables, done),
	};

	if (!queue.orders || !PAGE_ALIGNED(queue.orders_at))
		return -ENODEV;
	mr_unit_use_queue(&queue);
	return 0;
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

static void mr_tables_fill(const struct multiroot_iommu_start *start)
{
	phys_addr_t common;
	u64 *root;
	int i;

	memset(mr_tables.shared, 0, PAGE_SIZE);
	mr_tables.shared->abi = MULTIROOT_IOMMU_ABI;
	mr_tables.shared->size = mr_tables.size;
	mr_tables.shared->registers = start->registers;
	mr_tables.shared->next = PAGE_SIZE;
	mr_tables_use_part(0);
	mr_tables.shared->queue = mr_tables_shared_page();
	mr_tables.shared->root_table = mr_tables_shared_page();
	common = mr_tables_shared_page();
	mr_tables_fill_through(mr_tables_at(common));
	root = mr_tables_at(mr_tables.shared->root_table);
	for (i = 0; i < 256; i++)
		root[2 * i] = common | MR_ENTRY_PRESENT;
	/* With 32-bit APIC ids every interrupt would have to be remapped. */
	if ((start->flags & MULTIROOT_IOMMU_REMAP) && mr_unit_can_remap() && !x2apic_enabled())
		mr_tables.shared->remapping = mr_tables_remapping_table();
}

int mr_tables_create(const struct multiroot_iommu_start *start)
{
	int err;

	if (!mr_tables_is_good(start) || !start->registers || !IS_ALIGNED(start->registers, PAGE_SIZE))
		return -EINVAL;
	err = mr_unit_open(start->registers);
	if (err)
		return err;
	/* A unit that is on may work with the very tables that would be made anew. */
	err = mr_unit_is_on() ? -EBUSY : mr_tables_map(start);
	if (err)
		goto close;
	mr_tables_fill(start);
	err = mr_tables_use_queue();
	if (!err)
		err = mr_unit_turn_on(mr_tables.shared->root_table, mr_tables.shared->remapping);
	if (err)
		goto unmap;
	/* Tables with a magic number are complete; pairs with mr_tables_join(). */
	smp_store_release(&mr_tables.shared->magic, MR_IOMMU_MAGIC);
	return 0;
unmap:
	mr_tables_unmap();
close:
	mr_unit_close();
	return err;
}

/* Nobody works with the tables yet, and all devices are passed through. */
void mr_tables_undo_create(void)
{
	mr_tables.shared->magic = 0;
	mr_unit_turn_off();
	mr_tables_unmap();
	mr_unit_close();
}

static bool mr_tables_are_ours(void)
{
	/* Nothing else is looked at before the magic number; pairs with mr_tables_create(). */
	if (smp_load_acquire(&mr_tables.shared->magic) != MR_IOMMU_MAGIC)
		return false;
	return mr_tables.shared->abi == MULTIROOT_IOMMU_ABI && mr_tables.shared->size == mr_tables.size &&
	       PAGE_ALIGNED(mr_tables.shared->registers) && mr_tables_at(mr_tables.shared->root_table);
}

int mr_tables_join(const struct multiroot_iommu_start *start)
{
	int err;

	if (!mr_tables_is_good(start) || start->registers || start->flags)
		return -EINVAL;
	err = mr_tables_map(start);
	if (err)
		return err;
	err = mr_tables_are_ours() ? mr_unit_open(mr_tables.shared->registers) : -ENODEV;
	if (err)
		goto unmap;
	err = mr_unit_translates(mr_tables.shared->root_table) ? mr_tables_use_queue() : -ENODEV;
	if (err)
		goto close;
	return 0;
close:
	mr_unit_close();
unmap:
	mr_tables_unmap();
	return err;
}

void mr_tables_undo_join(void)
{
	unsigned long flags;
	int i;

	mr_tables_lock(&flags);
	for (i = 0; i < MULTIROOT_IOMMU_PARTS; i++)
		if (mr_tables.shared->part[i] == mr_tables.self)
			mr_tables.shared->part[i] = 0;
	mr_tables_unlock(flags);
	mr_unit_close();
	mr_tables_unmap();
}

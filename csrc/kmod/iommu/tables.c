// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory that roots share: a page that says who owns which device, the root and context tables, and for each root a
 * part of its own for page tables.
 */
#include <linux/bitmap.h>
#include <linux/delay.h>
#include <linux/ktime.h>
#include <linux/pci.h>

#include "core/core.h"
#include "iommu/iommu.h"
#include "iommu/tables.h"
#include "pci/pci.h"
#include "shared.h"

/*
 * Whoever holds the lock does some register writes. A root that has ended may have a CPU that is on its way into the
 * park. One that lives may have a virtual CPU that is kept from running: that is waited for, but not until watchdogs of
 * this kernel take this CPU for hung. After twice that time nobody is asked: a word that keeps changing is no lock.
 */
#define LOCK_NS		(1 * NSEC_PER_SEC)
#define LOCK_LIVING_NS	(4 * NSEC_PER_SEC)

struct mr_tables mr_tables = {
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
	void *page;

	spin_lock_irqsave(&mr_tables.page_lock, flags);
	index = find_first_zero_bit(mr_tables.used, mr_tables.part_pages);
	if (index < mr_tables.part_pages)
		__set_bit(index, mr_tables.used);
	spin_unlock_irqrestore(&mr_tables.page_lock, flags);
	if (index >= mr_tables.part_pages)
		return 0;
	page = mr_tables_at(mr_tables.base + mr_tables.part + index * PAGE_SIZE);
	memset(page, 0, PAGE_SIZE);
	mr_unit_write_back(page, PAGE_SIZE);
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
phys_addr_t mr_tables_shared_page(void)
{
	u64 next = READ_ONCE(mr_tables.shared->next);
	void *page;

	if (!next || !PAGE_ALIGNED(next) || next >= MR_IOMMU_SHARED_END)
		return 0;
	mr_tables.shared->next = next + PAGE_SIZE;
	page = mr_tables_at(mr_tables.base + next);
	memset(page, 0, PAGE_SIZE);
	mr_unit_write_back(page, PAGE_SIZE);
	return mr_tables.base + next;
}

void mr_tables_fill_through(u64 *context)
{
	int i;

	for (i = 0; i < 256; i++) {
		context[2 * i + 1] = MR_WIDTH_48 | MR_ENTRY_DID(MR_DID_THROUGH);
		context[2 * i] = MR_ENTRY_PRESENT | MR_ENTRY_THROUGH;
	}
	mr_unit_write_back(context, PAGE_SIZE);
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

/*
 * The same for a function, also when this root takes no part in any tables yet, or fails to. One of another segment has
 * none, whatever its numbers.
 */
int mr_tables_slot(struct pci_dev *pdev)
{
	/* Pairs with mr_tables_settle(). */
	if (!smp_load_acquire(&mr_tables.settled) || !multiroot_pci_has_rid(pdev))
		return -ENOENT;
	return mr_tables_find(pci_dev_id(pdev));
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
	mr_unit_write_back(&root[2 * bus], sizeof(*root));
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

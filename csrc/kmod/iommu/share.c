// SPDX-License-Identifier: GPL-2.0-only
/*
 * Making the shared tables, or joining those of another root, and the parts for page tables. No more than two roots
 * live at a time (parent and child), so two parts are enough: a root takes the one that its peer does not have.
 */
#include <linux/bitmap.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/mm.h>
#include <linux/sizes.h>
#include <asm/apic.h>

#include "core/core.h"
#include "iommu/iommu.h"
#include "iommu/tables.h"

/* Parts of roots that have ended are nobody's. */
void mr_share_free_parts(void)
{
	unsigned long flags;
	int i;

	mr_tables_lock(&flags);
	for (i = 0; i < MULTIROOT_IOMMU_PARTS; i++)
		if (mr_tables.shared->part[i] != mr_tables.self && !multiroot_root_lives(mr_tables.shared->part[i]))
			mr_tables.shared->part[i] = 0;
	mr_tables_unlock(flags);
}

static void mr_share_use_part(int part)
{
	mr_tables.shared->part[part] = mr_tables.self;
	mr_tables.part = MR_IOMMU_SHARED_END + part * mr_tables.part_pages * PAGE_SIZE;
}

/* Page tables of this root need a part that nobody has. -EBUSY. */
int mr_share_take_part(void)
{
	unsigned long flags;
	int i;

	mr_tables_lock(&flags);
	for (i = 0; i < MULTIROOT_IOMMU_PARTS && mr_tables.shared->part[i]; i++)
		;
	if (i < MULTIROOT_IOMMU_PARTS)
		mr_share_use_part(i);
	mr_tables_unlock(flags);
	return i < MULTIROOT_IOMMU_PARTS ? 0 : -EBUSY;
}

static void mr_share_unmap(void)
{
	memunmap(mr_tables.shared);
	mr_tables.shared = NULL;
	mr_tables.self = 0;
	mr_tables.base = 0;
	mr_tables.size = 0;
	bitmap_free(mr_tables.used);
	mr_tables.used = NULL;
}

static int mr_share_map(const struct multiroot_iommu_start *start)
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
static bool mr_share_is_good(const struct multiroot_iommu_start *start)
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
static int mr_share_use_queue(void)
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
static phys_addr_t mr_share_remapping_table(void)
{
	phys_addr_t table = mr_tables_shared_page();
	int i;

	for (i = 1; i < MR_REMAP_ENTRIES * 16 / PAGE_SIZE; i++)
		mr_tables_shared_page();
	return table;
}

static void mr_share_fill(const struct multiroot_iommu_start *start)
{
	phys_addr_t common;
	u64 *root;
	int i;

	memset(mr_tables.shared, 0, PAGE_SIZE);
	mr_tables.shared->abi = MULTIROOT_IOMMU_ABI;
	mr_tables.shared->size = mr_tables.size;
	mr_tables.shared->registers = start->registers;
	mr_tables.shared->next = PAGE_SIZE;
	mr_share_use_part(0);
	mr_tables.shared->queue = mr_tables_shared_page();
	mr_tables.shared->root_table = mr_tables_shared_page();
	common = mr_tables_shared_page();
	mr_tables_fill_through(mr_tables_at(common));
	root = mr_tables_at(mr_tables.shared->root_table);
	for (i = 0; i < 256; i++)
		root[2 * i] = common | MR_ENTRY_PRESENT;
	mr_unit_write_back(root, PAGE_SIZE);
	/* With 32-bit APIC ids every interrupt would have to be remapped. */
	if ((start->flags & MULTIROOT_IOMMU_REMAP) && mr_unit_can_remap() && !x2apic_enabled())
		mr_tables.shared->remapping = mr_share_remapping_table();
}

int mr_share_create(const struct multiroot_iommu_start *start)
{
	int err;

	if (!mr_share_is_good(start) || !start->registers || !IS_ALIGNED(start->registers, PAGE_SIZE))
		return -EINVAL;
	err = mr_unit_open(start->registers);
	if (err)
		return err;
	/* A unit that is on may work with the very tables that would be made anew. */
	err = mr_unit_is_on() ? -EBUSY : mr_share_map(start);
	if (err)
		goto close;
	mr_share_fill(start);
	err = mr_share_use_queue();
	if (!err)
		err = mr_unit_turn_on(mr_tables.shared->root_table, mr_tables.shared->remapping);
	if (err)
		goto unmap;
	/* Tables with a magic number are complete; pairs with mr_share_join(). */
	smp_store_release(&mr_tables.shared->magic, MR_IOMMU_MAGIC);
	return 0;
unmap:
	mr_share_unmap();
close:
	mr_unit_close();
	return err;
}

/* Nobody works with the tables yet, and all devices are passed through. */
void mr_share_undo_create(void)
{
	mr_tables.shared->magic = 0;
	mr_unit_turn_off();
	mr_share_unmap();
	mr_unit_close();
}

static bool mr_share_are_ours(void)
{
	/* Nothing else is looked at before the magic number; pairs with mr_share_create(). */
	if (smp_load_acquire(&mr_tables.shared->magic) != MR_IOMMU_MAGIC)
		return false;
	return mr_tables.shared->abi == MULTIROOT_IOMMU_ABI && mr_tables.shared->size == mr_tables.size &&
	       PAGE_ALIGNED(mr_tables.shared->registers) && mr_tables_at(mr_tables.shared->root_table);
}

int mr_share_join(const struct multiroot_iommu_start *start)
{
	int err;

	if (!mr_share_is_good(start) || start->registers || start->flags)
		return -EINVAL;
	err = mr_share_map(start);
	if (err)
		return err;
	err = mr_share_are_ours() ? mr_unit_open(mr_tables.shared->registers) : -ENODEV;
	if (err)
		goto unmap;
	err = mr_unit_translates(mr_tables.shared->root_table) ? mr_share_use_queue() : -ENODEV;
	if (err)
		goto close;
	return 0;
close:
	mr_unit_close();
unmap:
	mr_share_unmap();
	return err;
}

void mr_share_undo_join(void)
{
	unsigned long flags;
	int i;

	mr_tables_lock(&flags);
	for (i = 0; i < MULTIROOT_IOMMU_PARTS; i++)
		if (mr_tables.shared->part[i] == mr_tables.self)
			mr_tables.shared->part[i] = 0;
	mr_tables_unlock(flags);
	mr_unit_close();
	mr_share_unmap();
}

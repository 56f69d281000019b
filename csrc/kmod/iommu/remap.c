// SPDX-License-Identifier: GPL-2.0-only
/*
 * The interrupt remapping table (VT-d specification 4.1, section 5.1). It lies with the other tables in memory that
 * outlives a root. Only interrupts of devices that VMs own go through it: what a device was told stays the same when
 * it changes its root, and its entries are written anew. All other interrupts pass as they are (compatibility format).
 */
#include <linux/bitfield.h>
#include <linux/module.h>
#include <linux/msi.h>
#include <linux/pci.h>

#include "iommu/iommu.h"

/* Of each device; further ones are not remapped. */
#define VECTORS		(MR_REMAP_ENTRIES / MULTIROOT_IOMMU_DEVICES)

/* An entry's two words, section 9.10. */
#define ENTRY_PRESENT	BIT_ULL(0)
#define ENTRY_LOGICAL	BIT_ULL(2)
#define ENTRY_HINT	BIT_ULL(3)
#define ENTRY_DELIVERY	GENMASK_ULL(7, 5)
#define ENTRY_VECTOR	GENMASK_ULL(23, 16)
#define ENTRY_TARGET	GENMASK_ULL(47, 40)
#define SOURCE_ID	GENMASK_ULL(15, 0)
#define SOURCE_CHECK	BIT_ULL(18)

/* An address in compatibility format, section 5.1.2.1, and one that names an entry, section 5.1.2.2. */
#define MESSAGE_BASE	0xfee00000U
#define MESSAGE_LOGICAL	BIT(2)
#define MESSAGE_HINT	BIT(3)
#define MESSAGE_REMAP	BIT(4)
#define MESSAGE_HANDLE	GENMASK(19, 5)
#define MESSAGE_TARGET	GENMASK(19, 12)
#define DATA_VECTOR	GENMASK(7, 0)
#define DATA_DELIVERY	GENMASK(10, 8)

static u64 *mr_remap_entry_of(int slot, unsigned int vector)
{
	u64 *table = mr_tables_remapping();

	return table ? table + 2 * (slot * VECTORS + vector) : NULL;
}

/* Without effect when another root owns the device, which takes it over under the same lock. */
static void mr_remap_write_entry(int slot, u64 *entry, u64 low, u64 high)
{
	unsigned long flags;

	mr_tables_lock(&flags);
	if (mr_tables_own(slot)) {
		/* Never half of one: it is not present while it changes, which is only before its first use. */
		if (READ_ONCE(entry[1]) != high) {
			WRITE_ONCE(entry[0], 0);
			WRITE_ONCE(entry[1], high);
		}
		WRITE_ONCE(entry[0], low);
		mr_unit_write_back(entry, 2 * sizeof(*entry));
		mr_unit_flush_interrupts();
	}
	mr_tables_unlock(flags);
}

/**
 * multiroot_iommu_remap() - have an interrupt of a device go through the table
 * @pdev: the device
 * @vector: which of its interrupts
 * @message: where it is to go, in compatibility format
 * @address: what to write to the device in place of the message; the data is 0
 *
 * As long as another root has the device its entry stays as it is. false when nothing is remapped: the message is what
 * the device must have.
 */
bool multiroot_iommu_remap(struct pci_dev *pdev, unsigned int vector, const struct msi_msg *message, u32 *address)
{
	int slot = mr_tables_slot(pdev);
	u32 from = message->address_lo;
	u64 *entry, low;

	if (slot < 0 || vector >= VECTORS || (from & MESSAGE_REMAP) || message->address_hi)
		return false;
	entry = mr_remap_entry_of(slot, vector);
	if (!entry)
		return false;
	low = ENTRY_PRESENT | (from & MESSAGE_LOGICAL ? ENTRY_LOGICAL : 0) | (from & MESSAGE_HINT ? ENTRY_HINT : 0) |
	      FIELD_PREP(ENTRY_DELIVERY, FIELD_GET(DATA_DELIVERY, message->data)) |
	      FIELD_PREP(ENTRY_VECTOR, FIELD_GET(DATA_VECTOR, message->data)) |
	      FIELD_PREP(ENTRY_TARGET, FIELD_GET(MESSAGE_TARGET, from));
	mr_remap_write_entry(slot, entry, low, SOURCE_CHECK | FIELD_PREP(SOURCE_ID, pci_dev_id(pdev)));
	*address = MESSAGE_BASE | MESSAGE_REMAP | FIELD_PREP(MESSAGE_HANDLE, slot * VECTORS + vector);
	return true;
}
EXPORT_SYMBOL_GPL(multiroot_iommu_remap);

/* Nothing that the device of a slot raises gets through any more. */
void mr_remap_clear(int slot)
{
	int i;

	for (i = 0; i < VECTORS; i++) {
		u64 *entry = mr_remap_entry_of(slot, i);

		if (entry && entry[0])
			mr_remap_write_entry(slot, entry, 0, 0);
	}
}

/**
 * multiroot_iommu_unmap_interrupts() - a device of this root raises none any more
 * @pdev: the device
 */
void multiroot_iommu_unmap_interrupts(struct pci_dev *pdev)
{
	int slot = mr_tables_slot(pdev);

	if (slot >= 0 && mr_tables_own(slot))
		mr_remap_clear(slot);
}
EXPORT_SYMBOL_GPL(multiroot_iommu_unmap_interrupts);

/* How many interrupts of a device are remapped, whoever owns it. */
u32 mr_remap_count(int slot)
{
	u32 count = 0;
	int i;

	for (i = 0; i < VECTORS; i++) {
		u64 *entry = mr_remap_entry_of(slot, i);

		count += entry && (READ_ONCE(entry[0]) & ENTRY_PRESENT);
	}
	return count;
}

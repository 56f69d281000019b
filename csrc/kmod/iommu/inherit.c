// SPDX-License-Identifier: GPL-2.0-only
/*
 * What roots that have ended leave in the shared tables: devices, and parts for page tables. Who has ended, the ledger
 * knows.
 */
#include "core/core.h"
#include "iommu/iommu.h"

/* What translates works for a VM that is gone. What is passed through works for a kernel, or for nobody. */
static bool mr_inherit_device(int slot, u32 owner)
{
	u64 *entry = mr_tables_entry(slot);
	unsigned long flags;
	int err;

	mr_tables_lock(&flags);
	err = mr_tables_take(slot, owner);
	if (!err && entry && !(entry[0] & MR_ENTRY_TYPE)) {
		WRITE_ONCE(entry[0], 0);
		mr_unit_flush_contexts();
		mr_unit_flush_domain(MR_DID_FIRST + slot);
	}
	mr_tables_unlock(flags);
	if (!err)
		mr_remap_clear(slot);
	return !err;
}

/**
 * mr_inherit() - become the owner of what roots that have ended left
 *
 * Return: how many devices were inherited.
 */
u32 mr_inherit(void)
{
	u32 count = 0;
	int i;

	for (i = 0; i < MULTIROOT_IOMMU_DEVICES; i++) {
		u32 owner = mr_tables_owner(i);

		if (owner && !mr_tables_own(i) && !multiroot_root_lives(owner))
			count += mr_inherit_device(i, owner);
	}
	mr_tables_free_parts();
	return count;
}

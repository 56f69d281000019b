// SPDX-License-Identifier: GPL-2.0-only
/*
 * What roots that have ended leave in the shared tables: devices, and parts for page tables. Who has ended, the ledger
 * knows.
 */
#include <linux/pci.h>

#include "core/core.h"
#include "iommu/iommu.h"
#include "pci/pci.h"

/*
 * A device that a kernel's driver had is passed through, and stays so for the next driver: no table of ours stops it.
 * Its reset ends what it does and the interrupts it was told to send. Where it has none, it may not use the bus.
 */
static int mr_inherit_stop(struct pci_dev *pdev)
{
	u16 command;
	int err;

	/* Nobody else has it any more: what this kernel writes to it is to get there. */
	err = multiroot_pci_hold(pdev, MR_PCI_FREE);
	if (err)
		return err;
	pci_clear_master(pdev);
	/* What it has sent before comes before this answer. */
	pci_read_config_word(pdev, PCI_COMMAND, &command);
	err = pci_reset_function(pdev);
	if (err)
		pci_info(pdev, "not reset (%d) after the end of the root that had it\n", err);
	return 0;
}

/* As this kernel shows it, in segment 0 or one of its own. One that it does not show was silenced before (adopt.c). */
static int mr_inherit_stop_function(u16 rid)
{
	struct pci_dev *pdev = NULL;
	int err = 0;

	for_each_pci_dev(pdev)
		if (pci_dev_id(pdev) == rid && multiroot_pci_has_rid(pdev))
			err = mr_inherit_stop(pdev) ?: err;
	return err;
}

/* What translates works for a VM that is gone. What is passed through works for a kernel, or for nobody. */
static int mr_inherit_device(int slot, u32 owner)
{
	u64 *entry = mr_tables_entry(slot);
	unsigned long flags;
	int err;

	err = mr_inherit_stop_function(mr_tables_rid(slot));
	if (err)
		return err;
	mr_tables_lock(&flags);
	err = mr_tables_take(slot, owner);
	if (!err && entry && !(entry[0] & MR_ENTRY_TYPE)) {
		WRITE_ONCE(entry[0], 0);
		mr_unit_write_back(entry, sizeof(*entry));
		mr_unit_flush_contexts();
		mr_unit_flush_domain(MR_DID_FIRST + slot);
	}
	mr_tables_unlock(flags);
	if (!err)
		mr_remap_clear(slot);
	/* Another root was faster: it is that one's now. */
	return err == -ESTALE ? 0 : err;
}

/**
 * mr_inherit() - become the owner of what roots that have ended left, and stop it
 * @devices: how many there were
 *
 * Sleeps.
 *
 * Return: 0; -ENOMEM: a device may still be at work, and stays that root's. The call can be repeated.
 */
int mr_inherit(u32 *devices)
{
	int i, err;

	*devices = 0;
	for (i = 0; i < MULTIROOT_IOMMU_DEVICES; i++) {
		u32 owner = mr_tables_owner(i);

		if (!owner || mr_tables_own(i) || multiroot_root_lives(owner))
			continue;
		err = mr_inherit_device(i, owner);
		if (err)
			return err;
		*devices += mr_tables_own(i);
	}
	mr_share_free_parts();
	return 0;
}

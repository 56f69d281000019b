// SPDX-License-Identifier: GPL-2.0-only
/* The rule by which both kinds of configuration space, filtered (hold.c) and made up (bus.c), let writes through. */
#include "pci/pci.h"

/**
 * mr_pci_passes() - whether a write may reach the function
 * @hold: how far it is held
 * @msix: where its MSI-X capability is, 0: none
 * @where: offset of the write
 * @size: bytes
 * @value: what is written
 */
bool mr_pci_passes(enum mr_pci_hold hold, int msix, int where, int size, u32 value)
{
	if (hold != MR_PCI_TAKING)
		return hold == MR_PCI_FREE;
	/* Linux turns MSI-X off when it finds a function; the device would raise INTx instead. */
	return msix && where == msix + PCI_MSIX_FLAGS && size == 2 && (value & PCI_MSIX_FLAGS_ENABLE);
}

/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of multiroot_pci.ko share, and what it offers to the other modules. */
#ifndef _MR_PCI_H
#define _MR_PCI_H

#include <linux/pci.h>

#include "uapi/multiroot_pci.h"

#define MR_VFIO_DRIVER	"multiroot-vfio"

/**
 * enum mr_pci_hold - what of Linux's writes to a function's configuration space reaches it
 * @MR_PCI_FREE: all; the function is this root's
 * @MR_PCI_TAKING: what sets MSI-X up, and nothing else; another root still has the function
 * @MR_PCI_HELD: nothing; another root has it
 */
enum mr_pci_hold {
	MR_PCI_FREE,
	MR_PCI_TAKING,
	MR_PCI_HELD,
};

/* rule.c: which writes pass. */
bool mr_pci_passes(enum mr_pci_hold hold, int msix, int where, int size, u32 value);

/* bus.c: a root bus for a function that this root was handed. */
int mr_pci_add(const struct multiroot_pci_function *function);
int mr_pci_remove(u32 segment);
bool mr_pci_is_handed(const struct pci_bus *bus);
void mr_pci_set_hold(struct pci_bus *bus, enum mr_pci_hold hold);

/* hold.c, for the other modules: a filter before functions of either kind, and which of them roots share. */
int multiroot_pci_hold(struct pci_dev *pdev, enum mr_pci_hold hold);
bool multiroot_pci_has_rid(const struct pci_dev *pdev);

#endif /* _MR_PCI_H */

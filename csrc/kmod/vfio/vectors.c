// SPDX-License-Identifier: GPL-2.0-only
/*
 * The MSI-X interrupts of a device that changes its root: through the remapping table, raised once when the guest goes
 * on, and left alone when another root has the device.
 */
#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/msi.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/rwsem.h>
#include <linux/slab.h>

#include "iommu/iommu.h"
#include "vfio/vfio.h"

static int mr_vectors_of(struct pci_dev *pdev)
{
	return pdev->msix_enabled ? pci_msix_vec_count(pdev) : 0;
}

/*
 * Call @visit for every vector that Linux uses; how often it said true. With vfio-pci's igate held, or when the device
 * is closed: SET_IRQS of another thread frees the descriptors otherwise.
 */
static int mr_vectors_each(struct pci_dev *pdev, bool (*visit)(int irq, void *data), void *data)
{
	int i, vectors = mr_vectors_of(pdev), said = 0;

	for (i = 0; i < vectors; i++) {
		int irq = pci_irq_vector(pdev, i);

		if (irq >= 0 && visit(irq, data))
			said++;
	}
	return said;
}

/* Linux wrote a message to the device's table: where the interrupts are remapped, the device gets an entry's name. */
static void mr_vectors_write_msi(struct msi_desc *desc, void *data)
{
	void __iomem *entry = desc->pci.mask_base + desc->msi_index * PCI_MSIX_ENTRY_SIZE;
	struct pci_dev *pdev = data;
	u32 address;

	if (!multiroot_iommu_remap(pdev, desc->msi_index, &desc->msg, &address))
		return;
	writel(desc->pci.msix_ctrl | PCI_MSIX_ENTRY_CTRL_MASKBIT, entry + PCI_MSIX_ENTRY_VECTOR_CTRL);
	writel(address, entry + PCI_MSIX_ENTRY_LOWER_ADDR);
	writel(0, entry + PCI_MSIX_ENTRY_UPPER_ADDR);
	writel(0, entry + PCI_MSIX_ENTRY_DATA);
	writel(desc->pci.msix_ctrl, entry + PCI_MSIX_ENTRY_VECTOR_CTRL);
	readl(entry + PCI_MSIX_ENTRY_DATA);	/* the device has it all */
}

static bool mr_vectors_remap_one(int irq, void *data)
{
	struct msi_desc *desc = irq_get_msi_desc(irq);

	if (!desc || desc->write_msi_msg == mr_vectors_write_msi)
		return false;
	desc->write_msi_msg_data = data;
	desc->write_msi_msg = mr_vectors_write_msi;
	mr_vectors_write_msi(desc, data);
	return true;
}

/*
 * Whoever has the VFIO file may have turned the device's memory off, and the table of its interrupts with it. As VFIO
 * does for its own writes to the table, and in its order of locks: nobody turns it off or gets at it meanwhile. Returns
 * the command register as it was, for mr_vectors_leave().
 */
static u16 mr_vectors_enter(struct vfio_pci_core_device *core)
{
	u16 command;

	mutex_lock(&core->igate);
	down_write(&core->memory_lock);
	pci_read_config_word(core->pdev, PCI_COMMAND, &command);
	if (!(command & PCI_COMMAND_MEMORY))
		pci_write_config_word(core->pdev, PCI_COMMAND, command | PCI_COMMAND_MEMORY);
	return command;
}

static void mr_vectors_leave(struct vfio_pci_core_device *core, u16 command)
{
	if (!(command & PCI_COMMAND_MEMORY))
		pci_write_config_word(core->pdev, PCI_COMMAND, command);
	up_write(&core->memory_lock);
	mutex_unlock(&core->igate);
}

/* From now on Linux calls mr_vectors_write_msi() for each message of these interrupts, whenever it is written. */
void mr_vectors_remap(struct vfio_pci_core_device *core)
{
	u16 command = mr_vectors_enter(core);

	mr_vectors_each(core->pdev, mr_vectors_remap_one, core->pdev);
	mr_vectors_leave(core, command);
}

static bool mr_vectors_raise_one(int irq, void *data)
{
	return !irq_inject_interrupt(irq);
}

/*
 * Raise every vector once, which to a driver is no different from interrupts that coalesced. Returns how many were
 * raised.
 */
int mr_vectors_raise(struct vfio_pci_core_device *core)
{
	u16 command = mr_vectors_enter(core);
	int raised;

	/* Another root may have written its own addresses into the table before it gave up. */
	if (mr_vectors_of(core->pdev))
		pci_restore_msi_state(core->pdev);
	raised = mr_vectors_each(core->pdev, mr_vectors_raise_one, NULL);
	mr_vectors_leave(core, command);
	return raised;
}

static bool mr_vectors_divert_one(int irq, void *data)
{
	struct msi_desc *desc = irq_get_msi_desc(irq);

	if (desc)
		desc->pci.mask_base = (void __force __iomem *)data;
	return desc;
}

/*
 * Freeing interrupts masks their entries in the device's table, by MMIO, which no filter sees: let it mask a copy.
 * The copy is left behind for the table that Linux frees. Returns the copy, to be freed afterwards, or NULL.
 */
void *mr_vectors_divert(struct pci_dev *pdev)
{
	int vectors = mr_vectors_of(pdev);
	void *copy;

	if (vectors <= 0)
		return NULL;
	copy = kcalloc(vectors, PCI_MSIX_ENTRY_SIZE, GFP_KERNEL | __GFP_NOFAIL);
	mr_vectors_each(pdev, mr_vectors_divert_one, copy);
	return copy;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * A filter before a function's configuration space: what Linux does to a device that it closes, resets or opens must
 * not reach one that is at work for another root. Reads always pass.
 */
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>

#include "pci/pci.h"

/**
 * struct filter - stands before a bus's own pci_ops
 * @ops: ours; the rest of this struct is found from it
 * @bus: the bus it was made for; buses below inherit the pointer to @ops
 * @original: what it stands before
 * @hold: enum mr_pci_hold by device and function
 * @below: how many functions that are not free are below a port, by its device and function; a port with any is held
 * @msix: where their MSI-X capabilities are, 0: none
 */
struct filter {
	struct pci_ops ops;
	struct pci_bus *bus;
	struct pci_ops *original;
	u8 hold[256];
	u8 below[256];
	u8 msix[256];
};

static DEFINE_MUTEX(mr_hold_lock);

static int mr_hold_filtered_write(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 value)
{
	struct filter *filter = container_of(bus->ops, struct filter, ops);
	enum mr_pci_hold hold = READ_ONCE(filter->below[devfn]) ? MR_PCI_HELD : READ_ONCE(filter->hold[devfn]);

	if (bus == filter->bus && !mr_pci_passes(hold, filter->msix[devfn], where, size, value))
		return PCIBIOS_SUCCESSFUL;
	return filter->original->write(bus, devfn, where, size, value);
}

/* It stays for good: a write may be on its way through it, and costs nothing when nothing is held. */
static struct filter *mr_hold_filter_for(struct pci_bus *bus)
{
	struct filter *filter = container_of(bus->ops, struct filter, ops);

	if (bus->ops->write == mr_hold_filtered_write && filter->bus == bus)
		return filter;
	filter = kzalloc(sizeof(*filter), GFP_KERNEL);
	if (!filter)
		return NULL;
	filter->bus = bus;
	filter->ops = *bus->ops;
	filter->original = bus->ops;
	filter->ops.write = mr_hold_filtered_write;
	pci_bus_set_ops(bus, &filter->ops);
	__module_get(THIS_MODULE);
	return filter;
}

/* One more function below is held, or one less: for the ports above it. */
static void mr_hold_above(struct pci_dev *port, int more)
{
	for (; port; port = pci_upstream_bridge(port)) {
		struct filter *filter = mr_hold_filter_for(port->bus);

		WRITE_ONCE(filter->below[port->devfn], filter->below[port->devfn] + more);
	}
}

/* With these there is nothing left that could fail. */
static int mr_hold_make_filters(struct pci_dev *pdev)
{
	for (; pdev; pdev = pci_upstream_bridge(pdev))
		if (!mr_hold_filter_for(pdev->bus))
			return -ENOMEM;
	return 0;
}

static int mr_hold_function(struct pci_dev *pdev, enum mr_pci_hold hold)
{
	int err = mr_hold_make_filters(pdev);
	struct filter *filter;
	bool was_held;

	if (err)
		return err;
	filter = mr_hold_filter_for(pdev->bus);
	was_held = filter->hold[pdev->devfn] != MR_PCI_FREE;
	filter->msix[pdev->devfn] = pdev->msix_cap;
	WRITE_ONCE(filter->hold[pdev->devfn], hold);
	mr_hold_above(pci_upstream_bridge(pdev), (hold != MR_PCI_FREE) - was_held);
	return 0;
}

/**
 * multiroot_pci_hold() - keep this root's writes from a function, or let them through
 * @pdev: the function
 * @hold: how far
 *
 * The ports above it are held too: they carry its DMA, and a bus reset would go through there. A function that this
 * root was handed has none above it: where this root shows them, it never writes to them. -ENOMEM.
 */
int multiroot_pci_hold(struct pci_dev *pdev, enum mr_pci_hold hold)
{
	int err = 0;

	mutex_lock(&mr_hold_lock);
	if (mr_pci_is_handed(pdev->bus))
		mr_pci_set_hold(pdev->bus, hold);
	else
		err = mr_hold_function(pdev, hold);
	mutex_unlock(&mr_hold_lock);
	return err;
}
EXPORT_SYMBOL_GPL(multiroot_pci_hold);

/**
 * multiroot_pci_has_rid() - whether all roots know a function by its bus, device and function
 * @pdev: the function
 *
 * So it is in segment 0, and in a segment that was made for a function which this root was handed. In others, of the
 * machine or of a driver (VMD), the same numbers are those of a different function.
 */
bool multiroot_pci_has_rid(const struct pci_dev *pdev)
{
	return !pci_domain_nr(pdev->bus) || mr_pci_is_handed(pdev->bus);
}
EXPORT_SYMBOL_GPL(multiroot_pci_has_rid);

// SPDX-License-Identifier: GPL-2.0-only
/*
 * The machine's PCI devices in a root that came up without PCI: host bridges of ours in place of those that the first
 * root found. Functions are let in one by one, or all; the others are not there for this kernel (ecam.c). BARs stay as
 * they are.
 */
#include <linux/ioport.h>
#include <linux/pci.h>

#include "core/core.h"

/* A host bridge of ours, by its place in the ledger. */
static struct {
	struct pci_bus *bus;
	struct pci_sysdata sysdata;
	struct resource numbers;
} mr_bridges[MULTIROOT_LEDGER_BRIDGES];

static struct resource mr_bridge_windows[MULTIROOT_LEDGER_WINDOWS];
static bool mr_bridge_made;

static void mr_bridge_add_window(struct list_head *resources, struct resource *to,
				 const struct multiroot_ledger_window *from)
{
	static const unsigned long flags[] = {
		[MULTIROOT_WINDOW_PORTS] = IORESOURCE_IO,
		[MULTIROOT_WINDOW_MEMORY] = IORESOURCE_MEM,
		[MULTIROOT_WINDOW_PREFETCHABLE] = IORESOURCE_MEM | IORESOURCE_PREFETCH,
	};

	if (from->type >= ARRAY_SIZE(flags) || !flags[from->type])
		return;
	*to = (struct resource) {
		.name = "multiroot PCI",
		.start = from->addr,
		.end = from->addr + from->size - 1,
		.flags = flags[from->type],
	};
	/*
	 * Overlaps with what this kernel has there already: then the window can't be used, and what needs it
	 * says so.
	 */
	if (insert_resource(from->type == MULTIROOT_WINDOW_PORTS ? &ioport_resource : &iomem_resource, to))
		to->flags = 0;
	else
		pci_add_resource(resources, to);
}

/* What the firmware's tables would have to grant; pciehp would switch slots off. */
static void mr_bridge_grant_nothing(struct pci_host_bridge *bridge)
{
	bridge->native_pcie_hotplug = 0;
	bridge->native_shpc_hotplug = 0;
	bridge->native_aer = 0;
	bridge->native_pme = 0;
	bridge->native_ltr = 0;
	bridge->native_dpc = 0;
}

static int mr_bridge_create(u32 index)
{
	const struct multiroot_ledger_bridge *from = &mr_ledger->bridge[index];
	struct pci_sysdata *sysdata = &mr_bridges[index].sysdata;
	LIST_HEAD(resources);
	int i;

	*sysdata = (struct pci_sysdata){ .domain = from->segment, .node = NUMA_NO_NODE };
	for (i = 0; i < MULTIROOT_LEDGER_WINDOWS; i++)
		if (mr_ledger->window[i].bridge == index)
			mr_bridge_add_window(&resources, &mr_bridge_windows[i], &mr_ledger->window[i]);
	mr_bridges[index].numbers = (struct resource) {
		.name = "multiroot PCI",
		.start = from->bus_first,
		.end = from->bus_last,
		.flags = IORESOURCE_BUS,
	};
	pci_add_resource(&resources, &mr_bridges[index].numbers);
	mr_bridges[index].bus = pci_create_root_bus(NULL, from->bus_first, &mr_ecam_ops, sysdata, &resources);
	if (!mr_bridges[index].bus) {
		pci_free_resource_list(&resources);
		return -ENODEV;
	}
	mr_bridge_grant_nothing(to_pci_host_bridge(mr_bridges[index].bus->bridge));
	return 0;
}

static u32 mr_bridge_count(void)
{
	return min_t(u32, mr_ledger->bridges, MULTIROOT_LEDGER_BRIDGES);
}

/* Under the lock of PCI rescans. */
static void mr_bridge_remove_all(void)
{
	int i;

	for (i = 0; i < MULTIROOT_LEDGER_BRIDGES; i++) {
		if (!mr_bridges[i].bus)
			continue;
		pci_stop_root_bus(mr_bridges[i].bus);
		pci_remove_root_bus(mr_bridges[i].bus);
		mr_bridges[i].bus = NULL;
	}
	/* What was there before them, and lies in them, stays. */
	for (i = 0; i < MULTIROOT_LEDGER_WINDOWS; i++)
		if (mr_bridge_windows[i].parent)
			remove_resource(&mr_bridge_windows[i]);
}

/* All or none: a bus without the others would look like PCI of this kernel's own, which nobody can add to. */
static int mr_bridge_create_all(void)
{
	u32 i;
	int err = 0;

	if (mr_bridge_made)
		return 0;
	for (i = 0; !err && i < mr_bridge_count(); i++)
		err = mr_bridge_create(i);
	if (err)
		mr_bridge_remove_all();
	return err;
}

/*
 * A bridge that is held keeps its windows, and in them are registers of functions that this root has already: the
 * windows are put above these, where a claim would find the place taken.
 */
static int mr_bridge_keep_windows(struct pci_dev *pdev, void *data)
{
	int i;

	if (!mr_ecam_holds(pdev))
		return 0;
	for (i = PCI_BRIDGE_RESOURCES; i <= PCI_BRIDGE_RESOURCE_END; i++) {
		struct resource *window = &pdev->resource[i], *above;

		if (!window->flags || window->parent)
			continue;
		above = pci_find_parent_resource(pdev, window);
		if (above && insert_resource(above, window))
			pci_warn(pdev, "its window %pR overlaps with something\n", window);
	}
	return 0;
}

static void mr_bridge_scan(struct pci_bus *bus)
{
	pci_scan_child_bus(bus);
	pci_walk_bus(bus, mr_bridge_keep_windows, NULL);
	pci_bus_claim_resources(bus);
	/* Only then: to functions that are not let in belong addresses that look free. */
	if (mr_ecam_shows_all(pci_domain_nr(bus), bus->number))
		pci_assign_unassigned_bus_resources(bus);
	pci_bus_add_devices(bus);
}

static int mr_bridge_show(u32 segment, u32 rid)
{
	if (rid != MULTIROOT_PCI_ALL)
		return mr_ecam_show(segment, rid);
	if (segment)
		return -EINVAL;
	mr_ecam_show_all();
	return 0;
}

/* Under the lock of PCI rescans. */
static int mr_bridge_let_in_locked(u32 segment, u32 rid)
{
	u32 i;
	int err;

	/* Once more: a function that this root was to be handed, and was not, has become a function like others. */
	err = mr_bridge_made ? 0 : mr_ecam_silence();
	err = err ?: mr_bridge_show(segment, rid) ?: mr_bridge_create_all();
	if (err)
		return err;
	mr_bridge_made = true;
	for (i = 0; i < mr_bridge_count(); i++)
		mr_bridge_scan(mr_bridges[i].bus);
	return 0;
}

/**
 * mr_bridge_let_in() - make a PCI function this kernel's, or all
 * @segment: of PCI
 * @rid: bus << 8 | device << 3 | function, or MULTIROOT_PCI_ALL, which is of all segments
 *
 * The bridges above it come along.
 *
 * Return: 0; -EINVAL: no such function; -ENXIO: function 0 of its device must be let in before; -EBUSY: another root is
 * alive, or the parent was not inherited from; -ENODEV: the ledger has no host bridge, or not all ECAMs, or this root
 * found its own PCI; -ENOMEM.
 */
int mr_bridge_let_in(u32 segment, u32 rid)
{
	int err;

	if (!mr_adopt_alone() || mr_peer(MULTIROOT_PARENT))
		return -EBUSY;
	/* A root with PCI of its own has all functions. */
	if (!mr_bridge_count() || (!mr_bridge_made && pci_find_bus(0, 0)))
		return -ENODEV;
	pci_lock_rescan_remove();
	err = mr_bridge_let_in_locked(segment, rid);
	pci_unlock_rescan_remove();
	return err;
}

void mr_bridge_exit(void)
{
	pci_lock_rescan_remove();
	mr_bridge_remove_all();
	pci_unlock_rescan_remove();
}

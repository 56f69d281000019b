// SPDX-License-Identifier: GPL-2.0-only
/*
 * The machine's PCI devices in a root that came up without PCI: a host bridge of ours over the ECAM that the first
 * root left in the ledger. Functions are let in one by one, or all; the others are not there for this kernel. BARs
 * stay as they are.
 *
 * A function that this root was handed is at work for a VM and lies in a segment of its own (multiroot_pci.ko). It is
 * not let in a second time, and it goes on with its DMA: the bridges above it are shown, and not written to.
 */
#include <linux/bitmap.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/pci.h>

#include "core/core.h"

#define FUNCTIONS	BIT(16)		/* of a segment: bus, device, function */
#define ABSENT		0xffffffff	/* what reading a function that is not there gives */

static void __iomem *mr_bridge_ecam;
static u32 mr_bridge_bus_first, mr_bridge_bus_last;
static struct pci_bus *mr_bridge_root_bus;
static struct pci_sysdata mr_bridge_sysdata = { .node = NUMA_NO_NODE };
static struct resource mr_bridge_windows[MULTIROOT_LEDGER_WINDOWS + 1];	/* the last one is of bus numbers */
static DECLARE_BITMAP(mr_bridge_functions, FUNCTIONS);	/* that are let in */
static DECLARE_BITMAP(mr_bridge_handed, FUNCTIONS);	/* that are at work for VMs */
static DECLARE_BITMAP(mr_bridge_held, FUNCTIONS);	/* bridges above these */

static void __iomem *mr_bridge_config_of(u32 rid)
{
	return mr_bridge_ecam + ((rid - (mr_bridge_bus_first << 8)) << 12);
}

static u32 mr_bridge_rid_of(const struct pci_bus *bus, unsigned int devfn)
{
	return bus->number << 8 | devfn;
}

static bool mr_bridge_is_here(u32 rid)
{
	return rid >> 8 <= mr_bridge_bus_last && test_bit(rid, mr_bridge_functions) && !test_bit(rid, mr_bridge_handed);
}

/* The size of a register of its own can't be found out without writing. This kernel needs none of a bridge's. */
static bool mr_bridge_is_unsized(u32 rid, int where)
{
	return test_bit(rid, mr_bridge_held) && where >= PCI_BASE_ADDRESS_0 && where < PCI_PRIMARY_BUS;
}

static int mr_bridge_read_config(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 *value)
{
	u32 rid = mr_bridge_rid_of(bus, devfn);
	void __iomem *at = mr_bridge_config_of(rid) + where;

	if (!mr_bridge_is_here(rid))
		*value = ABSENT;
	else if (mr_bridge_is_unsized(rid, where))
		*value = 0;
	else
		*value = size == 1 ? readb(at) : size == 2 ? readw(at) : readl(at);
	return PCIBIOS_SUCCESSFUL;
}

static int mr_bridge_write_config(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 value)
{
	u32 rid = mr_bridge_rid_of(bus, devfn);
	void __iomem *at = mr_bridge_config_of(rid) + where;

	if (!mr_bridge_is_here(rid))
		return PCIBIOS_DEVICE_NOT_FOUND;
	if (test_bit(rid, mr_bridge_held))
		return PCIBIOS_SUCCESSFUL;
	if (size == 1)
		writeb(value, at);
	else if (size == 2)
		writew(value, at);
	else
		writel(value, at);
	return PCIBIOS_SUCCESSFUL;
}

static struct pci_ops mr_bridge_ops = { .read = mr_bridge_read_config, .write = mr_bridge_write_config };

static bool mr_bridge_is_bridge(void __iomem *config)
{
	return readl(config) != ABSENT && (readb(config + PCI_HEADER_TYPE) & 0x7f) == PCI_HEADER_TYPE_BRIDGE;
}

/* Mark the bridges above a bus; none of them is on a bus with a higher number. */
static void mr_bridge_mark_above(u32 bus, unsigned long *marks)
{
	u32 rid;

	for (rid = mr_bridge_bus_first << 8; rid < bus << 8; rid++) {
		void __iomem *config = mr_bridge_config_of(rid);

		if (mr_bridge_is_bridge(config) && readb(config + PCI_SECONDARY_BUS) <= bus &&
		    readb(config + PCI_SUBORDINATE_BUS) >= bus)
			set_bit(rid, marks);
	}
}

/* What this root has in other segments, it was handed. */
static void mr_bridge_find_handed(void)
{
	struct pci_dev *pdev = NULL;

	for_each_pci_dev(pdev) {
		u32 bus = pdev->bus->number;

		if (!pci_domain_nr(pdev->bus) || bus < mr_bridge_bus_first || bus > mr_bridge_bus_last)
			continue;
		set_bit(pci_dev_id(pdev), mr_bridge_handed);
		mr_bridge_mark_above(bus, mr_bridge_held);
	}
}

/*
 * Stop DMA of everything on a bus and below; what an ended root left running would write into memory that is
 * others' now. What VMs own writes to their memory.
 */
static void mr_bridge_silence_bus(u32 bus, u32 *last)
{
	u32 devfn;

	for (devfn = 0; devfn < 256; devfn++) {
		u32 rid = bus << 8 | devfn;
		void __iomem *config = mr_bridge_config_of(rid);
		u16 command;

		if (readl(config) == ABSENT)
			continue;
		command = readw(config + PCI_COMMAND);
		if (command & PCI_COMMAND_MASTER && !test_bit(rid, mr_bridge_handed) && !test_bit(rid, mr_bridge_held))
			writew(command & ~PCI_COMMAND_MASTER, config + PCI_COMMAND);
		if (mr_bridge_is_bridge(config))
			*last = max_t(u32, *last, readb(config + PCI_SUBORDINATE_BUS));
	}
}

static void mr_bridge_silence(void)
{
	u32 bus, last = mr_bridge_bus_first;

	for (bus = mr_bridge_bus_first; bus <= min(last, mr_bridge_bus_last); bus++)
		mr_bridge_silence_bus(bus, &last);
}

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

static int mr_bridge_create(void)
{
	struct pci_host_bridge *bridge;
	LIST_HEAD(resources);
	int i;

	for (i = 0; i < MULTIROOT_LEDGER_WINDOWS; i++)
		mr_bridge_add_window(&resources, &mr_bridge_windows[i], &mr_ledger->window[i]);
	mr_bridge_windows[i] = (struct resource) {
		.name = "multiroot PCI",
		.start = mr_bridge_bus_first,
		.end = mr_bridge_bus_last,
		.flags = IORESOURCE_BUS,
	};
	pci_add_resource(&resources, &mr_bridge_windows[i]);
	mr_bridge_root_bus = pci_create_root_bus(NULL, mr_bridge_bus_first, &mr_bridge_ops, &mr_bridge_sysdata,
						 &resources);
	if (!mr_bridge_root_bus) {
		pci_free_resource_list(&resources);
		return -ENODEV;
	}
	/* What the firmware's tables would have to grant; pciehp would switch slots off. */
	bridge = to_pci_host_bridge(mr_bridge_root_bus->bridge);
	bridge->native_pcie_hotplug = 0;
	bridge->native_shpc_hotplug = 0;
	bridge->native_aer = 0;
	bridge->native_pme = 0;
	bridge->native_ltr = 0;
	bridge->native_dpc = 0;
	return 0;
}

static int mr_bridge_map(void)
{
	if (mr_bridge_ecam)
		return 0;
	if (!mr_ledger->ecam_base || mr_ledger->ecam_bus_last > 255 ||
	    mr_ledger->ecam_bus_first > mr_ledger->ecam_bus_last)
		return -ENODEV;
	mr_bridge_bus_first = mr_ledger->ecam_bus_first;
	mr_bridge_bus_last = mr_ledger->ecam_bus_last;
	mr_bridge_ecam = ioremap(mr_ledger->ecam_base + (mr_bridge_bus_first << 20),
				 (mr_bridge_bus_last - mr_bridge_bus_first + 1) << 20);
	return mr_bridge_ecam ? 0 : -ENOMEM;
}

/*
 * A bridge that is held keeps its windows, and in them are registers of functions that this root has already: the
 * windows are put above these, where a claim would find the place taken.
 */
static int mr_bridge_keep_windows(struct pci_dev *pdev, void *data)
{
	int i;

	if (!test_bit(pci_dev_id(pdev), mr_bridge_held))
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

static void mr_bridge_scan(void)
{
	pci_scan_child_bus(mr_bridge_root_bus);
	pci_walk_bus(mr_bridge_root_bus, mr_bridge_keep_windows, NULL);
	pci_bus_claim_resources(mr_bridge_root_bus);
	/* Only then: to functions that are not let in belong addresses that look free. */
	if (bitmap_full(mr_bridge_functions, FUNCTIONS))
		pci_assign_unassigned_bus_resources(mr_bridge_root_bus);
	pci_bus_add_devices(mr_bridge_root_bus);
}

/* The kernel looks for others only behind a device's first function. */
static bool mr_bridge_found_by_scan(u32 rid)
{
	return !PCI_FUNC(rid) || test_bit(rid & ~7, mr_bridge_functions);
}

/**
 * mr_bridge_let_in() - make a PCI function this kernel's, or all
 * @rid: bus << 8 | device << 3 | function, or MULTIROOT_PCI_ALL
 *
 * The bridges above it come along. The first call stops all DMA that is still under way, but for that of functions
 * this root was handed.
 *
 * Return: 0; -EINVAL: no such function; -ENXIO: function 0 of its device must be let in before; -EBUSY: another root is
 * alive; -ENODEV: the ledger has no ECAM, or this root found its own PCI; -ENOMEM.
 */
int mr_bridge_let_in(u32 rid)
{
	int err;

	if (!mr_adopt_alone())
		return -EBUSY;
	/* A root with PCI of its own has all functions. */
	if (!mr_bridge_root_bus && pci_find_bus(0, 0))
		return -ENODEV;
	err = mr_bridge_map();
	if (err)
		return err;
	if (rid != MULTIROOT_PCI_ALL &&
	    (rid >= FUNCTIONS || rid >> 8 < mr_bridge_bus_first || rid >> 8 > mr_bridge_bus_last ||
	     readl(mr_bridge_config_of(rid)) == ABSENT))
		return -EINVAL;
	if (rid != MULTIROOT_PCI_ALL && !mr_bridge_found_by_scan(rid))
		return -ENXIO;
	pci_lock_rescan_remove();
	mr_bridge_find_handed();
	if (!mr_bridge_root_bus) {
		mr_bridge_silence();
		err = mr_bridge_create();
	}
	if (!err) {
		if (rid == MULTIROOT_PCI_ALL) {
			bitmap_fill(mr_bridge_functions, FUNCTIONS);
		} else {
			mr_bridge_mark_above(rid >> 8, mr_bridge_functions);
			set_bit(rid, mr_bridge_functions);
		}
		mr_bridge_scan();
	}
	pci_unlock_rescan_remove();
	return err;
}

void mr_bridge_exit(void)
{
	int i;

	if (mr_bridge_root_bus) {
		pci_lock_rescan_remove();
		pci_stop_root_bus(mr_bridge_root_bus);
		pci_remove_root_bus(mr_bridge_root_bus);
		pci_unlock_rescan_remove();
		mr_bridge_root_bus = NULL;
		for (i = 0; i < MULTIROOT_LEDGER_WINDOWS; i++)
			if (mr_bridge_windows[i].flags)
				release_resource(&mr_bridge_windows[i]);
	}
	if (mr_bridge_ecam)
		iounmap(mr_bridge_ecam);
}

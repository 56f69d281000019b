/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Host bridges and their windows, as far as csrc/kmod/core/bridge.c knows them. */
#ifndef _SHIM_BRIDGE_H
#define _SHIM_BRIDGE_H

#include "machine.h"

struct list_head {
	struct list_head *next;
};

struct pci_sysdata {
	int domain, node;
};

struct pci_host_bridge {
	bool native_pcie_hotplug, native_shpc_hotplug, native_aer, native_pme, native_ltr, native_dpc;
};

#define IORESOURCE_BUS		16
#define PCI_BRIDGE_RESOURCES	0
#define PCI_BRIDGE_RESOURCE_END	3
extern struct resource ioport_resource, iomem_resource;
int insert_resource(struct resource *root, struct resource *resource);
int remove_resource(struct resource *resource);

#define LIST_HEAD(name)		struct list_head name = { &(name) }
#define to_pci_host_bridge(bridge)	(bridge)
#define pci_warn(pdev, ...)	shim_say("its window overlaps\n")
#define pci_add_resource(list, resource)	((void)(list), (void)(resource))
#define pci_free_resource_list(list)	((void)(list))
#define pci_find_parent_resource(pdev, window)	((struct resource *)NULL)
#define pci_stop_root_bus(bus)	((void)(bus))
#define pci_scan_child_bus(bus)	((void)(bus))
#define pci_walk_bus(bus, visit, data)	((void)(visit))
#define pci_bus_claim_resources(bus)	((void)(bus))
#define pci_assign_unassigned_bus_resources(bus)	((void)(bus))
#define pci_bus_add_devices(bus)	((void)(bus))
#define pci_lock_rescan_remove()	do {} while (0)
#define pci_unlock_rescan_remove()	do {} while (0)
struct pci_bus *pci_create_root_bus(void *parent, int bus, struct pci_ops *ops, void *sysdata,
				    struct list_head *resources);
struct pci_bus *pci_find_bus(int segment, int number);
void pci_remove_root_bus(struct pci_bus *bus);

#endif /* _SHIM_BRIDGE_H */

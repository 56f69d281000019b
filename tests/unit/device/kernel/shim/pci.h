/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Root buses, host bridges and resources, as far as csrc/kmod/pci knows them. */
#ifndef _SHIM_PCI_H
#define _SHIM_PCI_H

#include "kernel.h"
#include <linux/pci_regs.h>

struct list_head {
	struct list_head *next, *prev;
};

#define LIST_HEAD(name)		struct list_head name = { &(name), &(name) }
#define list_for_each_entry(entry, head, member)					\
	for ((entry) = container_of((head)->next, __typeof__(*(entry)), member);	\
	     &(entry)->member != (head);						\
	     (entry) = container_of((entry)->member.next, __typeof__(*(entry)), member))

static inline void list_add(struct list_head *entry, struct list_head *head)
{
	*entry = (struct list_head){ head->next, head };
	head->next->prev = entry;
	head->next = entry;
}

static inline void list_del(struct list_head *entry)
{
	entry->prev->next = entry->next;
	entry->next->prev = entry->prev;
}

struct resource {
	u64 start, end;
	const char *name;
	unsigned long flags;
	struct resource *parent;
};

#define IORESOURCE_BUS		16
#define DEFINE_RES_MEM_NAMED(from, size, called)	{ (from), (from) + (size) - 1, (called), IORESOURCE_MEM }
extern struct resource iomem_resource;
int request_resource(struct resource *root, struct resource *resource);
int release_resource(struct resource *resource);
#define region_intersects(...)	REGION_DISJOINT

struct pci_ops {
	int (*read)(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 *value);
	int (*write)(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 value);
};

struct pci_sysdata {
	int domain, node;
};

struct pci_bus {
	struct pci_ops *ops;
	void *sysdata;
	u8 number;
	struct pci_host_bridge *bridge;
	int references;
};

struct pci_dev {
	struct {
		void *driver;
	} dev;
	struct pci_bus *bus;
	unsigned int devfn;
	int msix_cap;
	char *driver_override;
	int references;
};

struct pci_host_bridge {
	struct list_head windows;
	struct pci_ops *ops;
	void *sysdata;
	struct pci_bus *bus;
	void (*release_fn)(struct pci_host_bridge *bridge);
	int references;
	u64 private[];
};

#define PCIBIOS_SUCCESSFUL	0
#define PCIBIOS_DEVICE_NOT_FOUND	0x86
#define NUMA_NO_NODE		(-1)
#define pci_domain_nr(bus)	(((struct pci_sysdata *)(bus)->sysdata)->domain)
#define pci_upstream_bridge(pdev)	((void)(pdev), (struct pci_dev *)NULL)
#define pci_bus_set_ops(bus, with)	((bus)->ops = (with))
#define pci_host_bridge_priv(bridge)	((void *)(bridge)->private)
#define pci_set_host_bridge_release(bridge, function, data)	((bridge)->release_fn = (function))
#define pci_add_resource(list, resource)	((void)(list), (void)(resource))
#define pci_lock_rescan_remove()	do {} while (0)
#define pci_unlock_rescan_remove()	do {} while (0)
#define pci_bus_claim_resources(bus)	((void)(bus))
#define pci_bus_add_devices(bus)	((void)(bus))
#define pci_stop_root_bus(bus)	((void)(bus))
struct pci_host_bridge *pci_alloc_host_bridge(size_t size);
void pci_free_host_bridge(struct pci_host_bridge *bridge);
int pci_scan_root_bus_bridge(struct pci_host_bridge *bridge);
void pci_remove_root_bus(struct pci_bus *bus);
void pci_walk_bus(struct pci_bus *bus, int (*visit)(struct pci_dev *pdev, void *data), void *data);
struct pci_bus *pci_find_bus(int segment, int number);
struct pci_dev *pci_get_domain_bus_and_slot(int segment, unsigned int number, unsigned int devfn);
void pci_dev_put(struct pci_dev *pdev);

void *ioremap(phys_addr_t phys, size_t size);
void iounmap(void *at);
u32 shim_read(const void *at, int size);
void shim_write(void *at, int size, u32 value);
#define readb(at)		((u8)shim_read(at, 1))
#define readw(at)		((u16)shim_read(at, 2))
#define readl(at)		shim_read(at, 4)
#define writeb(value, at)	shim_write(at, 1, value)
#define writew(value, at)	shim_write(at, 2, value)
#define writel(value, at)	shim_write(at, 4, value)
#define is_power_of_2(x)	((x) && !((x) & ((x) - 1)))
#define lower_32_bits(x)	((u32)(x))
#define upper_32_bits(x)	((u32)((u64)(x) >> 32))

#endif /* _SHIM_PCI_H */

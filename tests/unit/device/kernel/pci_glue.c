// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A root that is handed one function. The kernel's references: a function has one to its bus, a bus one to its host
 * bridge, which is freed with the last.
 */
#include "pci/pci.h"

#define RID	0x100
#define CONFIG	0xb0100000ULL
#define BAR	0xfe000000ULL

struct resource iomem_resource;
u8 config[4096];
int mapped, bridges, taken;	/* its configuration space, host bridges, addresses: how many there are */
int wild;			/* accesses to what is not mapped */
bool fail_scan, fail_reserve;

int request_resource(struct resource *root, struct resource *resource)
{
	if (taken)
		return -EBUSY;
	taken++;
	resource->parent = root;
	return 0;
}

int release_resource(struct resource *resource)
{
	taken--;
	resource->parent = NULL;
	return 0;
}

void *ioremap(phys_addr_t phys, size_t size)
{
	mapped++;
	return config;
}

void iounmap(void *at)
{
	mapped -= at == config;
}

u32 shim_read(const void *at, int size)
{
	u32 value = 0;

	wild += !mapped;
	memcpy(&value, at, size);
	return value;
}

void shim_write(void *at, int size, u32 value)
{
	wild += !mapped;
	memcpy(at, &value, size);
}

struct pci_host_bridge *pci_alloc_host_bridge(size_t size)
{
	struct pci_host_bridge *bridge = kzalloc(sizeof(*bridge) + size, GFP_KERNEL);

	bridge->references = 1;
	bridges++;
	return bridge;
}

void pci_free_host_bridge(struct pci_host_bridge *bridge)
{
	if (--bridge->references)
		return;
	bridge->release_fn(bridge);
	bridges--;
	free(bridge);
}

static struct pci_bus *only_bus;
static struct pci_dev *only_function;

int pci_scan_root_bus_bridge(struct pci_host_bridge *bridge)
{
	if (fail_scan)
		return -ENOMEM;
	only_bus = kzalloc(sizeof(*only_bus), GFP_KERNEL);
	*only_bus = (struct pci_bus){ bridge->ops, bridge->sysdata, RID >> 8, bridge, .references = 2 };
	bridge->references++;
	bridge->bus = only_bus;
	only_function = kzalloc(sizeof(*only_function), GFP_KERNEL);
	*only_function = (struct pci_dev){ .bus = only_bus, .devfn = RID & 0xff, .references = 1 };
	return 0;
}

static void put_bus(struct pci_bus *bus)
{
	if (--bus->references)
		return;
	pci_free_host_bridge(bus->bridge);
	free(bus);
}

void pci_dev_put(struct pci_dev *pdev)
{
	if (--pdev->references)
		return;
	put_bus(pdev->bus);
	free(pdev);
}

void pci_remove_root_bus(struct pci_bus *bus)
{
	bus->bridge->bus = NULL;
	only_bus = NULL;
	pci_dev_put(only_function);
	only_function = NULL;
	put_bus(bus);
}

void pci_walk_bus(struct pci_bus *bus, int (*visit)(struct pci_dev *pdev, void *data), void *data)
{
	if (fail_reserve)
		*(int *)data = -ENOMEM;
	else
		visit(only_function, data);
}

struct pci_bus *pci_find_bus(int segment, int number)
{
	return NULL;
}

struct pci_dev *pci_get_domain_bus_and_slot(int segment, unsigned int number, unsigned int devfn)
{
	if (only_function)
		only_function->references++;
	return only_function;
}

/* What a test does. */
int add(u32 segment)
{
	struct multiroot_pci_function function = {
		.segment = segment, .rid = RID, .config = CONFIG, .bar[0] = { .start = BAR, .size = 4096 },
	};

	return mr_pci_add(&function);
}

/* Like for_each_pci_dev(). */
struct pci_dev *look(void)
{
	return pci_get_domain_bus_and_slot(0, 0, 0);
}

void command(struct pci_dev *pdev, u32 value)
{
	pdev->bus->ops->write(pdev->bus, pdev->devfn, PCI_COMMAND, 2, value);
}

/* Of a function in a segment that is not of ours. */
bool has_rid(int segment)
{
	struct pci_ops ops = {};
	struct pci_sysdata sysdata = { .domain = segment };
	struct pci_bus bus = { .ops = &ops, .sysdata = &sysdata };
	struct pci_dev pdev = { .bus = &bus };

	return multiroot_pci_has_rid(&pdev);
}

// SPDX-License-Identifier: GPL-2.0-or-later
/* A root that is alone, and the host bridges that the first root found. */
#include "core/core.h"

#define BRIDGES	4

static struct multiroot_ledger ledger;
static struct pci_bus buses[BRIDGES];
static struct pci_host_bridge host_bridge;

struct multiroot_ledger *mr_ledger = &ledger;
struct pci_ops mr_ecam_ops;
struct resource ioport_resource, iomem_resource;
int linked, twice;		/* windows among the kernel's resources; one that was put there a second time */
int fail_at = -1;		/* the bus whose root bus can't be had */

bool mr_adopt_alone(void) { return true; }
struct mr_peer *mr_peer(u32 index) { return NULL; }
int mr_ecam_silence(void) { return 0; }
void mr_ecam_show_all(void) {}
int mr_ecam_show(u32 segment, u32 rid) { return 0; }
bool mr_ecam_shows_all(u32 segment, u32 bus) { return true; }
bool mr_ecam_holds(const struct pci_dev *pdev) { return false; }

/* As the kernel does: what has its place already is in the way. */
static struct resource *known[8];

int insert_resource(struct resource *root, struct resource *resource)
{
	int i;

	for (i = 0; i < linked; i++)
		if (known[i] == resource) {
			twice++;
			return -EBUSY;
		}
	known[linked++] = resource;
	resource->parent = root;
	return 0;
}

int remove_resource(struct resource *resource)
{
	int i;

	for (i = 0; i < linked; i++)
		if (known[i] == resource)
			known[i] = known[--linked];
	resource->parent = NULL;
	return 0;
}

struct pci_bus *pci_find_bus(int segment, int number)
{
	int i;

	for (i = 0; i < BRIDGES; i++)
		if (buses[i].bridge && buses[i].domain == segment && buses[i].number == number)
			return &buses[i];
	return NULL;
}

struct pci_bus *pci_create_root_bus(void *parent, int bus, struct pci_ops *ops, void *sysdata,
				    struct list_head *resources)
{
	int i = 0;

	if (bus == fail_at)
		return NULL;
	while (buses[i].bridge)
		i++;
	buses[i] = (struct pci_bus){ .number = bus, .bridge = &host_bridge };
	return &buses[i];
}

void pci_remove_root_bus(struct pci_bus *bus)
{
	bus->bridge = NULL;
}

/* What a test does. */
void bridge(u32 first, u32 last)
{
	u32 index = ledger.bridges++;

	ledger.bridge[index] = (struct multiroot_ledger_bridge){ 0, first, last };
	ledger.window[index] = (struct multiroot_ledger_window){
		0xc0000000 + index * SZ_1M, SZ_1M, MULTIROOT_WINDOW_MEMORY, index,
	};
}

int buses_made(void)
{
	int i, count = 0;

	for (i = 0; i < BRIDGES; i++)
		count += !!buses[i].bridge;
	return count;
}

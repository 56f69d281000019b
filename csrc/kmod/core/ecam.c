// SPDX-License-Identifier: GPL-2.0-only
/*
 * Configuration space of the machine's PCI functions in a root that came up without PCI, by the ECAMs that the first
 * root left in the ledger: which functions are there for this kernel, and the end of all DMA that nobody wants.
 *
 * A function that this root was handed is at work for a VM and lies in a segment of its own (multiroot_pci.ko). It is
 * not there a second time, and it goes on with its DMA: the bridges above it are shown, and not written to.
 */
#include <linux/bitmap.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/slab.h>

#include "core/core.h"

#define ABSENT	0xffffffff	/* what reading a function that is not there gives */

/**
 * struct mr_ecam - the configuration space of some buses of a segment
 * @config: of the first bus
 * @segment: which
 * @bus_first: the first bus
 * @bus_last: the last one
 * @functions: that are let in
 * @handed: that are at work for VMs
 * @held: bridges above these
 */
struct mr_ecam {
	void __iomem *config;
	u32 segment;
	u32 bus_first;
	u32 bus_last;
	DECLARE_BITMAP(functions, MR_ECAM_FUNCTIONS);
	DECLARE_BITMAP(handed, MR_ECAM_FUNCTIONS);
	DECLARE_BITMAP(held, MR_ECAM_FUNCTIONS);
};

static struct mr_ecam *mr_ecams[MULTIROOT_LEDGER_ECAMS];	/* NULL ends them */

static struct mr_ecam *mr_ecam_of(u32 segment, u32 bus)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(mr_ecams) && mr_ecams[i]; i++)
		if (mr_ecams[i]->segment == segment && bus >= mr_ecams[i]->bus_first && bus <= mr_ecams[i]->bus_last)
			return mr_ecams[i];
	return NULL;
}

static void __iomem *mr_ecam_config_of(const struct mr_ecam *ecam, u32 rid)
{
	return ecam->config + ((rid - (ecam->bus_first << 8)) << 12);
}

static bool mr_ecam_is_here(const struct mr_ecam *ecam, u32 rid)
{
	return ecam && test_bit(rid, ecam->functions) && !test_bit(rid, ecam->handed);
}

/* The size of a register of its own can't be found out without writing. This kernel needs none of a bridge's. */
static bool mr_ecam_is_unsized(const struct mr_ecam *ecam, u32 rid, int where)
{
	return test_bit(rid, ecam->held) && where >= PCI_BASE_ADDRESS_0 && where < PCI_PRIMARY_BUS;
}

static int mr_ecam_read(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 *value)
{
	struct mr_ecam *ecam = mr_ecam_of(pci_domain_nr(bus), bus->number);
	u32 rid = bus->number << 8 | devfn;
	void __iomem *at;

	*value = ABSENT;
	if (!mr_ecam_is_here(ecam, rid))
		return PCIBIOS_SUCCESSFUL;
	at = mr_ecam_config_of(ecam, rid) + where;
	if (mr_ecam_is_unsized(ecam, rid, where))
		*value = 0;
	else
		*value = size == 1 ? readb(at) : size == 2 ? readw(at) : readl(at);
	return PCIBIOS_SUCCESSFUL;
}

static int mr_ecam_write(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 value)
{
	struct mr_ecam *ecam = mr_ecam_of(pci_domain_nr(bus), bus->number);
	u32 rid = bus->number << 8 | devfn;
	void __iomem *at;

	if (!mr_ecam_is_here(ecam, rid))
		return PCIBIOS_DEVICE_NOT_FOUND;
	if (test_bit(rid, ecam->held))
		return PCIBIOS_SUCCESSFUL;
	at = mr_ecam_config_of(ecam, rid) + where;
	if (size == 1)
		writeb(value, at);
	else if (size == 2)
		writew(value, at);
	else
		writel(value, at);
	return PCIBIOS_SUCCESSFUL;
}

struct pci_ops mr_ecam_ops = { .read = mr_ecam_read, .write = mr_ecam_write };

static bool mr_ecam_is_bridge(void __iomem *config)
{
	return readl(config) != ABSENT && (readb(config + PCI_HEADER_TYPE) & 0x7f) == PCI_HEADER_TYPE_BRIDGE;
}

/* Mark the bridges above a bus; none of them is on a bus with a higher number. */
static void mr_ecam_mark_above(const struct mr_ecam *ecam, u32 bus, unsigned long *marks)
{
	u32 rid;

	for (rid = ecam->bus_first << 8; rid < bus << 8; rid++) {
		void __iomem *config = mr_ecam_config_of(ecam, rid);

		if (mr_ecam_is_bridge(config) && readb(config + PCI_SECONDARY_BUS) <= bus &&
		    readb(config + PCI_SUBORDINATE_BUS) >= bus)
			set_bit(rid, marks);
	}
}

/* What this root has, but not by our bridges, it was handed; those are functions of segment 0 (multiroot_pci.ko). */
static void mr_ecam_find_handed(void)
{
	struct pci_dev *pdev = NULL;

	for_each_pci_dev(pdev) {
		struct mr_ecam *ecam = mr_ecam_of(0, pdev->bus->number);

		/* A filter before it changes how a bus is written, not how it is read. */
		if (!ecam || pdev->bus->ops->read == mr_ecam_read)
			continue;
		set_bit(pci_dev_id(pdev), ecam->handed);
		mr_ecam_mark_above(ecam, pdev->bus->number, ecam->held);
	}
}

static void mr_ecam_silence_function(const struct mr_ecam *ecam, u32 rid)
{
	void __iomem *config = mr_ecam_config_of(ecam, rid);
	u16 command;

	if (readl(config) == ABSENT || test_bit(rid, ecam->handed) || test_bit(rid, ecam->held))
		return;
	command = readw(config + PCI_COMMAND);
	if (command & PCI_COMMAND_MASTER)
		writew(command & ~PCI_COMMAND_MASTER, config + PCI_COMMAND);
	/* What it has sent before comes before this answer. */
	readw(config + PCI_COMMAND);
}

static int mr_ecam_map_one(const struct multiroot_ledger_ecam *from, struct mr_ecam **to)
{
	struct mr_ecam *ecam;

	/* Other roots can write there. */
	if (from->bus_last > 255 || from->bus_first > from->bus_last)
		return -ENODEV;
	ecam = kvzalloc(sizeof(*ecam), GFP_KERNEL);
	if (!ecam)
		return -ENOMEM;
	ecam->segment = from->segment;
	ecam->bus_first = from->bus_first;
	ecam->bus_last = from->bus_last;
	ecam->config = ioremap(from->base + ((u64)from->bus_first << 20),
			       (u64)(from->bus_last - from->bus_first + 1) << 20);
	if (!ecam->config) {
		kvfree(ecam);
		return -ENOMEM;
	}
	*to = ecam;
	return 0;
}

static int mr_ecam_map(void)
{
	int i, err = 0;

	for (i = 0; !err && i < MULTIROOT_LEDGER_ECAMS && mr_ledger->ecam[i].base; i++)
		if (!mr_ecams[i])
			err = mr_ecam_map_one(&mr_ledger->ecam[i], &mr_ecams[i]);
	return err;
}

/* True when there is a way to every function behind the machine's host bridges. */
static bool mr_ecam_reaches_all(void)
{
	u32 i, bus;

	for (i = 0; i < min_t(u32, mr_ledger->bridges, MULTIROOT_LEDGER_BRIDGES); i++) {
		const struct multiroot_ledger_bridge *bridge = &mr_ledger->bridge[i];

		for (bus = bridge->bus_first; bus <= bridge->bus_last; bus++)
			if (!mr_ecam_of(bridge->segment, bus))
				return false;
	}
	return true;
}

/**
 * mr_ecam_silence() - stop all DMA but that of functions which this root was handed
 *
 * What an ended root left running would write into memory that is others' now. Functions that drivers of this root
 * have are stopped as well: none may have any yet.
 *
 * Return: 0; -ENODEV: there are functions of which the ledger does not say how to reach them; -ENOMEM.
 */
int mr_ecam_silence(void)
{
	u32 rid;
	int i, err;

	err = mr_ecam_map();
	if (err)
		return err;
	if (!mr_ecam_reaches_all())
		return -ENODEV;
	mr_ecam_find_handed();
	for (i = 0; i < ARRAY_SIZE(mr_ecams) && mr_ecams[i]; i++) {
		for (rid = mr_ecams[i]->bus_first << 8; rid < (mr_ecams[i]->bus_last + 1) << 8; rid++)
			mr_ecam_silence_function(mr_ecams[i], rid);
		cond_resched();
	}
	return 0;
}

/* Everything is there for this kernel, whatever mr_ecam_show() has said of it. */
void mr_ecam_show_all(void)
{
	int i;

	mr_ecam_find_handed();
	for (i = 0; i < ARRAY_SIZE(mr_ecams) && mr_ecams[i]; i++)
		bitmap_fill(mr_ecams[i]->functions, MR_ECAM_FUNCTIONS);
}

/**
 * mr_ecam_show() - from now on a function is there for this kernel, and so are the bridges above it
 * @segment: of PCI
 * @rid: bus << 8 | device << 3 | function
 *
 * Return: 0; -EINVAL: no such function; -ENXIO: the kernel would not find it, for it looks for others only behind a
 * device's first function.
 */
int mr_ecam_show(u32 segment, u32 rid)
{
	struct mr_ecam *ecam = rid < MR_ECAM_FUNCTIONS ? mr_ecam_of(segment, rid >> 8) : NULL;

	if (!ecam || readl(mr_ecam_config_of(ecam, rid)) == ABSENT)
		return -EINVAL;
	if (PCI_FUNC(rid) && !test_bit(rid & ~7, ecam->functions))
		return -ENXIO;
	mr_ecam_find_handed();
	mr_ecam_mark_above(ecam, rid >> 8, ecam->functions);
	set_bit(rid, ecam->functions);
	return 0;
}

/* True when every function behind a host bridge is there for this kernel. */
bool mr_ecam_shows_all(u32 segment, u32 bus)
{
	const struct mr_ecam *ecam = mr_ecam_of(segment, bus);

	return ecam && bitmap_full(ecam->functions, MR_ECAM_FUNCTIONS);
}

/* True for a bridge above a function at work for a VM. */
bool mr_ecam_holds(const struct pci_dev *pdev)
{
	const struct mr_ecam *ecam = mr_ecam_of(pci_domain_nr(pdev->bus), pdev->bus->number);

	return ecam && test_bit(pci_dev_id((struct pci_dev *)pdev), ecam->held);
}

void mr_ecam_exit(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(mr_ecams) && mr_ecams[i]; i++) {
		iounmap(mr_ecams[i]->config);
		kvfree(mr_ecams[i]);
		mr_ecams[i] = NULL;
	}
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Configuration space of the machine's PCI functions in a root that came up without PCI, by the ECAMs that the first
 * root left in the ledger: which functions are there for this kernel, and the end of all DMA that nobody wants. Where
 * segment 0 has none it is reached by I/O ports.
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
 * @config: of the first bus; NULL where I/O ports lead there
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

/* First those of the ledger, then what is left to I/O ports. NULL ends them. */
static struct mr_ecam *mr_ecams[MULTIROOT_LEDGER_ECAMS + MULTIROOT_LEDGER_BRIDGES];

static struct mr_ecam *mr_ecam_of(u32 segment, u32 bus)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(mr_ecams) && mr_ecams[i]; i++)
		if (mr_ecams[i]->segment == segment && bus >= mr_ecams[i]->bus_first && bus <= mr_ecams[i]->bus_last)
			return mr_ecams[i];
	return NULL;
}

static void __iomem *mr_ecam_at(const struct mr_ecam *ecam, u32 rid, int where)
{
	return ecam->config + ((rid - (ecam->bus_first << 8)) << 12) + where;
}

static u32 mr_ecam_get(const struct mr_ecam *ecam, u32 rid, int where, int size)
{
	void __iomem *at;

	if (!ecam->config)
		return mr_conf1_read(rid, where, size);
	at = mr_ecam_at(ecam, rid, where);
	return size == 1 ? readb(at) : size == 2 ? readw(at) : readl(at);
}

static void mr_ecam_put(const struct mr_ecam *ecam, u32 rid, int where, int size, u32 value)
{
	if (!ecam->config)
		mr_conf1_write(rid, where, size, value);
	else if (size == 1)
		writeb(value, mr_ecam_at(ecam, rid, where));
	else if (size == 2)
		writew(value, mr_ecam_at(ecam, rid, where));
	else
		writel(value, mr_ecam_at(ecam, rid, where));
}

static bool mr_ecam_is_absent(const struct mr_ecam *ecam, u32 rid)
{
	return mr_ecam_get(ecam, rid, PCI_VENDOR_ID, 4) == ABSENT;
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

	*value = ABSENT;
	if (mr_ecam_is_here(ecam, rid))
		*value = mr_ecam_is_unsized(ecam, rid, where) ? 0 : mr_ecam_get(ecam, rid, where, size);
	return PCIBIOS_SUCCESSFUL;
}

static int mr_ecam_write(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 value)
{
	struct mr_ecam *ecam = mr_ecam_of(pci_domain_nr(bus), bus->number);
	u32 rid = bus->number << 8 | devfn;

	if (!mr_ecam_is_here(ecam, rid))
		return PCIBIOS_DEVICE_NOT_FOUND;
	if (!test_bit(rid, ecam->held))
		mr_ecam_put(ecam, rid, where, size, value);
	return PCIBIOS_SUCCESSFUL;
}

struct pci_ops mr_ecam_ops = { .read = mr_ecam_read, .write = mr_ecam_write };

static bool mr_ecam_is_bridge(const struct mr_ecam *ecam, u32 rid)
{
	return !mr_ecam_is_absent(ecam, rid) &&
	       (mr_ecam_get(ecam, rid, PCI_HEADER_TYPE, 1) & 0x7f) == PCI_HEADER_TYPE_BRIDGE;
}

/* Mark the bridges above a bus; none of them is on a bus with a higher number. */
static void mr_ecam_mark_above(const struct mr_ecam *ecam, u32 bus, unsigned long *marks)
{
	u32 rid;

	for (rid = ecam->bus_first << 8; rid < bus << 8; rid++)
		if (mr_ecam_is_bridge(ecam, rid) && mr_ecam_get(ecam, rid, PCI_SECONDARY_BUS, 1) <= bus &&
		    mr_ecam_get(ecam, rid, PCI_SUBORDINATE_BUS, 1) >= bus)
			set_bit(rid, marks);
}

/*
 * What this root has, but not by our bridges, it was handed; those are functions of segment 0 (multiroot_pci.ko). Found
 * anew each time: one that was to be handed, and was not, is a function like others.
 */
static void mr_ecam_find_handed(void)
{
	struct pci_dev *pdev = NULL;
	int i;

	for (i = 0; i < ARRAY_SIZE(mr_ecams) && mr_ecams[i]; i++) {
		bitmap_zero(mr_ecams[i]->handed, MR_ECAM_FUNCTIONS);
		bitmap_zero(mr_ecams[i]->held, MR_ECAM_FUNCTIONS);
	}
	for_each_pci_dev(pdev) {
		struct mr_ecam *ecam = mr_ecam_of(0, pdev->bus->number);

		/* A filter before it changes how a bus is written, not how it is read. */
		if (!ecam || pdev->bus->ops->read == mr_ecam_read)
			continue;
		/* A domain that a driver made (VMD) has buses of its own; PCI itself has 16 bits for a segment. */
		if (pci_domain_nr(pdev->bus) > U16_MAX)
			continue;
		set_bit(pci_dev_id(pdev), ecam->handed);
		mr_ecam_mark_above(ecam, pdev->bus->number, ecam->held);
	}
}

static void mr_ecam_silence_function(const struct mr_ecam *ecam, u32 rid)
{
	u16 command;

	if (mr_ecam_is_absent(ecam, rid) || test_bit(rid, ecam->handed) || test_bit(rid, ecam->held))
		return;
	command = mr_ecam_get(ecam, rid, PCI_COMMAND, 2);
	if (command & PCI_COMMAND_MASTER)
		mr_ecam_put(ecam, rid, PCI_COMMAND, 2, command & ~PCI_COMMAND_MASTER);
	/* What it has sent before comes before this answer. */
	mr_ecam_get(ecam, rid, PCI_COMMAND, 2);
}

static int mr_ecam_make(u32 segment, u32 bus_first, u32 bus_last, struct mr_ecam **to)
{
	struct mr_ecam *ecam;

	/* Other roots can write to the ledger. */
	if (bus_last > 255 || bus_first > bus_last)
		return -ENODEV;
	ecam = kvzalloc(sizeof(*ecam), GFP_KERNEL);
	if (!ecam)
		return -ENOMEM;
	ecam->segment = segment;
	ecam->bus_first = bus_first;
	ecam->bus_last = bus_last;
	*to = ecam;
	return 0;
}

static int mr_ecam_map_one(const struct multiroot_ledger_ecam *from, struct mr_ecam **to)
{
	struct mr_ecam *ecam;
	int err = mr_ecam_make(from->segment, from->bus_first, from->bus_last, &ecam);

	if (err)
		return err;
	ecam->config = ioremap(from->base + ((u64)ecam->bus_first << 20),
			       (u64)(ecam->bus_last - ecam->bus_first + 1) << 20);
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

/* True when there is a way to every function behind a host bridge. */
static bool mr_ecam_reaches(const struct multiroot_ledger_bridge *bridge)
{
	u32 bus;

	for (bus = bridge->bus_first; bus <= bridge->bus_last; bus++)
		if (!mr_ecam_of(bridge->segment, bus))
			return false;
	return true;
}

/* A way to all functions that no ECAM leads to: I/O ports reach segment 0. */
static int mr_ecam_map_rest(void)
{
	int i, used = 0, err = 0;

	while (used < ARRAY_SIZE(mr_ecams) && mr_ecams[used])
		used++;
	for (i = 0; !err && i < min_t(u32, mr_ledger->bridges, MULTIROOT_LEDGER_BRIDGES); i++) {
		const struct multiroot_ledger_bridge *bridge = &mr_ledger->bridge[i];

		if (mr_ecam_reaches(bridge))
			continue;
		if (bridge->segment || used == ARRAY_SIZE(mr_ecams) || !mr_conf1_works())
			return -ENODEV;
		err = mr_ecam_make(0, bridge->bus_first, bridge->bus_last, &mr_ecams[used++]);
	}
	return err;
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

	err = mr_ecam_map() ?: mr_ecam_map_rest();
	if (err)
		return err;
	mr_ecam_find_handed();
	for (i = 0; i < ARRAY_SIZE(mr_ecams) && mr_ecams[i]; i++) {
		for (rid = mr_ecams[i]->bus_first << 8; rid < (mr_ecams[i]->bus_last + 1) << 8; rid++)
			if (mr_ecam_of(mr_ecams[i]->segment, rid >> 8) == mr_ecams[i])
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

	if (!ecam || mr_ecam_is_absent(ecam, rid))
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
		if (mr_ecams[i]->config)
			iounmap(mr_ecams[i]->config);
		kvfree(mr_ecams[i]);
		mr_ecams[i] = NULL;
	}
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * A root bus for a function that this root is handed: a PCI segment of its own, over the function's page of the
 * ECAM, with nothing else in it. This root was started with no PCI at all. While the function is held, its header is
 * made up from what the giver recorded, so that Linux can size BARs that are in use; capabilities are read from it.
 */
#include <linux/io.h>
#include <linux/log2.h>
#include <linux/pci.h>
#include <linux/string.h>
#include <asm/pci.h>

#include "compat.h"
#include "pci/pci.h"

#define CONFIG_SIZE	4096
#define HEADER_END	0x40
#define BARS_END	(PCI_BASE_ADDRESS_5 + 4)

/*
 * By segment; under the lock of main.c's calls. It lies with the host bridge and goes with it: whoever has a reference
 * to the function may come here, also when the segment has been taken away.
 */
struct handed {
	struct list_head list;
	struct multiroot_pci_function function;
	struct pci_sysdata sysdata;	/* what bus->sysdata points to */
	struct pci_host_bridge *bridge;
	void __iomem *config;
	struct resource numbers;
	struct resource windows[MULTIROOT_PCI_BARS];
	u32 bars[MULTIROOT_PCI_BARS];	/* what Linux wrote, or what is in the device */
	u16 command;			/* memory and I/O enable as Linux wrote them */
	int msix;
	enum mr_pci_hold hold;
};

static LIST_HEAD(mr_pci_all);

static struct handed *mr_pci_handed_of(const struct pci_bus *bus)
{
	return container_of((struct pci_sysdata *)bus->sysdata, struct handed, sysdata);
}

static bool mr_pci_has_own_header(const struct handed *handed)
{
	return handed->hold == MR_PCI_FREE && !(handed->function.flags & MULTIROOT_PCI_VF);
}

static u32 mr_pci_live(const struct handed *handed, int where, int size)
{
	switch (size) {
	case 1:
		return readb(handed->config + where);
	case 2:
		return readw(handed->config + where);
	default:
		return readl(handed->config + where);
	}
}

static u32 mr_pci_header_word(const struct handed *handed, int where)
{
	const struct multiroot_pci_function *function = &handed->function;
	u32 command = mr_pci_live(handed, PCI_COMMAND, 4);

	switch (where) {
	case PCI_VENDOR_ID:
		return function->vendor | function->device << 16;
	case PCI_COMMAND:
		return (command & ~(u32)(PCI_COMMAND_IO | PCI_COMMAND_MEMORY)) | handed->command;
	case PCI_CLASS_REVISION:
		return function->class_revision;
	case PCI_BASE_ADDRESS_0 ... PCI_BASE_ADDRESS_5:
		return handed->bars[(where - PCI_BASE_ADDRESS_0) / 4];
	case PCI_SUBSYSTEM_VENDOR_ID:
		return function->subsystem_vendor | function->subsystem_device << 16;
	case PCI_CAPABILITY_LIST:
		return mr_pci_live(handed, PCI_CAPABILITY_LIST, 1);
	default:
		return 0;	/* no ROM, and no interrupt pin: this root has no interrupt router */
	}
}

static bool mr_pci_is_ours(const struct handed *handed, const struct pci_bus *bus, unsigned int devfn)
{
	return (bus->number << 8 | devfn) == handed->function.rid;
}

static int mr_pci_handed_read(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 *value)
{
	struct handed *handed = mr_pci_handed_of(bus);

	if (!mr_pci_is_ours(handed, bus, devfn)) {
		*value = ~0U;
		return PCIBIOS_DEVICE_NOT_FOUND;
	}
	if (where >= HEADER_END || mr_pci_has_own_header(handed))
		*value = mr_pci_live(handed, where, size);
	else
		*value = (mr_pci_header_word(handed, where & ~3) >> (8 * (where & 3))) &
			 (u32)GENMASK_ULL(8 * size - 1, 0);
	return PCIBIOS_SUCCESSFUL;
}

/* What a BAR register holds after a write: address bits below its size stay zero. */
static void mr_pci_write_bar(struct handed *handed, int index, u32 value)
{
	const struct multiroot_pci_bar *bar = &handed->function.bar[index];
	bool high = index && !bar->size && (handed->function.bar[index - 1].bits & PCI_BASE_ADDRESS_MEM_TYPE_64);

	if (high) {
		bar--;
		handed->bars[index] = value & (u32)(~(bar->size - 1) >> 32);
	} else if (bar->size) {
		handed->bars[index] = (value & (u32)~(bar->size - 1) & ~0xfU) | bar->bits;
	}
}

static void mr_pci_write_live(struct handed *handed, int where, int size, u32 value)
{
	if (size == 1)
		writeb(value, handed->config + where);
	else if (size == 2)
		writew(value, handed->config + where);
	else
		writel(value, handed->config + where);
}

static int mr_pci_handed_write(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 value)
{
	struct handed *handed = mr_pci_handed_of(bus);

	if (!mr_pci_is_ours(handed, bus, devfn))
		return PCIBIOS_DEVICE_NOT_FOUND;
	if (!mr_pci_has_own_header(handed)) {
		if (where >= PCI_BASE_ADDRESS_0 && where < BARS_END && size == 4)
			mr_pci_write_bar(handed, (where - PCI_BASE_ADDRESS_0) / 4, value);
		if (where == PCI_COMMAND)
			handed->command = value & (PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
	}
	if (mr_pci_passes(handed->hold, handed->msix, where, size, value))
		mr_pci_write_live(handed, where, size, value);
	return PCIBIOS_SUCCESSFUL;
}

static struct pci_ops mr_pci_handed_ops = { .read = mr_pci_handed_read, .write = mr_pci_handed_write };

bool mr_pci_is_handed(const struct pci_bus *bus)
{
	return bus->ops == &mr_pci_handed_ops;
}

void mr_pci_set_hold(struct pci_bus *bus, enum mr_pci_hold hold)
{
	WRITE_ONCE(mr_pci_handed_of(bus)->hold, hold);
}

static int mr_pci_find_msix(const struct handed *handed)
{
	u8 at = mr_pci_live(handed, PCI_CAPABILITY_LIST, 1) & ~3;
	int left;

	for (left = 48; at >= HEADER_END && left; left--) {
		if (mr_pci_live(handed, at, 1) == PCI_CAP_ID_MSIX)
			return at;
		at = mr_pci_live(handed, at + 1, 1) & ~3;
	}
	return 0;
}

static bool mr_pci_is_good(const struct multiroot_pci_function *function)
{
	int i;

	if (!function->segment || function->segment > 0xffff || function->rid > 0xffff || !function->config ||
	    !IS_ALIGNED(function->config, CONFIG_SIZE) || function->flags & ~MULTIROOT_PCI_VF)
		return false;
	for (i = 0; i < MULTIROOT_PCI_BARS; i++) {
		const struct multiroot_pci_bar *bar = &function->bar[i];

		if (bar->pad || bar->bits > 0xf || bar->bits & PCI_BASE_ADDRESS_SPACE_IO)
			return false;
		if (!bar->size)
			continue;
		if (!is_power_of_2(bar->size) || bar->size < 16 || !bar->start || bar->start & (bar->size - 1) ||
		    bar->start + bar->size < bar->start)
			return false;
		if (region_intersects(bar->start, bar->size, IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE) != REGION_DISJOINT)
			return false;
	}
	return true;
}

static struct handed *mr_pci_find(u32 segment)
{
	struct handed *handed;

	list_for_each_entry(handed, &mr_pci_all, list)
		if (handed->function.segment == segment)
			return handed;
	return NULL;
}

/* Nobody has a reference to the function any more. */
static void mr_pci_release(struct pci_host_bridge *bridge)
{
	struct handed *handed = pci_host_bridge_priv(bridge);

	iounmap(handed->config);
}

static void mr_pci_forget(struct handed *handed)
{
	int i;

	for (i = 0; i < MULTIROOT_PCI_BARS; i++)
		if (handed->windows[i].parent)
			release_resource(&handed->windows[i]);
	pci_free_host_bridge(handed->bridge);
}

static int mr_pci_add_windows(struct handed *handed)
{
	struct list_head *resources = &handed->bridge->windows;
	int i;

	handed->numbers = (struct resource){ .name = "multiroot", .flags = IORESOURCE_BUS };
	handed->numbers.start = handed->function.rid >> 8;
	handed->numbers.end = handed->numbers.start;
	pci_add_resource(resources, &handed->numbers);
	for (i = 0; i < MULTIROOT_PCI_BARS; i++) {
		const struct multiroot_pci_bar *bar = &handed->function.bar[i];
		struct resource *window = &handed->windows[i];

		if (!bar->size)
			continue;
		*window = (struct resource)DEFINE_RES_MEM_NAMED(bar->start, bar->size, "multiroot");
		if (request_resource(&iomem_resource, window))
			return -EBUSY;
		pci_add_resource(resources, window);
		handed->bars[i] = lower_32_bits(bar->start) | bar->bits;
		if ((bar->bits & PCI_BASE_ADDRESS_MEM_TYPE_64) && i + 1 < MULTIROOT_PCI_BARS)
			handed->bars[i + 1] = upper_32_bits(bar->start);
	}
	return 0;
}

/*
 * The kernel's own driver, were it there already, would begin by resetting what it finds, through registers that no
 * hold sees. Until user space says something else the function is for ours.
 */
static int mr_pci_reserve(struct pci_dev *pdev, void *data)
{
	int err = mr_driver_override(pdev, MR_VFIO_DRIVER);

	if (err)
		*(int *)data = err;
	return err;
}

static void mr_pci_remove_bus(struct handed *handed)
{
	struct pci_bus *bus = handed->bridge->bus;

	pci_stop_root_bus(bus);
	pci_remove_root_bus(bus);
}

static int mr_pci_scan(struct handed *handed)
{
	int err;

	pci_lock_rescan_remove();
	err = pci_scan_root_bus_bridge(handed->bridge);
	if (!err) {
		pci_bus_claim_resources(handed->bridge->bus);
		pci_walk_bus(handed->bridge->bus, mr_pci_reserve, &err);
		if (!err)
			pci_bus_add_devices(handed->bridge->bus);
		else
			mr_pci_remove_bus(handed);
	}
	pci_unlock_rescan_remove();
	return err;
}

static struct handed *mr_pci_make(const struct multiroot_pci_function *function)
{
	struct pci_host_bridge *bridge = pci_alloc_host_bridge(sizeof(struct handed));
	struct handed *handed;

	if (!bridge)
		return NULL;
	handed = pci_host_bridge_priv(bridge);
	handed->function = *function;
	handed->sysdata.domain = function->segment;
	handed->sysdata.node = NUMA_NO_NODE;
	handed->command = PCI_COMMAND_MEMORY;
	handed->hold = MR_PCI_HELD;
	handed->bridge = bridge;
	bridge->ops = &mr_pci_handed_ops;
	bridge->sysdata = &handed->sysdata;
	pci_set_host_bridge_release(bridge, mr_pci_release, NULL);
	return handed;
}

/* Make the segment. -EINVAL, -EEXIST, -EBUSY when a BAR's place is taken here, -ENODEV when nothing answers. */
int mr_pci_add(const struct multiroot_pci_function *function)
{
	struct handed *handed;
	int err;

	if (!mr_pci_is_good(function))
		return -EINVAL;
	if (mr_pci_find(function->segment) || pci_find_bus(function->segment, function->rid >> 8))
		return -EEXIST;
	handed = mr_pci_make(function);
	if (!handed)
		return -ENOMEM;
	handed->config = ioremap(function->config, CONFIG_SIZE);
	err = handed->config ? 0 : -ENOMEM;
	if (!err && mr_pci_live(handed, PCI_CAPABILITY_LIST, 1) == 0xff)
		err = -ENODEV;
	if (!err) {
		handed->msix = mr_pci_find_msix(handed);
		err = mr_pci_add_windows(handed);
	}
	if (!err)
		err = mr_pci_scan(handed);
	if (err) {
		mr_pci_forget(handed);
		return err;
	}
	list_add(&handed->list, &mr_pci_all);
	return 0;
}

/* Take the segment away; drivers must have let go. -ENOENT, -EBUSY. */
int mr_pci_remove(u32 segment)
{
	struct handed *handed = mr_pci_find(segment);
	struct pci_dev *pdev;

	if (!handed)
		return -ENOENT;
	pdev = pci_get_domain_bus_and_slot(segment, handed->function.rid >> 8, handed->function.rid & 0xff);
	if (pdev) {
		bool bound = pdev->dev.driver;

		pci_dev_put(pdev);
		if (bound)
			return -EBUSY;
	}
	handed->hold = MR_PCI_HELD;	/* whoever has it now, Linux is done with it */
	list_del(&handed->list);
	pci_lock_rescan_remove();
	mr_pci_remove_bus(handed);
	pci_unlock_rescan_remove();
	mr_pci_forget(handed);
	return 0;
}

// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One root's multiroot_iommu.ko, all but the unit, which is made up here. A test loads it twice: two roots that have
 * one memory.
 */
#include <sched.h>

#include "iommu/iommu.h"
#include "pci/pci.h"
#include "uapi/multiroot_iommu.h"

#define BASE	0x100000000ULL
#define UNIT	0xfed90000ULL
#define BUS	1

extern struct miscdevice *const shim_device;

char *memory;			/* at BASE, the same in all roots */
char *seen;			/* what a unit sees of it that is not coherent, the same in all roots */
u64 memory_size;
int mapped;			/* of it, how many times */
int fail_registration, fail_turning_on;
int unit_on, unit_open, flushes, wild;
int orders, stale;		/* to the unit; with a table that it does not see as it is */
u64 unit_root_table;
unsigned char lives[16];	/* roots, by number */
int lock_changes;	/* whenever somebody waits for it */
unsigned long waited_us, give_back_us = -1UL;	/* when somebody else gives the lock back */
u32 given_back;
const struct iommu_ops *registered;

u32 this_root;

u32 multiroot_root(void)
{
	return this_root;
}

bool multiroot_root_lives(u32 root)
{
	return root < ARRAY_SIZE(lives) && lives[root];
}

void *memremap(phys_addr_t phys, size_t size, int how)
{
	mapped++;
	return memory + (phys - BASE);
}

void memunmap(void *at)
{
	mapped--;
}

/* Time passes while somebody waits, and starts at 1: 0 is for nobody who looked. */
u64 ktime_get_mono_fast_ns(void)
{
	return 1 + waited_us * 1000ULL;
}

void udelay(unsigned long us)
{
	waited_us += us;
	if (lock_changes)
		((struct multiroot_iommu_tables *)memory)->lock = 2 + (waited_us & 1);
	if (!(waited_us % 1024))
		sched_yield();
	if (waited_us == give_back_us) {
		shim_at("turn of others");
		given_back = xchg(&((struct multiroot_iommu_tables *)memory)->lock, 0);
	}
}

u64 ktime_get_ns(void)
{
	shim_at("ktime_get_ns");
	return 0;
}

u32 crc32c(u32 crc, const void *data, size_t size)
{
	return crc + 1;
}

/* What the bus does when a driver is bound, or looks like that, by device. */
int counted[3], counted_unlocked, fail_counting;

static int count_driver(struct device *dev);

const struct bus_type pci_bus_type = { .dma_configure = count_driver };

/* With a driver; without; with a driver, and behind a unit of somebody else's. */
static struct iommu_device other_unit;
static struct dev_iommu behind_ours, behind_other = { &other_unit };
static struct device devices[] = {
	{ .driver = "driver", .iommu = &behind_ours, .bus = &pci_bus_type },
	{ .iommu = &behind_ours, .bus = &pci_bus_type },
	{ .driver = "driver", .iommu = &behind_other, .bus = &pci_bus_type },
};

static int count_driver(struct device *dev)
{
	counted_unlocked += !dev->locked;
	counted[dev - devices]++;
	return fail_counting ? -EBUSY : 0;
}

int bus_for_each_dev(const struct bus_type *bus, struct device *start, void *data,
		     int (*function)(struct device *dev, void *data))
{
	int i, err = 0;

	for (i = 0; i < ARRAY_SIZE(devices) && !err; i++)
		err = function(devices + i, data);
	return err;
}

bool any_locked(void)
{
	return devices[0].locked || devices[1].locked || devices[2].locked;
}

/* The last that can fail, with devices that come and ask meanwhile. */
int iommu_device_register(struct iommu_device *iommu, const struct iommu_ops *ops, void *device)
{
	shim_at("iommu_device_register");
	if (fail_registration)
		return -EBUSY;
	behind_ours.iommu_dev = iommu;
	registered = ops;
	return 0;
}

int mr_unit_open(phys_addr_t registers)
{
	unit_open++;
	return 0;
}

void mr_unit_close(void)
{
	unit_open--;
}

void mr_unit_use_queue(const struct mr_queue *shared)
{
	wild += (char *)shared->orders < memory || !PAGE_ALIGNED((char *)shared->orders - memory);
}

void mr_unit_info(struct multiroot_iommu_info *info)
{
}

bool mr_unit_translates(phys_addr_t root_table)
{
	return true;
}

bool mr_unit_can_remap(void)
{
	return true;
}

bool mr_unit_is_on(void)
{
	return unit_on;
}

void mr_unit_write_back(void *table, size_t size)
{
	size_t at = (char *)table - memory;

	memcpy(seen + at, memory + at, size);
}

/* From now on the unit looks. The first page is nothing to it. */
static void order(void)
{
	orders++;
	stale += memcmp(seen + PAGE_SIZE, memory + PAGE_SIZE, memory_size - PAGE_SIZE) != 0;
}

int mr_unit_turn_on(phys_addr_t root_table, phys_addr_t remapping)
{
	order();
	unit_on = !fail_turning_on;
	return fail_turning_on ? -ETIMEDOUT : 0;
}

void mr_unit_turn_off(void)
{
	unit_on = 0;
}

void mr_unit_flush_contexts(void)
{
	flushes++;
	order();
	shim_at("flush_contexts");
}

void mr_unit_flush_interrupts(void)
{
	order();
}

void mr_unit_flush_domain(u16 did)
{
	order();
}

static int call_by(struct file *file, unsigned int command, void *argument)
{
	return shim_device->fops->unlocked_ioctl(file, command, (unsigned long)argument);
}

/* The agent's file has the claim. */
static int call(unsigned int command, void *argument)
{
	static struct file file;

	return call_by(&file, MULTIROOT_IOMMU_IOC_CLAIM, NULL) ?: call_by(&file, command, argument);
}

/* What a file without the claim is told, of every command that changes something; 0: it was let through. */
int strangers_errors(int *claim)
{
	static struct file stranger;
	u64 nothing[32] = {};
	int start = call_by(&stranger, MULTIROOT_IOMMU_IOC_START, nothing);
	int join = call_by(&stranger, MULTIROOT_IOMMU_IOC_JOIN, nothing);
	int take = call_by(&stranger, MULTIROOT_IOMMU_IOC_SWITCH, nothing);
	int inherit = call_by(&stranger, MULTIROOT_IOMMU_IOC_INHERIT, nothing);

	*claim = call_by(&stranger, MULTIROOT_IOMMU_IOC_CLAIM, NULL);
	return start == join && join == take && take == inherit ? start : 0;
}

int start(u64 size)
{
	struct multiroot_iommu_start request = {
		.tables = BASE, .size = size, .registers = UNIT, .flags = MULTIROOT_IOMMU_REMAP,
	};

	return call(MULTIROOT_IOMMU_IOC_START, &request);
}

int join(u64 size)
{
	struct multiroot_iommu_start request = { .tables = BASE, .size = size };

	return call(MULTIROOT_IOMMU_IOC_JOIN, &request);
}

/* How many devices there were. */
int inherit(void)
{
	struct multiroot_iommu_inherit answer;

	return call(MULTIROOT_IOMMU_IOC_INHERIT, &answer) ?: answer.devices;
}

int take_over(u32 rid, u32 from, u64 ram_base, u64 ram_size)
{
	struct multiroot_iommu_switch request = {
		.rid = rid, .from = from, .ram_base = ram_base, .ram_size = ram_size,
	};

	return call(MULTIROOT_IOMMU_IOC_SWITCH, &request);
}

/* A card of this root: what VFIO does with it. Two of its numbers in other segments: the machine's, and a driver's. */
static struct pci_bus bus = { .number = BUS }, others[] = { { .domain = 1, .number = BUS }, { 0x10000, BUS } };
static struct pci_dev card = { .bus = &bus }, strangers[] = { { .bus = &others[0] }, { .bus = &others[1] } };

struct pci_dev *pci_next_dev(struct pci_dev *after)
{
	return !after ? &card : after == &card ? &strangers[0] : after == &strangers[0] ? &strangers[1] : NULL;
}

bool multiroot_pci_has_rid(const struct pci_dev *pdev)
{
	return pdev == &card;
}

/* What happened to the card: H when its configuration space is free, M, R; in small letters: to one of the others. */
char did[16];
int fail_hold;

static void note(const struct pci_dev *pdev, char what)
{
	did[strlen(did)] = pdev == &card ? what : what + 'a' - 'A';
}

int multiroot_pci_hold(struct pci_dev *pdev, enum mr_pci_hold hold)
{
	note(pdev, hold == MR_PCI_FREE ? 'H' : '?');
	return fail_hold ? -ENOMEM : 0;
}

void pci_clear_master(struct pci_dev *pdev)
{
	note(pdev, 'M');
}

int pci_read_config_word(struct pci_dev *pdev, int where, u16 *value)
{
	return 0;
}

int pci_reset_function(struct pci_dev *pdev)
{
	note(pdev, 'R');
	return 0;
}

struct iommu_domain *attach(u64 iova, u64 phys)
{
	struct iommu_domain *domain = registered->domain_alloc_paging(&card.dev);
	size_t count = 0;

	registered->default_domain_ops->map_pages(domain, iova, phys, PAGE_SIZE, 1, IOMMU_READ | IOMMU_WRITE, 0,
						  &count);
	return registered->default_domain_ops->attach_dev(domain, &card.dev) ? NULL : domain;
}

void map_one_more(struct iommu_domain *domain, u64 iova, u64 phys)
{
	size_t count = 0;

	domain->ops->map_pages(domain, iova, phys, PAGE_SIZE, 1, IOMMU_READ, 0, &count);
	domain->ops->iotlb_sync_map(domain, iova, PAGE_SIZE);
}

void unmap_one(struct iommu_domain *domain, u64 iova)
{
	domain->ops->unmap_pages(domain, iova, PAGE_SIZE, 1, NULL);
	domain->ops->iotlb_sync(domain, NULL);
}

int block(void)
{
	return registered->blocked_domain->ops->attach_dev(registered->blocked_domain, &card.dev);
}

void detach(struct iommu_domain *domain)
{
	block();
	registered->default_domain_ops->free(domain);
}

/* A bit each that says what it is let do: the card, and the others. Linux asks when it finds a function. */
int probed(bool in_its_own)
{
	bus.domain = in_its_own ? 2 : 0;
	return !IS_ERR(registered->probe_device(&card.dev)) | !IS_ERR(registered->probe_device(&strangers[0].dev)) << 1 |
	       !IS_ERR(registered->probe_device(&strangers[1].dev)) << 2;
}

/* The same of a VMM that has them by VFIO. */
int owned_bits(void)
{
	return multiroot_iommu_owned(&card) | multiroot_iommu_owned(&strangers[0]) << 1 |
	       multiroot_iommu_owned(&strangers[1]) << 2;
}

/* May VFIO touch the card? */
bool owned(void)
{
	return multiroot_iommu_owned(&card);
}

bool remap(unsigned int vector)
{
	struct msi_msg message = { .address_lo = 0xfee01000, .data = 0x41 };
	u32 address;

	return multiroot_iommu_remap(&card, vector, &message, &address);
}

/* Add to a number as often as that, each time with the lock. */
void count(unsigned long *number, unsigned long times)
{
	unsigned long flags;

	while (times--) {
		mr_tables_lock(&flags);
		WRITE_ONCE(*number, READ_ONCE(*number) + 1);
		mr_tables_unlock(flags);
	}
}

void lock_once(void)
{
	unsigned long flags;

	mr_tables_lock(&flags);
	shim_at("locked");
	mr_tables_unlock(flags);
}

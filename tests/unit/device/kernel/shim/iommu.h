/* SPDX-License-Identifier: GPL-2.0-or-later */
/* PCI devices, Linux's iommu drivers and memory, as far as csrc/kmod/iommu knows them. */
#ifndef _SHIM_IOMMU_H
#define _SHIM_IOMMU_H

#include "kernel.h"
#include <limits.h>

struct device;
struct iommu_device;

struct bus_type {
	int (*dma_configure)(struct device *dev);
};

struct dev_iommu {
	struct iommu_device *iommu_dev;
};

struct device {
	const void *driver;
	struct dev_iommu *iommu;
	const struct bus_type *bus;
	bool locked;
};

extern const struct bus_type pci_bus_type;
int bus_for_each_dev(const struct bus_type *bus, struct device *start, void *data,
		     int (*function)(struct device *dev, void *data));
#define device_lock(dev)	((dev)->locked = true)
#define device_unlock(dev)	((dev)->locked = false)
#define dev_warn(dev, ...)	shim_say(__VA_ARGS__)

struct pci_bus {
	int domain;
	u8 number;
};

struct pci_dev {
	struct device dev;
	struct pci_bus *bus;
	unsigned int devfn;
	const char *driver_override;
};

#define dev_is_pci(dev)		true
#define to_pci_dev(device)	container_of(device, struct pci_dev, dev)
#define pci_dev_id(pdev)	((u16)((pdev)->bus->number << 8 | (pdev)->devfn))
#define pci_domain_nr(bus)	((bus)->domain)
#define pci_device_group	NULL
#define PCI_COMMAND		4
#define pci_info(pdev, ...)	((void)(pdev))
#define for_each_pci_dev(pdev)	while (((pdev) = pci_next_dev(pdev)))
struct pci_dev *pci_next_dev(struct pci_dev *after);
void pci_clear_master(struct pci_dev *pdev);
int pci_read_config_word(struct pci_dev *pdev, int where, u16 *value);
int pci_reset_function(struct pci_dev *pdev);

struct iommu_domain {
	unsigned int type;
	const struct iommu_domain_ops *ops;
	unsigned long pgsize_bitmap;
	struct {
		dma_addr_t aperture_end;
		bool force_aperture;
	} geometry;
};

struct iommu_iotlb_gather;
struct iommu_group;

struct list_head {
	struct list_head *next;
};

struct iommu_resv_region {
	struct list_head list;
};

struct iommu_device {
	int unused;
};

enum iommu_cap { IOMMU_CAP_CACHE_COHERENCY };

#define IOMMU_READ		1
#define IOMMU_WRITE		2
#define IOMMU_DOMAIN_BLOCKED	0
#define IOMMU_DOMAIN_IDENTITY	4
#define IOMMU_DOMAIN_UNMANAGED	1
#define IOMMU_RESV_MSI		3
#define list_add_tail(entry, list)	((void)(entry))
#define iommu_alloc_resv_region(...)	((struct iommu_resv_region *)NULL)

struct iommu_domain_ops {
	int (*attach_dev)(struct iommu_domain *domain, struct device *dev);
	int (*map_pages)(struct iommu_domain *domain, unsigned long iova, phys_addr_t phys, size_t size, size_t count,
			 int prot, gfp_t gfp, size_t *mapped);
	size_t (*unmap_pages)(struct iommu_domain *domain, unsigned long iova, size_t size, size_t count,
			      struct iommu_iotlb_gather *gather);
	void (*flush_iotlb_all)(struct iommu_domain *domain);
	int (*iotlb_sync_map)(struct iommu_domain *domain, unsigned long iova, size_t size);
	void (*iotlb_sync)(struct iommu_domain *domain, struct iommu_iotlb_gather *gather);
	phys_addr_t (*iova_to_phys)(struct iommu_domain *domain, dma_addr_t iova);
	void (*free)(struct iommu_domain *domain);
};

struct iommu_ops {
	bool (*capable)(struct device *dev, enum iommu_cap cap);
	struct iommu_domain *(*domain_alloc_paging)(struct device *dev);
	struct iommu_domain *identity_domain, *blocked_domain;
	struct iommu_device *(*probe_device)(struct device *dev);
	void (*release_device)(struct device *dev);
	struct iommu_group *(*device_group)(struct device *dev);
	void (*get_resv_regions)(struct device *dev, struct list_head *head);
	int (*def_domain_type)(struct device *dev);
	const struct iommu_domain_ops *default_domain_ops;
	void *owner;
};

#define iommu_device_sysfs_add(...)	0
#define iommu_device_sysfs_remove(...)	do {} while (0)
int iommu_device_register(struct iommu_device *iommu, const struct iommu_ops *ops, void *device);

/* Bits: a word is enough for devices, pages have a map. */
#define for_each_set_bit(bit, map, size)	for ((bit) = 0; (bit) < (size); (bit)++) if (test_bit(bit, map))

static inline unsigned long find_first_zero_bit(const unsigned long *map, unsigned long size)
{
	unsigned long bit;

	for (bit = 0; bit < size && test_bit(bit, map); bit++)
		;
	return bit;
}

#define bitmap_zalloc(size, how)	calloc((size) / BITS_PER_LONG + 1, sizeof(long))
#define bitmap_free(map)	free(map)

#define region_intersects(...)	REGION_INTERSECTS


#define x2apic_enabled()	false
void udelay(unsigned long us);
u64 ktime_get_ns(void);
u64 ktime_get_mono_fast_ns(void);
#define NSEC_PER_SEC	1000000000ULL
u32 crc32c(u32 crc, const void *data, size_t size);

/* Registers, and work that is done later: here never. */
u64 readq(const void *address);
void writeq(u64 value, void *address);
#define readl(address)		((u32)readq(address))
#define writel(value, address)	writeq(value, address)
void *ioremap(phys_addr_t phys, size_t size);
void clflush_cache_range(void *from, unsigned int size);
#define iounmap(address)	do {} while (0)
#define ilog2(x)		(63 - __builtin_clzll(x))
#define read_poll_timeout_atomic(op, value, until, us, most, first, ...)	\
	({ (value) = op(__VA_ARGS__); (until) ? 0 : -ETIMEDOUT; })
#define readl_poll_timeout(address, value, until, us, most)	read_poll_timeout_atomic(readl, value, until, us, most, 0, address)
#define DECLARE_DELAYED_WORK(name, function)	void *name = (function)
#define schedule_delayed_work(work, time)	((void)*(work))
#define cancel_delayed_work_sync(work)	((void)*(work))
#define HZ			250

struct msi_msg {
	u32 address_lo, address_hi, data;
};

#endif /* _SHIM_IOMMU_H */

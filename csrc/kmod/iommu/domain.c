// SPDX-License-Identifier: GPL-2.0-only
/*
 * Linux's view: an iommu driver whose page tables lie in shared memory. What is attached to a device that another root
 * owns stays without effect until the switch: the rule is that only the owner writes a device's context entry.
 */
#include <linux/iommu.h>
#include <linux/pci.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "compat.h"
#include "iommu/iommu.h"

#define ENTRY_PRESENT	1ULL
#define ENTRY_THROUGH	(2ULL << 2)
#define WIDTH_48	2ULL
#define PAGE_SIZES	(SZ_4K | SZ_2M | SZ_1G)
#define MSI_BASE	0xfee00000UL
#define MSI_SIZE	0x100000UL

struct mr_domain {
	struct iommu_domain domain;
	phys_addr_t top;
	unsigned long slots;		/* bit mask of devices attached */
	spinlock_t lock;		/* for the tables below top */
};

static struct iommu_device iommu;
static struct mr_domain *attached[MULTIROOT_IOMMU_DEVICES];	/* by slot, NULL: no domain of ours */
static DEFINE_MUTEX(attach_lock);

static struct mr_domain *to_mr(struct iommu_domain *domain)
{
	return container_of(domain, struct mr_domain, domain);
}

static void flush(struct mr_domain *mine)
{
	unsigned long flags;
	int slot;

	mr_tables_lock(&flags);
	for_each_set_bit(slot, &mine->slots, MULTIROOT_IOMMU_DEVICES)
		if (mr_tables_own(slot))
			mr_unit_flush_domain(MR_DID_FIRST + slot);
	mr_tables_unlock(flags);
}

static int map_pages(struct iommu_domain *domain, unsigned long iova, phys_addr_t phys, size_t size, size_t count,
		     int prot, gfp_t gfp, size_t *mapped)
{
	u64 rights = (prot & IOMMU_READ ? 1 : 0) | (prot & IOMMU_WRITE ? 2 : 0);
	struct mr_domain *mine = to_mr(domain);
	unsigned long flags;
	int err = 0;

	spin_lock_irqsave(&mine->lock, flags);
	while (count--) {
		phys_addr_t stale;

		err = mr_walk_map(mine->top, iova, phys, size, rights, &stale);
		if (err)
			break;
		if (stale) {
			flush(mine);
			mr_walk_free_stale(stale, size);
		}
		iova += size;
		phys += size;
		*mapped += size;
	}
	spin_unlock_irqrestore(&mine->lock, flags);
	return err;
}

static size_t unmap_pages(struct iommu_domain *domain, unsigned long iova, size_t size, size_t count,
			  struct iommu_iotlb_gather *gather)
{
	struct mr_domain *mine = to_mr(domain);
	size_t done = 0, want = size * count;
	unsigned long flags;

	spin_lock_irqsave(&mine->lock, flags);
	while (done < want) {
		u64 gone = mr_walk_unmap(mine->top, iova + done);

		if (!gone)
			break;
		done += gone;
	}
	spin_unlock_irqrestore(&mine->lock, flags);
	return done;
}

static void flush_all(struct iommu_domain *domain)
{
	flush(to_mr(domain));
}

static void sync_unmap(struct iommu_domain *domain, struct iommu_iotlb_gather *gather)
{
	flush(to_mr(domain));
}

/* An emulated unit may remember that there was nothing (caching mode). */
static MR_SYNC_MAP_TYPE sync_map(struct iommu_domain *domain, unsigned long iova, size_t size)
{
	flush(to_mr(domain));
	return MR_SYNC_MAP_DONE;
}

static phys_addr_t iova_to_phys(struct iommu_domain *domain, dma_addr_t iova)
{
	u64 rights, left, phys = mr_walk_find(to_mr(domain)->top, iova, &rights, &left);

	return phys ? phys | (iova & ~PAGE_MASK) : 0;
}

static void write_entry(int slot, u64 low, u64 high)
{
	u64 *entry = mr_tables_entry(slot);
	unsigned long flags;

	mr_tables_lock(&flags);
	WRITE_ONCE(entry[0], 0);
	WRITE_ONCE(entry[1], high);
	WRITE_ONCE(entry[0], low);
	mr_unit_flush_contexts();
	mr_unit_flush_domain(MR_DID_FIRST + slot);
	mr_unit_flush_domain(MR_DID_THROUGH);
	mr_tables_unlock(flags);
}

/* What the device is attached to now, as long as another root has it only noted. */
static void note(int slot, struct mr_domain *mine)
{
	if (attached[slot])
		clear_bit(slot, &attached[slot]->slots);
	attached[slot] = mine;
	if (mine)
		set_bit(slot, &mine->slots);
}

static int attach_paging(MR_ATTACH_ARGS)
{
	struct mr_domain *mine = to_mr(domain);
	int slot;

	mutex_lock(&attach_lock);
	slot = mr_tables_claim(pci_dev_id(to_pci_dev(dev)));
	if (slot >= 0) {
		note(slot, mine);
		if (mr_tables_own(slot))
			write_entry(slot, mine->top | ENTRY_PRESENT, WIDTH_48 | (u64)(MR_DID_FIRST + slot) << 8);
	}
	mutex_unlock(&attach_lock);
	return slot < 0 ? slot : 0;
}

static void attach_fixed(struct device *dev, u64 low, u64 high)
{
	int slot;

	mutex_lock(&attach_lock);
	slot = mr_tables_find(pci_dev_id(to_pci_dev(dev)));
	if (slot >= 0) {
		note(slot, NULL);
		if (mr_tables_own(slot))
			write_entry(slot, low, high);
	}
	mutex_unlock(&attach_lock);
}

static int attach_identity(MR_ATTACH_ARGS)
{
	attach_fixed(dev, ENTRY_PRESENT | ENTRY_THROUGH, WIDTH_48 | MR_DID_THROUGH << 8);
	return 0;
}

/* A device that never had tables of its own gets some now, to be blocked by them. */
static int attach_blocked(MR_ATTACH_ARGS)
{
	int slot = mr_tables_claim(pci_dev_id(to_pci_dev(dev)));

	if (slot < 0)
		return slot;
	attach_fixed(dev, 0, 0);
	return 0;
}

static void free_domain(struct iommu_domain *domain)
{
	struct mr_domain *mine = to_mr(domain);

	mr_walk_free(mine->top);
	kfree(mine);
}

static void free_nothing(struct iommu_domain *domain)
{
}

static const struct iommu_domain_ops paging_ops = {
	.attach_dev = attach_paging,
	.map_pages = map_pages,
	.unmap_pages = unmap_pages,
	.flush_iotlb_all = flush_all,
	.iotlb_sync_map = sync_map,
	.iotlb_sync = sync_unmap,
	.iova_to_phys = iova_to_phys,
	.free = free_domain,
};

static const struct iommu_domain_ops identity_ops = { .attach_dev = attach_identity, .free = free_nothing };
static const struct iommu_domain_ops blocked_ops = { .attach_dev = attach_blocked, .free = free_nothing };
static struct iommu_domain identity = { .type = IOMMU_DOMAIN_IDENTITY, .ops = &identity_ops };
static struct iommu_domain blocked = { .type = IOMMU_DOMAIN_BLOCKED, .ops = &blocked_ops };

static struct iommu_domain *alloc_paging(struct device *dev)
{
	struct mr_domain *mine = kzalloc(sizeof(*mine), GFP_KERNEL);

	if (!mine)
		return NULL;
	mine->top = mr_tables_page();
	if (!mine->top) {
		kfree(mine);
		return NULL;
	}
	spin_lock_init(&mine->lock);
	mine->domain.ops = &paging_ops;
	mine->domain.pgsize_bitmap = PAGE_SIZES;
	mine->domain.geometry.aperture_end = (1ULL << 48) - 1;
	mine->domain.geometry.force_aperture = true;
	return &mine->domain;
}

#if !MR_DOMAINS_NAMED
static struct iommu_domain *alloc_by_type(unsigned int type)
{
	switch (type) {
	case IOMMU_DOMAIN_UNMANAGED:
		return alloc_paging(NULL);
	case IOMMU_DOMAIN_IDENTITY:
		return &identity;
	case IOMMU_DOMAIN_BLOCKED:
		return &blocked;
	default:
		return NULL;
	}
}
#endif

/* In the root that made the tables all devices are ours; in one that joined, those that it was handed. */
static struct iommu_device *probe_device(struct device *dev)
{
	struct pci_dev *pdev;

	if (!dev_is_pci(dev))
		return ERR_PTR(-ENODEV);
	pdev = to_pci_dev(dev);
	if (pci_domain_nr(pdev->bus) && mr_tables_find(pci_dev_id(pdev)) < 0)
		return ERR_PTR(-ENODEV);
	return &iommu;
}

static void release_device(struct device *dev)
{
	int slot = mr_tables_find(pci_dev_id(to_pci_dev(dev)));

	if (slot < 0)
		return;
	mutex_lock(&attach_lock);
	note(slot, NULL);
	mutex_unlock(&attach_lock);
}

static bool is_capable(struct device *dev, enum iommu_cap cap)
{
	return cap == IOMMU_CAP_CACHE_COHERENCY;
}

static int default_type(struct device *dev)
{
	return IOMMU_DOMAIN_IDENTITY;
}

static void reserved_regions(struct device *dev, struct list_head *head)
{
	struct iommu_resv_region *msi = iommu_alloc_resv_region(MSI_BASE, MSI_SIZE, 0, IOMMU_RESV_MSI, GFP_KERNEL);

	if (msi)
		list_add_tail(&msi->list, head);
}

static const struct iommu_ops ops = {
	.capable = is_capable,
#if MR_DOMAINS_NAMED
	.domain_alloc_paging = alloc_paging,
	.identity_domain = &identity,
	.blocked_domain = &blocked,
#else
	.domain_alloc = alloc_by_type,
	.pgsize_bitmap = PAGE_SIZES,
#endif
	.probe_device = probe_device,
	.release_device = release_device,
	.device_group = pci_device_group,
	.get_resv_regions = reserved_regions,
	.def_domain_type = default_type,
	.default_domain_ops = &paging_ops,
	.owner = THIS_MODULE,
};

/* Top table of the domain that a device is attached to in this root, 0 if none of ours. */
phys_addr_t mr_domain_of(u16 rid)
{
	int slot = mr_tables_find(rid);

	return slot >= 0 && attached[slot] ? attached[slot]->top : 0;
}

/* There is no way back: Linux can't be told that devices have no iommu any more. */
int mr_domain_register(void)
{
	int err = iommu_device_sysfs_add(&iommu, NULL, NULL, "multiroot");

	if (err)
		return err;
	err = iommu_device_register(&iommu, &ops, NULL);
	if (err)
		iommu_device_sysfs_remove(&iommu);
	return err;
}

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
#include "pci/pci.h"

#define PAGE_SIZES	(SZ_4K | SZ_2M | SZ_1G)
#define MSI_BASE	0xfee00000UL
#define MSI_SIZE	0x100000UL

struct mr_domain {
	struct iommu_domain domain;
	phys_addr_t top;
	unsigned long slots;		/* bit mask of devices attached */
	spinlock_t lock;		/* for the tables below top */
};

static struct iommu_device mr_domain_iommu;
static struct mr_domain *mr_domain_attached[MULTIROOT_IOMMU_DEVICES];	/* by slot, NULL: no domain of ours */
static DEFINE_MUTEX(mr_domain_attach_lock);

static struct mr_domain *mr_domain_to_mr(struct iommu_domain *domain)
{
	return container_of(domain, struct mr_domain, domain);
}

static void mr_domain_flush(struct mr_domain *mine)
{
	unsigned long flags;
	int slot;

	mr_tables_lock(&flags);
	for_each_set_bit(slot, &mine->slots, MULTIROOT_IOMMU_DEVICES)
		if (mr_tables_own(slot))
			mr_unit_flush_domain(MR_DID_FIRST + slot);
	mr_tables_unlock(flags);
}

static int mr_domain_map_pages(struct iommu_domain *domain, unsigned long iova, phys_addr_t phys, size_t size,
			       size_t count, int prot, gfp_t gfp, size_t *mapped)
{
	u64 rights = (prot & IOMMU_READ ? 1 : 0) | (prot & IOMMU_WRITE ? 2 : 0);
	struct mr_domain *mine = mr_domain_to_mr(domain);
	unsigned long flags;
	int err = 0;

	spin_lock_irqsave(&mine->lock, flags);
	while (count--) {
		phys_addr_t stale;

		err = mr_walk_map(mine->top, iova, phys, size, rights, &stale);
		if (err)
			break;
		if (stale) {
			mr_domain_flush(mine);
			mr_walk_free_stale(stale, size);
		}
		iova += size;
		phys += size;
		*mapped += size;
	}
	spin_unlock_irqrestore(&mine->lock, flags);
	return err;
}

static size_t mr_domain_unmap_pages(struct iommu_domain *domain, unsigned long iova, size_t size, size_t count,
				    struct iommu_iotlb_gather *gather)
{
	struct mr_domain *mine = mr_domain_to_mr(domain);
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

static void mr_domain_flush_all(struct iommu_domain *domain)
{
	mr_domain_flush(mr_domain_to_mr(domain));
}

static void mr_domain_sync_unmap(struct iommu_domain *domain, struct iommu_iotlb_gather *gather)
{
	mr_domain_flush(mr_domain_to_mr(domain));
}

/* An emulated unit may remember that there was nothing (caching mode). */
static MR_SYNC_MAP_TYPE mr_domain_sync_map(struct iommu_domain *domain, unsigned long iova, size_t size)
{
	mr_domain_flush(mr_domain_to_mr(domain));
	return MR_SYNC_MAP_DONE;
}

static phys_addr_t mr_domain_iova_to_phys(struct iommu_domain *domain, dma_addr_t iova)
{
	u64 rights, left, phys = mr_walk_find(mr_domain_to_mr(domain)->top, iova, &rights, &left);

	return phys ? phys | (iova & ~PAGE_MASK) : 0;
}

/*
 * Without effect when another root owns the device, which takes it over under the same lock. -EIO when a root wrote
 * nonsense.
 */
static int mr_domain_write_entry(int slot, u64 low, u64 high)
{
	u64 *entry = mr_tables_entry(slot);
	unsigned long flags;

	if (!entry)
		return -EIO;
	mr_tables_lock(&flags);
	if (mr_tables_own(slot)) {
		WRITE_ONCE(entry[0], 0);
		WRITE_ONCE(entry[1], high);
		WRITE_ONCE(entry[0], low);
		mr_unit_write_back(entry, 2 * sizeof(*entry));
		mr_unit_flush_contexts();
		mr_unit_flush_domain(MR_DID_FIRST + slot);
		mr_unit_flush_domain(MR_DID_THROUGH);
	}
	mr_tables_unlock(flags);
	return 0;
}

/* What the device is attached to now, as long as another root has it only noted. */
static void mr_domain_note(int slot, struct mr_domain *mine)
{
	if (mr_domain_attached[slot])
		clear_bit(slot, &mr_domain_attached[slot]->slots);
	mr_domain_attached[slot] = mine;
	if (mine)
		set_bit(slot, &mine->slots);
}

static int mr_domain_attach_paging(MR_ATTACH_ARGS)
{
	struct mr_domain *mine = mr_domain_to_mr(domain);
	int slot, err;

	mutex_lock(&mr_domain_attach_lock);
	slot = mr_tables_claim(pci_dev_id(to_pci_dev(dev)));
	err = slot < 0 ? slot : 0;
	if (!err) {
		mr_domain_note(slot, mine);
		err = mr_domain_write_entry(slot, mine->top | MR_ENTRY_PRESENT,
					    MR_WIDTH_48 | MR_ENTRY_DID(MR_DID_FIRST + slot));
		if (err)
			mr_domain_note(slot, NULL);
	}
	mutex_unlock(&mr_domain_attach_lock);
	return err;
}

static int mr_domain_attach_fixed(struct device *dev, u64 low, u64 high)
{
	int slot, err = 0;

	mutex_lock(&mr_domain_attach_lock);
	slot = mr_tables_find(pci_dev_id(to_pci_dev(dev)));
	if (slot >= 0) {
		mr_domain_note(slot, NULL);
		err = mr_domain_write_entry(slot, low, high);
	}
	mutex_unlock(&mr_domain_attach_lock);
	return err;
}

static int mr_domain_attach_identity(MR_ATTACH_ARGS)
{
	return mr_domain_attach_fixed(dev, MR_ENTRY_PRESENT | MR_ENTRY_THROUGH,
				      MR_WIDTH_48 | MR_ENTRY_DID(MR_DID_THROUGH));
}

/* A device that never had tables of its own gets some now, to be blocked by them. */
static int mr_domain_attach_blocked(MR_ATTACH_ARGS)
{
	int slot = mr_tables_claim(pci_dev_id(to_pci_dev(dev)));

	return slot < 0 ? slot : mr_domain_attach_fixed(dev, 0, 0);
}

static void mr_domain_free_domain(struct iommu_domain *domain)
{
	struct mr_domain *mine = mr_domain_to_mr(domain);

	mr_walk_free(mine->top);
	kfree(mine);
}

static void mr_domain_free_nothing(struct iommu_domain *domain)
{
}

static const struct iommu_domain_ops mr_domain_paging_ops = {
	.attach_dev = mr_domain_attach_paging,
	.map_pages = mr_domain_map_pages,
	.unmap_pages = mr_domain_unmap_pages,
	.flush_iotlb_all = mr_domain_flush_all,
	.iotlb_sync_map = mr_domain_sync_map,
	.iotlb_sync = mr_domain_sync_unmap,
	.iova_to_phys = mr_domain_iova_to_phys,
	.free = mr_domain_free_domain,
};

static const struct iommu_domain_ops mr_domain_identity_ops = {
	.attach_dev = mr_domain_attach_identity,
	.free = mr_domain_free_nothing,
};

static const struct iommu_domain_ops mr_domain_blocked_ops = {
	.attach_dev = mr_domain_attach_blocked,
	.free = mr_domain_free_nothing,
};

static struct iommu_domain mr_domain_identity = { .type = IOMMU_DOMAIN_IDENTITY, .ops = &mr_domain_identity_ops };
static struct iommu_domain mr_domain_blocked = { .type = IOMMU_DOMAIN_BLOCKED, .ops = &mr_domain_blocked_ops };

static struct iommu_domain *mr_domain_alloc_paging(struct device *dev)
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
	mine->domain.ops = &mr_domain_paging_ops;
	mine->domain.pgsize_bitmap = PAGE_SIZES;
	mine->domain.geometry.aperture_end = (1ULL << 48) - 1;
	mine->domain.geometry.force_aperture = true;
	return &mine->domain;
}

#if !MR_DOMAINS_NAMED
static struct iommu_domain *mr_domain_alloc_by_type(unsigned int type)
{
	switch (type) {
	case IOMMU_DOMAIN_UNMANAGED:
		return mr_domain_alloc_paging(NULL);
	case IOMMU_DOMAIN_IDENTITY:
		return &mr_domain_identity;
	case IOMMU_DOMAIN_BLOCKED:
		return &mr_domain_blocked;
	default:
		return NULL;
	}
}
#endif

/*
 * In the root that made the tables all devices of segment 0 are ours; in one that joined, those that it was handed. A
 * device of another segment would be given the tables of the one with its numbers.
 */
static struct iommu_device *mr_domain_probe_device(struct device *dev)
{
	struct pci_dev *pdev;

	if (!dev_is_pci(dev))
		return ERR_PTR(-ENODEV);
	pdev = to_pci_dev(dev);
	if (!multiroot_pci_has_rid(pdev) || (pci_domain_nr(pdev->bus) && mr_tables_find(pci_dev_id(pdev)) < 0))
		return ERR_PTR(-ENODEV);
	return &mr_domain_iommu;
}

static void mr_domain_release_device(struct device *dev)
{
	int slot = mr_tables_find(pci_dev_id(to_pci_dev(dev)));

	if (slot < 0)
		return;
	mutex_lock(&mr_domain_attach_lock);
	mr_domain_note(slot, NULL);
	mutex_unlock(&mr_domain_attach_lock);
}

static bool mr_domain_is_capable(struct device *dev, enum iommu_cap cap)
{
	return cap == IOMMU_CAP_CACHE_COHERENCY;
}

static int mr_domain_default_type(struct device *dev)
{
	return IOMMU_DOMAIN_IDENTITY;
}

static void mr_domain_reserved_regions(struct device *dev, struct list_head *head)
{
	struct iommu_resv_region *msi = iommu_alloc_resv_region(MSI_BASE, MSI_SIZE, 0, IOMMU_RESV_MSI, GFP_KERNEL);

	if (msi)
		list_add_tail(&msi->list, head);
}

static const struct iommu_ops mr_domain_ops = {
	.capable = mr_domain_is_capable,
#if MR_DOMAINS_NAMED
	.domain_alloc_paging = mr_domain_alloc_paging,
	.identity_domain = &mr_domain_identity,
	.blocked_domain = &mr_domain_blocked,
#else
	.domain_alloc = mr_domain_alloc_by_type,
	.pgsize_bitmap = PAGE_SIZES,
#endif
	.probe_device = mr_domain_probe_device,
	.release_device = mr_domain_release_device,
	.device_group = pci_device_group,
	.get_resv_regions = mr_domain_reserved_regions,
	.def_domain_type = mr_domain_default_type,
	.default_domain_ops = &mr_domain_paging_ops,
	.owner = THIS_MODULE,
};

/* Until mr_domain_let_go() nothing is attached, detached or freed that was attached. May sleep. */
void mr_domain_hold_attached(void)
{
	mutex_lock(&mr_domain_attach_lock);
}

void mr_domain_let_go(void)
{
	mutex_unlock(&mr_domain_attach_lock);
}

/* Top table of the domain that a device is attached to in this root, 0 if none of ours. While that is held. */
phys_addr_t mr_domain_of(u16 rid)
{
	int slot = mr_tables_find(rid);

	return slot >= 0 && mr_domain_attached[slot] ? mr_domain_attached[slot]->top : 0;
}

/*
 * A driver that was bound before its device had an iommu is no counted user of the default domain, and the kernel
 * warns of that when it lets go (iommu_device_unuse_default_domain). The bus counts it, as when a driver is bound, and
 * does nothing else a second time. A driver that is bound between the two is counted twice: its device stays this
 * kernel's own.
 */
static int mr_domain_count_driver(struct device *dev, void *unused)
{
	int err = 0;

	device_lock(dev);
	if (dev->driver && dev->iommu && dev->iommu->iommu_dev == &mr_domain_iommu)
		err = dev->bus->dma_configure(dev);
	device_unlock(dev);
	if (err)
		dev_warn(dev, "its driver is no user of the default domain: %d\n", err);
	return 0;
}

/* There is no way back: Linux can't be told that devices have no iommu any more. */
int mr_domain_register(void)
{
	int err = iommu_device_sysfs_add(&mr_domain_iommu, NULL, NULL, "multiroot");

	if (err)
		return err;
	err = iommu_device_register(&mr_domain_iommu, &mr_domain_ops, NULL);
	if (err) {
		iommu_device_sysfs_remove(&mr_domain_iommu);
		return err;
	}
	bus_for_each_dev(&pci_bus_type, NULL, NULL, mr_domain_count_driver);
	return 0;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * From one root's domain to another's: the one moment at which tables of a device that is at work change. All that
 * the device can reach in the VM's memory must stay where it is.
 */
#include <linux/crc32c.h>
#include <linux/ktime.h>
#include <linux/moduleparam.h>
#include <linux/pci.h>
#include <linux/sched.h>
#include <linux/sizes.h>

#include "iommu/iommu.h"

static unsigned long inject = ULONG_MAX;
module_param(inject, ulong, 0600);
MODULE_PARM_DESC(inject, "for tests: address whose translation is taken for a different one");

/* A VM's memory may be mapped at several addresses, but tables with more translations into it than this are made up. */
#define MAPPED_MOST	8

struct comparison {
	struct multiroot_iommu_switch *request;
	phys_addr_t ours;
};

static bool mr_switch_inside(u64 base, u64 size, u64 phys)
{
	return phys >= base && phys - base < size;
}

/* Bytes from phys on, @most at most, that are all in the range, or all outside. */
static u64 mr_switch_alike(u64 base, u64 size, u64 phys, u64 most)
{
	if (mr_switch_inside(base, size, phys))
		return min(most, size - (phys - base));
	return phys < base ? min(most, base - phys) : most;
}

static int mr_switch_compare(u64 iova, u64 phys, u64 size, u64 rights, void *data)
{
	struct comparison *comparison = data;
	struct multiroot_iommu_switch *request = comparison->request;
	u64 offset = 0, step;

	if (request->iova_base > iova + size - 1)
		return 0;
	if (request->iova_base > iova)
		offset = ALIGN(request->iova_base - iova, SZ_4K);
	for (; offset < size; offset += step) {
		u64 at = iova + offset, to = phys + offset, got, left;

		step = mr_switch_alike(request->ram_base, request->ram_size, to, size - offset);
		if (!mr_switch_inside(request->ram_base, request->ram_size, to)) {
			request->elsewhere += step / SZ_4K;
			continue;
		}
		if (mr_walk_find(comparison->ours, at, &got, &left) == to && got == rights && at != inject) {
			/* The guest may be waiting: not page by page where both have large ones. */
			step = min(step, left);
			if (inject > at)
				step = min_t(u64, step, inject - at);
			request->same += step / SZ_4K;
		} else {
			step = SZ_4K;
			if (!request->different++)
				request->first = at;
			cond_resched();
		}
		if ((request->same + request->different) / MAPPED_MOST > request->ram_size / SZ_4K)
			return -ELOOP;
	}
	return 0;
}

/* The live top table of a device, 0 when it is blocked, passed through, or the entry is nonsense. */
static phys_addr_t mr_switch_live_table(int slot)
{
	u64 *entry = mr_tables_entry(slot);
	u64 low = entry ? READ_ONCE(entry[0]) : 0;

	return (low & MR_ENTRY_PRESENT) && !(low & MR_ENTRY_TYPE) ? low & PAGE_MASK : 0;
}

/* -EXDEV when the live table of the device does not translate into the VM's memory as ours does. */
static int mr_switch_verify(struct multiroot_iommu_switch *request, phys_addr_t live, phys_addr_t ours)
{
	struct comparison comparison = { .request = request, .ours = ours };
	u64 begin = ktime_get_ns();
	int err;

	request->same = 0;
	request->different = 0;
	request->elsewhere = 0;
	err = mr_walk_leaves(live, mr_switch_compare, &comparison);
	request->verify_ns = ktime_get_ns() - begin;
	return request->different || err ? -EXDEV : 0;
}

static int mr_switch_over(struct multiroot_iommu_switch *request, int slot, phys_addr_t ours)
{
	u64 begin = ktime_get_ns(), *entry = mr_tables_entry(slot);
	unsigned long flags;
	int err;

	if (!entry)
		return -ENODATA;
	mr_tables_lock(&flags);
	err = mr_tables_take(slot, request->from);
	if (!err) {
		WRITE_ONCE(entry[0], ours | MR_ENTRY_PRESENT);
		mr_unit_write_back(entry, sizeof(*entry));
		mr_unit_flush_contexts();
		mr_unit_flush_domain(MR_DID_FIRST + slot);
	}
	mr_tables_unlock(flags);
	request->switch_ns = ktime_get_ns() - begin;
	return err;
}

/* What is attached stays so: our table must not be freed between its comparison and its way into the entry. */
static int mr_switch_held(struct multiroot_iommu_switch *request, int slot)
{
	phys_addr_t live = mr_switch_live_table(slot), ours = mr_domain_of(request->rid);
	int err;

	if (!ours || !live)
		return -ENODATA;
	err = mr_switch_verify(request, live, ours);
	if (err || request->flags & MULTIROOT_IOMMU_VERIFY)
		return err;
	return mr_switch_over(request, slot, ours);
}

/**
 * mr_switch() - take a device over from the root that owns it
 * @request: what user space asked, and what is answered
 *
 * -ENOENT for a device that has no tables, -ENODATA when nothing is attached to it here, -ESTALE when another root than
 * the one named owns it, -EXDEV when translations differ. Nothing is changed then.
 */
int mr_switch(struct multiroot_iommu_switch *request)
{
	int slot = mr_tables_find(request->rid), err;

	if (request->flags & ~MULTIROOT_IOMMU_VERIFY || request->pad || request->rid > 0xffff || !request->ram_size)
		return -EINVAL;
	if (slot < 0)
		return slot;
	if (mr_tables_owner(slot) != request->from)
		return -ESTALE;
	if (request->iova_base && !(request->flags & MULTIROOT_IOMMU_VERIFY))
		return -EINVAL;
	mr_domain_hold_attached();
	err = mr_switch_held(request, slot);
	mr_domain_let_go();
	return err;
}

static int mr_switch_count(u64 iova, u64 phys, u64 size, u64 rights, void *data)
{
	struct multiroot_iommu_device *device = data;
	u64 offset, step;

	cond_resched();
	for (offset = 0; offset < size; offset += step) {
		u64 leaf[3] = { iova + offset, phys + offset, rights };

		step = mr_switch_alike(device->ram_base, device->ram_size, phys + offset, size - offset);
		if (!mr_switch_inside(device->ram_base, device->ram_size, phys + offset))
			continue;
		step = SZ_4K;
		device->leaves++;
		device->crc = crc32c(device->crc, leaf, sizeof(leaf));
		if (device->leaves / MAPPED_MOST > device->ram_size / SZ_4K)
			return -ELOOP;
	}
	return 0;
}

/* What is in place for a device, whoever owns it. -ENOENT when it never had tables of its own. */
int mr_switch_device(struct multiroot_iommu_device *device)
{
	int slot;
	u64 *entry;

	if (device->rid > 0xffff)
		return -EINVAL;
	slot = mr_tables_find(device->rid);
	if (slot < 0)
		return slot;
	entry = mr_tables_entry(slot);
	if (!entry)
		return -EIO;
	device->owner = mr_tables_owner(slot);
	device->did = (entry[1] >> 8) & 0xffff;
	device->context = mr_tables_context(slot);
	device->table = mr_switch_live_table(slot);
	device->flags = !(entry[0] & MR_ENTRY_PRESENT) ? MULTIROOT_IOMMU_BLOCKED :
			device->table		    ? 0 :
						      MULTIROOT_IOMMU_THROUGH;
	device->remapped = mr_remap_count(slot);
	device->leaves = 0;
	device->crc = ~0U;
	if (device->table && mr_walk_leaves(device->table, mr_switch_count, device))
		return -EIO;
	device->crc = ~device->crc;
	return 0;
}

bool multiroot_iommu_owned(struct pci_dev *pdev)
{
	int slot = mr_tables_slot(pdev);

	return slot < 0 ? !pci_domain_nr(pdev->bus) : mr_tables_own(slot);
}
EXPORT_SYMBOL_GPL(multiroot_iommu_owned);

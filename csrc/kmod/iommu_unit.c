// SPDX-License-Identifier: GPL-2.0-only
/*
 * The registers of one VT-d unit in legacy mode (VT-d specification 4.1, section 11.4). Invalidation is by register,
 * which is only allowed as long as nobody uses the invalidation queue.
 */
#include <linux/bitfield.h>
#include <linux/io.h>
#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/iopoll.h>
#include <linux/workqueue.h>

#include "iommu.h"

#define REG_CAP		0x08
#define REG_ECAP	0x10
#define REG_GCMD	0x18
#define REG_GSTS	0x1c
#define REG_RTADDR	0x20
#define REG_CCMD	0x28
#define REG_FSTS	0x34

#define GCMD_TE		BIT(31)
#define GCMD_SRTP	BIT(30)
#define GSTS_QIES	BIT(26)
#define GSTS_KEPT	0x96ffffff	/* without the one-shot bits, which must not be written again */
#define CCMD_GLOBAL	(BIT_ULL(63) | BIT_ULL(61))
#define IOTLB_IVT	BIT_ULL(63)
#define IOTLB_DOMAIN	(2ULL << 60)
#define IOTLB_DRAIN	(BIT_ULL(49) | BIT_ULL(48))
#define FSTS_OVERFLOW	BIT(0)
#define FAULT_VALID	BIT_ULL(63)
#define FAULT_READ	BIT_ULL(62)

#define UNIT_SIZE	0x1000
#define FAULT_PERIOD	(HZ / 4)
#define REGISTER_US	100000

static void __iomem *unit;
static u64 cap, ecap;
static u64 faults, fault_address, fault_high;

static void poll_faults(struct work_struct *work);
static DECLARE_DELAYED_WORK(fault_work, poll_faults);

static u32 iotlb_register(void)
{
	return FIELD_GET(GENMASK_ULL(17, 8), ecap) * 16 + 8;
}

/* A unit that does not answer is broken hardware: said once, there is no way on. */
static void wait_clear(u32 reg)
{
	u64 value;

	if (readq_poll_timeout_atomic(unit + reg, value, !(value & BIT_ULL(63)), 1, REGISTER_US))
		pr_err_once("the unit does not end an invalidation\n");
}

void mr_unit_flush_contexts(void)
{
	writeq(CCMD_GLOBAL, unit + REG_CCMD);
	wait_clear(REG_CCMD);
}

void mr_unit_flush_domain(u16 did)
{
	writeq(IOTLB_IVT | IOTLB_DOMAIN | IOTLB_DRAIN | (u64)did << 32, unit + iotlb_register());
	wait_clear(iotlb_register());
}

static int command(u32 bit)
{
	u32 value;

	writel((readl(unit + REG_GSTS) & GSTS_KEPT) | bit, unit + REG_GCMD);
	return readl_poll_timeout(unit + REG_GSTS, value, value & bit, 10, REGISTER_US);
}

bool mr_unit_translates(phys_addr_t root_table)
{
	return (readl(unit + REG_GSTS) & GCMD_TE) && readq(unit + REG_RTADDR) == root_table;
}

/* Nobody may have turned it on before: whose tables those are we can't know. */
int mr_unit_turn_on(phys_addr_t root_table)
{
	int err;

	if (readl(unit + REG_GSTS) & (GCMD_TE | GSTS_QIES))
		return -EBUSY;
	writeq(root_table, unit + REG_RTADDR);
	err = command(GCMD_SRTP);
	if (err)
		return err;
	mr_unit_flush_contexts();
	writeq(IOTLB_IVT | 1ULL << 60 | IOTLB_DRAIN, unit + iotlb_register());
	wait_clear(iotlb_register());
	return command(GCMD_TE);
}

static void tell_fault(u64 low, u64 high)
{
	u16 rid = high & 0xffff;

	faults++;
	fault_address = low & PAGE_MASK;
	fault_high = high;
	pr_warn_ratelimited("device %02x:%02x.%x: %s of %#llx blocked (reason %llu)\n", rid >> 8, (rid >> 3) & 31,
			    rid & 7, high & FAULT_READ ? "read" : "write", low & PAGE_MASK, (high >> 32) & 0xff);
}

/* Polled: the unit's own interrupt would need a vector from an irq domain that modules can't have. */
static void poll_faults(struct work_struct *work)
{
	u32 first = FIELD_GET(GENMASK_ULL(33, 24), cap) * 16, count = FIELD_GET(GENMASK_ULL(47, 40), cap) + 1, i;

	for (i = 0; i < count; i++) {
		void __iomem *record = unit + first + 16 * i;
		u64 high = readq(record + 8);

		if (!(high & FAULT_VALID))
			continue;
		tell_fault(readq(record), high);
		writel(BIT(31), record + 12);
	}
	writel(FSTS_OVERFLOW, unit + REG_FSTS);
	schedule_delayed_work(&fault_work, FAULT_PERIOD);
}

void mr_unit_info(struct multiroot_iommu_info *info)
{
	info->capabilities = cap;
	info->extended = ecap;
	info->faults = faults;
	info->fault_address = fault_address;
	info->fault_device = fault_high & 0xffff;
	info->fault_reason = (fault_high >> 32) & 0xff;
	info->fault_write = faults && !(fault_high & FAULT_READ);
}

/* What our tables need: four levels, 2 MiB pages. ENODEV when there is no such unit there. */
int mr_unit_open(phys_addr_t registers)
{
	u32 version;

	unit = ioremap(registers, UNIT_SIZE);
	if (!unit)
		return -ENOMEM;
	version = readl(unit);
	cap = readq(unit + REG_CAP);
	ecap = readq(unit + REG_ECAP);
	if (version == ~0U || !(version & 0xf0) || !(FIELD_GET(GENMASK_ULL(12, 8), cap) & BIT(2)) ||
	    !(FIELD_GET(GENMASK_ULL(37, 34), cap) & BIT(0)) || iotlb_register() + 8 > UNIT_SIZE ||
	    FIELD_GET(GENMASK_ULL(33, 24), cap) * 16 + 16 * (FIELD_GET(GENMASK_ULL(47, 40), cap) + 1) > UNIT_SIZE) {
		iounmap(unit);
		return -ENODEV;
	}
	schedule_delayed_work(&fault_work, FAULT_PERIOD);
	return 0;
}

void mr_unit_close(void)
{
	cancel_delayed_work_sync(&fault_work);
	iounmap(unit);
}

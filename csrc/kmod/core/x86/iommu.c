// SPDX-License-Identifier: GPL-2.0-only
/*
 * The IOMMUs as an ended root's kernel leaves them: at work, with tables, queues and logs in memory that is others'
 * now. VT-d: VT-d specification 4.1, section 11.4. AMD: AMD I/O Virtualization Technology specification 3.08, section
 * 3.4.
 */
#include <linux/io.h>
#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/iopoll.h>
#include <linux/mm.h>

#include "core/core.h"
#include "vtd.h"

#define VTD_ALL		(VTD_TE | VTD_QIE | VTD_IRE)

#define AMD_DEVICE_TABLE 0x0
#define AMD_TABLE_SIZE	GENMASK_ULL(8, 0)	/* in pages, one less */
#define AMD_CONTROL	0x18
#define AMD_STATUS	0x2020
#define AMD_ENABLED	BIT_ULL(0)
/* Event log, command buffer, PPR log, guest APIC log, their interrupts, and what goes with guests: all in memory. */
#define AMD_IN_MEMORY	(BIT_ULL(2) | BIT_ULL(3) | BIT_ULL(4) | GENMASK_ULL(17, 12) | BIT_ULL(28) | BIT_ULL(29) | \
			 BIT_ULL(51))
#define AMD_RUNNING	(BIT(3) | BIT(4) | BIT(7) | BIT(8))

#define UNIT_SIZE	0x1000		/* of VT-d, as far as it matters here */
#define AMD_UNIT_SIZE	0x4000
#define STOP_US		100000

static bool mr_iommu_outlives(void __iomem *unit, u32 reg)
{
	return mr_memory_is_pmem(readq(unit + reg) & PAGE_MASK & GENMASK_ULL(51, 12), PAGE_SIZE);
}

/* Tables of multiroot_iommu.ko outlive every root, and devices of VMs use them. No kernel has its own there. */
static bool mr_iommu_vtd_is_ours(void __iomem *unit, u32 status)
{
	return !(status & VTD_TE && !mr_iommu_outlives(unit, VTD_RTADDR)) &&
	       !(status & VTD_IRE && !mr_iommu_outlives(unit, VTD_IRTA)) &&
	       !(status & VTD_QIE && !mr_iommu_outlives(unit, VTD_IQA));
}

static int mr_iommu_vtd_off(void __iomem *unit, u32 bit)
{
	u32 status = readl(unit + VTD_GSTS);

	if (!(status & bit))
		return 0;
	writel(status & VTD_KEPT & ~bit, unit + VTD_GCMD);
	return readl_poll_timeout(unit + VTD_GSTS, status, !(status & bit), 10, STOP_US);
}

/* What was ordered last is still carried out, and may write to memory. */
static int mr_iommu_vtd_drain(void __iomem *unit)
{
	u64 head;

	if (!(readl(unit + VTD_GSTS) & VTD_QIE))
		return 0;
	return readq_poll_timeout(unit + VTD_IQH, head, head == readq(unit + VTD_IQT), 10, STOP_US);
}

static int mr_iommu_vtd_stop(void __iomem *unit)
{
	u32 status = readl(unit + VTD_GSTS);

	if (!(status & VTD_ALL) || mr_iommu_vtd_is_ours(unit, status))
		return 0;
	/* Its own interrupts go to vectors of a kernel that is gone. */
	writel(VTD_MASKED, unit + VTD_FECTL);
	writel(VTD_MASKED, unit + VTD_IECTL);
	writel(VTD_MASKED, unit + VTD_PECTL);
	/* Posted interrupts end with remapping. The queue is last: it is what the others are invalidated by. */
	return mr_iommu_vtd_off(unit, VTD_TE) ?: mr_iommu_vtd_off(unit, VTD_IRE) ?:
	       mr_iommu_vtd_drain(unit) ?: mr_iommu_vtd_off(unit, VTD_QIE);
}

/*
 * With its device table empty nothing is left to be remapped. That it is off should do; but QEMU's goes on to look up
 * interrupts in it. The memory was the ended root's, and is zeroed later anyway.
 */
static int mr_iommu_amd_forget(u64 table)
{
	size_t size = ((table & AMD_TABLE_SIZE) + 1) << PAGE_SHIFT;
	phys_addr_t at = table & PAGE_MASK & GENMASK_ULL(51, 12);
	void *entries;

	if (!at)
		return 0;
	entries = memremap(at, size, MEMREMAP_WB);
	if (!entries)
		return -ENOMEM;
	memset(entries, 0, size);
	memunmap(entries);
	return 0;
}

static int mr_iommu_amd_stop(void __iomem *unit)
{
	u64 control = readq(unit + AMD_CONTROL);
	u32 status;
	int err;

	if (!(control & (AMD_ENABLED | AMD_IN_MEMORY)))
		return 0;
	writeq(control & ~AMD_IN_MEMORY, unit + AMD_CONTROL);
	err = readl_poll_timeout(unit + AMD_STATUS, status, !(status & AMD_RUNNING), 10, STOP_US);
	err = err ?: mr_iommu_amd_forget(readq(unit + AMD_DEVICE_TABLE));
	/* Until all is done it stays on: by that whoever tries again knows that something is left to do. */
	if (!err)
		writeq(control & ~(AMD_ENABLED | AMD_IN_MEMORY), unit + AMD_CONTROL);
	return err;
}

/**
 * mr_iommu_stop() - turn translation, interrupt remapping, queues and logs of an IOMMU off
 * @unit: by the ledger; one that works with tables of multiroot_iommu.ko goes on
 *
 * Devices must have been silenced: their DMA is no longer translated. Return: 0; -ENOMEM; -ETIMEDOUT: it goes on.
 */
int mr_iommu_stop(const struct multiroot_ledger_unit *unit)
{
	bool amd = unit->kind == MULTIROOT_UNIT_AMD;
	void __iomem *registers = ioremap(unit->registers, amd ? AMD_UNIT_SIZE : UNIT_SIZE);
	int err;

	if (!registers)
		return -ENOMEM;
	err = amd ? mr_iommu_amd_stop(registers) : mr_iommu_vtd_stop(registers);
	if (err)
		pr_err("the IOMMU at %#llx does not stop\n", unit->registers);
	iounmap(registers);
	return err;
}

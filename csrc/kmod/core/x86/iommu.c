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

#define VTD_GCMD	0x18
#define VTD_GSTS	0x1c
#define VTD_RTADDR	0x20
#define VTD_FECTL	0x38
#define VTD_IQH		0x80
#define VTD_IQT		0x88
#define VTD_IQA		0x90
#define VTD_IECTL	0xa0
#define VTD_IRTA	0xb8
#define VTD_PECTL	0xe0

/* Each has the same place in the command and in the status register. */
#define VTD_TRANSLATION	BIT(31)
#define VTD_QUEUE	BIT(26)
#define VTD_REMAPPING	BIT(25)
#define VTD_ALL		(VTD_TRANSLATION | VTD_QUEUE | VTD_REMAPPING)
#define VTD_KEPT	0x96ffffff	/* without the one-shot bits, which must not be written again */
#define VTD_MASKED	BIT(31)		/* of an event's control register */

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
	return !(status & VTD_TRANSLATION && !mr_iommu_outlives(unit, VTD_RTADDR)) &&
	       !(status & VTD_REMAPPING && !mr_iommu_outlives(unit, VTD_IRTA)) &&
	       !(status & VTD_QUEUE && !mr_iommu_outlives(unit, VTD_IQA));
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

	if (!(readl(unit + VTD_GSTS) & VTD_QUEUE))
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
	return mr_iommu_vtd_off(unit, VTD_TRANSLATION) ?: mr_iommu_vtd_off(unit, VTD_REMAPPING) ?:
	       mr_iommu_vtd_drain(unit) ?: mr_iommu_vtd_off(unit, VTD_QUEUE);
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

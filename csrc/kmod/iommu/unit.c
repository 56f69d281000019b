// SPDX-License-Identifier: GPL-2.0-only
/*
 * The registers of one VT-d unit in legacy mode (VT-d specification 4.1, section 11.4). Invalidation is by its queue
 * (section 6.5.2), which all roots share: the interrupt remapping table's can't be had by register.
 */
#include <linux/bitfield.h>
#include <linux/io.h>
#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/iopoll.h>
#include <linux/processor.h>
#include <linux/sizes.h>
#include <linux/workqueue.h>

#include "iommu/iommu.h"

#define REG_CAP		0x08
#define REG_ECAP	0x10
#define REG_GCMD	0x18
#define REG_GSTS	0x1c
#define REG_RTADDR	0x20
#define REG_FSTS	0x34
#define REG_IQT		0x88
#define REG_IQA		0x90
#define REG_IRTA	0xb8

/* Each has its bit in the status register too. */
#define GCMD_TE		BIT(31)
#define GCMD_SRTP	BIT(30)
#define GCMD_QIE	BIT(26)
#define GCMD_IRE	BIT(25)
#define GCMD_SIRTP	BIT(24)
#define GCMD_CFI	BIT(23)
#define GSTS_KEPT	0x96ffffff	/* without the one-shot bits, which must not be written again */
#define ECAP_QI		BIT_ULL(1)
#define ECAP_IR		BIT_ULL(3)

#define ORDER_SIZE	16
#define ORDER_CONTEXTS	(0x1ULL | 1ULL << 4)	/* of all domains */
#define ORDER_DOMAIN	(0x2ULL | 2ULL << 4 | BIT_ULL(6) | BIT_ULL(7))	/* and reads and writes under way end */
#define ORDER_IOTLB	(0x2ULL | 1ULL << 4 | BIT_ULL(6) | BIT_ULL(7))
#define ORDER_INTERRUPTS 0x4ULL			/* all entries */
#define ORDER_TELL	(0x5ULL | BIT_ULL(5) | 1ULL << 32)	/* write 1 when all before is done */

#define FSTS_OVERFLOW	BIT(0)
#define FAULT_VALID	BIT_ULL(63)
#define FAULT_READ	BIT_ULL(62)

#define UNIT_SIZE	0x1000
#define FAULT_PERIOD	(HZ / 4)
#define REGISTER_US	100000
#define REASON_REMAP	0x20		/* and above: it was an interrupt */

static void __iomem *unit;
static struct mr_queue queue;
static u64 cap, ecap;
static u64 faults, fault_address, fault_high;

static void poll_faults(struct work_struct *work);
static DECLARE_DELAYED_WORK(fault_work, poll_faults);

static u64 put(u64 tail, u64 low, u64 high)
{
	u64 *order = queue.orders + tail / sizeof(*order);

	WRITE_ONCE(order[0], low);
	WRITE_ONCE(order[1], high);
	return (tail + ORDER_SIZE) % SZ_4K;
}

/*
 * Where the queue ends is in the unit's own register, the same for all roots. A unit that does not answer is broken
 * hardware: said once, there is no way on.
 */
static void carry_out(u64 order)
{
	u64 tail = readq(unit + REG_IQT);
	u32 done;

	WRITE_ONCE(*queue.done, 0);
	tail = put(tail, order, 0);
	tail = put(tail, ORDER_TELL, queue.done_at);
	writeq(tail, unit + REG_IQT);
	if (read_poll_timeout_atomic(READ_ONCE, done, done, 1, REGISTER_US, false, *queue.done))
		pr_err_once("the unit does not end an invalidation\n");
}

void mr_unit_flush_contexts(void)
{
	carry_out(ORDER_CONTEXTS);
}

void mr_unit_flush_domain(u16 did)
{
	carry_out(ORDER_DOMAIN | (u64)did << 16);
}

/* What the unit remembers of the interrupt remapping table. */
void mr_unit_flush_interrupts(void)
{
	carry_out(ORDER_INTERRUPTS);
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

bool mr_unit_can_remap(void)
{
	return ecap & ECAP_IR;
}

/* Interrupts that name no entry of the table pass as before: those of devices that no VM owns. */
static int turn_remapping_on(phys_addr_t remapping)
{
	int err;

	writeq(remapping | (ilog2(MR_REMAP_ENTRIES) - 1), unit + REG_IRTA);
	err = command(GCMD_SIRTP);
	if (err)
		return err;
	mr_unit_flush_interrupts();
	/* QEMU's unit has them pass always, and does not confirm what it does not know. */
	if (command(GCMD_CFI))
		pr_info("the unit does not confirm that interrupts in compatibility format pass\n");
	return command(GCMD_IRE);
}

/* Nobody may have turned it on before: whose tables those are we can't know. No remapping if that is 0. */
int mr_unit_turn_on(phys_addr_t root_table, phys_addr_t remapping)
{
	int err;

	if (readl(unit + REG_GSTS) & (GCMD_TE | GCMD_QIE | GCMD_IRE))
		return -EBUSY;
	writeq(0, unit + REG_IQT);
	writeq(queue.orders_at, unit + REG_IQA);
	err = command(GCMD_QIE);
	if (err)
		return err;
	writeq(root_table, unit + REG_RTADDR);
	err = command(GCMD_SRTP);
	if (err)
		return err;
	mr_unit_flush_contexts();
	carry_out(ORDER_IOTLB);
	if (remapping)
		err = turn_remapping_on(remapping);
	return err ? err : command(GCMD_TE);
}

static void tell_fault(u64 low, u64 high)
{
	u16 rid = high & 0xffff;
	u64 reason = (high >> 32) & 0xff;
	const char *what = reason >= REASON_REMAP ? "interrupt" : high & FAULT_READ ? "read" : "write";

	faults++;
	fault_address = reason >= REASON_REMAP ? low >> 48 : low & PAGE_MASK;
	fault_high = high;
	pr_warn_ratelimited("device %02x:%02x.%x: %s of %#llx blocked (reason %llu)\n", rid >> 8, (rid >> 3) & 31,
			    rid & 7, what, fault_address, reason);
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

/* What our tables need: four levels, 2 MiB pages, the queue. ENODEV when there is no such unit there. */
int mr_unit_open(phys_addr_t registers, const struct mr_queue *shared)
{
	u32 version;

	unit = ioremap(registers, UNIT_SIZE);
	if (!unit)
		return -ENOMEM;
	version = readl(unit);
	cap = readq(unit + REG_CAP);
	ecap = readq(unit + REG_ECAP);
	queue = *shared;
	if (version == ~0U || !(version & 0xf0) || !(FIELD_GET(GENMASK_ULL(12, 8), cap) & BIT(2)) ||
	    !(FIELD_GET(GENMASK_ULL(37, 34), cap) & BIT(0)) || !(ecap & ECAP_QI) ||
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

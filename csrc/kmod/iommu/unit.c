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
#include <asm/cacheflush.h>

#include "iommu/iommu.h"
#include "vtd.h"

#define ECAP_COHERENT	BIT_ULL(0)
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

static void __iomem *mr_unit_registers;
static struct mr_queue mr_unit_queue;
static u64 mr_unit_cap, mr_unit_ecap;
static u64 mr_unit_faults, mr_unit_fault_address, mr_unit_fault_high;

static void mr_unit_poll_faults(struct work_struct *work);
static DECLARE_DELAYED_WORK(mr_unit_fault_work, mr_unit_poll_faults);

static u64 mr_unit_put(u64 tail, u64 low, u64 high)
{
	u64 *order = mr_unit_queue.orders + tail / sizeof(*order);

	WRITE_ONCE(order[0], low);
	WRITE_ONCE(order[1], high);
	return (tail + ORDER_SIZE) % SZ_4K;
}

/*
 * Where the queue ends is in the unit's own register, the same for all roots, and no place outside of it is believed. A
 * unit that does not answer is broken hardware: said once, there is no way on.
 */
static void mr_unit_carry_out(u64 order)
{
	u64 tail = ALIGN_DOWN(readq(mr_unit_registers + VTD_IQT) % SZ_4K, ORDER_SIZE);
	u32 done;

	WRITE_ONCE(*mr_unit_queue.done, 0);
	tail = mr_unit_put(tail, order, 0);
	tail = mr_unit_put(tail, ORDER_TELL, mr_unit_queue.done_at);
	writeq(tail, mr_unit_registers + VTD_IQT);
	if (read_poll_timeout_atomic(READ_ONCE, done, done, 1, REGISTER_US, false, *mr_unit_queue.done))
		pr_err_once("the unit does not end an invalidation\n");
}

void mr_unit_flush_contexts(void)
{
	mr_unit_carry_out(ORDER_CONTEXTS);
}

void mr_unit_flush_domain(u16 did)
{
	mr_unit_carry_out(ORDER_DOMAIN | (u64)did << 16);
}

/* What the unit remembers of the interrupt remapping table. */
void mr_unit_flush_interrupts(void)
{
	mr_unit_carry_out(ORDER_INTERRUPTS);
}

/**
 * mr_unit_write_back() - have the unit see what was written to a table
 * @table: where
 * @size: bytes
 *
 * Comes before the order by which the unit forgets what it knew of it. A unit that is not coherent reads its tables
 * past the caches of CPUs. Its queue is not meant by that, as Linux's own driver has it.
 */
void mr_unit_write_back(void *table, size_t size)
{
	if (!(mr_unit_ecap & ECAP_COHERENT))
		clflush_cache_range(table, size);
}

static int mr_unit_command(u32 bit)
{
	u32 value;

	writel((readl(mr_unit_registers + VTD_GSTS) & VTD_KEPT) | bit, mr_unit_registers + VTD_GCMD);
	return readl_poll_timeout(mr_unit_registers + VTD_GSTS, value, value & bit, 10, REGISTER_US);
}

static int mr_unit_command_off(u32 bit)
{
	u32 value;

	writel(readl(mr_unit_registers + VTD_GSTS) & VTD_KEPT & ~bit, mr_unit_registers + VTD_GCMD);
	return readl_poll_timeout(mr_unit_registers + VTD_GSTS, value, !(value & bit), 10, REGISTER_US);
}

/* Whoever turned it on, it works with tables of theirs. */
bool mr_unit_is_on(void)
{
	return readl(mr_unit_registers + VTD_GSTS) & (VTD_TE | VTD_QIE | VTD_IRE);
}

bool mr_unit_translates(phys_addr_t root_table)
{
	return (readl(mr_unit_registers + VTD_GSTS) & VTD_TE) && readq(mr_unit_registers + VTD_RTADDR) == root_table;
}

bool mr_unit_can_remap(void)
{
	return mr_unit_ecap & ECAP_IR;
}

/* Interrupts that name no entry of the table pass as before: those of devices that no VM owns. */
static int mr_unit_turn_remapping_on(phys_addr_t remapping)
{
	int err;

	writeq(remapping | (ilog2(MR_REMAP_ENTRIES) - 1), mr_unit_registers + VTD_IRTA);
	err = mr_unit_command(VTD_SIRTP);
	if (err)
		return err;
	mr_unit_flush_interrupts();
	/* QEMU's unit has them pass always, and does not confirm what it does not know. */
	if (mr_unit_command(VTD_CFI))
		pr_info("the unit does not confirm that interrupts in compatibility format pass\n");
	return mr_unit_command(VTD_IRE);
}

/* No remapping if that is 0. Nobody may have turned it on before. */
static int mr_unit_turn_all_on(phys_addr_t root_table, phys_addr_t remapping)
{
	int err;

	writeq(0, mr_unit_registers + VTD_IQT);
	writeq(mr_unit_queue.orders_at, mr_unit_registers + VTD_IQA);
	err = mr_unit_command(VTD_QIE);
	if (err)
		return err;
	writeq(root_table, mr_unit_registers + VTD_RTADDR);
	err = mr_unit_command(VTD_SRTP);
	if (err)
		return err;
	mr_unit_flush_contexts();
	mr_unit_carry_out(ORDER_IOTLB);
	if (remapping)
		err = mr_unit_turn_remapping_on(remapping);
	return err ? err : mr_unit_command(VTD_TE);
}

/* Undo of mr_unit_turn_on(), while everything is passed through. */
void mr_unit_turn_off(void)
{
	if (mr_unit_command_off(VTD_TE) || mr_unit_command_off(VTD_IRE) || mr_unit_command_off(VTD_QIE))
		pr_err("the unit does not turn off\n");
}

int mr_unit_turn_on(phys_addr_t root_table, phys_addr_t remapping)
{
	int err = mr_unit_turn_all_on(root_table, remapping);

	if (err)
		mr_unit_turn_off();
	return err;
}

/* Where the fault records are, and how many. */
static u32 mr_unit_first_record(void)
{
	return FIELD_GET(GENMASK_ULL(33, 24), mr_unit_cap) * 16;
}

static u32 mr_unit_records(void)
{
	return FIELD_GET(GENMASK_ULL(47, 40), mr_unit_cap) + 1;
}

static void mr_unit_tell_fault(u64 low, u64 high)
{
	u16 rid = high & 0xffff;
	u64 reason = (high >> 32) & 0xff;
	const char *what = reason >= REASON_REMAP ? "interrupt" : high & FAULT_READ ? "read" : "write";

	mr_unit_faults++;
	mr_unit_fault_address = reason >= REASON_REMAP ? low >> 48 : low & PAGE_MASK;
	mr_unit_fault_high = high;
	pr_warn_ratelimited("device %02x:%02x.%x: %s of %#llx blocked (reason %llu)\n", rid >> 8, (rid >> 3) & 31,
			    rid & 7, what, mr_unit_fault_address, reason);
}

/* Polled: the unit's own interrupt would need a vector from an irq domain that modules can't have. */
static void mr_unit_poll_faults(struct work_struct *work)
{
	u32 first = mr_unit_first_record(), count = mr_unit_records(), i;

	for (i = 0; i < count; i++) {
		void __iomem *record = mr_unit_registers + first + 16 * i;
		u64 high = readq(record + 8);

		if (!(high & FAULT_VALID))
			continue;
		mr_unit_tell_fault(readq(record), high);
		writel(BIT(31), record + 12);
	}
	writel(FSTS_OVERFLOW, mr_unit_registers + VTD_FSTS);
	schedule_delayed_work(&mr_unit_fault_work, FAULT_PERIOD);
}

void mr_unit_info(struct multiroot_iommu_info *info)
{
	info->capabilities = mr_unit_cap;
	info->extended = mr_unit_ecap;
	info->faults = mr_unit_faults;
	info->fault_address = mr_unit_fault_address;
	info->fault_device = mr_unit_fault_high & 0xffff;
	info->fault_reason = (mr_unit_fault_high >> 32) & 0xff;
	info->fault_write = mr_unit_faults && !(mr_unit_fault_high & FAULT_READ);
}

static void mr_unit_unmap(void)
{
	iounmap(mr_unit_registers);
	mr_unit_registers = NULL;
	mr_unit_queue = (struct mr_queue){};
}

/* What our tables need: four levels, 2 MiB pages, the queue. ENODEV when there is no such unit there. */
int mr_unit_open(phys_addr_t registers)
{
	u32 version;

	mr_unit_registers = ioremap(registers, UNIT_SIZE);
	if (!mr_unit_registers)
		return -ENOMEM;
	version = readl(mr_unit_registers);
	mr_unit_cap = readq(mr_unit_registers + VTD_CAP);
	mr_unit_ecap = readq(mr_unit_registers + VTD_ECAP);
	if (version == ~0U || !(version & 0xf0) || !(FIELD_GET(GENMASK_ULL(12, 8), mr_unit_cap) & BIT(2)) ||
	    !(FIELD_GET(GENMASK_ULL(37, 34), mr_unit_cap) & BIT(0)) || !(mr_unit_ecap & ECAP_QI) ||
	    mr_unit_first_record() + 16 * mr_unit_records() > UNIT_SIZE) {
		mr_unit_unmap();
		return -ENODEV;
	}
	schedule_delayed_work(&mr_unit_fault_work, FAULT_PERIOD);
	return 0;
}

void mr_unit_use_queue(const struct mr_queue *shared)
{
	mr_unit_queue = *shared;
}

void mr_unit_close(void)
{
	cancel_delayed_work_sync(&mr_unit_fault_work);
	mr_unit_unmap();
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Interrupts to CPUs by their APIC id. The kernel's own functions know only CPUs it has; these go to CPUs
 * of other roots, so the interrupt command register is written by hand (Intel SDM vol. 3, 11.6 and 11.12).
 */
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/irqflags.h>
#include <asm/apicdef.h>
#include <asm/msr-index.h>

#include "compat.h"
#include "multiroot.h"

#define X2APIC_ICR		(APIC_BASE_MSR + (APIC_ICR >> 4))
#define ICR_WAIT_US		1000
#define SIPI_GAP_US		300

static void __iomem *xapic;

/* True when the CPUs of this root run their APICs in x2APIC mode. */
bool mr_apic_x2apic(void)
{
	return mr_rdmsr(MSR_IA32_APICBASE) & X2APIC_ENABLE;
}

static void wait_idle(void)
{
	int i;

	for (i = 0; i < ICR_WAIT_US && readl(xapic + APIC_ICR) & APIC_ICR_BUSY; i++)
		udelay(1);
}

static void send(u32 apic_id, u32 command)
{
	unsigned long flags;

	/* Nothing else on this CPU may use the two halves of the register in between. */
	local_irq_save(flags);
	if (mr_apic_x2apic()) {
		/* The write is not serialising: what was stored for the target must be visible first. */
		mb();
		mr_wrmsr(X2APIC_ICR, (u64)apic_id << 32 | command);
	} else {
		wait_idle();
		writel(SET_XAPIC_DEST_FIELD(apic_id), xapic + APIC_ICR2);
		writel(command, xapic + APIC_ICR);
		wait_idle();
	}
	local_irq_restore(flags);
}

/**
 * mr_apic_send_init() - put a CPU into wait-for-SIPI
 * @apic_id: not the machine's boot CPU, which INIT resets
 *
 * Sleeps for 10 ms.
 */
void mr_apic_send_init(u32 apic_id)
{
	send(apic_id, APIC_INT_LEVELTRIG | APIC_INT_ASSERT | APIC_DM_INIT);
	usleep_range(10 * USEC_PER_MSEC, 11 * USEC_PER_MSEC);
	send(apic_id, APIC_INT_LEVELTRIG | APIC_DM_INIT);
}

/**
 * mr_apic_send_startup() - start a CPU in real mode
 * @apic_id: a CPU that waits for SIPI
 * @page: where it begins, page aligned, below 1 MiB
 *
 * Sent twice, as the SDM's startup protocol does; sleeps in between.
 */
void mr_apic_send_startup(u32 apic_id, phys_addr_t page)
{
	u32 command = APIC_INT_ASSERT | APIC_DM_STARTUP | (u32)(page >> PAGE_SHIFT);

	send(apic_id, command);
	usleep_range(SIPI_GAP_US, 2 * SIPI_GAP_US);
	send(apic_id, command);
	usleep_range(SIPI_GAP_US, 2 * SIPI_GAP_US);
}

/* Interrupt a CPU; from any context. */
void mr_apic_send_fixed(u32 apic_id, u8 vector)
{
	send(apic_id, APIC_INT_ASSERT | APIC_DM_FIXED | vector);
}

int mr_apic_init(void)
{
	if (mr_apic_x2apic())
		return 0;
	xapic = ioremap(mr_rdmsr(MSR_IA32_APICBASE) & PAGE_MASK & GENMASK_ULL(51, 12), PAGE_SIZE);
	return xapic ? 0 : -ENOMEM;
}

void mr_apic_exit(void)
{
	if (xapic)
		iounmap(xapic);
}

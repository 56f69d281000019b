// SPDX-License-Identifier: GPL-2.0-only
/*
 * Interrupts to CPUs by their APIC id. The kernel's own functions know only CPUs it has; these go to CPUs
 * of other roots, so the interrupt command register is written by hand (Intel SDM vol. 3, 11.6 and 11.12).
 */
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/irqflags.h>
#include <linux/smp.h>
#include <asm/apicdef.h>
#include <asm/msr-index.h>

#include "compat.h"
#include "core/arch.h"
#include "core/x86/x86.h"
#include "uapi/multiroot.h"

#define X2APIC_ICR		(APIC_BASE_MSR + (APIC_ICR >> 4))
#define ICR_WAIT_US		1000
#define SIPI_GAP_US		300
#define XAPIC_ID_SHIFT		24
#define XAPIC_ID_MOST		254	/* 255 is all CPUs */

static void __iomem *mr_apic_xapic;

/* True when the CPUs of this root run their APICs in x2APIC mode. */
static bool mr_apic_is_x2apic(void)
{
	return mr_rdmsr(MSR_IA32_APICBASE) & X2APIC_ENABLE;
}

static u32 mr_apic_read_register(u32 reg)
{
	return mr_apic_is_x2apic() ? mr_rdmsr(APIC_BASE_MSR + (reg >> 4)) : readl(mr_apic_xapic + reg);
}

static void mr_apic_write_register(u32 reg, u32 value)
{
	if (mr_apic_is_x2apic())
		mr_wrmsr(APIC_BASE_MSR + (reg >> 4), value);
	else
		writel(value, mr_apic_xapic + reg);
}

/* What struct multiroot_info.flags says of this root's APICs. */
u32 mr_ipi_info_flags(void)
{
	return mr_apic_is_x2apic() ? MULTIROOT_INFO_X2APIC : 0;
}

/* The APIC id of a CPU that this kernel has, present or not. */
u32 mr_hardware_id(unsigned int cpu)
{
	return per_cpu(x86_cpu_to_apicid, cpu);
}

static void mr_apic_wait_idle(void)
{
	int i;

	for (i = 0; i < ICR_WAIT_US && readl(mr_apic_xapic + APIC_ICR) & APIC_ICR_BUSY; i++)
		udelay(1);
}

/* A CPU that this one can't name gets nothing: what is left of its id in 8 bits names another CPU, or all. */
static void mr_apic_send(u32 apic_id, u32 command)
{
	unsigned long flags;

	if (apic_id > XAPIC_ID_MOST && !mr_apic_is_x2apic())
		return;
	/* Nothing else on this CPU may use the two halves of the register in between. */
	local_irq_save(flags);
	if (mr_apic_is_x2apic()) {
		/* The write is not serialising: what was stored for the target must be visible first. */
		mb();
		mr_wrmsr(X2APIC_ICR, (u64)apic_id << 32 | command);
	} else {
		mr_apic_wait_idle();
		writel(SET_XAPIC_DEST_FIELD(apic_id), mr_apic_xapic + APIC_ICR2);
		writel(command, mr_apic_xapic + APIC_ICR);
		mr_apic_wait_idle();
	}
	local_irq_restore(flags);
}

/**
 * mr_ipi_stop() - put a CPU into wait-for-SIPI
 * @apic_id: not the machine's boot CPU, which INIT resets
 *
 * Sleeps for 10 ms.
 */
void mr_ipi_stop(u32 apic_id)
{
	mr_apic_send(apic_id, APIC_INT_LEVELTRIG | APIC_INT_ASSERT | APIC_DM_INIT);
	usleep_range(10 * USEC_PER_MSEC, 11 * USEC_PER_MSEC);
	mr_apic_send(apic_id, APIC_INT_LEVELTRIG | APIC_DM_INIT);
}

/**
 * mr_ipi_startup() - start a CPU in real mode
 * @apic_id: a CPU that waits for SIPI
 * @page: where it begins, page aligned, below 1 MiB
 *
 * Sent twice, as the SDM's startup protocol does; sleeps in between.
 */
void mr_ipi_startup(u32 apic_id, phys_addr_t page)
{
	u32 command = APIC_INT_ASSERT | APIC_DM_STARTUP | (u32)(page >> PAGE_SHIFT);

	mr_apic_send(apic_id, command);
	usleep_range(SIPI_GAP_US, 2 * SIPI_GAP_US);
	mr_apic_send(apic_id, command);
	usleep_range(SIPI_GAP_US, 2 * SIPI_GAP_US);
}

/* Interrupt a CPU; from any context. */
void mr_ipi_vector(u32 apic_id, u8 vector)
{
	mr_apic_send(apic_id, APIC_INT_ASSERT | APIC_DM_FIXED | vector);
}

/* Send an NMI; from any context. */
void mr_ipi_nmi(u32 apic_id)
{
	mr_apic_send(apic_id, APIC_INT_ASSERT | APIC_DM_NMI);
}

/**
 * mr_apic_start() - INIT, then startup IPIs, without sleeping
 * @apic_id: not the machine's boot CPU
 * @page: where it begins, page aligned, below 1 MiB
 */
void mr_apic_start(u32 apic_id, phys_addr_t page)
{
	u32 command = APIC_INT_ASSERT | APIC_DM_STARTUP | (u32)(page >> PAGE_SHIFT);

	mr_apic_send(apic_id, APIC_INT_LEVELTRIG | APIC_INT_ASSERT | APIC_DM_INIT);
	mdelay(10);
	mr_apic_send(apic_id, APIC_INT_LEVELTRIG | APIC_DM_INIT);
	mr_apic_send(apic_id, command);
	udelay(SIPI_GAP_US);
	mr_apic_send(apic_id, command);
	udelay(SIPI_GAP_US);
}

/* APIC id of the CPU this runs on. */
u32 mr_apic_id(void)
{
	u32 id = mr_apic_read_register(APIC_ID);

	return mr_apic_is_x2apic() ? id : id >> XAPIC_ID_SHIFT;
}

/* Where this CPU's end-of-interrupt register is mapped; 0 in x2APIC mode, where it is an MSR. */
unsigned long mr_apic_eoi_address(void)
{
	return mr_apic_is_x2apic() ? 0 : (unsigned long)mr_apic_xapic + APIC_EOI;
}

/**
 * mr_apic_quiet() - end what this CPU's APIC does for this kernel
 *
 * Masks every local source and ends all interrupts in service. Those that are pending can be taken afterwards.
 */
void mr_apic_quiet(void)
{
	static const u16 sources[] = { APIC_LVTT, APIC_LVTTHMR, APIC_LVTPC, APIC_LVT0, APIC_LVT1, APIC_LVTERR };
	int i;

	for (i = 0; i < ARRAY_SIZE(sources); i++)
		mr_apic_write_register(sources[i], APIC_LVT_MASKED);
	if (GET_APIC_MAXLVT(mr_apic_read_register(APIC_LVR)) >= 6)
		mr_apic_write_register(APIC_LVTCMCI, APIC_LVT_MASKED);
	mr_apic_write_register(APIC_TMICT, 0);
	/* A kernel on its way down may have disabled it; what is pending can't be taken then. */
	mr_apic_write_register(APIC_SPIV, APIC_SPIV_APIC_ENABLED | 0xff);
	mr_apic_write_register(APIC_TASKPRI, 0);
	for (i = 0; i < 8 * 32; i++) {
		u32 in_service = 0;
		int word;

		for (word = 0; word < 8; word++)
			in_service |= mr_apic_read_register(APIC_ISR + 16 * word);
		if (!in_service)
			break;
		mr_apic_write_register(APIC_EOI, 0);
	}
}

int mr_ipi_init(void)
{
	if (mr_apic_is_x2apic())
		return 0;
	mr_apic_xapic = ioremap(mr_rdmsr(MSR_IA32_APICBASE) & PAGE_MASK & GENMASK_ULL(51, 12), PAGE_SIZE);
	return mr_apic_xapic ? 0 : -ENOMEM;
}

void mr_ipi_exit(void)
{
	if (mr_apic_xapic)
		iounmap(mr_apic_xapic);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Registers of a CPU: its MSRs, and those of its local APIC in memory. For csrc/kmod/core/x86's apic.c and pmu.c. */
#ifndef _SHIM_REGISTERS_H
#define _SHIM_REGISTERS_H

#include "kernel.h"

/* Intel's numbers (SDM vol. 4, table 2-2; vol. 3, 12.4 and 12.12). */
#define MSR_IA32_APICBASE	0x1b
#define MSR_IA32_DEBUGCTLMSR	0x1d9
#define MSR_CORE_PERF_GLOBAL_CTRL	0x38f
#define MSR_IA32_PEBS_ENABLE	0x3f1
#define MSR_IA32_RTIT_CTL	0x570
#define APIC_BASE_MSR		0x800
#define X2APIC_ENABLE		0x400
#define APIC_ID			0x20
#define APIC_LVR		0x30
#define APIC_TASKPRI		0x80
#define APIC_EOI		0xb0
#define APIC_SPIV		0xf0
#define APIC_ISR		0x100
#define APIC_LVTCMCI		0x2f0
#define APIC_ICR		0x300
#define APIC_ICR2		0x310
#define APIC_LVTT		0x320
#define APIC_LVTTHMR		0x330
#define APIC_LVTPC		0x340
#define APIC_LVT0		0x350
#define APIC_LVT1		0x360
#define APIC_LVTERR		0x370
#define APIC_TMICT		0x380
#define APIC_ICR_BUSY		0x1000
#define APIC_INT_LEVELTRIG	0x8000
#define APIC_INT_ASSERT		0x4000
#define APIC_DM_FIXED		0
#define APIC_DM_NMI		0x400
#define APIC_DM_INIT		0x500
#define APIC_DM_STARTUP		0x600
#define APIC_LVT_MASKED		0x10000
#define APIC_SPIV_APIC_ENABLED	0x100
#define GET_APIC_MAXLVT(value)	((value) >> 16 & 0xff)
#define SET_XAPIC_DEST_FIELD(id)	((u32)(id) << 24)

enum { X86_FEATURE_INTEL_PT = 1, X86_FEATURE_ARCH_PERFMON, X86_FEATURE_PEBS, X86_FEATURE_BTS };
bool boot_cpu_has(unsigned int feature);
u64 read_register(u32 msr);
int read_low(u32 msr, u32 *low, u32 *high);
int write_register(u32 msr, u64 value);
void write_apic(u32 value, void *at);
u32 read_apic(void *at);
void *ioremap(phys_addr_t phys, size_t size);

#undef rdmsr
#undef wrmsr
#define rdmsr(msr, low, high)	((low) = read_register(msr), (high) = read_register(msr) >> 32)
#define wrmsr(msr, low, high)	((void)write_register(msr, (u64)(high) << 32 | (low)))
#define rdmsr_safe(msr, low, high)	read_low(msr, low, high)
#define wrmsr_safe(msr, low, high)	write_register(msr, (u64)(high) << 32 | (low))
#define BUILD_BUG_ON(condition)	_Static_assert(!(condition), #condition)
#define readl(at)		read_apic(at)
#define writel(value, at)	write_apic(value, at)
#define iounmap(at)		((void)(at))
#define per_cpu(name, cpu)	(cpu)
#define udelay(us)		do {} while (0)
#define mdelay(ms)		do {} while (0)
#define usleep_range(least, most)	do {} while (0)
#define local_irq_save(flags)	((flags) = 0)
#define local_irq_restore(flags)	((void)(flags))
#define mb()			smp_mb()
#define wmb()			smp_mb()

#endif /* _SHIM_REGISTERS_H */

// SPDX-License-Identifier: GPL-2.0-only
/*
 * What this CPU records of what it executes, by itself and in memory that its kernel has named: branches, samples
 * (PEBS) and traces (Intel PT). A CPU that changes roots keeps these registers, an INIT leaves them as they are, too
 * (Intel SDM vol. 3, 10.1), and it would go on to write to memory that is another root's by then.
 */
#include <linux/build_bug.h>
#include <linux/kernel.h>
#include <linux/string.h>
#include <asm/barrier.h>
#include <asm/cpufeature.h>
#include <asm/msr-index.h>

#include "compat.h"
#include "core/x86/park.h"
#include "core/x86/x86.h"

/* In this order: counters stop before what they cause does. */
static const struct {
	unsigned int feature;
	u32 msr;
} mr_pmu_switches[] = {
	{ X86_FEATURE_INTEL_PT, MSR_IA32_RTIT_CTL },
	{ X86_FEATURE_ARCH_PERFMON, MSR_CORE_PERF_GLOBAL_CTRL },
	{ X86_FEATURE_PEBS, MSR_IA32_PEBS_ENABLE },
	{ X86_FEATURE_BTS, MSR_IA32_DEBUGCTLMSR },
};

/**
 * mr_pmu_leave() - have this CPU record nothing any more
 *
 * From any context.
 */
void mr_pmu_leave(void)
{
	int i;

	/* A hypervisor may show a feature without all of its registers. */
	for (i = 0; i < ARRAY_SIZE(mr_pmu_switches); i++)
		if (boot_cpu_has(mr_pmu_switches[i].feature))
			wrmsr_safe(mr_pmu_switches[i].msr, 0, 0);
	/* What is left of a trace has been stored by then; here it becomes visible. */
	wmb();
}

/**
 * mr_pmu_registers() - what has to be 0 for a CPU to record nothing
 * @msrs: MR_PARK_MSRS of them, in the order to write them; 0 where there are no more
 *
 * For code in which a fault is the end: only those that this machine answers for.
 */
void mr_pmu_registers(u32 *msrs)
{
	u32 low, high;
	int i;

	BUILD_BUG_ON(ARRAY_SIZE(mr_pmu_switches) >= MR_PARK_MSRS);
	memset(msrs, 0, MR_PARK_MSRS * sizeof(*msrs));
	for (i = 0; i < ARRAY_SIZE(mr_pmu_switches); i++)
		if (boot_cpu_has(mr_pmu_switches[i].feature) &&
		    !rdmsr_safe(mr_pmu_switches[i].msr, &low, &high))
			*msrs++ = mr_pmu_switches[i].msr;
}

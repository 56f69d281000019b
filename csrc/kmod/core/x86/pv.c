// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a hypervisor below does for this CPU in memory that its kernel has named. The next root of this CPU names memory
 * of its own. The kernel takes these back when a CPU goes offline or restarts the machine, an INIT does too; a CPU that
 * parks in a panic is taken back nowhere else.
 */
#include <linux/bits.h>
#include <linux/kernel.h>
#include <linux/kvm_para.h>

#include "compat.h"
#include "core/x86/x86.h"

/* KVM's (Documentation/virt/kvm/x86/msr.rst), each with the feature that has it. */
static const struct {
	unsigned int feature;
	u32 msr;
} mr_pv_kvm[] = {
	{ KVM_FEATURE_CLOCKSOURCE, MSR_KVM_SYSTEM_TIME },
	{ KVM_FEATURE_CLOCKSOURCE2, MSR_KVM_SYSTEM_TIME_NEW },
	{ KVM_FEATURE_ASYNC_PF, MSR_KVM_ASYNC_PF_EN },
	{ KVM_FEATURE_STEAL_TIME, MSR_KVM_STEAL_TIME },
	{ KVM_FEATURE_PV_EOI, MSR_KVM_PV_EOI_EN },
};

/**
 * mr_pv_leave() - have nothing written for this CPU any more
 *
 * From any context. What was written stays readable, a clock among it.
 */
void mr_pv_leave(void)
{
	u32 features;
	int i;

	if (!kvm_para_available())
		return;
	/* The kernel's own function for this is not for modules. */
	features = cpuid_eax(cpuid_base_hypervisor(KVM_SIGNATURE, 0) | KVM_CPUID_FEATURES);
	for (i = 0; i < ARRAY_SIZE(mr_pv_kvm); i++)
		if (features & BIT(mr_pv_kvm[i].feature))
			mr_wrmsr(mr_pv_kvm[i].msr, 0);
}

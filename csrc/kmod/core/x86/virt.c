// SPDX-License-Identifier: GPL-2.0-only
/*
 * Leaving VMX operation and SVM, which KVM has entered on this CPU. In VMX root operation INIT is blocked and CR4.VMXE
 * can't be cleared; with GIF clear, SVM holds interrupts, NMI and INIT back.
 */
#include <asm/asm.h>
#include <asm/msr-index.h>
#include <asm/processor-flags.h>
#include <asm/special_insns.h>

#include "compat.h"
#include "core/x86/x86.h"

#define NO_VMCS		(~0ULL)

static void mr_virt_leave_vmx(void)
{
	u32 inside = 0;
	u64 vmcs;

	/* CR4.VMXE alone does not tell whether there was a VMXON. If not, the instruction faults. */
	asm volatile("1: vmptrst %0\n"
		     "   movl $1, %1\n"
		     "2:\n"
		     _ASM_EXTABLE(1b, 2b)
		     : "=m" (vmcs), "+r" (inside));
	if (!inside)
		return;
	/*
	 * The processor may keep a VMCS to itself until it is told to write it back (SDM vol. 3, 25.11.1). Which ones
	 * beside the current are active here only KVM knows, and no kernel exports what has it clear them
	 * (docs/verification-boundary.md).
	 */
	if (vmcs != NO_VMCS)
		asm volatile("vmclear %0" : : "m" (vmcs) : "memory", "cc");
	asm volatile("vmxoff" : : : "memory", "cc");
}

static void mr_virt_leave_svm(u64 efer)
{
	asm volatile("stgi" : : : "memory");
	mr_wrmsr(MSR_EFER, efer & ~EFER_SVME);
}

/**
 * mr_virt_leave() - leave virtualisation on this CPU for good
 *
 * From any context. An INIT or NMI that was held back is taken at once.
 */
void mr_virt_leave(void)
{
	u64 efer = mr_rdmsr(MSR_EFER);

	if (__read_cr4() & X86_CR4_VMXE)
		mr_virt_leave_vmx();
	if (efer & EFER_SVME)
		mr_virt_leave_svm(efer);
}

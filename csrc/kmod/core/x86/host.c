// SPDX-License-Identifier: GPL-2.0-only
/* Machines on which no second kernel can run, each refused with one line before anything is changed. */
#include <linux/cc_platform.h>
#include <linux/cpumask.h>
#include <linux/smp.h>
#include <asm/cpufeature.h>
#include <asm/processor.h>

#include "compat.h"
#include "core/arch.h"
#include "uapi/multiroot.h"

#define SYSCFG		0xc0010010	/* AMD64 Architecture Programmer's Manual vol. 2, 15.36.2 */
#define SYSCFG_SNP	BIT_ULL(24)
#define KEYS		0x87		/* IA32_MKTME_KEYID_PARTITIONING: Intel TDX module specification */
#define KEYS_OF_TDX	GENMASK_ULL(63, 32)

static bool mr_host_has(u32 msr, u64 bits)
{
	u64 value;

	return !mr_rdmsr_safe(msr, &value) && (value & bits);
}

static bool mr_host_is_by(u8 first, u8 second)
{
	return boot_cpu_data.x86_vendor == first || boot_cpu_data.x86_vendor == second;
}

/**
 * mr_host_check() - whether this machine can have several roots
 *
 * Return: 0; -EOPNOTSUPP: its memory is encrypted, or owned page by page, or CPUs write there by themselves;
 * -E2BIG: the ledger has no place for a CPU.
 */
int mr_host_check(void)
{
	unsigned int cpu;

	if (cc_platform_has(CC_ATTR_MEM_ENCRYPT)) {
		pr_err("this kernel encrypts its memory (SME, SEV or TDX): no other root could read it; see mem_encrypt=off\n");
		return -EOPNOTSUPP;
	}
	if (mr_host_is_by(X86_VENDOR_AMD, X86_VENDOR_HYGON) && mr_host_has(SYSCFG, SYSCFG_SNP)) {
		pr_err("SEV-SNP is on: memory has owners that no other root knows of; turn it off in the firmware\n");
		return -EOPNOTSUPP;
	}
	if (mr_host_is_by(X86_VENDOR_INTEL, X86_VENDOR_INTEL) && mr_host_has(KEYS, KEYS_OF_TDX)) {
		pr_err("TDX is on: memory has owners that no other root knows of; turn it off in the firmware\n");
		return -EOPNOTSUPP;
	}
	/* Of a table that it has been given once a package may remember the address even when it gets another. */
	if (boot_cpu_has(X86_FEATURE_HFI)) {
		pr_err("the CPUs write feedback (HFI) to this kernel's memory, whose ever it is later; boot with clearcpuid=hfi\n");
		return -EOPNOTSUPP;
	}
	for_each_present_cpu(cpu) {
		if (mr_hardware_id(cpu) < MULTIROOT_LEDGER_CPUS)
			continue;
		pr_err("CPU %u has the APIC id %u, and the ledger has room for ids below %u\n", cpu,
		       mr_hardware_id(cpu), MULTIROOT_LEDGER_CPUS);
		return -E2BIG;
	}
	return 0;
}

// SPDX-License-Identifier: GPL-2.0-or-later
/* The pages in which CPUs wait and start, as the modules lay them out. */
#include "core/core.h"
#include "core/x86/park.h"

#define MSR_TSC_AUX	0xc0000103

struct multiroot_ledger *mr_ledger;
struct apic *apic;

/* Never called. */
struct page *pfn_to_page(unsigned long pfn) { return NULL; }
phys_addr_t mr_ledger_phys(void) { return 0; }
u32 mr_hardware_id(unsigned int cpu) { return cpu; }
u32 mr_apic_id(void) { return 0; }
unsigned long mr_apic_eoi_address(void) { return 0; }
void mr_apic_quiet(void) {}
void mr_apic_start(u32 apic_id, phys_addr_t page) {}
void mr_virt_leave(void) {}
void mr_pv_leave(void) {}
void mr_pmu_leave(void) {}
void mr_slot_answer(u32 apic_id) {}
void mr_slot_forget(u32 apic_id) {}
int mr_slot_wake(u32 apic_id, phys_addr_t start) { return 0; }

u32 mr_ledger_root(void) { return 1; }

/* One that every CPU has, which an INIT leaves as it is, and whose value does nothing. */
void mr_pmu_registers(u32 *msrs)
{
	memset(msrs, 0, MR_PARK_MSRS * sizeof(*msrs));
	msrs[0] = MSR_TSC_AUX;
}

/* A page from which a CPU gets to @entry in 64-bit mode. */
void start_page(u8 *page, u64 at, u64 cr3, u64 stack, u64 entry)
{
	const struct multiroot_cpu_start start = { .trampoline = at, .cr3 = cr3, .stack = stack, .entry = entry };

	mr_trampoline_fill(page, &start);
}

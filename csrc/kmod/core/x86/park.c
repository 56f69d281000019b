// SPDX-License-Identifier: GPL-2.0-only
/*
 * Parking: a CPU of a root that ends waits in the ledger until another root wakes it. The one way to hand on the
 * machine's boot CPU, which INIT would reset. The code is park_code.S; the first root puts it there, all use it.
 */
#include <linux/bits.h>
#include <linux/build_bug.h>
#include <linux/mm.h>
#include <linux/percpu.h>
#include <linux/smp.h>
#include <linux/vmalloc.h>
#include <asm/apic.h>
#include <asm/asm.h>
#include <asm/cpufeature.h>
#include <asm/debugreg.h>
#include <asm/irq_vectors.h>
#include <asm/processor-flags.h>
#include <asm/special_insns.h>
#include <asm/trapnr.h>

#include "compat.h"
#include "core/core.h"
#include "core/x86/park.h"
#include "core/x86/x86.h"

#define TABLE_FLAGS	0x63	/* present, writable, accessed, dirty */
#define LARGE_PAGE	0xe3	/* and 2 MiB */
#define CR4_LASS	BIT(27)	/* older kernels' headers do not have it */

static u64 *mr_park_pgd;		/* this kernel's upper half, the park area below */

/* struct apic's wake-up changed its parameters more than once. */
#define WAKE_FUNCTION	typeof_member(struct apic, wakeup_secondary_cpu)
static WAKE_FUNCTION mr_park_old_wake;

static phys_addr_t mr_park_area_phys(void)
{
	return mr_ledger_phys() + mr_ledger->park_offset;
}

static u32 mr_park_offset_of(const u8 *label)
{
	return label - mr_park_start;
}

static void mr_park_fill_params(u8 *base, u32 phys)
{
	struct mr_park_params *params = (void *)(base + MR_PARK_PARAMS);
	u64 base_bits = (u64)phys << 16;

	params->idt_base = phys + MR_PARK_GATES;
	params->idt_limit = PAGE_SIZE - 1;
	params->gdt_base = phys + MR_PARK_PARAMS + offsetof(struct mr_park_params, gdt);
	params->gdt_limit = sizeof(params->gdt) - 1;
	params->from_64_offset = phys + mr_park_offset_of(mr_park_32);
	params->from_64_selector = MR_PARK_CODE32;
	params->from_16_offset = phys + mr_park_offset_of(mr_park_32_from_16);
	params->from_16_selector = MR_PARK_CODE32;
	params->cr4 = boot_cpu_has(X86_FEATURE_MCE) ? X86_CR4_MCE : 0;
	params->real_offset = mr_park_offset_of(mr_park_real);
	params->real_segment = phys >> 4;
	/* Flat, but for those of 16 bits, which are 64 KiB from the code on. */
	params->gdt[MR_PARK_CODE32 / 8] = 0x00cf9b000000ffffULL;
	params->gdt[MR_PARK_CODE64 / 8] = 0x00af9b000000ffffULL;
	params->gdt[MR_PARK_DATA32 / 8] = 0x00cf93000000ffffULL;
	params->gdt[MR_PARK_CODE16 / 8] = 0x00009b000000ffffULL | base_bits;
	params->gdt[MR_PARK_DATA16 / 8] = 0x000093000000ffffULL | base_bits;
	mr_pmu_registers(params->msrs);
}

/* An interrupt gate; of 64-bit mode it is the lower half, and the upper one is 0. */
static u64 mr_park_gate(u32 handler, u16 selector)
{
	return (handler & 0xffff) | (u64)selector << 16 | 0x8e00ULL << 32 | (u64)(handler >> 16) << 48;
}

/*
 * Interrupts come in 64-bit mode only, NMIs and machine checks in both. There the gates of 32-bit mode are in the
 * places of vectors 1 (no breakpoint is set) and 9 (no CPU of 64 bits raises it).
 */
static void mr_park_fill_gates(u64 *gates, u32 phys)
{
	int i;

	for (i = FIRST_EXTERNAL_VECTOR; i < NR_VECTORS; i++)
		gates[2 * i] = mr_park_gate(phys + mr_park_offset_of(mr_park_eoi), MR_PARK_CODE64);
	gates[2 * X86_TRAP_NMI] = mr_park_gate(phys + mr_park_offset_of(mr_park_nmi_64), MR_PARK_CODE64);
	gates[2 * X86_TRAP_MC] = mr_park_gate(phys + mr_park_offset_of(mr_park_mc_64), MR_PARK_CODE64);
	gates[X86_TRAP_NMI] = mr_park_gate(phys + mr_park_offset_of(mr_park_nmi_32), MR_PARK_CODE32);
	gates[X86_TRAP_MC] = mr_park_gate(phys + mr_park_offset_of(mr_park_mc_32), MR_PARK_CODE32);
}

/* The first 2 MiB mapped to themselves, with an entry for a PML4 and one for a 5th level. */
static void mr_park_fill_tables(u64 *tables, u32 phys)
{
	tables[0] = LARGE_PAGE;
	tables[512] = phys | TABLE_FLAGS;
	tables[1024] = (phys + PAGE_SIZE) | TABLE_FLAGS;
}

/**
 * mr_park_build() - put the park code into a new ledger
 * @ledger: the ledger
 * @phys: where it is, below 1 MiB
 */
void mr_park_build(struct multiroot_ledger *ledger, phys_addr_t phys)
{
	u32 park = phys + MR_PARK_OFFSET;
	u8 *base = (u8 *)ledger + MR_PARK_OFFSET;

	BUILD_BUG_ON(sizeof(*ledger) > MR_PARK_OFFSET);
	BUILD_BUG_ON(MR_PARK_CPUS != MULTIROOT_LEDGER_CPUS);
	BUILD_BUG_ON(MR_PARK_SLOTS + MR_PARK_CPUS * sizeof(struct mr_park_slot) > MR_PARK_STACKS);
	BUILD_BUG_ON(MR_PARK_OFFSET + MR_PARK_END > MULTIROOT_LEDGER_SIZE);
	BUILD_BUG_ON(MR_PARK_PARAMS + sizeof(struct mr_park_params) > MR_PARK_GATES);
	BUILD_BUG_ON(MR_PARK_CODE64 != __KERNEL_CS || MR_PARK_DATA32 != __KERNEL_DS);
	/* Over the same code, for CPUs may wait in it since this module was loaded before. */
	memcpy(base, mr_park_start, mr_park_end - mr_park_start);
	memset(base + MR_PARK_GATES, 0, MR_PARK_STACKS - MR_PARK_GATES);
	mr_park_fill_params(base, park);
	mr_park_fill_gates((u64 *)(base + MR_PARK_GATES), park);
	mr_park_fill_tables((u64 *)(base + MR_PARK_TABLES), park + MR_PARK_TABLES);
	ledger->park_offset = MR_PARK_OFFSET;
}

/*
 * Where a CPU's stack ended when it left, for whoever looks into this root's memory afterwards: a debugger that finds
 * it by its first word. There may be older ones in memory, of roots that were there before.
 */
struct mr_park_mark {
	u64 magic;		/* "MRPARKED" */
	u64 stack;
	u32 root;
	u32 cpu;
	u64 pad;
} __aligned(32);

#define MR_PARK_MARK	0x44454b524150524dULL

static DEFINE_PER_CPU(struct mr_park_mark, mr_park_marks);

static void mr_park_leave_mark(void)
{
	struct mr_park_mark *mark = this_cpu_ptr(&mr_park_marks);

	mark->stack = current_stack_pointer;
	mark->root = mr_ledger_root();
	mark->cpu = raw_smp_processor_id();
	mark->magic = MR_PARK_MARK;
}

typedef void (*park_code)(u64 code, u64 slot, u64 stack, unsigned long eoi);

/**
 * mr_park_self() - leave this kernel for good
 *
 * Does not return: the calling CPU goes on in the root that wakes it. From any context; the ledger must be mapped.
 */
void mr_park_self(void)
{
	phys_addr_t park = mr_park_area_phys();
	u32 apic_id;

	local_irq_disable();
	mr_park_leave_mark();
	apic_id = mr_apic_id();
	mr_slot_answer(apic_id);
	mr_virt_leave();
	mr_pv_leave();
	mr_pmu_leave();
	mr_apic_quiet();
	/* Breakpoints of this kernel's addresses. */
	set_debugreg(0UL, 7);
	native_write_cr3(__pa(mr_park_pgd));
	/* Where the code is mapped, a kernel's code can't be with it. By hand: the kernel's function pins some bits. */
	asm volatile("mov %0, %%cr4" : : "r" (__read_cr4() & ~CR4_LASS) : "memory");
	((park_code)(unsigned long)(park + MR_PARK_ENTER))(park, park + MR_PARK_SLOTS +
							   apic_id * sizeof(struct mr_park_slot),
							   park + MR_PARK_STACKS +
							   (apic_id + 1) * MR_PARK_STACK_SIZE, mr_apic_eoi_address());
}

/* The kernel calls this to bring any CPU of this root online. */
static int mr_park_wake MR_WAKE_PARAMETERS
{
	int err = mr_slot_wake(id, start);

	if (err != -ENOENT)
		return err;
	if (mr_park_old_wake)
		return mr_park_old_wake MR_WAKE_ARGUMENTS;
	mr_apic_start(id, start);
	return 0;
}

/* struct apic is read-only after boot: write to it through a mapping of our own. */
static int mr_park_set_wake(WAKE_FUNCTION function)
{
	unsigned long at = (unsigned long)&apic->wakeup_secondary_cpu;
	struct page *page = pfn_to_page(PHYS_PFN(__pa(at)));
	u8 *window = vmap(&page, 1, VM_MAP, PAGE_KERNEL);

	if (!window)
		return -ENOMEM;
	WRITE_ONCE(*(WAKE_FUNCTION *)(window + offset_in_page(at)), function);
	vunmap(window);
	return READ_ONCE(apic->wakeup_secondary_cpu) == function ? 0 : -EIO;
}

/* Whoever runs is not parked, whatever the slot says of an earlier time. */
static void mr_park_take_seats(void)
{
	unsigned int cpu;

	for_each_online_cpu(cpu)
		mr_slot_forget(mr_hardware_id(cpu));
}

/**
 * mr_park_init() - make ready to park, and to wake who is parked
 *
 * Return: 0; -ENOMEM; -EIO: this kernel's CPU wake-up could not be hooked.
 */
int mr_park_init(void)
{
	int err;

	mr_park_take_seats();
	mr_park_pgd = (u64 *)get_zeroed_page(GFP_KERNEL);
	if (!mr_park_pgd)
		return -ENOMEM;
	/* The half with kernel addresses is the same in every process, and its entries stay. */
	memcpy(mr_park_pgd + PTRS_PER_PGD / 2, (u64 *)__va(read_cr3_pa()) + PTRS_PER_PGD / 2, PAGE_SIZE / 2);
	mr_park_pgd[0] = (mr_park_area_phys() + MR_PARK_TABLES + (__read_cr4() & X86_CR4_LA57 ? 2 : 1) * PAGE_SIZE) |
			 TABLE_FLAGS;
	mr_park_old_wake = apic->wakeup_secondary_cpu;
	err = mr_park_set_wake(mr_park_wake);
	if (err) {
		free_page((unsigned long)mr_park_pgd);
		pr_err("self-test: the wake-up of CPUs cannot be hooked (%d)\n", err);
	}
	return err;
}

void mr_park_exit(void)
{
	if (mr_park_set_wake(mr_park_old_wake))
		pr_err("the wake-up of CPUs stays hooked: bring none online before the next load\n");
	free_page((unsigned long)mr_park_pgd);
}

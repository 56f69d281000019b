// SPDX-License-Identifier: GPL-2.0-only
/*
 * Parking: a CPU of a root that ends waits in the ledger until another root wakes it. The one way to hand on the
 * machine's boot CPU, which INIT would reset. The code is park_code.S; the first root puts it there, all use it.
 */
#include <linux/build_bug.h>
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/smp.h>
#include <linux/vmalloc.h>
#include <asm/apic.h>
#include <asm/debugreg.h>
#include <asm/processor-flags.h>
#include <asm/special_insns.h>

#include "compat.h"
#include "core/core.h"
#include "core/x86/park.h"
#include "core/x86/x86.h"

#define TABLE_FLAGS	0x63	/* present, writable, accessed, dirty */
#define LARGE_PAGE	0xe3	/* and 2 MiB */
#define WAKE_ROUNDS	1000
#define NMI_GAP_US	100
#define NMI_FLIGHT_US	50	/* longer than an NMI is on its way */

static u64 *mr_park_pgd;		/* this kernel's upper half, the park area below */

/* struct apic's wake-up changed its parameters more than once. */
#define WAKE_FUNCTION	typeof_member(struct apic, wakeup_secondary_cpu)
static WAKE_FUNCTION mr_park_old_wake;

static u8 *mr_park_area(void)
{
	return (u8 *)mr_ledger + mr_ledger->park_offset;
}

static phys_addr_t mr_park_area_phys(void)
{
	return mr_ledger_phys() + mr_ledger->park_offset;
}

static struct mr_park_slot *mr_park_slot_of(u32 apic_id)
{
	return (struct mr_park_slot *)(mr_park_area() + MR_PARK_SLOTS) + apic_id;
}

static u32 mr_park_offset_of(const u8 *label)
{
	return label - mr_park_start;
}

static void mr_park_fill_params(u8 *base, u32 phys)
{
	struct mr_park_params *params = (void *)(base + MR_PARK_PARAMS);
	u32 iret = phys + mr_park_offset_of(mr_park_iret);
	u64 base_bits = (u64)phys << 16;
	int i;

	params->idt64_base = phys + MR_PARK_GATES64;
	params->idt64_limit = PAGE_SIZE - 1;
	params->gdt_base = phys + MR_PARK_PARAMS + offsetof(struct mr_park_params, gdt);
	params->gdt_limit = sizeof(params->gdt) - 1;
	params->far_offset = phys + mr_park_offset_of(mr_park_32);
	params->far_selector = 0x08;
	params->idt32_base = phys + MR_PARK_PARAMS + offsetof(struct mr_park_params, gates32);
	params->idt32_limit = sizeof(params->gates32) - 1;
	params->real_offset = mr_park_offset_of(mr_park_real);
	params->real_segment = phys >> 4;
	/* Flat code and data of 32 bits; then of 16 bits, 64 KiB from the code on. */
	params->gdt[1] = 0x00cf9b000000ffffULL;
	params->gdt[2] = 0x00cf93000000ffffULL;
	params->gdt[3] = 0x00009b000000ffffULL | base_bits;
	params->gdt[4] = 0x000093000000ffffULL | base_bits;
	for (i = 0; i < ARRAY_SIZE(params->gates32); i++)
		params->gates32[i] = (iret & 0xffff) | 0x08ULL << 16 | 0x8e00ULL << 32 | (u64)(iret >> 16) << 48;
}

static void mr_park_fill_gates(u64 *gates, u32 eoi)
{
	int i;

	for (i = 0; i < 256; i++)
		gates[2 * i] = (eoi & 0xffff) | (u64)__KERNEL_CS << 16 | 0x8e00ULL << 32 | (u64)(eoi >> 16) << 48;
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
 * @ledger: the ledger, zeroed
 * @phys: where it is, below 1 MiB
 */
void mr_park_build(struct multiroot_ledger *ledger, phys_addr_t phys)
{
	u32 park = phys + MR_PARK_OFFSET;
	u8 *base = (u8 *)ledger + MR_PARK_OFFSET;

	BUILD_BUG_ON(sizeof(*ledger) > MR_PARK_OFFSET);
	BUILD_BUG_ON(MR_PARK_OFFSET + MR_PARK_END > MULTIROOT_LEDGER_SIZE);
	BUILD_BUG_ON(MR_PARK_PARAMS + sizeof(struct mr_park_params) > MR_PARK_GATES64);
	memcpy(base, mr_park_start, mr_park_end - mr_park_start);
	mr_park_fill_params(base, park);
	mr_park_fill_gates((u64 *)(base + MR_PARK_GATES64), park + mr_park_offset_of(mr_park_eoi));
	mr_park_fill_tables((u64 *)(base + MR_PARK_TABLES), park + MR_PARK_TABLES);
	ledger->park_offset = MR_PARK_OFFSET;
}

/* True when the CPU waits in the park code. */
bool mr_park_has(u32 apic_id)
{
	/* What the CPU has left behind it is left for good. */
	return apic_id < MULTIROOT_LEDGER_CPUS && smp_load_acquire(&mr_park_slot_of(apic_id)->state) == MR_SLOT_PARKED;
}

/* The CPU was taken out of the park code by INIT. */
void mr_park_forget(u32 apic_id)
{
	if (apic_id < MULTIROOT_LEDGER_CPUS)
		WRITE_ONCE(mr_park_slot_of(apic_id)->state, MR_SLOT_FREE);
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
	apic_id = mr_apic_id();
	mr_apic_quiet();
	/* Breakpoints of this kernel's addresses. */
	set_debugreg(0UL, 7);
	native_write_cr3(__pa(mr_park_pgd));
	((park_code)(unsigned long)park)(park, park + MR_PARK_SLOTS + apic_id * sizeof(struct mr_park_slot),
					 park + MR_PARK_STACKS + (apic_id + 1) * MR_PARK_STACK_SIZE,
					 mr_apic_eoi_address());
}

/* Wait until the slot is in @state; false when it does not come to that. */
static bool mr_park_answers(struct mr_park_slot *slot, u32 apic_id, u32 state, bool kick)
{
	int i;

	for (i = 0; i < WAKE_ROUNDS; i++) {
		/* Pairs with the CPU's plain stores, which x86 keeps in order. */
		if (smp_load_acquire(&slot->state) == state)
			return true;
		if (kick)
			mr_ipi_nmi(apic_id);
		udelay(NMI_GAP_US);
	}
	return false;
}

/* What a startup IPI does, for a parked CPU; the kernel calls this to bring any CPU of this root online. */
static int mr_park_wake MR_WAKE_PARAMETERS
{
	u32 apic_id = id;
	struct mr_park_slot *slot;

	if (!mr_park_has(apic_id)) {
		if (mr_park_old_wake)
			return mr_park_old_wake MR_WAKE_ARGUMENTS;
		mr_apic_start(apic_id, start);
		return 0;
	}
	slot = mr_park_slot_of(apic_id);
	WRITE_ONCE(slot->state, MR_SLOT_WAKE);
	if (!mr_park_answers(slot, apic_id, MR_SLOT_AWAKE, true))
		return -EIO;
	/* One that comes later would find the CPU in real mode. */
	udelay(NMI_FLIGHT_US);
	/* The kernel's trampoline is filled in before. */
	smp_store_release(&slot->state, MR_SLOT_GO | (u32)(start >> PAGE_SHIFT));
	return mr_park_answers(slot, apic_id, MR_SLOT_FREE, false) ? 0 : -EIO;
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

/**
 * mr_park_init() - make ready to park, and to wake who is parked
 *
 * Return: 0; -ENOMEM; -EIO: this kernel's CPU wake-up could not be hooked.
 */
int mr_park_init(void)
{
	int err;

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

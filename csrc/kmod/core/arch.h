/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the core asks of the architecture, one section a file of its folder (x86/ is the only one). A CPU's hardware id
 * is the number by which interrupts reach it, the same in every root: the APIC id on x86.
 */
#ifndef _MR_ARCH_H
#define _MR_ARCH_H

#include <linux/types.h>

struct multiroot_cpu_start;
struct multiroot_ledger;
struct multiroot_ledger_unit;
struct pt_regs;

/* host.c: machines that can't have several roots. */
int mr_host_check(void);

/* apic.c: interrupts to CPUs of any root, past the kernel's own bookkeeping. */
int mr_ipi_init(void);
void mr_ipi_exit(void);
u32 mr_ipi_info_flags(void);
u32 mr_hardware_id(unsigned int cpu);
void mr_ipi_stop(u32 hardware_id);
void mr_ipi_startup(u32 hardware_id, phys_addr_t page);
void mr_ipi_vector(u32 hardware_id, u8 vector);
void mr_ipi_nmi(u32 hardware_id);

/* e820.c: what memory the machine has. */
int mr_e820_read(struct multiroot_ledger *ledger);
bool mr_e820_is_ram(const struct multiroot_ledger *ledger, u64 base, u64 size);

/* ioapic.c: interrupts of devices that nobody cares for any more. */
int mr_ioapic_mask(phys_addr_t phys);

/* conf1.c: PCI configuration space without an ECAM. */
bool mr_conf1_works(void);
u32 mr_conf1_read(u32 rid, int where, int size);
void mr_conf1_write(u32 rid, int where, int size, u32 value);

/* power.c: the end of the machine. */
void mr_power_reset(const struct multiroot_ledger *ledger);
void mr_power_off(const struct multiroot_ledger *ledger);

/* trampoline.c: from where a CPU starts to the kernel's entry point. */
u32 *mr_trampoline_fill(u8 *page, const struct multiroot_cpu_start *start);

/* skip.c: functions that are left out. */
#define MR_MICROCODE_FUNCTION	"reload_store"	/* late loading begins there */
void mr_skip_function(struct pt_regs *regs, unsigned long value);

/* vector.c: the doorbell's interrupt. */
int mr_vector_alloc(void);
u32 mr_vector_of(int irq);
bool mr_vector_good(u32 vector);

/* zero.c */
void mr_zero_page(u64 *words);

/* iommu.c: the IOMMUs as an ended root leaves them. */
int mr_iommu_stop(const struct multiroot_ledger_unit *unit);

/* slot.c: CPUs between two roots, from outside. */
bool mr_slot_parked(u32 hardware_id);
void mr_slot_forget(u32 hardware_id);
bool mr_slot_wanted(u32 hardware_id);
void mr_slot_answer(u32 hardware_id);
int mr_slot_take(u32 hardware_id, bool listens);
int mr_slot_wake(u32 hardware_id, phys_addr_t start);

/* park.c: the code in which they wait. */
int mr_park_init(void);
void mr_park_exit(void);
void mr_park_build(struct multiroot_ledger *ledger, phys_addr_t phys);
void mr_park_self(void);

/* stop.c: the other CPUs of a root that ends. */
#define MR_RESTART_FUNCTION	"native_machine_emergency_restart"	/* every restart ends in it */
int mr_stop_init(bool (*end)(void));
void mr_stop_exit(void);
void mr_stop_others(void);

#endif /* _MR_ARCH_H */

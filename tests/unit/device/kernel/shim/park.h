/* SPDX-License-Identifier: GPL-2.0-or-later */
/* As much of a processor as csrc/kmod/core/x86/park.c and trampoline.c need to lay out their pages. */
#ifndef _SHIM_PARK_H
#define _SHIM_PARK_H

#include <asm/processor-flags.h>

#include "cpus.h"

#define __KERNEL_CS		0x10
#define __KERNEL_DS		0x18
#define NR_VECTORS		256
#define X86_TRAP_NMI		2
#define X86_TRAP_MC		18
#define X86_FEATURE_MCE		7
#define boot_cpu_has(feature)	true
#define BUILD_BUG_ON(condition)	_Static_assert(!(condition), #condition)
#define typeof_member(type, member)	__typeof__(((type *)0)->member)

/* What only a real kernel has is only compiled. */
#define PTRS_PER_PGD		512
#define PAGE_KERNEL		0
#define VM_MAP			0
#define __pa(p)			((unsigned long)(p))
#define __va(p)			((void *)(p))
#define read_cr3_pa()		0UL
#define native_write_cr3(value)	((void)(value))
#define __read_cr4()		0UL
#define set_debugreg(value, reg)	((void)(value))
#define local_irq_disable()	do {} while (0)
#define DEFINE_PER_CPU(type, name)	__typeof__(type) name
#define this_cpu_ptr(pointer)	(pointer)
#define raw_smp_processor_id()	0
#define current_stack_pointer	0UL
#define get_zeroed_page(how)	0UL
#define free_page(page)		((void)(page))
#define vmap(pages, count, flags, prot)	((void)(pages), (void *)NULL)
#define vunmap(at)		((void)(at))
#define offset_in_page(p)	((unsigned long)(p) & ~PAGE_MASK)

struct apic {
	int (*wakeup_secondary_cpu)(u32 id, unsigned long start);
};
extern struct apic *apic;

#endif /* _SHIM_PARK_H */

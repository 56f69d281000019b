/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of this folder share and the rest of the core does not see. */
#ifndef _MR_X86_H
#define _MR_X86_H

#include <linux/types.h>

/* skip_code.S */
void mr_skip_return(void);

/* apic.c */
void mr_apic_start(u32 apic_id, phys_addr_t page);
u32 mr_apic_id(void);
unsigned long mr_apic_eoi_address(void);
void mr_apic_quiet(void);

/* virt.c */
void mr_virt_leave(void);

/* pv.c */
void mr_pv_leave(void);

/* pmu.c */
void mr_pmu_leave(void);
void mr_pmu_registers(u32 *msrs);

#endif /* _MR_X86_H */

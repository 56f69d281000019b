/* SPDX-License-Identifier: GPL-2.0-only */
/* Parameters of the trampoline, at a fixed place in its page; shared by trampoline.c and trampoline_code.S. */
#ifndef _MULTIROOT_TRAMPOLINE_H
#define _MULTIROOT_TRAMPOLINE_H

#define MR_TRAMPOLINE_PARAMS	0xf00

#ifndef __ASSEMBLY__
/* Everything the code loads; addresses are physical. */
struct mr_trampoline_params {
	u32 stage;		/* MULTIROOT_STAGE_*, written by the code */
	u32 cr3;
	u64 stack;
	u64 entry;
	u64 boot_params;
	u32 far_offset;		/* of the 64-bit part, with its selector: a far pointer */
	u16 far_selector;
	u16 gdt_limit;		/* with gdt_base: a descriptor-table pointer */
	u32 gdt_base;
	u32 pad;
	u64 gdt[4];
} __packed;

extern const u8 mr_trampoline_start[], mr_trampoline_end[], mr_trampoline_long[];
#endif

#endif /* _MULTIROOT_TRAMPOLINE_H */

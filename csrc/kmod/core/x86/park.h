/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Layout of the park area, the part of the ledger behind its data; shared by park.c and park_code.S, the same in
 * every root.
 */
#ifndef _MULTIROOT_PARK_H
#define _MULTIROOT_PARK_H

#define MR_PARK_OFFSET		0x4000	/* from the start of the ledger; the rest is from here on */
#define MR_PARK_PARAMS		0xc00	/* at the end of the code's page */
#define MR_PARK_GATES64		0x1000	/* 256 of 16 bytes */
#define MR_PARK_TABLES		0x2000	/* page directory, PDPT, PML4, a page each */
#define MR_PARK_SLOTS		0x5000	/* by APIC id */
#define MR_PARK_STACKS		0x6000	/* " */
#define MR_PARK_STACK_SIZE	64
#define MR_PARK_END		(MR_PARK_STACKS + 256 * MR_PARK_STACK_SIZE)

/* struct mr_park_slot.state */
#define MR_SLOT_FREE		0
#define MR_SLOT_PARKED		1	/* by the CPU: halted in our code, listens to NMIs */
#define MR_SLOT_WAKE		2	/* by whoever wakes it, with NMIs until it answers */
#define MR_SLOT_AWAKE		3	/* by the CPU: send no more NMIs */
#define MR_SLOT_GO		0x100	/* | vector, by whoever wakes it: begin there in real mode */

#ifndef __ASSEMBLY__
struct mr_park_slot {
	u32 state;
	u16 ip;			/* with cs: a far pointer */
	u16 cs;
	u32 pad[2];
};

/* Everything the code loads; addresses are physical. Descriptor-table pointers are a limit and a base. */
struct mr_park_params {
	u16 pad0[3];
	u16 idt64_limit;
	u64 idt64_base;
	u16 pad1[3];
	u16 gdt_limit;
	u64 gdt_base;
	u32 far_offset;		/* of the 32-bit part, with its selector: a far pointer */
	u16 far_selector;
	u16 idt32_limit;
	u32 idt32_base;
	u16 real_offset;	/* of the real-mode part, with its segment: a far pointer */
	u16 real_segment;
	u64 gdt[5];
	u64 gates32[32];
} __packed;

extern const u8 mr_park_start[], mr_park_end[], mr_park_eoi[], mr_park_32[], mr_park_iret[], mr_park_real[];
#endif

#endif /* _MULTIROOT_PARK_H */

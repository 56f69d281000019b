/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Layout of the park area, the part of the ledger behind its data; shared by park.c, slot.c and park_code.S, the same
 * in every root.
 */
#ifndef _MULTIROOT_PARK_H
#define _MULTIROOT_PARK_H

#define MR_PARK_CPUS		288	/* MULTIROOT_LEDGER_CPUS */
#define MR_PARK_MSRS		5
#define MR_PARK_OFFSET		0x3000	/* from the start of the ledger; the rest is from here on */
#define MR_PARK_ENTER		0x100	/* here a kernel's CPUs come in; a startup IPI leads to the very start */
#define MR_PARK_PARAMS		0xc00	/* at the end of the code's page */
#define MR_PARK_GATES		0x1000	/* of interrupts, in 64-bit and in 32-bit mode */
#define MR_PARK_TABLES		0x2000	/* page directory, PDPT, PML4, a page each */
#define MR_PARK_SLOTS		0x5000	/* by APIC id */
#define MR_PARK_STACKS		0x6200	/* " */
/* Holds an interrupt's frame in 64-bit mode, which is aligned to 16 bytes, while another of them is there already. */
#define MR_PARK_STACK_SIZE	96
#define MR_PARK_END		(MR_PARK_STACKS + MR_PARK_CPUS * MR_PARK_STACK_SIZE)

/* In the park's GDT. The second and third are where every kernel has its own, which interrupts come back to. */
#define MR_PARK_CODE32		0x08
#define MR_PARK_CODE64		0x10
#define MR_PARK_DATA32		0x18
#define MR_PARK_CODE16		0x20	/* the code's address is the base of both */
#define MR_PARK_DATA16		0x28

/* struct mr_park_slot.state */
#define MR_SLOT_FREE		0	/* nothing is known of the CPU */
#define MR_SLOT_PARKED		1	/* by the CPU: halted in our code, listens to NMIs */
#define MR_SLOT_WAKE		2	/* by whoever wakes it, with NMIs until it answers */
#define MR_SLOT_AWAKE		3	/* by the CPU: send no more NMIs */
#define MR_SLOT_GO		0x100	/* | vector, by whoever wakes it: begin there in real mode */

#ifndef __ASSEMBLY__
struct mr_park_slot {
	u32 state;
	u16 ip;			/* with cs: a far pointer */
	u16 cs;
	u32 wanted;		/* by another root: park at the next NMI */
	u32 pad;
};

/* Everything the code loads; addresses are physical. Descriptor-table pointers are a limit and a base. */
struct mr_park_params {
	u16 pad0[3];
	u16 idt_limit;
	u64 idt_base;
	u16 pad1[3];
	u16 gdt_limit;
	u64 gdt_base;
	u32 from_64_offset;	/* of the 32-bit part, with its selector: a far pointer */
	u16 from_64_selector;
	u16 pad2;
	u32 from_16_offset;	/* where a startup IPI goes on in it: " */
	u16 from_16_selector;
	u16 pad3;
	u32 cr4;
	u16 real_offset;	/* of the real-mode part, with its segment: a far pointer */
	u16 real_segment;
	u64 gdt[6];
	u32 msrs[MR_PARK_MSRS];	/* to be 0 in whoever comes in, up to a 0 */
} __packed;

extern const u8 mr_park_start[], mr_park_end[], mr_park_32[], mr_park_32_from_16[], mr_park_real[];
extern const u8 mr_park_eoi[], mr_park_nmi_64[], mr_park_nmi_32[], mr_park_mc_64[], mr_park_mc_32[];
#endif

#endif /* _MULTIROOT_PARK_H */

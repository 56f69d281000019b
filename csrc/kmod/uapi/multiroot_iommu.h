/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * Border between multiroot_iommu.ko and user space, and the layout of what roots share through it: VT-d tables in
 * memory that outlives each root. Rules as in multiroot.h: no pointers, explicit padding, 64-bit fields aligned.
 */
#ifndef _UAPI_MULTIROOT_IOMMU_H
#define _UAPI_MULTIROOT_IOMMU_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define MULTIROOT_IOMMU_IOC_MAGIC 0xb6

enum multiroot_iommu_constants {
	MULTIROOT_IOMMU_ABI = 4,
	MULTIROOT_IOMMU_DEVICES = 32,
	MULTIROOT_IOMMU_PARTS = 2,		/* of the tables: each is one root's at a time */
	MULTIROOT_IOMMU_SIZE_MIN = 0x800000,	/* 8 MiB */

	/* struct multiroot_iommu_info.flags */
	MULTIROOT_IOMMU_ON = 1,			/* this root takes part */

	/* struct multiroot_iommu_start.flags */
	MULTIROOT_IOMMU_REMAP = 1,		/* remap interrupts of devices that get tables, if the unit can */

	/* struct multiroot_iommu_switch.flags */
	MULTIROOT_IOMMU_VERIFY = 1,		/* compare, and change nothing */

	/* struct multiroot_iommu_device.flags */
	MULTIROOT_IOMMU_BLOCKED = 1,		/* no translation at all */
	MULTIROOT_IOMMU_THROUGH = 2		/* the device sees physical addresses */
};

/* Answer of MULTIROOT_IOMMU_IOC_INFO. Physical addresses, sizes in bytes. */
struct multiroot_iommu_info {
	__u32 abi;
	__u32 flags;
	__u64 tables;
	__u64 size;
	__u64 registers;
	__u64 remapping;			/* interrupt remapping table, 0: interrupts are not remapped */
	__u64 capabilities;			/* CAP_REG */
	__u64 extended;				/* ECAP_REG */
	__u64 faults;				/* seen by this root */
	__u64 fault_address;			/* of the last one */
	__u32 fault_device;			/* its requester id */
	__u32 fault_reason;			/* VT-d specification, appendix A; 0x20 and above: of an interrupt, */
						/* and the address is its place in the remapping table */
	__u32 fault_write;			/* 1: the device tried to write */
	__u32 pad;
};

/*
 * MULTIROOT_IOMMU_IOC_START: make tables in a range of persistent memory, all devices passed through, and turn
 * translation on. MULTIROOT_IOMMU_IOC_JOIN: take part in tables another root made; registers and flags are 0. What
 * roots that have ended left is inherited first, see MULTIROOT_IOMMU_IOC_INHERIT. This root's number, and who lives,
 * multiroot.ko tells.
 */
struct multiroot_iommu_start {
	__u64 tables;				/* page aligned */
	__u64 size;
	__u64 registers;			/* page aligned */
	__u32 flags;
	__u32 pad;
};

/*
 * MULTIROOT_IOMMU_IOC_INHERIT: become the owner of all devices of roots that have ended. They are reset and blocked,
 * and their interrupts with them: what they worked for is gone. ENOMEM: one may still be at work; try again.
 */
struct multiroot_iommu_inherit {
	__u32 devices;				/* out: how many were inherited */
};

/* MULTIROOT_IOMMU_IOC_DEVICE: what is in place for a device. */
struct multiroot_iommu_device {
	__u32 rid;				/* in: requester id, bus << 8 | device << 3 | function */
	__u32 owner;				/* root that may change it */
	__u32 did;				/* VT-d's domain id */
	__u32 flags;
	__u64 context;				/* physical address of its context entry */
	__u64 table;				/* of its top page table, 0: none */
	__u64 ram_base;				/* in: what of its translations to count, */
	__u64 ram_size;				/* in: bytes */
	__u64 leaves;				/* translations into that range */
	__u32 crc;				/* CRC-32C of these: both addresses and the rights of each 4 KiB */
	__u32 remapped;				/* interrupts that go through the remapping table */
};

/*
 * MULTIROOT_IOMMU_IOC_SWITCH: make this root the owner of a device that another one owns. Every live translation
 * into the range must be the same in the domain that the device has been attached to here (EXDEV otherwise);
 * then one store puts that domain into the context entry.
 */
struct multiroot_iommu_switch {
	__u32 rid;
	__u32 flags;
	__u32 from;				/* owner now; ESTALE if it is another */
	__u32 pad;
	__u64 ram_base;				/* the VM's memory */
	__u64 ram_size;
	__u64 iova_base;			/* compare from this address of the device on */
	__u64 same;				/* out: 4 KiB pages that translate the same */
	__u64 different;			/* out: pages that do not */
	__u64 elsewhere;			/* out: pages of translations to other memory of the owner */
	__u64 first;				/* out: address of the first difference */
	__u64 verify_ns;			/* out */
	__u64 switch_ns;			/* out */
};

#define MULTIROOT_IOMMU_IOC_INFO	_IOR(MULTIROOT_IOMMU_IOC_MAGIC, 0x00, struct multiroot_iommu_info)
#define MULTIROOT_IOMMU_IOC_START	_IOW(MULTIROOT_IOMMU_IOC_MAGIC, 0x01, struct multiroot_iommu_start)
#define MULTIROOT_IOMMU_IOC_JOIN	_IOW(MULTIROOT_IOMMU_IOC_MAGIC, 0x02, struct multiroot_iommu_start)
#define MULTIROOT_IOMMU_IOC_DEVICE	_IOWR(MULTIROOT_IOMMU_IOC_MAGIC, 0x03, struct multiroot_iommu_device)
#define MULTIROOT_IOMMU_IOC_SWITCH	_IOWR(MULTIROOT_IOMMU_IOC_MAGIC, 0x04, struct multiroot_iommu_switch)
#define MULTIROOT_IOMMU_IOC_INHERIT	_IOR(MULTIROOT_IOMMU_IOC_MAGIC, 0x05, struct multiroot_iommu_inherit)

/* One open file at a time may have the claim. START, JOIN, SWITCH and INHERIT need it; it ends with the file. */
#define MULTIROOT_IOMMU_IOC_CLAIM	_IO(MULTIROOT_IOMMU_IOC_MAGIC, 0x06)

/* A device that has or had tables of its own. Slot i uses the domain id 16 + i. */
struct multiroot_iommu_record {
	__u32 rid;
	__u32 owner;				/* 0: free slot; changed by compare-and-swap */
	__u64 context;				/* physical address of its context entry */
};

/* First page of the tables. */
struct multiroot_iommu_tables {
	__u64 magic;				/* "MRIOMMU1", little endian */
	__u32 abi;
	__u32 lock;				/* root that has it, 0: nobody */
	__u64 size;
	__u64 registers;
	__u64 root_table;
	__u64 remapping;			/* interrupt remapping table, 0: none */
	__u64 queue;				/* page of the invalidation queue */
	__u32 done;				/* written by the unit */
	__u32 pad;
	__u64 next;				/* first page of the shared part not handed out, bytes from the start */
	__u32 part[2];				/* root that has its page tables there, 0: nobody; under lock */
	struct multiroot_iommu_record device[32];
};

#endif /* _UAPI_MULTIROOT_IOMMU_H */

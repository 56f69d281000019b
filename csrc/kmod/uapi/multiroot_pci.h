/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * Border between multiroot_pci.ko and user space: PCI functions that this root is handed. Rules as in multiroot.h: no
 * pointers, explicit padding, 64-bit fields aligned.
 */
#ifndef _UAPI_MULTIROOT_PCI_H
#define _UAPI_MULTIROOT_PCI_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define MULTIROOT_PCI_IOC_MAGIC 0xb8

enum multiroot_pci_constants {
	MULTIROOT_PCI_ABI = 2,
	MULTIROOT_PCI_BARS = 6,

	/* struct multiroot_pci_function.flags */
	MULTIROOT_PCI_VF = 1			/* a virtual function: its own header tells little */
};

/* A memory BAR; size 0: none. */
struct multiroot_pci_bar {
	__u64 start;				/* physical address */
	__u64 size;				/* bytes, a power of two */
	__u32 bits;				/* low 4 bits of the register */
	__u32 pad;
};

/*
 * MULTIROOT_PCI_IOC_ADD: make a PCI segment with this function and nothing else in it. As long as it is held,
 * nothing that Linux does to it reaches the device. MULTIROOT_PCI_IOC_REMOVE: take the segment away; only segment
 * counts.
 */
struct multiroot_pci_function {
	__u32 segment;				/* 1..65535, not in use */
	__u32 rid;				/* bus << 8 | device << 3 | function */
	__u64 config;				/* physical address of its 4 KiB of configuration space */
	__u32 flags;
	__u16 vendor;
	__u16 device;
	__u16 subsystem_vendor;
	__u16 subsystem_device;
	__u32 class_revision;			/* as in the header: class << 8 | revision */
	struct multiroot_pci_bar bar[6];
};

#define MULTIROOT_PCI_IOC_ADD		_IOW(MULTIROOT_PCI_IOC_MAGIC, 0x00, struct multiroot_pci_function)
#define MULTIROOT_PCI_IOC_REMOVE	_IOW(MULTIROOT_PCI_IOC_MAGIC, 0x01, struct multiroot_pci_function)

/* One open file at a time may have the claim. Both need it; it ends with the file. */
#define MULTIROOT_PCI_IOC_CLAIM		_IO(MULTIROOT_PCI_IOC_MAGIC, 0x02)

#endif /* _UAPI_MULTIROOT_PCI_H */

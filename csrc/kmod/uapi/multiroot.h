/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * The whole border between multiroot.ko and user space. cffi parses this very file: constants are enums,
 * every struct has explicit padding, and ioctl lines have the form _IOx(MULTIROOT_IOC_MAGIC, nr, type).
 *
 * A hardware id is the number by which interrupts reach a CPU, the same in every root: its APIC id on x86.
 */
#ifndef _UAPI_MULTIROOT_H
#define _UAPI_MULTIROOT_H

#include <linux/ioctl.h>
#include <linux/types.h>

enum {
	/* Another park code is another ABI, too: CPUs may wait in the one that an earlier module has left. */
	MULTIROOT_ABI = 6,
	MULTIROOT_IOC_MAGIC = 0xB7,

	/* Ledger: 64 KiB below 1 MiB that outlives every root. */
	MULTIROOT_LEDGER_SIZE = 0x10000,
	MULTIROOT_LEDGER_CPUS = 288,
	MULTIROOT_LEDGER_E820 = 128,
	MULTIROOT_LEDGER_IOAPICS = 32,
	MULTIROOT_LEDGER_UNITS = 32,
	MULTIROOT_LEDGER_ECAMS = 8,
	MULTIROOT_LEDGER_BRIDGES = 32,
	MULTIROOT_LEDGER_WINDOWS = 128,

	/* Shared area: control page, console ring, link rings. One per pair of roots, inside the carve. */
	MULTIROOT_SHARED_SIZE = 0x200000,
	MULTIROOT_CONTROL_SIZE = 0x1000,

	/* mmap offsets on /dev/multiroot. */
	MULTIROOT_MMAP_PARENT = 0x00000000,	/* control page shared with the root that started us */
	MULTIROOT_MMAP_CHILD = 0x10000000,	/* control page shared with the root we started */
	MULTIROOT_MMAP_LEDGER = 0x20000000,	/* read-only */

	/* Peers of a root. */
	MULTIROOT_PARENT = 0,
	MULTIROOT_CHILD = 1,

	/* struct multiroot_info.flags */
	MULTIROOT_INFO_X2APIC = 1,
	MULTIROOT_INFO_PARENT = 2,		/* attached to a parent's control page */
	MULTIROOT_INFO_CARVED = 4,		/* a carve is registered, the child's control page exists */
	MULTIROOT_INFO_CLAIMED = 8,		/* some file holds the coordinator claim */

	/* struct multiroot_cpu.state */
	MULTIROOT_CPU_ONLINE = 0,		/* runs this root */
	MULTIROOT_CPU_OFFLINE = 1,		/* offline here, may be granted */
	MULTIROOT_CPU_GRANTED = 2,		/* vetoed here, held for the child */
	MULTIROOT_CPU_STARTED = 3,		/* vetoed here, was sent to an entry point */
	MULTIROOT_CPU_PARKED = 4,		/* only in the ledger: the root started on it has ended */

	/* Doorbell events, bits of struct multiroot_side.events. */
	MULTIROOT_EVENT_STATE = 1,
	MULTIROOT_EVENT_LINK = 2,
	MULTIROOT_EVENT_CONSOLE = 4,
	MULTIROOT_EVENT_USER = 256,		/* and above: free for user space */

	/* struct multiroot_side.state, in the order a root goes through them. */
	MULTIROOT_SIDE_ABSENT = 0,
	MULTIROOT_SIDE_STARTED = 1,		/* CPU sent to the entry point (written by the parent) */
	MULTIROOT_SIDE_ATTACHED = 2,		/* multiroot.ko is up */
	MULTIROOT_SIDE_READY = 3,		/* its agent answers */
	MULTIROOT_SIDE_PARKED = 4,		/* rebooted, panicked or died; its CPUs are parked */

	/* struct multiroot_ledger_unit.kind */
	MULTIROOT_UNIT_VTD = 1,
	MULTIROOT_UNIT_AMD = 2,

	/* struct multiroot_ledger_window.type */
	MULTIROOT_WINDOW_PORTS = 1,
	MULTIROOT_WINDOW_MEMORY = 2,		/* not prefetchable */
	MULTIROOT_WINDOW_PREFETCHABLE = 3,

	/* struct multiroot_pci.function */
	MULTIROOT_PCI_ALL = 0x10000,

	/* struct multiroot_memory.action */
	MULTIROOT_MEMORY_SUM = 0,		/* only look: sum of its 64-bit words */
	MULTIROOT_MEMORY_ZERO = 1,
	MULTIROOT_MEMORY_ADD = 2,		/* hot-add, offline; base and size in memory blocks */
	MULTIROOT_MEMORY_MOST = 0x20000000,	/* bytes in one call; one memory block if that is more */

	/* struct multiroot_cpu_start.stage, written by the trampoline. */
	MULTIROOT_STAGE_NONE = 0,
	MULTIROOT_STAGE_REAL = 1,
	MULTIROOT_STAGE_LONG = 2,
	MULTIROOT_STAGE_ENTRY = 3
};

/* Answer of MULTIROOT_IOC_INFO. Physical addresses and sizes in bytes; 0 where there is none. */
struct multiroot_info {
	__u32 abi;
	__u32 flags;
	__u32 root;				/* this root's number in the ledger, from 1 */
	__u32 boot_hardware_id;			/* of the machine's boot CPU */
	__u64 tsc_khz;
	__u64 ledger;
	__u64 parent_control;
	__u64 child_control;
	__u64 carve_base;
	__u64 carve_size;
	__u64 low_base;
	__u64 low_size;
};

/*
 * MULTIROOT_IOC_CARVE: take a range that this kernel does not use. All page aligned. low is below 1 MiB;
 * shared lies inside the carve, 2 MiB aligned, MULTIROOT_SHARED_SIZE long, and is initialised by the module.
 */
struct multiroot_carve {
	__u64 base;
	__u64 size;
	__u64 low_base;
	__u64 low_size;
	__u64 shared;
};

/* MULTIROOT_IOC_WRITE, READ: size bytes at user address buf and at phys, inside the carve or its low window. */
struct multiroot_segment {
	__u64 phys;
	__u64 size;
	__u64 buf;
};

/* MULTIROOT_IOC_FIND: look for a 64-bit word in size bytes at phys, both multiples of 8. */
struct multiroot_find {
	__u64 phys;
	__u64 size;
	__u64 word;
	__u64 found;				/* out: its address, 0: it is not there */
};

/* MULTIROOT_IOC_CPU_GET/GRANT/RECLAIM, by logical CPU number. */
struct multiroot_cpu {
	__u32 cpu;
	__u32 hardware_id;				/* out */
	__u32 state;				/* out: MULTIROOT_CPU_* */
	__u32 root;				/* out: owner in the ledger */
};

/*
 * MULTIROOT_IOC_CPU_START: send a granted CPU to 64-bit code. The module copies its trampoline to the page
 * at trampoline (in the low window); the rest is loaded into the registers named. cr3 is below 4 GiB.
 */
struct multiroot_cpu_start {
	__u32 cpu;
	__u32 timeout_ms;			/* how long to wait for MULTIROOT_STAGE_ENTRY, 1..10000 */
	__u64 trampoline;
	__u64 cr3;
	__u64 stack;
	__u64 entry;
	__u64 boot_params;			/* rsi */
	__u32 stage;				/* out: MULTIROOT_STAGE_* reached */
	__u32 pad;
	__u64 tsc_sipi;				/* out: TSC when the first SIPI was sent */
	__u64 tsc_entry;			/* out: TSC when the stage was seen, 0 if never */
};

/*
 * MULTIROOT_IOC_PCI_ADOPT: in a root that came up without PCI, let functions of the machine in. Needs that this is the
 * only root alive and that its parent was inherited from.
 */
struct multiroot_pci {
	__u32 function;				/* bus << 8 | device << 3 | function, or MULTIROOT_PCI_ALL */
	__u32 segment;				/* of the function; 0 with MULTIROOT_PCI_ALL, which is of all */
};

/*
 * MULTIROOT_IOC_MEMORY: memory of roots that are gone, and that no kernel uses. Needs that this is the only root
 * alive, that its parent was inherited from, and that every CPU of others is at rest.
 */
struct multiroot_memory {
	__u64 base;				/* physical, page aligned */
	__u64 size;				/* bytes, at most MULTIROOT_MEMORY_MOST */
	__u32 action;				/* MULTIROOT_MEMORY_* */
	__u32 pad;
	__u64 sum;				/* out, for SUM */
};

/* MULTIROOT_IOC_DOORBELL: signal eventfd fd (-1: none) when peer rings with any of the bits in mask. */
struct multiroot_doorbell {
	__u32 peer;
	__s32 fd;
	__u32 mask;
	__u32 pad;
};

/* MULTIROOT_IOC_RING: set bits (USER and above, or STATE) in the peer's events and interrupt it. */
struct multiroot_ring {
	__u32 peer;
	__u32 events;
};

#define MULTIROOT_IOC_INFO	_IOR(MULTIROOT_IOC_MAGIC, 0x00, struct multiroot_info)
#define MULTIROOT_IOC_CLAIM	_IO(MULTIROOT_IOC_MAGIC, 0x01)
#define MULTIROOT_IOC_CARVE	_IOW(MULTIROOT_IOC_MAGIC, 0x02, struct multiroot_carve)
#define MULTIROOT_IOC_UNCARVE	_IO(MULTIROOT_IOC_MAGIC, 0x03)
#define MULTIROOT_IOC_WRITE	_IOW(MULTIROOT_IOC_MAGIC, 0x04, struct multiroot_segment)
#define MULTIROOT_IOC_CPU_GET	_IOWR(MULTIROOT_IOC_MAGIC, 0x05, struct multiroot_cpu)
#define MULTIROOT_IOC_CPU_GRANT	_IOWR(MULTIROOT_IOC_MAGIC, 0x06, struct multiroot_cpu)
#define MULTIROOT_IOC_CPU_START	_IOWR(MULTIROOT_IOC_MAGIC, 0x07, struct multiroot_cpu_start)
#define MULTIROOT_IOC_CPU_RECLAIM	_IOWR(MULTIROOT_IOC_MAGIC, 0x08, struct multiroot_cpu)
#define MULTIROOT_IOC_DOORBELL	_IOW(MULTIROOT_IOC_MAGIC, 0x09, struct multiroot_doorbell)
#define MULTIROOT_IOC_RING	_IOW(MULTIROOT_IOC_MAGIC, 0x0a, struct multiroot_ring)

/*
 * INHERIT: the parent has ended. Detach from it, mask the machine's I/O APICs, stop all DMA but that of functions this
 * root was handed, turn the IOMMUs off whose tables lie in the parent's memory. EAGAIN until all its CPUs are parked;
 * when that has been the answer for 30 s, those that are not are led to the park.
 * CPU_ADOPT: make hardware_id, a CPU of a root that has ended, a CPU of this one; it is offline then, its number in
 * cpu.
 */
#define MULTIROOT_IOC_INHERIT	_IO(MULTIROOT_IOC_MAGIC, 0x0b)
#define MULTIROOT_IOC_CPU_ADOPT	_IOWR(MULTIROOT_IOC_MAGIC, 0x0c, struct multiroot_cpu)
#define MULTIROOT_IOC_MEMORY	_IOWR(MULTIROOT_IOC_MAGIC, 0x0d, struct multiroot_memory)
#define MULTIROOT_IOC_PCI_ADOPT	_IOW(MULTIROOT_IOC_MAGIC, 0x0e, struct multiroot_pci)

/* READ and FIND look at what is in the carve or its low window, also while a root runs there. */
#define MULTIROOT_IOC_READ	_IOW(MULTIROOT_IOC_MAGIC, 0x0f, struct multiroot_segment)
#define MULTIROOT_IOC_FIND	_IOWR(MULTIROOT_IOC_MAGIC, 0x10, struct multiroot_find)

/* One root's half of a control page; only that root writes it, but for state STARTED and events. */
struct multiroot_side {
	__u32 state;				/* MULTIROOT_SIDE_* */
	__u32 root;				/* number in the ledger */
	__u32 hardware_id;				/* doorbell destination */
	__u32 vector;				/* doorbell vector, 0: none yet */
	__u32 events;				/* set by the peer, cleared by us */
	__u32 pad;
	__u64 rings;				/* doorbell interrupts taken */
	__u64 heartbeat;			/* count, raised by the agent */
	__u64 heartbeat_tsc;			/* TSC of the last one */
	__u64 attached_tsc;			/* TSC when multiroot.ko came up */
	__u64 ready_tsc;			/* TSC when the agent first answered */
	__u8 boot_id[16];
	char release[64];
	__u64 reserved[5];
};

/* First page of the shared area. side[0] is the parent's, side[1] the child's. */
struct multiroot_control {
	__u64 magic;				/* "MULTIRT1", little endian */
	__u32 abi;
	__u32 size;				/* MULTIROOT_SHARED_SIZE */
	__u64 tsc_khz;
	__u64 start_tsc;			/* TSC of the first SIPI */
	__u32 console_offset;			/* from the start of the shared area, bytes */
	__u32 console_size;
	__u32 link_offset[2];			/* ring written by side[i] */
	__u32 link_size;			/* bytes each */
	__u32 pad;
	__u64 reserved[9];
	struct multiroot_side side[2];
};

/* Who has a CPU, by hardware id. */
struct multiroot_ledger_cpu {
	__u16 root;				/* owner, 0: nobody yet */
	__u16 state;				/* MULTIROOT_CPU_*, as its owner sees it */
	__u32 reserved;
};

/* Where PCI configuration space of some buses is. */
struct multiroot_ledger_ecam {
	__u64 base;				/* physical, of bus 0 of the segment; 0: no entry */
	__u32 segment;
	__u16 bus_first;
	__u16 bus_last;
};

/* A PCI host bridge, and which buses are behind it. */
struct multiroot_ledger_bridge {
	__u32 segment;
	__u16 bus_first;
	__u16 bus_last;
};

/* What a PCI host bridge passes on; address and size in bytes or ports. */
struct multiroot_ledger_window {
	__u64 addr;
	__u64 size;
	__u32 type;				/* MULTIROOT_WINDOW_*, 0: no entry */
	__u32 bridge;				/* its place in the ledger */
};

/* An IOMMU. */
struct multiroot_ledger_unit {
	__u64 registers;			/* physical */
	__u32 kind;				/* MULTIROOT_UNIT_*, 0: no entry */
	__u32 pad;
};

struct multiroot_ledger_e820 {
	__u64 addr;
	__u64 size;
	__u32 type;
	__u32 pad;
};

/* At the start of the ledger. Everything before park_offset is data, park code and stacks come behind. */
struct multiroot_ledger {
	__u64 magic;				/* "LMREDGR1", little endian */
	__u32 abi;
	__u32 size;				/* MULTIROOT_LEDGER_SIZE */
	__u32 next_root;			/* number the next root will get */
	__u32 roots_alive;			/* the last of them may reset the machine */
	__u32 pm1a_control;			/* I/O port, 0: unknown */
	__u32 pm1a_off;				/* what to write to it to power off */
	__u32 reset_port;			/* I/O port, 0: unknown */
	__u32 reset_value;
	__u32 boot_hardware_id;
	__u32 e820_entries;
	__u32 park_offset;			/* of the park area, from the start of the ledger */
	__u32 bridges;				/* PCI host bridges */
	__u32 ioapic[32];			/* physical, 0: no entry */
	struct multiroot_ledger_unit unit[32];
	struct multiroot_ledger_ecam ecam[8];
	struct multiroot_ledger_bridge bridge[32];
	struct multiroot_ledger_window window[128];
	struct multiroot_ledger_e820 e820[128];
	struct multiroot_ledger_cpu cpu[288];
};

#endif /* _UAPI_MULTIROOT_H */

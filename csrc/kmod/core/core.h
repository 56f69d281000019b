/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of multiroot.ko share, one section a file, in the order of the floors (see the README): a file calls
 * only those above its own section. main.c wires them up; each *_init() undoes itself on failure and has its *_exit().
 */
#ifndef _MR_CORE_H
#define _MR_CORE_H

#include <linux/types.h>

#include "core/arch.h"
#include "uapi/multiroot.h"

struct eventfd_ctx;
struct file;
struct miscdevice;
struct mr_link;
struct pci_dev;
struct pci_ops;
struct vm_area_struct;

#define MR_CONTROL_MAGIC	0x315452494d554c54ULL
#define MR_LEDGER_MAGIC		0x3152474445524d4cULL

/* Layout of the shared area behind the control page, in bytes. What the child writes on links follows the parent's. */
#define MR_CONSOLE_OFFSET	0x1000
#define MR_CONSOLE_SIZE		0x3f000
#define MR_LINK_OFFSET		0x40000
#define MR_LINK_SIZE		0xe0000

#define MR_SEGMENT_PIECE	0x100000	/* of a segment is copied at once, bytes */

/* The links to a peer. What guests send is not on the roots' own. */
enum mr_link_kind { MR_LINK_CONTROL, MR_LINK_GUESTS, MR_LINKS };

/**
 * struct mr_window - a mapping of memory.c's
 * @at: where, NULL without one
 * @by_pages: how it came about
 */
struct mr_window {
	void *at;
	bool by_pages;
};

/**
 * struct mr_peer - another root, reached through a shared area
 * @index: MULTIROOT_PARENT or MULTIROOT_CHILD
 * @root: its number
 * @phys: physical address of the shared area, 0 when there is no such peer
 * @window: how that is mapped
 * @shared: where
 * @control: the control page at its start
 * @mine: this root's half of the control page
 * @theirs: the peer's half
 * @eventfd: whom to tell of events, or NULL; under doorbell.c's lock
 * @eventfd_mask: of which events
 * @links: network devices towards the peer
 */
struct mr_peer {
	u32 index;
	u32 root;
	phys_addr_t phys;
	struct mr_window window;
	void *shared;
	struct multiroot_control *control;
	struct multiroot_side *mine;
	struct multiroot_side *theirs;
	struct eventfd_ctx *eventfd;
	u32 eventfd_mask;
	struct mr_link *links[MR_LINKS];
};

/**
 * struct mr_listener - somebody who is told when a peer rings
 * @event: one of MULTIROOT_EVENT_*
 * @heard: called in the interrupt; NULL ends a list
 */
struct mr_listener {
	u32 event;
	void (*heard)(struct mr_peer *peer);
};

/* memory.c: what this kernel uses of it. */
bool mr_memory_is_pmem(u64 base, u64 size);
bool mr_memory_unused(u64 base, u64 size);
bool mr_memory_foreign(u64 base, u64 size);
int mr_memory_map(struct mr_window *window, phys_addr_t phys, size_t size);
void mr_memory_unmap(struct mr_window *window);

/* firmware.c: what later roots must know of the machine and only the first can ask. */
int mr_firmware_read(struct multiroot_ledger *ledger);

/* probes.c: hooks in this kernel that stay. */
int mr_probes_init(void);
void mr_probes_exit(void);

/* ledger.c: what outlives every root. */
extern struct multiroot_ledger *mr_ledger;
int mr_ledger_init(phys_addr_t phys, u32 root, bool first);
void mr_ledger_publish(void);
void mr_ledger_bury(void);
void mr_ledger_exit(void);
phys_addr_t mr_ledger_phys(void);
u32 mr_ledger_root(void);
void mr_ledger_root_started(u32 root, u32 hardware_id);
void mr_ledger_root_ends(u32 hardware_id);
void mr_ledger_root_goes_on(u32 hardware_id);
bool mr_ledger_leave(void);
void mr_ledger_set_cpu(u32 hardware_id, u32 root, u32 state);
u32 mr_ledger_cpu_root(u32 hardware_id);
u32 mr_ledger_cpu_state(u32 hardware_id);
bool mr_ledger_others(void);
bool multiroot_root_lives(u32 root);	/* for multiroot_iommu.ko, too */
u32 multiroot_root(void);		/* for multiroot_iommu.ko */

/* ecam.c: configuration space of PCI functions. */
#define MR_ECAM_FUNCTIONS	0x10000		/* of a segment: bus, device, function */
extern struct pci_ops mr_ecam_ops;
int mr_ecam_silence(void);
void mr_ecam_show_all(void);
int mr_ecam_show(u32 segment, u32 rid);
bool mr_ecam_shows_all(u32 segment, u32 bus);
bool mr_ecam_holds(const struct pci_dev *pdev);
void mr_ecam_exit(void);

/* peer.c: the shared areas. */
struct mr_peer *mr_peer(u32 index);
bool mr_peer_alive(const struct mr_peer *peer);
struct mr_peer *mr_peer_map(u32 index, phys_addr_t phys);
bool mr_peer_is_ours(const struct mr_peer *peer);
void mr_peer_lay_out(struct mr_peer *peer, u32 root);
void mr_peer_enter(struct mr_peer *peer, phys_addr_t phys);
void mr_peer_hide(struct mr_peer *peer);
void mr_peer_unmap(struct mr_peer *peer);
void mr_peer_child_starts(struct mr_peer *child);

/* event.c: uevents. */
enum mr_event_kind {
	MR_EVENT_STATE,
	MR_EVENT_STARTED,
	MR_EVENT_CPU_GRANTED,
	MR_EVENT_CPU_RECLAIMED,
	MR_EVENT_ONLINE_VETOED,
	MR_EVENTS,
};

int mr_event_init(const struct miscdevice *device);
void mr_event_exit(void);
void mr_event_send(const struct mr_peer *peer, enum mr_event_kind kind);

/* doorbell.c: the interrupt a peer can raise here, and the one we raise there. */
int mr_doorbell_init(const struct mr_listener *told);
void mr_doorbell_exit(void);
void mr_doorbell_wait(void);
void mr_doorbell_publish(struct mr_peer *peer);
void mr_doorbell_ring(struct mr_peer *peer, u32 events);
void mr_doorbell_deliver(struct mr_peer *peer);
int mr_doorbell_set_eventfd(struct mr_peer *peer, int fd, u32 mask);

/* link.c: network devices over two rings each. */
int mr_link_create(struct mr_peer *peer);
void mr_link_destroy(struct mr_peer *peer);
void mr_link_carrier(struct mr_peer *peer);
void mr_link_event(struct mr_peer *peer);

/* console.c: a child's kernel messages, read by its parent. */
int mr_console_init(void);
void mr_console_exit(void);
void mr_console_attach(struct mr_peer *parent);
void mr_console_detach(void);
void mr_console_event(struct mr_peer *peer);
void mr_console_child_changed(struct mr_peer *child);

/* map.c: mmap of /dev/multiroot. */
void mr_map_open(u32 index);
bool mr_map_close(u32 index);
int mr_map(struct file *file, struct vm_area_struct *vma);

/* join.c: peers, with all that is between them and us. */
extern const struct mr_listener mr_join_listeners[];
int mr_join_attach_parent(phys_addr_t shared);
int mr_join_create_child(phys_addr_t shared, u32 root);
void mr_join_detach(struct mr_peer *peer);
void mr_join_child_gone(struct mr_peer *child);
void mr_join_set_state(struct mr_peer *peer, u32 state);

/* segments.c: the carve and what is copied into it. */
extern struct multiroot_carve mr_carve;
int mr_segments_init(void);
void mr_segments_exit(void);
bool mr_carve_has(u64 phys, u64 size);
bool mr_low_has(u64 phys, u64 size);
int mr_carve_take(const struct multiroot_carve *want);
int mr_carve_release(void);
bool mr_segment_fits(u64 phys, u64 size);
int mr_segment_copy(const struct multiroot_segment *segment, void *buffer, bool out);
int mr_segment_find(struct multiroot_find *find);

/* cpu.c: CPUs that other roots have. */
int mr_cpu_init(void);
void mr_cpu_exit(void);
bool mr_cpu_any_granted(void);
bool mr_cpu_any_started(void);
int mr_cpu_get(struct multiroot_cpu *cpu);
int mr_cpu_grant(struct multiroot_cpu *cpu);
int mr_cpu_start(struct multiroot_cpu_start *start);
int mr_cpu_reclaim(struct multiroot_cpu *cpu);
int mr_cpu_find(u32 hardware_id, struct multiroot_cpu *cpu);

/* adopt.c: what a root that has ended leaves to this one. */
bool mr_adopt_alone(void);
int mr_adopt_inherit(void);
int mr_adopt_cpu(struct multiroot_cpu *cpu);
int mr_adopt_memory(struct multiroot_memory *memory);

/* bridge.c: the machine's PCI devices, in a root that came up without. */
int mr_bridge_let_in(u32 segment, u32 rid);
void mr_bridge_exit(void);

/* contain.c: a root's end is its own, not the machine's. */
int mr_contain_init(void);
void mr_contain_exit(void);

/* veto.c: what one of several roots may not do. */
int mr_veto_init(void);
void mr_veto_exit(void);

/* dev.c: /dev/multiroot. */
int mr_dev_init(void);
void mr_dev_exit(void);

#endif /* _MR_CORE_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of multiroot_iommu.ko share, one section a file. */
#ifndef _MR_IOMMU_H
#define _MR_IOMMU_H

#include <linux/iommu.h>
#include <linux/types.h>

#include "uapi/multiroot_iommu.h"

struct msi_msg;
struct pci_dev;

#define MR_IOMMU_MAGIC		0x31554d4d4f49524dULL
#define MR_IOMMU_SHARED_END	0x200000	/* root and context tables lie below, each root's own tables above */
#define MR_DID_THROUGH		1
#define MR_DID_FIRST		16
#define MR_REMAP_ENTRIES	4096		/* of 16 bytes */

/* Root and context entries (VT-d specification 4.1, sections 9.1 and 9.3): of the first word ... */
#define MR_ENTRY_PRESENT	1ULL
#define MR_ENTRY_TYPE		(3ULL << 2)
#define MR_ENTRY_THROUGH	(2ULL << 2)
/* ... and of the second: four levels of page tables, and whose cached translations are meant. */
#define MR_WIDTH_48		2ULL
#define MR_ENTRY_DID(did)	((u64)(did) << 8)

/* unit.c: the unit's registers. */
/**
 * struct mr_queue - where the unit takes its orders from; in shared memory, under the lock of the tables
 * @orders: one page, 256 of two words
 * @orders_at: its physical address
 * @done: the unit writes 1 to it when it has carried out all orders
 * @done_at: its physical address
 */
struct mr_queue {
	u64 *orders;
	phys_addr_t orders_at;
	u32 *done;
	phys_addr_t done_at;
};

int mr_unit_open(phys_addr_t registers);
void mr_unit_use_queue(const struct mr_queue *shared);
void mr_unit_close(void);
void mr_unit_info(struct multiroot_iommu_info *info);
bool mr_unit_translates(phys_addr_t root_table);
bool mr_unit_can_remap(void);
bool mr_unit_is_on(void);
int mr_unit_turn_on(phys_addr_t root_table, phys_addr_t remapping);
void mr_unit_turn_off(void);
void mr_unit_write_back(void *table, size_t size);
void mr_unit_flush_contexts(void);
void mr_unit_flush_interrupts(void);
void mr_unit_flush_domain(u16 did);

/* tables.c: memory that roots share, and what they keep in it. */
phys_addr_t mr_tables_root(void);
void mr_tables_settle(void);
void mr_tables_fill_info(struct multiroot_iommu_info *info);
void *mr_tables_at(phys_addr_t phys);
phys_addr_t mr_tables_page(void);
void mr_tables_free_page(phys_addr_t phys);
unsigned long mr_tables_pages(void);
int mr_tables_find(u16 rid);
int mr_tables_claim(u16 rid);
bool mr_tables_own(int slot);
int mr_tables_take(int slot, u32 from);
u64 *mr_tables_entry(int slot);
int mr_tables_slot(struct pci_dev *pdev);
phys_addr_t mr_tables_context(int slot);
u32 mr_tables_owner(int slot);
u16 mr_tables_rid(int slot);
u64 *mr_tables_remapping(void);
void mr_tables_lock(unsigned long *flags);
void mr_tables_unlock(unsigned long flags);

/* share.c: who takes part in them. */
int mr_share_create(const struct multiroot_iommu_start *start);
void mr_share_undo_create(void);
int mr_share_join(const struct multiroot_iommu_start *start);
void mr_share_undo_join(void);
void mr_share_free_parts(void);
int mr_share_take_part(void);

/* walk.c: second-level page tables. */
typedef int (*mr_leaf_fn)(u64 iova, u64 phys, u64 size, u64 rights, void *data);
int mr_walk_map(phys_addr_t top, u64 iova, u64 phys, u64 size, u64 rights, phys_addr_t *stale);
void mr_walk_free_stale(phys_addr_t table, u64 size);
u64 mr_walk_unmap(phys_addr_t top, u64 iova);
u64 mr_walk_find(phys_addr_t top, u64 iova, u64 *rights, u64 *left);
int mr_walk_leaves(phys_addr_t top, mr_leaf_fn leaf, void *data);
void mr_walk_free(phys_addr_t top);

/* remap.c: the interrupt remapping table. */
u32 mr_remap_count(int slot);
void mr_remap_clear(int slot);

/* inherit.c: what roots that have ended leave. */
int mr_inherit(u32 *devices);

/* domain.c: Linux's view of it. */
int mr_domain_register(void);
void mr_domain_hold_attached(void);
void mr_domain_let_go(void);
phys_addr_t mr_domain_of(u16 rid);

/* switch.c: from one root's domain to another's. */
int mr_switch(struct multiroot_iommu_switch *request);
int mr_switch_device(struct multiroot_iommu_device *device);

/* For multiroot_vfio.ko. Whether this root may touch a device: false once another root has taken it over. */
bool multiroot_iommu_owned(struct pci_dev *pdev);
bool multiroot_iommu_remap(struct pci_dev *pdev, unsigned int vector, const struct msi_msg *message, u32 *address);
void multiroot_iommu_unmap_interrupts(struct pci_dev *pdev);

#endif /* _MR_IOMMU_H */

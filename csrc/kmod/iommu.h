/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of multiroot_iommu.ko share, one section a file. */
#ifndef _MR_IOMMU_H
#define _MR_IOMMU_H

#include <linux/iommu.h>
#include <linux/types.h>

#include "uapi/multiroot_iommu.h"

struct pci_dev;

#define MR_IOMMU_MAGIC		0x31554d4d4f49524dULL
#define MR_IOMMU_SHARED_END	0x200000	/* root and context tables lie below, each root's own tables above */
#define MR_DID_THROUGH		1
#define MR_DID_FIRST		16

/* iommu_unit.c: the unit's registers. */
int mr_unit_open(phys_addr_t registers);
void mr_unit_close(void);
void mr_unit_info(struct multiroot_iommu_info *info);
bool mr_unit_translates(phys_addr_t root_table);
int mr_unit_turn_on(phys_addr_t root_table);
void mr_unit_flush_contexts(void);
void mr_unit_flush_domain(u16 did);

/* iommu_tables.c: memory that roots share, and what they keep in it. */
int mr_tables_create(const struct multiroot_iommu_start *start);
int mr_tables_join(const struct multiroot_iommu_start *start);
void mr_tables_close(void);
phys_addr_t mr_tables_root(void);
u32 mr_tables_self(void);
void mr_tables_fill_info(struct multiroot_iommu_info *info);
void *mr_tables_at(phys_addr_t phys);
phys_addr_t mr_tables_page(void);
void mr_tables_free_page(phys_addr_t phys);
int mr_tables_find(u16 rid);
int mr_tables_claim(u16 rid);
bool mr_tables_own(int slot);
int mr_tables_take(int slot, u32 from);
u64 *mr_tables_entry(int slot);
phys_addr_t mr_tables_context(int slot);
u32 mr_tables_owner(int slot);
void mr_tables_lock(unsigned long *flags);
void mr_tables_unlock(unsigned long flags);

/* iommu_walk.c: second-level page tables. */
typedef void (*mr_leaf_fn)(u64 iova, u64 phys, u64 size, u64 rights, void *data);
int mr_walk_map(phys_addr_t top, u64 iova, u64 phys, u64 size, u64 rights, phys_addr_t *stale);
void mr_walk_free_stale(phys_addr_t table, u64 size);
u64 mr_walk_unmap(phys_addr_t top, u64 iova);
u64 mr_walk_find(phys_addr_t top, u64 iova, u64 *rights);
void mr_walk_leaves(phys_addr_t top, mr_leaf_fn leaf, void *data);
void mr_walk_free(phys_addr_t top);

/* iommu_domain.c: Linux's view of it. */
int mr_domain_register(void);
phys_addr_t mr_domain_of(u16 rid);

/* iommu_switch.c: from one root's domain to another's. */
int mr_switch(struct multiroot_iommu_switch *request);
int mr_switch_device(struct multiroot_iommu_device *device);

/* Whether this root may touch a device: false once another root has taken it over. For multiroot_vfio.ko. */
bool multiroot_iommu_owned(struct pci_dev *pdev);

#endif /* _MR_IOMMU_H */

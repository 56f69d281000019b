/* SPDX-License-Identifier: GPL-2.0-only */
/* What tables.c and share.c have in common, and no other file sees. */
#ifndef _MR_IOMMU_TABLES_H
#define _MR_IOMMU_TABLES_H

#include <linux/spinlock.h>
#include <linux/types.h>

#include "shared.h"

/**
 * struct mr_tables - the unit's tables that this root takes part in; there is one unit
 * @shared: mapping of @base; the records at its start
 * @base: where they are
 * @size: of all that roots share
 * @self: this root's number, 0: it takes no part yet
 * @settled: it takes part for good: nothing is unmapped any more
 * @used: pages of our part, under @page_lock
 * @part: where it begins, from @base
 * @part_pages: how many it has
 * @page_lock: for @used
 * @local_lock: before the lock that roots share; who has that never sleeps
 */
struct mr_tables {
	struct multiroot_iommu_tables *shared;
	phys_addr_t base;
	u64 size;
	u32 self;
	bool settled;
	unsigned long *used;
	u64 part;
	unsigned long part_pages;
	spinlock_t page_lock;			/* for used */
	raw_spinlock_t local_lock;		/* before the lock that roots share */
};

extern struct mr_tables mr_tables;

phys_addr_t mr_tables_shared_page(void);
void mr_tables_fill_through(u64 *context);

#endif /* _MR_IOMMU_TABLES_H */

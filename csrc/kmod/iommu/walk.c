// SPDX-License-Identifier: GPL-2.0-only
/*
 * Second-level page tables of four levels (VT-d specification 4.1, section 9.8). Tables of another root are read too,
 * and it may write to ours: no address in them is trusted to lie in our memory, no entry to stay as it is, and no way
 * through them to have an end.
 */
#include <linux/sizes.h>

#include "iommu/iommu.h"

#define RIGHTS		3ULL
#define LARGE		BIT_ULL(7)
#define ADDRESS		GENMASK_ULL(51, 12)
#define TOP		4

static unsigned int mr_walk_shift_of(int level)
{
	return 12 + 9 * (level - 1);
}

static u64 *mr_walk_entry_in(phys_addr_t table, int level, u64 iova)
{
	u64 *entries = mr_tables_at(table);

	return entries ? &entries[(iova >> mr_walk_shift_of(level)) & 511] : NULL;
}

static void mr_walk_put(u64 *entry, u64 value)
{
	WRITE_ONCE(*entry, value);
	mr_unit_write_back(entry, sizeof(*entry));
}

/* The entry that translates iova, or the empty one where the way ends; its level in *level. */
static u64 *mr_walk_descend(phys_addr_t top, u64 iova, int *level)
{
	u64 *entry = mr_walk_entry_in(top, TOP, iova);
	int i = TOP;

	while (entry && i > 1) {
		u64 value = READ_ONCE(*entry);

		if (!(value & RIGHTS) || (value & LARGE))
			break;
		i--;
		entry = mr_walk_entry_in(value & ADDRESS, i, iova);
	}
	*level = i;
	return entry;
}

/* Tables left to be visited: there are no more of them than pages, unless they lead in circles. */
static void mr_walk_free_below(phys_addr_t table, int level, unsigned long *left)
{
	u64 *entries = mr_tables_at(table);
	int i;

	if (!entries || !*left)
		return;
	--*left;
	for (i = 0; level > 1 && i < 512; i++) {
		u64 entry = READ_ONCE(entries[i]);

		if ((entry & RIGHTS) && !(entry & LARGE))
			mr_walk_free_below(entry & ADDRESS, level - 1, left);
	}
	mr_tables_free_page(table);
}

/* All leaves below a table, until leaf returns something else than 0, which is returned. -ELOOP as above. */
static int mr_walk_leaves_below(phys_addr_t table, int level, u64 iova, unsigned long *left, mr_leaf_fn leaf,
				void *data)
{
	u64 *entries = mr_tables_at(table);
	int i, err = 0;

	if (!entries)
		return 0;
	if (!*left)
		return -ELOOP;
	--*left;
	for (i = 0; !err && i < 512; i++) {
		u64 entry = READ_ONCE(entries[i]), size = 1ULL << mr_walk_shift_of(level), at = iova + i * size;

		if (!(entry & RIGHTS))
			continue;
		if (level > 1 && !(entry & LARGE))
			err = mr_walk_leaves_below(entry & ADDRESS, level - 1, at, left, leaf, data);
		else
			err = leaf(at, entry & ADDRESS & ~(size - 1), size, entry & RIGHTS, data);
	}
	return err;
}

static int mr_walk_stop_at_leaf(u64 iova, u64 phys, u64 size, u64 rights, void *data)
{
	return 1;
}

static bool mr_walk_is_empty(phys_addr_t table, int level)
{
	unsigned long left = mr_tables_pages();

	return !mr_walk_leaves_below(table, level, 0, &left, mr_walk_stop_at_leaf, NULL);
}

/* The entry for a translation of this size, with the tables above it; NULL when there is no place for these. */
static u64 *mr_walk_entry_for(phys_addr_t top, u64 iova, int wanted)
{
	u64 *entry = mr_walk_entry_in(top, TOP, iova);
	int level;

	for (level = TOP; entry && level > wanted; level--) {
		u64 value = READ_ONCE(*entry);

		if (value & LARGE)
			break;
		if (!(value & RIGHTS)) {
			phys_addr_t table = mr_tables_page();

			if (!table)
				return NULL;
			value = table | RIGHTS;
			mr_walk_put(entry, value);
		}
		entry = mr_walk_entry_in(value & ADDRESS, level - 1, iova);
	}
	return entry;
}

/**
 * mr_walk_map() - put in one translation
 * @top: top table
 * @iova: address that the device uses
 * @phys: where it leads
 * @size: 4 KiB, 2 MiB or 1 GiB
 * @rights: 1 read, 2 write
 * @stale: out: a table without translations that this one took the place of, or 0; to be given to mr_walk_free_stale()
 *	once the unit has forgotten it
 *
 * -EEXIST when there is something already, -ENOMEM when our part is full.
 */
int mr_walk_map(phys_addr_t top, u64 iova, u64 phys, u64 size, u64 rights, phys_addr_t *stale)
{
	int wanted = size == SZ_1G ? 3 : size == SZ_2M ? 2 : 1;
	u64 *entry = mr_walk_entry_for(top, iova, wanted), value;

	*stale = 0;
	if (!entry)
		return -ENOMEM;
	value = READ_ONCE(*entry);
	if (value & RIGHTS) {
		if (wanted == 1 || (value & LARGE) || !mr_walk_is_empty(value & ADDRESS, wanted - 1))
			return -EEXIST;
		*stale = value & ADDRESS;
	}
	mr_walk_put(entry, phys | rights | (wanted > 1 ? LARGE : 0));
	return 0;
}

void mr_walk_free_stale(phys_addr_t table, u64 size)
{
	unsigned long left = mr_tables_pages();

	mr_walk_free_below(table, size == SZ_1G ? 2 : 1, &left);
}

/* Take one translation out; its size, 0 if there was none. */
u64 mr_walk_unmap(phys_addr_t top, u64 iova)
{
	int level;
	u64 *entry = mr_walk_descend(top, iova, &level);

	if (!entry || !(READ_ONCE(*entry) & RIGHTS))
		return 0;
	mr_walk_put(entry, 0);
	return 1ULL << mr_walk_shift_of(level);
}

/* Where iova leads, 0 if nowhere, and for how many bytes from there on that is one translation. */
u64 mr_walk_find(phys_addr_t top, u64 iova, u64 *rights, u64 *left)
{
	int level;
	u64 *entry = mr_walk_descend(top, iova, &level), value = entry ? READ_ONCE(*entry) : 0;
	u64 inside = (1ULL << mr_walk_shift_of(level)) - 1;

	*rights = value & RIGHTS;
	*left = inside + 1 - (iova & inside);
	return *rights ? (value & ADDRESS & ~inside) | (iova & inside & PAGE_MASK) : 0;
}

/* Call leaf for every translation, in order of addresses, until it returns something else than 0, which is returned. */
int mr_walk_leaves(phys_addr_t top, mr_leaf_fn leaf, void *data)
{
	unsigned long left = mr_tables_pages();

	return mr_walk_leaves_below(top, TOP, 0, &left, leaf, data);
}

/* Give back all tables below and with top, which this root made. */
void mr_walk_free(phys_addr_t top)
{
	unsigned long left = mr_tables_pages();

	mr_walk_free_below(top, TOP, &left);
}

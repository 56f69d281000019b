// SPDX-License-Identifier: GPL-2.0-or-later
/* Stands in for csrc/kmod/iommu/tables.c: tables in an array that a test fills. */
#include "iommu/iommu.h"

#define PAGES	64
#define BASE	0x100000000ULL

u64 tables[PAGES][512];
unsigned char used[PAGES];
unsigned long leaves;

void *mr_tables_at(phys_addr_t phys)
{
	return phys >= BASE && phys < BASE + sizeof(tables) && !(phys & 7) ? (char *)tables + (phys - BASE) : NULL;
}

phys_addr_t mr_tables_page(void)
{
	int i, j;

	for (i = 0; i < PAGES && used[i]; i++)
		;
	if (i == PAGES)
		return 0;
	used[i] = 1;
	for (j = 0; j < 512; j++)
		tables[i][j] = 0;
	return BASE + i * 4096ULL;
}

void mr_tables_free_page(phys_addr_t phys)
{
	if (mr_tables_at(phys))
		used[(phys - BASE) / 4096] = 0;
}

unsigned long mr_tables_pages(void)
{
	return PAGES;
}

static int count(u64 iova, u64 phys, u64 size, u64 rights, void *data)
{
	leaves++;
	return 0;
}

int walk(phys_addr_t top)
{
	leaves = 0;
	return mr_walk_leaves(top, count, NULL);
}

void mr_unit_write_back(void *table, size_t size)
{
}

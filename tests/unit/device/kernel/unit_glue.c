// SPDX-License-Identifier: GPL-2.0-or-later
/* A unit that says what it can do and where its queue ends, and a queue with nobody's memory around it. */
#include "iommu/iommu.h"
#include "vtd.h"

#define AROUND	0x80000
#define NOBODYS	0x55

static unsigned char pages[AROUND + PAGE_SIZE + AROUND] __aligned(4096);
static u32 done;
static char registers[PAGE_SIZE] __aligned(4096);
u64 tail, extended;
int outside, written_back;

void *ioremap(phys_addr_t phys, size_t size)
{
	return registers;
}

void clflush_cache_range(void *from, unsigned int size)
{
	written_back += size;
}

u64 readq(const void *address)
{
	switch ((uintptr_t)address % PAGE_SIZE) {
	case 0:
		return 0x10;	/* the version */
	case VTD_CAP:
		return BIT_ULL(10) | BIT_ULL(34);	/* four levels, 2 MiB */
	case VTD_ECAP:
		return extended;
	default:
		return tail;
	}
}

/* Whatever it was told to do is done. */
void writeq(u64 value, void *address)
{
	size_t i;

	tail = value;
	done = 1;
	for (i = 0; i < sizeof(pages); i++)
		outside += (i < AROUND || i >= AROUND + PAGE_SIZE) && pages[i] != NOBODYS;
}

void use_queue(void)
{
	const struct mr_queue queue = { .orders = (u64 *)(pages + AROUND), .done = &done };

	memset(pages, NOBODYS, sizeof(pages));
	mr_unit_use_queue(&queue);
}

/* How many there are in the page. */
int orders(void)
{
	int i, count = 0;

	for (i = 0; i < PAGE_SIZE; i += 16)
		count += pages[AROUND + i] != NOBODYS;
	return count;
}

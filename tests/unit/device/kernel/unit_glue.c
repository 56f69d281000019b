// SPDX-License-Identifier: GPL-2.0-or-later
/* A unit whose only register that matters is the queue's end, and a queue with nobody's memory around it. */
#include "iommu/iommu.h"

#define AROUND	0x80000
#define NOBODYS	0x55

static unsigned char pages[AROUND + PAGE_SIZE + AROUND] __aligned(4096);
static u32 done;
u64 tail;
int outside;

u64 readq(const void *address)
{
	return tail;
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

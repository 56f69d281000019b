// SPDX-License-Identifier: GPL-2.0-only
/* The machine's I/O APICs, which a root that has ended leaves as they are. */
#include <linux/io.h>

#include "core/arch.h"

/*
 * I/O APIC registers (Intel I/O APIC datasheet): an index and a window, redirection entries of two words from
 * 0x10.
 */
#define IOAPIC_WINDOW	0x10
#define IOAPIC_VERSION	1
#define IOAPIC_ENTRY	0x10
#define IOAPIC_MASKED	BIT(16)

/**
 * mr_ioapic_mask() - let none of an I/O APIC's interrupts through
 * @phys: physical address of its registers
 *
 * Return: 0 or -ENOMEM.
 */
int mr_ioapic_mask(phys_addr_t phys)
{
	void __iomem *ioapic = ioremap(phys, PAGE_SIZE);
	u32 entries, i, low;

	if (!ioapic)
		return -ENOMEM;
	writel(IOAPIC_VERSION, ioapic);
	entries = (readl(ioapic + IOAPIC_WINDOW) >> 16 & 0xff) + 1;
	for (i = 0; i < entries; i++) {
		writel(IOAPIC_ENTRY + 2 * i, ioapic);
		low = readl(ioapic + IOAPIC_WINDOW);
		if (!(low & IOAPIC_MASKED))
			writel(low | IOAPIC_MASKED, ioapic + IOAPIC_WINDOW);
	}
	iounmap(ioapic);
	return 0;
}

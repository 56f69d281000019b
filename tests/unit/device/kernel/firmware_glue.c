// SPDX-License-Identifier: GPL-2.0-or-later
/* A machine with the tables and host bridges that a test gives it. */
#include <sys/mman.h>

#include "core/core.h"

#define BUSES	40

static struct multiroot_ledger ledger;
static struct acpi_table_header *tables[4];
static struct pci_bus buses[BUSES];
static struct resource windows[BUSES][4];
static int bus_count;

struct acpi_fadt acpi_gbl_FADT = { .flags = ACPI_FADT_HW_REDUCED };

int acpi_get_table(const char *signature, u32 instance, struct acpi_table_header **table)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(tables) && tables[i]; i++) {
		if (memcmp(tables[i]->signature, signature, 4))
			continue;
		*table = tables[i];
		return 0;
	}
	return 5;
}

struct pci_bus *pci_find_next_bus(struct pci_bus *from)
{
	struct pci_bus *next = from ? from + 1 : buses;

	return next < buses + bus_count ? next : NULL;
}

/* At the end of memory behind which there is none, so that whoever reads too far is seen. */
void table(const void *bytes, size_t size)
{
	char *pages = mmap(NULL, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int i = 0;

	while (tables[i])
		i++;
	mprotect(pages + PAGE_SIZE, PAGE_SIZE, PROT_NONE);
	tables[i] = memcpy(pages + PAGE_SIZE - size, bytes, size);
}

void bus(int domain, u32 first, u32 last)
{
	buses[bus_count] = (struct pci_bus){ .domain = domain, .busn_res = { first, last } };
	bus_count++;
}

/* Of the last bus. */
void window(int index, u64 start, u64 end, unsigned long flags)
{
	windows[bus_count - 1][index] = (struct resource){ start, end, flags };
	buses[bus_count - 1].windows[index] = &windows[bus_count - 1][index];
}

struct multiroot_ledger *read_all(int *err)
{
	memset(&ledger, 0, sizeof(ledger));
	*err = mr_firmware_read(&ledger);
	return &ledger;
}

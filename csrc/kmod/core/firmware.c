// SPDX-License-Identifier: GPL-2.0-only
/*
 * What later roots must know of the machine, from the firmware's tables and the PCI host bridge: they come up with
 * tables of ours and see neither. What is not found stays 0 in the ledger, and a later root does without.
 */
#include <linux/acpi.h>
#include <linux/pci.h>

#include "core/core.h"

#define SLEEP_ENABLE	BIT(13)	/* of PM1 control (ACPI 4.8.3.2.1) */
#define SLEEP_TYPE	10	/* first bit of SLP_TYPx there */

static void mr_firmware_read_power(struct multiroot_ledger *ledger)
{
	const struct acpi_generic_address *reset = &acpi_gbl_FADT.reset_register;
	u8 type_a, type_b;

	if (acpi_gbl_FADT.flags & ACPI_FADT_HW_REDUCED)
		return;
	if (acpi_gbl_FADT.flags & ACPI_FADT_RESET_REGISTER && reset->space_id == ACPI_ADR_SPACE_SYSTEM_IO) {
		ledger->reset_port = reset->address;
		ledger->reset_value = acpi_gbl_FADT.reset_value;
	}
	if (ACPI_FAILURE(acpi_get_sleep_type_data(ACPI_STATE_S5, &type_a, &type_b)))
		return;
	ledger->pm1a_control = acpi_gbl_FADT.pm1a_control_block;
	ledger->pm1a_off = SLEEP_ENABLE | type_a << SLEEP_TYPE;
}

static void mr_firmware_read_ecam(struct multiroot_ledger *ledger)
{
	struct acpi_mcfg_allocation *entry;
	struct acpi_table_header *table;

	if (ACPI_FAILURE(acpi_get_table(ACPI_SIG_MCFG, 1, &table)))
		return;
	entry = (void *)table + sizeof(struct acpi_table_mcfg);
	for (; (void *)(entry + 1) <= (void *)table + table->length; entry++) {
		if (entry->pci_segment)
			continue;
		ledger->ecam_base = entry->address;
		ledger->ecam_bus_first = entry->start_bus_number;
		ledger->ecam_bus_last = entry->end_bus_number;
		break;
	}
	acpi_put_table(table);
}

static void mr_firmware_read_ioapics(struct multiroot_ledger *ledger)
{
	struct acpi_subtable_header *entry;
	struct acpi_table_header *table;
	int found = 0;

	if (ACPI_FAILURE(acpi_get_table(ACPI_SIG_MADT, 1, &table)))
		return;
	entry = (void *)table + sizeof(struct acpi_table_madt);
	while ((void *)(entry + 1) <= (void *)table + table->length && entry->length >= sizeof(*entry)) {
		if (entry->type == ACPI_MADT_TYPE_IO_APIC && found < MULTIROOT_LEDGER_IOAPICS)
			ledger->ioapic[found++] = ((struct acpi_madt_io_apic *)entry)->address;
		entry = (void *)entry + entry->length;
	}
	acpi_put_table(table);
}

static void mr_firmware_read_windows(struct multiroot_ledger *ledger)
{
	struct pci_bus *bus = pci_find_bus(0, 0);
	struct resource *window;
	int i, found = 0;

	if (!bus)
		return;
	pci_bus_for_each_resource(bus, window, i) {
		struct multiroot_ledger_window *to = &ledger->window[found];

		if (!window || !(window->flags & (IORESOURCE_IO | IORESOURCE_MEM)))
			continue;
		if (found++ == MULTIROOT_LEDGER_WINDOWS)
			break;
		to->addr = window->start;
		to->size = resource_size(window);
		to->type = window->flags & IORESOURCE_IO ? MULTIROOT_WINDOW_PORTS :
			   window->flags & IORESOURCE_PREFETCH ? MULTIROOT_WINDOW_PREFETCHABLE :
								 MULTIROOT_WINDOW_MEMORY;
	}
}

/**
 * mr_firmware_read() - note power ports, I/O APICs, ECAM and PCI windows
 * @ledger: the ledger to be, zeroed; in the machine's first root
 */
void mr_firmware_read(struct multiroot_ledger *ledger)
{
	mr_firmware_read_power(ledger);
	mr_firmware_read_ecam(ledger);
	mr_firmware_read_ioapics(ledger);
	mr_firmware_read_windows(ledger);
}

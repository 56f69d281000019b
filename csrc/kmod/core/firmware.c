// SPDX-License-Identifier: GPL-2.0-only
/*
 * What later roots must know of the machine, from the firmware's tables and the PCI host bridges: they come up with
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

/* Whether @at, which says how long it is, lies in @table as a whole. */
static bool mr_firmware_holds(const struct acpi_table_header *table, const void *at, u32 least, u32 length)
{
	s64 left = (s64)table->length - (at - (const void *)table);

	return length >= least && length <= left;
}

static int mr_firmware_full(const char *what, u32 most)
{
	pr_err("this machine has more %s than the ledger has room for (%u)\n", what, most);
	return -E2BIG;
}

static int mr_firmware_note_ecam(struct multiroot_ledger *ledger, const struct acpi_mcfg_allocation *from)
{
	struct multiroot_ledger_ecam *to = ledger->ecam;

	for (; to < ledger->ecam + MULTIROOT_LEDGER_ECAMS; to++) {
		if (to->base)
			continue;
		to->base = from->address;
		to->segment = from->pci_segment;
		to->bus_first = from->start_bus_number;
		to->bus_last = from->end_bus_number;
		return 0;
	}
	return mr_firmware_full("ranges of PCI configuration space", MULTIROOT_LEDGER_ECAMS);
}

static int mr_firmware_read_ecams(struct multiroot_ledger *ledger, struct acpi_table_header *table)
{
	struct acpi_mcfg_allocation *entry = (void *)table + sizeof(struct acpi_table_mcfg);
	int err = 0;

	for (; !err && mr_firmware_holds(table, entry, 0, sizeof(*entry)); entry++)
		if (entry->address && entry->start_bus_number <= entry->end_bus_number)
			err = mr_firmware_note_ecam(ledger, entry);
	return err;
}

static int mr_firmware_read_ioapics(struct multiroot_ledger *ledger, struct acpi_table_header *table)
{
	struct acpi_subtable_header *entry = (void *)table + sizeof(struct acpi_table_madt);
	int found = 0;

	while (mr_firmware_holds(table, entry, 0, sizeof(*entry)) &&
	       mr_firmware_holds(table, entry, sizeof(*entry), entry->length)) {
		if (entry->type == ACPI_MADT_TYPE_IO_APIC) {
			if (found == MULTIROOT_LEDGER_IOAPICS)
				return mr_firmware_full("I/O APICs", MULTIROOT_LEDGER_IOAPICS);
			ledger->ioapic[found++] = ((struct acpi_madt_io_apic *)entry)->address;
		}
		entry = (void *)entry + entry->length;
	}
	return 0;
}

/* Once each: newer blocks of AMD's table describe a unit again. */
static int mr_firmware_note_unit(struct multiroot_ledger *ledger, u64 registers, u32 kind)
{
	struct multiroot_ledger_unit *to = ledger->unit;

	for (; to < ledger->unit + MULTIROOT_LEDGER_UNITS; to++) {
		if (to->kind && to->registers != registers)
			continue;
		to->registers = registers;
		to->kind = kind;
		return 0;
	}
	return mr_firmware_full("IOMMUs", MULTIROOT_LEDGER_UNITS);
}

static int mr_firmware_read_vtd(struct multiroot_ledger *ledger, struct acpi_table_header *table)
{
	struct acpi_dmar_header *entry = (void *)table + sizeof(struct acpi_table_dmar);
	int err = 0;

	while (!err && mr_firmware_holds(table, entry, 0, sizeof(*entry)) &&
	       mr_firmware_holds(table, entry, sizeof(*entry), entry->length)) {
		if (entry->type == ACPI_DMAR_TYPE_HARDWARE_UNIT &&
		    entry->length >= sizeof(struct acpi_dmar_hardware_unit))
			err = mr_firmware_note_unit(ledger, ((struct acpi_dmar_hardware_unit *)entry)->address,
						    MULTIROOT_UNIT_VTD);
		entry = (void *)entry + entry->length;
	}
	return err;
}

static int mr_firmware_read_amd(struct multiroot_ledger *ledger, struct acpi_table_header *table)
{
	struct acpi_ivrs_header *entry = (void *)table + sizeof(struct acpi_table_ivrs);
	int err = 0;

	while (!err && mr_firmware_holds(table, entry, 0, sizeof(*entry)) &&
	       mr_firmware_holds(table, entry, sizeof(*entry), entry->length)) {
		if ((entry->type == ACPI_IVRS_TYPE_HARDWARE1 || entry->type == ACPI_IVRS_TYPE_HARDWARE2 ||
		     entry->type == ACPI_IVRS_TYPE_HARDWARE3) && entry->length >= sizeof(struct acpi_ivrs_hardware_10))
			err = mr_firmware_note_unit(ledger, ((struct acpi_ivrs_hardware_10 *)entry)->base_address,
						    MULTIROOT_UNIT_AMD);
		entry = (void *)entry + entry->length;
	}
	return err;
}

static int mr_firmware_read_tables(struct multiroot_ledger *ledger)
{
	static const struct {
		char *signature;
		int (*read)(struct multiroot_ledger *ledger, struct acpi_table_header *table);
	} tables[] = {
		{ ACPI_SIG_MCFG, mr_firmware_read_ecams },
		{ ACPI_SIG_MADT, mr_firmware_read_ioapics },
		{ ACPI_SIG_DMAR, mr_firmware_read_vtd },
		{ ACPI_SIG_IVRS, mr_firmware_read_amd },
	};
	struct acpi_table_header *table;
	int i, err = 0;

	for (i = 0; !err && i < ARRAY_SIZE(tables); i++) {
		if (ACPI_FAILURE(acpi_get_table(tables[i].signature, 1, &table)))
			continue;
		err = tables[i].read(ledger, table);
		acpi_put_table(table);
	}
	return err;
}

/* From @found on; how many windows there are then, or a negative error. */
static int mr_firmware_read_windows(struct multiroot_ledger *ledger, struct pci_bus *bus, u32 bridge, int found)
{
	struct resource *window;
	int i;

	pci_bus_for_each_resource(bus, window, i) {
		if (!window || !(window->flags & (IORESOURCE_IO | IORESOURCE_MEM)))
			continue;
		if (found == MULTIROOT_LEDGER_WINDOWS)
			return mr_firmware_full("windows of PCI host bridges", MULTIROOT_LEDGER_WINDOWS);
		ledger->window[found++] = (struct multiroot_ledger_window) {
			.addr = window->start,
			.size = resource_size(window),
			.type = window->flags & IORESOURCE_IO ? MULTIROOT_WINDOW_PORTS :
				window->flags & IORESOURCE_PREFETCH ? MULTIROOT_WINDOW_PREFETCHABLE :
								      MULTIROOT_WINDOW_MEMORY,
			.bridge = bridge,
		};
	}
	return found;
}

/* Segments beyond 16 bits are made up by drivers, for devices that are behind other devices. */
static int mr_firmware_read_bridges(struct multiroot_ledger *ledger)
{
	struct pci_bus *bus = NULL;
	int windows = 0;

	while ((bus = pci_find_next_bus(bus)) != NULL) {
		if (pci_domain_nr(bus) > U16_MAX)
			continue;
		if (ledger->bridges == MULTIROOT_LEDGER_BRIDGES)
			return mr_firmware_full("PCI host bridges", MULTIROOT_LEDGER_BRIDGES);
		windows = mr_firmware_read_windows(ledger, bus, ledger->bridges, windows);
		if (windows < 0)
			return windows;
		ledger->bridge[ledger->bridges++] = (struct multiroot_ledger_bridge) {
			.segment = pci_domain_nr(bus),
			.bus_first = bus->busn_res.start,
			.bus_last = bus->busn_res.end,
		};
	}
	return 0;
}

/**
 * mr_firmware_read() - note power ports, I/O APICs, IOMMUs, PCI configuration space and host bridges
 * @ledger: the ledger to be, zeroed; in the machine's first root
 *
 * Return: 0; -E2BIG when there is more than the ledger has room for: what no later root knows of it could not stop.
 */
int mr_firmware_read(struct multiroot_ledger *ledger)
{
	mr_firmware_read_power(ledger);
	return mr_firmware_read_tables(ledger) ?: mr_firmware_read_bridges(ledger);
}

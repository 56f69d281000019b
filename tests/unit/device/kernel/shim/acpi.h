/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Firmware tables (ACPI specification 6.5 and those it names) and host bridges, as far as firmware.c knows them. */
#ifndef _SHIM_ACPI_H
#define _SHIM_ACPI_H

#include "machine.h"

#define __packed		__attribute__((packed))

struct acpi_table_header {
	char signature[4];
	u32 length;
	u8 others[28];
} __packed;

struct acpi_table_mcfg { struct acpi_table_header header; u8 reserved[8]; } __packed;
struct acpi_table_madt { struct acpi_table_header header; u32 address, flags; } __packed;
struct acpi_table_dmar { struct acpi_table_header header; u8 width, flags, reserved[10]; } __packed;
struct acpi_table_ivrs { struct acpi_table_header header; u32 info; u64 reserved; } __packed;
struct acpi_mcfg_allocation {
	u64 address;
	u16 pci_segment;
	u8 start_bus_number, end_bus_number;
	u32 reserved;
} __packed;
struct acpi_subtable_header { u8 type, length; } __packed;
struct acpi_madt_io_apic {
	struct acpi_subtable_header header;
	u8 id, reserved;
	u32 address, global_irq_base;
} __packed;
struct acpi_dmar_header { u16 type, length; } __packed;
struct acpi_dmar_hardware_unit {
	struct acpi_dmar_header header;
	u8 flags, size;
	u16 segment;
	u64 address;
} __packed;
struct acpi_ivrs_header { u8 type, flags; u16 length, device_id; } __packed;
struct acpi_ivrs_hardware_10 {
	struct acpi_ivrs_header header;
	u16 capability_offset;
	u64 base_address;
	u16 pci_segment_group, info;
	u32 feature_reporting;
} __packed;

#define ACPI_SIG_MCFG		"MCFG"
#define ACPI_SIG_MADT		"APIC"
#define ACPI_SIG_DMAR		"DMAR"
#define ACPI_SIG_IVRS		"IVRS"
enum { ACPI_MADT_TYPE_IO_APIC = 1, ACPI_DMAR_TYPE_HARDWARE_UNIT = 0 };
enum { ACPI_IVRS_TYPE_HARDWARE1 = 0x10, ACPI_IVRS_TYPE_HARDWARE2 = 0x11, ACPI_IVRS_TYPE_HARDWARE3 = 0x40 };
int acpi_get_table(const char *signature, u32 instance, struct acpi_table_header **table);
#define acpi_put_table(table)	((void)(table))

/* No power ports. */
struct acpi_generic_address {
	u8 space_id;
	u64 address;
};
struct acpi_fadt {
	struct acpi_generic_address reset_register;
	u32 flags, pm1a_control_block;
	u8 reset_value;
};
extern struct acpi_fadt acpi_gbl_FADT;
#define ACPI_FADT_HW_REDUCED	1
#define ACPI_FADT_RESET_REGISTER	2
#define ACPI_ADR_SPACE_SYSTEM_IO	1
#define ACPI_STATE_S5		5
#define acpi_get_sleep_type_data(state, a, b)	(*(a) = *(b) = 0, 1)

struct pci_bus *pci_find_next_bus(struct pci_bus *from);
#define resource_size(r)	((r)->end - (r)->start + 1)
#define pci_bus_for_each_resource(bus, window, i)	\
	for ((i) = 0; (i) < ARRAY_SIZE((bus)->windows) && ((window) = (bus)->windows[i], true); (i)++)

#endif /* _SHIM_ACPI_H */

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Registers, configuration space, firmware tables and memory blocks, as far as csrc/kmod/core knows them. */
#ifndef _SHIM_MACHINE_H
#define _SHIM_MACHINE_H

#include "core.h"
#include <linux/pci_regs.h>

/* What is behind these, a test's machine says. */
void *ioremap(phys_addr_t phys, size_t size);
#define iounmap(at)		((void)(at))
u8 readb(const void *at);
u16 readw(const void *at);
u32 readl(const void *at);
u64 readq(const void *at);
void writeb(u8 value, void *at);
void writew(u16 value, void *at);
void writel(u32 value, void *at);
void writeq(u64 value, void *at);
u8 inb(u16 port);
u16 inw(u16 port);
u32 inl(u16 port);
void outb(u8 value, u16 port);
void outw(u16 value, u16 port);
void outl(u32 value, u16 port);
#define readl_poll_timeout(at, value, until, us, most)	read_poll_timeout(readl, value, until, us, most, 0, at)
#define readq_poll_timeout(at, value, until, us, most)	read_poll_timeout(readq, value, until, us, most, 0, at)

/* PCI. */
struct pci_ops {
	int (*read)(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 *value);
	int (*write)(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 value);
};

#define PCIBIOS_SUCCESSFUL	0
#define PCIBIOS_DEVICE_NOT_FOUND	0x86
#define PCI_FUNC(devfn)		((devfn) & 7)
#define pci_domain_nr(bus)	((bus)->domain)
#define pci_dev_id(pdev)	((u16)((pdev)->bus->number << 8 | (pdev)->devfn))
struct pci_dev *pci_next_dev(struct pci_dev *pdev);
#define for_each_pci_dev(pdev)	while (((pdev) = pci_next_dev(pdev)))

static inline void bitmap_zero(unsigned long *map, unsigned long size)
{
	memset(map, 0, size / 8);
}

static inline void bitmap_fill(unsigned long *map, unsigned long size)
{
	memset(map, 0xff, size / 8);
}

static inline bool bitmap_full(const unsigned long *map, unsigned long size)
{
	unsigned long bit;

	for (bit = 0; bit < size && test_bit(bit, map); bit++)
		;
	return bit == size;
}

/* Memory that comes. */
#define SZ_2G			0x80000000ULL
#define MHP_NONE		0
#define first_memory_node	0
u64 memory_block_size_bytes(void);
int add_memory_driver_managed(int node, u64 base, u64 size, const char *name, int how);
int phys_to_target_node(u64 base);
bool node_possible(int node);

/* CPUs that come, by the name of their device. */
typedef void *acpi_handle;
int acpi_get_handle(void *parent, const char *name, acpi_handle *handle);
#define ACPI_FAILURE(status)	((status) != 0)
#define acpi_bus_scan(handle)	((void)(handle), 0)
#define acpi_scan_lock_acquire()	do {} while (0)
#define acpi_scan_lock_release()	do {} while (0)

#endif /* _SHIM_MACHINE_H */

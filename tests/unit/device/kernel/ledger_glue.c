// SPDX-License-Identifier: GPL-2.0-or-later
/* A ledger as a test wants it. */
#include "core/core.h"

static struct multiroot_ledger machine_ledger;

void *memremap(phys_addr_t phys, size_t size, int how) { return NULL; }
void memunmap(void *memory) {}
u32 mr_hardware_id(unsigned int cpu) { return cpu; }
int mr_firmware_read(struct multiroot_ledger *ledger) { return 0; }
int mr_e820_read(struct multiroot_ledger *ledger) { return 0; }
bool mr_e820_is_ram(const struct multiroot_ledger *ledger, u64 base, u64 size) { return false; }
bool mr_memory_unused(u64 base, u64 size) { return false; }

/* Nobody has a CPU. */
void begin(u32 boot_hardware_id)
{
	machine_ledger = (struct multiroot_ledger){ .boot_hardware_id = boot_hardware_id };
	mr_ledger = &machine_ledger;
}

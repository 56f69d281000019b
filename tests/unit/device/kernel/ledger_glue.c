// SPDX-License-Identifier: GPL-2.0-or-later
/* A ledger as a test wants it, and memory in which an earlier kernel may have left one. */
#include "core/core.h"

static union {
	struct multiroot_ledger ledger;
	unsigned char bytes[MULTIROOT_LEDGER_SIZE];
} found;

unsigned int shim_cpus = 1;
u32 first_hardware_id;			/* of CPU 0; those of the others follow */

void *memremap(phys_addr_t phys, size_t size, int how) { return &found; }
void memunmap(void *memory) {}
u32 mr_hardware_id(unsigned int cpu) { return first_hardware_id + cpu; }
int mr_firmware_read(struct multiroot_ledger *ledger) { return 0; }
int mr_e820_read(struct multiroot_ledger *ledger) { return 0; }
bool mr_e820_is_ram(const struct multiroot_ledger *ledger, u64 base, u64 size) { return true; }
bool mr_memory_unused(u64 base, u64 size) { return true; }

/* Nobody has a CPU. */
void begin(u32 boot_hardware_id)
{
	found.ledger = (struct multiroot_ledger){
		.magic = MR_LEDGER_MAGIC, .abi = MULTIROOT_ABI, .size = MULTIROOT_LEDGER_SIZE,
		.boot_hardware_id = boot_hardware_id,
	};
	mr_ledger = &found.ledger;
}

/* A module of another version has made it. */
void of_version(u32 abi)
{
	found.ledger.abi = abi;
}

/* This kernel loads the module, on so many CPUs from that one on. */
int load(u32 hardware_id, unsigned int cpus, u32 root)
{
	first_hardware_id = hardware_id;
	shim_cpus = cpus;
	return mr_ledger_init(0x10000, root, root == 1);
}

u32 owner(u32 hardware_id)
{
	return found.ledger.cpu[hardware_id].root;
}

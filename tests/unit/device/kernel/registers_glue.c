// SPDX-License-Identifier: GPL-2.0-or-later
/* A CPU whose registers a test reads and sets, and what its APIC has sent. */
#include "core/arch.h"
#include "core/x86/x86.h"

#define MSRS	0x1000

static u32 apic_registers[PAGE_SIZE / 4];

u64 msrs[MSRS];
bool absent[MSRS];			/* to read or write it is a fault */
bool features[8];
u64 sent[8];				/* destination << 32 | command */
int sent_count;

bool boot_cpu_has(unsigned int feature) { return features[feature]; }
u64 read_register(u32 msr) { return msrs[msr]; }

int read_low(u32 msr, u32 *low, u32 *high)
{
	*low = msrs[msr];
	*high = msrs[msr] >> 32;
	return absent[msr] ? -EIO : 0;
}

void *ioremap(phys_addr_t phys, size_t size) { return apic_registers; }
u32 read_apic(void *at) { return *(u32 *)at; }

int write_register(u32 msr, u64 value)
{
	if (absent[msr])
		return -EIO;
	msrs[msr] = value;
	if (msr == APIC_BASE_MSR + (APIC_ICR >> 4))
		sent[sent_count++] = value;
	return 0;
}

void write_apic(u32 value, void *at)
{
	*(u32 *)at = value;
	if (at == (void *)apic_registers + APIC_ICR)
		sent[sent_count++] = (u64)apic_registers[APIC_ICR2 / 4] << 32 | value;
}

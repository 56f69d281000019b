// SPDX-License-Identifier: GPL-2.0-only
/* What a CPU finds where its startup IPI sends it: code (trampoline_code.S) and its parameters, in one page. */
#include <linux/mm.h>
#include <linux/string.h>

#include "core/arch.h"
#include "core/x86/trampoline.h"
#include "uapi/multiroot.h"

#define SELECTOR_CODE64	0x10

/**
 * mr_trampoline_fill() - put code and parameters into a page
 * @page: mapping of start->trampoline
 * @start: what the code is to load, checked
 *
 * Return: the word in which the code tells how far it has come, MULTIROOT_STAGE_*.
 */
u32 *mr_trampoline_fill(u8 *page, const struct multiroot_cpu_start *start)
{
	struct mr_trampoline_params *params = (void *)(page + MR_TRAMPOLINE_PARAMS);
	u32 base = start->trampoline;

	memset(page, 0, PAGE_SIZE);
	memcpy(page, mr_trampoline_start, mr_trampoline_end - mr_trampoline_start);
	params->cr3 = start->cr3;
	params->stack = start->stack;
	params->entry = start->entry;
	params->boot_params = start->boot_params;
	params->far_offset = base + (mr_trampoline_long - mr_trampoline_start);
	params->far_selector = SELECTOR_CODE64;
	params->gdt_limit = sizeof(params->gdt) - 1;
	params->gdt_base = base + MR_TRAMPOLINE_PARAMS + offsetof(struct mr_trampoline_params, gdt);
	/* What the 64-bit boot protocol asks for: flat __BOOT_CS at 0x10, __BOOT_DS at 0x18. */
	params->gdt[2] = 0x00af9b000000ffffULL;
	params->gdt[3] = 0x00cf93000000ffffULL;
	return &params->stage;
}

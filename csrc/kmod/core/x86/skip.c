// SPDX-License-Identifier: GPL-2.0-only
/* How a function of this kernel is left out by a probe at its entry. */
#include <linux/kprobes.h>
#include <linux/ptrace.h>

#include "core/arch.h"
#include "core/x86/x86.h"

/**
 * mr_skip_function() - go back to who called the function
 * @regs: of a probe that stands at its entry, and returns 1 then
 * @value: that the function seems to have returned
 */
void __kprobes mr_skip_function(struct pt_regs *regs, unsigned long value)
{
	regs_set_return_value(regs, value);
	/* The stack can't be changed from here, so something else has to return. */
	regs->ip = (unsigned long)mr_skip_return;
}

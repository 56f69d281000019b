// SPDX-License-Identifier: GPL-2.0-or-later
/* A kernel whose functions are probed, and what such a kernel says of its machine. */
#include "core/core.h"

static struct kprobe *probes[8];
static struct notifier_block *sleeper;
static struct ftrace_ops *permanent;

bool others_live, encrypted, feedback, probes_fail;
bool ftrace_enabled = true;
u64 syscfg, keys;
u32 last_hardware_id;
const char *missing = "";		/* a function that this kernel does not have */
unsigned int shim_cpus = 2;
struct cpuinfo_x86 boot_cpu_data;

bool mr_ledger_others(void) { return others_live; }
u32 mr_hardware_id(unsigned int cpu) { return cpu ? last_hardware_id : 0; }
bool cc_platform_has(int what) { return encrypted; }

int shim_rdmsr_safe(u32 msr, u32 *low, u32 *high)
{
	u64 value = msr == 0xc0010010 ? syscfg : msr == 0x87 ? keys : 0;

	*low = value;
	*high = value >> 32;
	return value ? 0 : -EIO;
}

void mr_skip_function(struct pt_regs *regs, unsigned long value)
{
	regs->rax = value;
}

int register_kprobe(struct kprobe *probe)
{
	int i = 0;

	if (!strcmp(probe->symbol_name, missing))
		return -ENOENT;
	if (probes_fail && !strcmp(probe->symbol_name, "__crash_kexec"))
		return -EINVAL;
	while (probes[i])
		i++;
	probes[i] = probe;
	return 0;
}

void unregister_kprobe(struct kprobe *probe)
{
	int i = 0;

	while (probes[i] != probe)
		i++;
	probes[i] = NULL;
}

int ftrace_set_filter_ip(struct ftrace_ops *ops, unsigned long ip, int remove, int reset)
{
	ops->filter = remove ? 0 : ip;
	return 0;
}

int register_ftrace_function(struct ftrace_ops *ops)
{
	assert(ops->filter);	/* all functions */
	if (!(ops->flags & FTRACE_OPS_FL_PERMANENT))
		return 0;
	if (!ftrace_enabled)
		return -EBUSY;
	permanent = ops;
	return 0;
}

int unregister_ftrace_function(struct ftrace_ops *ops)
{
	permanent = NULL;
	return 0;
}

/* sysctl kernel.ftrace_enabled=0 */
int turn_ftrace_off(void)
{
	if (permanent)
		return -EBUSY;
	ftrace_enabled = false;
	return 0;
}

int register_pm_notifier(struct notifier_block *nb)
{
	sleeper = nb;
	return 0;
}

void unregister_pm_notifier(struct notifier_block *nb)
{
	sleeper = NULL;
}

/* What the function returns; 1: it does what it is there for. */
long call(const char *function)
{
	struct pt_regs regs = { .rax = 1 };
	int i;

	for (i = 0; ftrace_enabled && i < ARRAY_SIZE(probes); i++)
		if (probes[i] && !strcmp(probes[i]->symbol_name, function))
			return probes[i]->pre_handler(probes[i], &regs) == (regs.rax != 1) ? regs.rax : 2;
	return 1;
}

int go_to_sleep(unsigned long how)
{
	return sleeper->notifier_call(sleeper, how, NULL);
}

/* Hooks that are left. */
int hooks(void)
{
	int i, count = !!sleeper + !!permanent;

	for (i = 0; i < ARRAY_SIZE(probes); i++)
		count += !!probes[i];
	return count;
}

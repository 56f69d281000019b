// SPDX-License-Identifier: GPL-2.0-only
/*
 * Probes of this module that can't be turned off. Those at the entry of a function are ftrace's, and the sysctl
 * kernel.ftrace_enabled takes all of them away without a word: then the end of this root would end the machine. As long
 * as something permanent is registered with ftrace, the sysctl is refused.
 */
#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/printk.h>

#include "core/core.h"

/* Elsewhere a probe is a breakpoint, for which ftrace is not asked. */
#ifdef CONFIG_KPROBES_ON_FTRACE

/* Nobody calls it, so it costs nothing to be told of its calls. */
static noinline void mr_probes_nowhere(unsigned long ip, unsigned long parent, struct ftrace_ops *ops,
				       struct ftrace_regs *regs)
{
}

static struct ftrace_ops mr_probes_permanent = { .func = mr_probes_nowhere, .flags = FTRACE_OPS_FL_PERMANENT };

/* Without a filter it would be told of all functions. */
static int mr_probes_filter(bool remove)
{
	return ftrace_set_filter_ip(&mr_probes_permanent, (unsigned long)mr_probes_nowhere, remove, 0);
}

/**
 * mr_probes_init() - keep probes as they are
 *
 * Before any is registered.
 *
 * Return: 0; -EBUSY: ftrace is turned off, and a probe would be registered and never hit; what ftrace returns.
 */
int mr_probes_init(void)
{
	int err;

	err = mr_probes_filter(false);
	if (err)
		return err;
	err = register_ftrace_function(&mr_probes_permanent);
	if (err)
		mr_probes_filter(true);
	if (err == -EBUSY)
		pr_err("ftrace is off: the end of this root would end the machine; see sysctl kernel.ftrace_enabled\n");
	return err;
}

void mr_probes_exit(void)
{
	unregister_ftrace_function(&mr_probes_permanent);
	mr_probes_filter(true);
}

#else

int mr_probes_init(void)
{
	return 0;
}

void mr_probes_exit(void)
{
}

#endif

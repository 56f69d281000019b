/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Probes, sleep and the kind of machine, as far as csrc/kmod/core knows them. */
#ifndef _SHIM_VETO_H
#define _SHIM_VETO_H

#include "kernel.h"

#undef rdmsr_safe
int shim_rdmsr_safe(u32 msr, u32 *low, u32 *high);
#define rdmsr_safe(msr, low, high)	shim_rdmsr_safe(msr, low, high)

#include "core.h"
#include <limits.h>
#include <linux/ptrace.h>

#define __kprobes
struct kprobe {
	const char *symbol_name;
	int (*pre_handler)(struct kprobe *probe, struct pt_regs *regs);
	void (*post_handler)(struct kprobe *probe, struct pt_regs *regs, unsigned long flags);
};
int register_kprobe(struct kprobe *probe);
void unregister_kprobe(struct kprobe *probe);

/* Functions' entries are probed by way of ftrace, which can be turned off. */
#define CONFIG_KPROBES_ON_FTRACE
#define FTRACE_OPS_FL_PERMANENT	1
#define noinline		__attribute__((noinline))
struct ftrace_regs;
struct ftrace_ops {
	void (*func)(unsigned long ip, unsigned long parent, struct ftrace_ops *ops, struct ftrace_regs *regs);
	unsigned long flags;
	unsigned long filter;
};
int ftrace_set_filter_ip(struct ftrace_ops *ops, unsigned long ip, int remove, int reset);
int register_ftrace_function(struct ftrace_ops *ops);
int unregister_ftrace_function(struct ftrace_ops *ops);

/* The end of a kernel. */
#define MR_RESTART_PREPARE
#define SYS_HALT		2
#define NOTIFY_STOP		0x8001
enum sys_off_mode { SYS_OFF_MODE_POWER_OFF_PREPARE, SYS_OFF_MODE_POWER_OFF, SYS_OFF_MODE_RESTART_PREPARE };
struct sys_off_data;
struct sys_off_handler;
struct sys_off_handler *register_sys_off_handler(enum sys_off_mode mode, int priority,
						 int (*before)(struct sys_off_data *data), void *data);
void unregister_sys_off_handler(struct sys_off_handler *handler);
int register_reboot_notifier(struct notifier_block *nb);
void unregister_reboot_notifier(struct notifier_block *nb);
#define panic_notifier_list	0
#define atomic_notifier_chain_register(list, nb)	(panic_notifier = (nb), 0)
#define atomic_notifier_chain_unregister(list, nb)	(panic_notifier = NULL)
extern struct notifier_block *panic_notifier;
extern long (*panic_blink)(int state);
#define pr_emerg(...)		shim_say(__VA_ARGS__)

enum { PM_HIBERNATION_PREPARE = 1, PM_POST_HIBERNATION, PM_SUSPEND_PREPARE, PM_POST_SUSPEND, PM_RESTORE_PREPARE };
int register_pm_notifier(struct notifier_block *nb);
void unregister_pm_notifier(struct notifier_block *nb);

struct cpuinfo_x86 {
	u8 x86_vendor;
};
extern struct cpuinfo_x86 boot_cpu_data;
enum { X86_VENDOR_INTEL = 0, X86_VENDOR_AMD = 2, X86_VENDOR_HYGON = 9 };
enum { CC_ATTR_MEM_ENCRYPT };
bool cc_platform_has(int what);
enum { X86_FEATURE_HFI };
extern bool feedback;
#define boot_cpu_has(feature)	((void)(feature), feedback)

#endif /* _SHIM_VETO_H */

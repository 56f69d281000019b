// SPDX-License-Identifier: GPL-2.0-only
/*
 * multiroot.ko: several kernels on one machine, each with CPUs and memory of its own. This file only wires the others
 * up; see docs/kernel-module.md for what each does.
 */
#include <linux/crash_dump.h>
#include <linux/module.h>
#include <linux/security.h>

#include "begin.h"
#include "core/core.h"

static unsigned long shared;
module_param(shared, ulong, 0444);
MODULE_PARM_DESC(shared, "physical address of the area shared with the root that started this one");

static unsigned long ledger = 0x10000;
module_param(ledger, ulong, 0444);
MODULE_PARM_DESC(ledger, "physical address of the ledger, 64 KiB below 1 MiB");

static unsigned int root = 1;
module_param(root, uint, 0444);
MODULE_PARM_DESC(root, "this root's number");

static int mr_main_attach_parent(void)
{
	return shared ? mr_join_attach_parent(shared) : 0;
}

static void mr_main_detach_parent(void)
{
	struct mr_peer *parent = mr_peer(MULTIROOT_PARENT);

	if (parent)
		mr_join_detach(parent);
}

static int mr_main_start_ledger(void)
{
	int err = mr_ledger_init(ledger, root, !shared);

	if (err || shared)
		return err;
	/* The first root's ledger: every other finds the park code in it. */
	mr_park_build(mr_ledger, ledger);
	mr_ledger_publish();
	return 0;
}

static int mr_main_start_doorbell(void)
{
	return mr_doorbell_init(mr_join_listeners);
}

/* Nothing to do before somebody asks for a device. */
static int mr_main_start_bridge(void)
{
	return 0;
}

static void mr_main_stop_bridge(void)
{
	mr_bridge_exit();
	mr_ecam_exit();
}

/* In the order they depend on each other; torn down backwards. */
static const struct part {
	const char *name;
	int (*init)(void);
	void (*exit)(void);
} mr_main_parts[] = {
	{ "APIC", mr_ipi_init, mr_ipi_exit },
	{ "ledger", mr_main_start_ledger, mr_ledger_exit },
	{ "parking", mr_park_init, mr_park_exit },
	{ "doorbell", mr_main_start_doorbell, mr_doorbell_exit },
	{ "ftrace", mr_probes_init, mr_probes_exit },
	{ "containment", mr_contain_init, mr_contain_exit },
	{ "vetoes", mr_veto_init, mr_veto_exit },
	{ "online veto", mr_cpu_init, mr_cpu_exit },
	{ "memory veto", mr_segments_init, mr_segments_exit },
	{ "host bridge", mr_main_start_bridge, mr_main_stop_bridge },
	{ "console", mr_console_init, mr_console_exit },
	{ "device", mr_dev_init, mr_dev_exit },
	{ "parent", mr_main_attach_parent, mr_main_detach_parent },
};

/* Each refusal is one line, and nothing has been changed before. */
static int mr_main_may_load(void)
{
	if (is_kdump_kernel()) {
		pr_err("this is a crash kernel: the machine's roots are none of its business\n");
		return -EPERM;
	}
	if (security_locked_down(LOCKDOWN_KEXEC)) {
		pr_err("this kernel is locked down: it may not start others\n");
		return -EPERM;
	}
	return mr_host_check();
}

static int __mr_begin multiroot_init(void)
{
	int i, err;

	err = mr_main_may_load();
	if (err)
		return err;
	for (i = 0; i < ARRAY_SIZE(mr_main_parts); i++) {
		err = mr_main_parts[i].init();
		if (err)
			goto undo;
	}
	/* Its CPUs and its end need the module as long as the root lives; the first one is held when it has a carve. */
	if (shared)
		__module_get(THIS_MODULE);
	pr_info("root %u is up, ABI %d\n", root, MULTIROOT_ABI);
	return 0;
undo:
	pr_err("%s does not work here (%d)\n", mr_main_parts[i].name, err);
	while (i--)
		mr_main_parts[i].exit();
	return err;
}

static void __exit multiroot_exit(void)
{
	int i = ARRAY_SIZE(mr_main_parts);

	while (i--)
		mr_main_parts[i].exit();
}

MR_BEGINS(multiroot_init);
module_exit(multiroot_exit);

MODULE_DESCRIPTION("Several Linux kernels on one machine");
MODULE_AUTHOR("The multiroot authors");
MODULE_LICENSE("GPL");

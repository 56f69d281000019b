// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a kernel that has its machine for itself may do, and one of several may not: start another kernel in its own
 * place, which would take the whole machine for its own; send the machine to sleep; change microcode of CPUs whose
 * other halves run another root.
 */
#include <linux/kprobes.h>
#include <linux/notifier.h>
#include <linux/ptrace.h>
#include <linux/suspend.h>

#include "core/core.h"

/**
 * struct mr_veto - a function of this kernel that does nothing while another root lives
 * @probe: with its name
 * @what: for whoever wanted it
 * @armed: the probe is there
 */
struct mr_veto {
	struct kprobe probe;
	const char *what;
	bool armed;
};

static int __kprobes mr_veto_before(struct kprobe *probe, struct pt_regs *regs)
{
	const struct mr_veto *veto = container_of(probe, struct mr_veto, probe);

	if (!mr_ledger_others())
		return 0;
	pr_err("another root is alive: %s\n", veto->what);
	mr_skip_function(regs, -EBUSY);
	return 1;
}

/* Without this the kernel might jump where it probes, and then a function can't be skipped. */
static void __kprobes mr_veto_after(struct kprobe *probe, struct pt_regs *regs, unsigned long flags)
{
}

#define MR_VETO(function, because)									\
{													\
	.probe = { .symbol_name = (function), .pre_handler = mr_veto_before, .post_handler = mr_veto_after },	\
	.what = (because),										\
}

/* Kernels without kexec have none of its functions, and late loading of microcode is left out of most. */
static struct mr_veto mr_vetoes[] = {
	MR_VETO("kernel_kexec", "no kernel is started in this one's place"),
	/* The panic goes on, and ends with this root's CPUs in the park. */
	MR_VETO("__crash_kexec", "the crash kernel is not started"),
	MR_VETO(MR_MICROCODE_FUNCTION, "microcode stays as it is"),
};

static int mr_veto_on_sleep(struct notifier_block *nb, unsigned long action, void *data)
{
	bool begins = action == PM_SUSPEND_PREPARE || action == PM_HIBERNATION_PREPARE || action == PM_RESTORE_PREPARE;

	if (!begins || !mr_ledger_others())
		return NOTIFY_DONE;
	pr_err("another root is alive: the machine stays awake\n");
	return notifier_from_errno(-EBUSY);
}

/* First of all, so that nobody gets ready in vain. */
static struct notifier_block mr_veto_sleep_notifier = { .notifier_call = mr_veto_on_sleep, .priority = INT_MAX };

void mr_veto_exit(void)
{
	int i;

	unregister_pm_notifier(&mr_veto_sleep_notifier);
	for (i = 0; i < ARRAY_SIZE(mr_vetoes); i++)
		if (mr_vetoes[i].armed)
			unregister_kprobe(&mr_vetoes[i].probe);
}

int mr_veto_init(void)
{
	int err, i;

	err = register_pm_notifier(&mr_veto_sleep_notifier);
	for (i = 0; !err && i < ARRAY_SIZE(mr_vetoes); i++) {
		err = register_kprobe(&mr_vetoes[i].probe);
		mr_vetoes[i].armed = !err;
		if (err == -ENOENT)
			err = 0;
		else if (err)
			pr_err("cannot probe %s\n", mr_vetoes[i].probe.symbol_name);
	}
	if (err)
		mr_veto_exit();
	return err;
}

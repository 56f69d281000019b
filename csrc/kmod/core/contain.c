// SPDX-License-Identifier: GPL-2.0-only
/*
 * Containment: while another root is alive, the end of this one (reboot, power off, panic) parks its CPUs and tells
 * its peers; the machine itself is only ever ended by its last root.
 */
#include <linux/kprobes.h>
#include <linux/notifier.h>
#include <linux/panic.h>
#include <linux/panic_notifier.h>
#include <linux/reboot.h>

#include "core/core.h"

/* Above all firmware handlers, which end the machine. */
#define SYS_OFF_PRIORITY	255

static struct sys_off_handler *power_off;
static long (*old_panic_blink)(int state);

/*
 * This root ends here. True when another one lives on, which is told; nothing that ends the machine may follow then.
 * Harmless when called again.
 */
static bool end_root(void)
{
	u32 i;

	if (!mr_ledger_leave())
		return false;
	for (i = MULTIROOT_PARENT; i <= MULTIROOT_CHILD; i++) {
		struct mr_peer *peer = mr_peer(i);

		if (peer)
			mr_join_set_state(peer, MULTIROOT_SIDE_PARKED);
	}
	return true;
}

/* For good: what wakes this CPU up again is another root. */
static void park(void)
{
	mr_stop_others();
	mr_park_self();
}

/*
 * The machine ends with this root. The first one has firmware for that; later ones have what the first left in
 * the ledger.
 */
static void reset_machine(void)
{
	if (mr_ledger_root() != 1)
		mr_power_reset(mr_ledger);
}

static void power_machine_off(void)
{
	if (mr_ledger_root() != 1)
		mr_power_off(mr_ledger);
}

/* A restart, wherever it comes from (reboot, panic with a timeout, sysrq), ends in this function. */
static int __kprobes before_restart(struct kprobe *probe, struct pt_regs *regs)
{
	if (end_root()) {
		pr_emerg("another root is alive: this root's CPUs are parked, the machine is not reset\n");
		park();
	}
	reset_machine();
	return 0;
}

static struct kprobe restart_probe = {
	.symbol_name = MR_RESTART_FUNCTION,
	.pre_handler = before_restart,
};

static int before_power_off(struct sys_off_data *data)
{
	if (end_root()) {
		pr_emerg("another root is alive: this root's CPUs are parked, the machine stays on\n");
		park();
	}
	power_machine_off();
	return NOTIFY_DONE;
}

/* Halting calls nothing else of ours; restart and power off come by again at their very end. */
static int on_reboot(struct notifier_block *nb, unsigned long action, void *data)
{
	if (action == SYS_HALT)
		end_root();
	return NOTIFY_DONE;
}

static struct notifier_block reboot_notifier = { .notifier_call = on_reboot, .priority = INT_MIN };

/* First of all, for what comes after may not return. */
static int on_panic(struct notifier_block *nb, unsigned long action, void *data)
{
	end_root();
	return NOTIFY_DONE;
}

static struct notifier_block panic_notifier = { .notifier_call = on_panic, .priority = INT_MAX };

/* Called over and over at the end of a panic, when all is said: better to sleep than to spin. */
static long park_after_panic(int state)
{
	if (end_root())
		park();
	return old_panic_blink ? old_panic_blink(state) : 0;
}

int mr_contain_init(void)
{
	int err;

	err = mr_stop_init(end_root);
	if (err)
		return err;
	err = register_kprobe(&restart_probe);
	if (err) {
		pr_err("cannot probe %s: a restart of this root would reset the machine\n", restart_probe.symbol_name);
		goto unhook;
	}
	power_off = register_sys_off_handler(SYS_OFF_MODE_POWER_OFF, SYS_OFF_PRIORITY, before_power_off, NULL);
	if (IS_ERR(power_off)) {
		err = PTR_ERR(power_off);
		goto unprobe;
	}
	err = register_reboot_notifier(&reboot_notifier);
	if (err)
		goto unhandle;
	err = atomic_notifier_chain_register(&panic_notifier_list, &panic_notifier);
	if (!err) {
		old_panic_blink = panic_blink;
		panic_blink = park_after_panic;
		return 0;
	}
	unregister_reboot_notifier(&reboot_notifier);
unhandle:
	unregister_sys_off_handler(power_off);
unprobe:
	unregister_kprobe(&restart_probe);
unhook:
	mr_stop_exit();
	return err;
}

void mr_contain_exit(void)
{
	panic_blink = old_panic_blink;
	atomic_notifier_chain_unregister(&panic_notifier_list, &panic_notifier);
	unregister_reboot_notifier(&reboot_notifier);
	unregister_sys_off_handler(power_off);
	unregister_kprobe(&restart_probe);
	mr_stop_exit();
}

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

static long (*mr_contain_old_panic_blink)(int state);
static bool mr_contain_unprepared;	/* firmware was not told of the machine's end */

/*
 * This root ends here. True when another one lives on, which is told; nothing that ends the machine may follow then.
 * Harmless when called again.
 */
static bool mr_contain_end_root(void)
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
static void mr_contain_park(void)
{
	mr_stop_others();
	mr_park_self();
}

/*
 * The machine ends with this root. The first one has firmware for that; later ones have what the first left in
 * the ledger.
 */
static void mr_contain_reset_machine(void)
{
	mr_ledger_bury();
	if (mr_ledger_root() != 1)
		mr_power_reset(mr_ledger);
}

static void mr_contain_power_machine_off(void)
{
	mr_ledger_bury();
	/* Or it was not the last one just before. */
	if (mr_ledger_root() != 1 || mr_contain_unprepared)
		mr_power_off(mr_ledger);
}

/* A restart, wherever it comes from (reboot, panic with a timeout, sysrq), ends in this function. */
static int __kprobes mr_contain_before_restart(struct kprobe *probe, struct pt_regs *regs)
{
	if (mr_contain_end_root()) {
		pr_emerg("another root is alive: this root's CPUs are parked, the machine is not reset\n");
		mr_contain_park();
	}
	mr_contain_reset_machine();
	return 0;
}

static struct kprobe mr_contain_restart_probe = {
	.symbol_name = MR_RESTART_FUNCTION,
	.pre_handler = mr_contain_before_restart,
};

/*
 * Firmware gets ready here for the machine to end (_PTS, GPEs off). It won't, so none of the other handlers is called.
 * The root ends when its CPUs have stopped, not here.
 */
static int mr_contain_before_firmware(struct sys_off_data *data)
{
	mr_contain_unprepared = mr_ledger_others();
	return mr_contain_unprepared ? NOTIFY_STOP : NOTIFY_DONE;
}

static int mr_contain_before_power_off(struct sys_off_data *data)
{
	if (mr_contain_end_root()) {
		pr_emerg("another root is alive: this root's CPUs are parked, the machine stays on\n");
		mr_contain_park();
	}
	mr_contain_power_machine_off();
	return NOTIFY_DONE;
}

static const struct {
	enum sys_off_mode mode;
	int (*before)(struct sys_off_data *data);
} mr_contain_offs[] = {
#ifdef MR_RESTART_PREPARE
	{ SYS_OFF_MODE_RESTART_PREPARE, mr_contain_before_firmware },
#endif
	{ SYS_OFF_MODE_POWER_OFF_PREPARE, mr_contain_before_firmware },
	{ SYS_OFF_MODE_POWER_OFF, mr_contain_before_power_off },
};

static struct sys_off_handler *mr_contain_handlers[ARRAY_SIZE(mr_contain_offs)];

static void mr_contain_unhandle(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(mr_contain_offs); i++) {
		unregister_sys_off_handler(mr_contain_handlers[i]);
		mr_contain_handlers[i] = NULL;
	}
}

static int mr_contain_handle(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(mr_contain_offs); i++) {
		struct sys_off_handler *handler;

		handler = register_sys_off_handler(mr_contain_offs[i].mode, SYS_OFF_PRIORITY,
						   mr_contain_offs[i].before, NULL);
		if (IS_ERR(handler)) {
			mr_contain_unhandle();
			return PTR_ERR(handler);
		}
		mr_contain_handlers[i] = handler;
	}
	return 0;
}

/*
 * Halting calls nothing else of ours; restart and power off come by again at their very end, but not where kexec puts
 * another kernel in this one's place.
 */
static int mr_contain_on_reboot(struct notifier_block *nb, unsigned long action, void *data)
{
	if (action == SYS_HALT)
		mr_contain_end_root();
	if (!mr_ledger_others())
		mr_ledger_bury();
	return NOTIFY_DONE;
}

static struct notifier_block mr_contain_reboot_notifier = {
	.notifier_call = mr_contain_on_reboot,
	.priority = INT_MIN,
};

/* First of all, for what comes after may not return. */
static int mr_contain_on_panic(struct notifier_block *nb, unsigned long action, void *data)
{
	mr_contain_end_root();
	return NOTIFY_DONE;
}

static struct notifier_block mr_contain_panic_notifier = { .notifier_call = mr_contain_on_panic, .priority = INT_MAX };

/* Called over and over at the end of a panic, when all is said: better to sleep than to spin. */
static long mr_contain_park_after_panic(int state)
{
	if (mr_contain_end_root())
		mr_contain_park();
	return mr_contain_old_panic_blink ? mr_contain_old_panic_blink(state) : 0;
}

int mr_contain_init(void)
{
	int err;

	err = mr_stop_init(mr_contain_end_root);
	if (err)
		return err;
	err = register_kprobe(&mr_contain_restart_probe);
	if (err) {
		pr_err("cannot probe %s: a restart of this root would reset the machine\n",
		       mr_contain_restart_probe.symbol_name);
		goto unhook;
	}
	err = mr_contain_handle();
	if (err)
		goto unprobe;
	err = register_reboot_notifier(&mr_contain_reboot_notifier);
	if (err)
		goto unhandle;
	err = atomic_notifier_chain_register(&panic_notifier_list, &mr_contain_panic_notifier);
	if (!err) {
		mr_contain_old_panic_blink = panic_blink;
		panic_blink = mr_contain_park_after_panic;
		return 0;
	}
	unregister_reboot_notifier(&mr_contain_reboot_notifier);
unhandle:
	mr_contain_unhandle();
unprobe:
	unregister_kprobe(&mr_contain_restart_probe);
unhook:
	mr_stop_exit();
	return err;
}

void mr_contain_exit(void)
{
	panic_blink = mr_contain_old_panic_blink;
	atomic_notifier_chain_unregister(&panic_notifier_list, &mr_contain_panic_notifier);
	unregister_reboot_notifier(&mr_contain_reboot_notifier);
	mr_contain_unhandle();
	unregister_kprobe(&mr_contain_restart_probe);
	mr_stop_exit();
}

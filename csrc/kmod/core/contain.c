// SPDX-License-Identifier: GPL-2.0-only
/*
 * Containment: while another root is alive, the end of this one (reboot, power off, panic) parks its CPUs and tells
 * its peers; the machine itself is only ever ended by its last root.
 */
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/kprobes.h>
#include <linux/notifier.h>
#include <linux/panic.h>
#include <linux/panic_notifier.h>
#include <linux/reboot.h>
#include <linux/smp.h>
#include <asm/irq_vectors.h>
#include <asm/nmi.h>
#include <asm/smp.h>

#include "core/core.h"

/* Above all firmware handlers, which end the machine. */
#define SYS_OFF_PRIORITY	255

/* How long a CPU may take to notice an interrupt, and how often it is looked for. */
#define PARK_WAIT_MS	500
#define PARK_POLLS_MS	20

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
			mr_peer_set_state(peer, MULTIROOT_SIDE_PARKED);
	}
	return true;
}

/* For good: what wakes this CPU up again is another root. */
static void park(void)
{
	/* Does nothing when the kernel has stopped them on its way here; an emergency restart has not. */
	smp_ops.stop_other_cpus(0);
	mr_park_self();
}

/*
 * The machine ends with this root. The first one has firmware for that; later ones have what the first left in
 * the ledger.
 */
static void reset_machine(void)
{
	if (mr_ledger_root() != 1 && mr_ledger->reset_port)
		outb(mr_ledger->reset_value, mr_ledger->reset_port);
}

static void power_machine_off(void)
{
	if (mr_ledger_root() != 1 && mr_ledger->pm1a_control)
		outw(mr_ledger->pm1a_off, mr_ledger->pm1a_control);
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
	.symbol_name = "native_machine_emergency_restart",
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

/*
 * Parking the other CPUs. The kernel's own way leaves them halted in its memory, with nobody to tell when they are
 * there; here each is sent to stop_this_cpu() as ever, and leaves through a probe on it.
 */
static void (*stop_natively)(int wait);
static struct cpumask to_park;

static void park_if_told(void)
{
	if (cpumask_test_and_clear_cpu(raw_smp_processor_id(), &to_park))
		mr_park_self();
}

static int __kprobes before_stop(struct kprobe *probe, struct pt_regs *regs)
{
	park_if_told();
	/* The last CPU of a root that halts stops by itself. */
	if (system_state == SYSTEM_HALT && end_root())
		mr_park_self();
	return 0;
}

static struct kprobe stop_probe = { .symbol_name = "stop_this_cpu", .pre_handler = before_stop };

static int on_nmi(unsigned int command, struct pt_regs *regs)
{
	park_if_told();
	return NMI_DONE;
}

/* True when all CPUs but this one are parked. */
static bool all_parked(unsigned int this)
{
	unsigned int cpu;

	for_each_online_cpu(cpu)
		if (cpu != this && !mr_park_has(per_cpu(x86_cpu_to_apicid, cpu)))
			return false;
	return true;
}

static bool wait_parked(unsigned int this)
{
	int i;

	for (i = 0; i < PARK_WAIT_MS * PARK_POLLS_MS && !all_parked(this); i++)
		udelay(USEC_PER_MSEC / PARK_POLLS_MS);
	return all_parked(this);
}

/* smp_ops.stop_other_cpus; from restart, power off, halt and panic, on one CPU. */
static void stop_others(int wait)
{
	unsigned int this = raw_smp_processor_id(), cpu;

	if (!mr_ledger_others()) {
		stop_natively(wait);
		return;
	}
	for_each_online_cpu(cpu) {
		if (cpu == this || mr_park_has(per_cpu(x86_cpu_to_apicid, cpu)))
			continue;
		cpumask_set_cpu(cpu, &to_park);
		mr_apic_send_fixed(per_cpu(x86_cpu_to_apicid, cpu), REBOOT_VECTOR);
	}
	if (wait_parked(this))
		return;
	for_each_cpu(cpu, &to_park)
		mr_apic_send_nmi(per_cpu(x86_cpu_to_apicid, cpu));
	if (!wait_parked(this))
		pr_emerg("CPUs %*pbl did not park\n", cpumask_pr_args(&to_park));
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

static int hook_stop(void)
{
	int err;

	err = register_kprobe(&stop_probe);
	if (err) {
		pr_err("cannot probe %s: this root's CPUs could not be parked\n", stop_probe.symbol_name);
		return err;
	}
	err = register_nmi_handler(NMI_LOCAL, on_nmi, 0, "multiroot");
	if (err) {
		unregister_kprobe(&stop_probe);
		return err;
	}
	stop_natively = smp_ops.stop_other_cpus;
	smp_ops.stop_other_cpus = stop_others;
	return 0;
}

static void unhook_stop(void)
{
	smp_ops.stop_other_cpus = stop_natively;
	unregister_nmi_handler(NMI_LOCAL, "multiroot");
	unregister_kprobe(&stop_probe);
}

int mr_contain_init(void)
{
	int err;

	err = hook_stop();
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
	unhook_stop();
	return err;
}

void mr_contain_exit(void)
{
	panic_blink = old_panic_blink;
	atomic_notifier_chain_unregister(&panic_notifier_list, &panic_notifier);
	unregister_reboot_notifier(&reboot_notifier);
	unregister_sys_off_handler(power_off);
	unregister_kprobe(&restart_probe);
	unhook_stop();
}

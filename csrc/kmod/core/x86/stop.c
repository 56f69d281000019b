// SPDX-License-Identifier: GPL-2.0-only
/*
 * Parking the other CPUs of a root that ends. The kernel's own way leaves them halted in its memory, and nobody can
 * tell when they are there. Here each is sent to stop_this_cpu() as ever, and leaves through a probe on it.
 */
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/kprobes.h>
#include <linux/reboot.h>
#include <linux/smp.h>
#include <asm/irq_vectors.h>
#include <asm/nmi.h>
#include <asm/smp.h>

#include "core/core.h"

/* How long a CPU may take to notice an interrupt, then an NMI, and how often it is looked for. */
#define PARK_WAIT_MS	500
#define NMI_WAIT_MS	10000	/* a virtual CPU may be kept from running for seconds */
#define PARK_POLLS_MS	20

static void (*mr_stop_natively)(int wait);
static void (*mr_stop_crash_natively)(void);
static bool (*mr_stop_end_root)(void);
static struct cpumask mr_stop_to_park;

static void mr_stop_park_if_told(void)
{
	unsigned int cpu = raw_smp_processor_id();

	/* By another root: it takes this CPU back, and an INIT would not do. */
	if (cpumask_test_and_clear_cpu(cpu, &mr_stop_to_park) || mr_slot_wanted(mr_hardware_id(cpu)))
		mr_park_self();
}

static int __kprobes mr_stop_before_stop(struct kprobe *probe, struct pt_regs *regs)
{
	mr_stop_park_if_told();
	/* The last CPU of a root that halts stops by itself. */
	if (system_state == SYSTEM_HALT && mr_stop_end_root())
		mr_park_self();
	return 0;
}

static struct kprobe mr_stop_probe = { .symbol_name = "stop_this_cpu", .pre_handler = mr_stop_before_stop };

static int mr_stop_on_nmi(unsigned int command, struct pt_regs *regs)
{
	mr_stop_park_if_told();
	return NMI_DONE;
}

/*
 * Stop all CPUs but this one. Does nothing when the kernel has stopped them on its way here; an emergency restart has
 * not.
 */
void mr_stop_others(void)
{
	smp_ops.stop_other_cpus(0);
}

/* True when all CPUs but this one are parked. */
static bool mr_stop_all_parked(unsigned int this)
{
	unsigned int cpu;

	for_each_online_cpu(cpu)
		if (cpu != this && !mr_slot_parked(mr_hardware_id(cpu)))
			return false;
	return true;
}

static bool mr_stop_wait_parked(unsigned int this, int ms)
{
	int i;

	for (i = 0; i < ms * PARK_POLLS_MS && !mr_stop_all_parked(this); i++)
		udelay(USEC_PER_MSEC / PARK_POLLS_MS);
	return mr_stop_all_parked(this);
}

/* smp_ops.stop_other_cpus; from restart, power off, halt and panic, on one CPU. */
static void mr_stop_all_others(int wait)
{
	unsigned int this = raw_smp_processor_id(), cpu;

	if (!mr_ledger_others()) {
		mr_stop_natively(wait);
		return;
	}
	for_each_online_cpu(cpu) {
		if (cpu == this || mr_slot_parked(mr_hardware_id(cpu)))
			continue;
		cpumask_set_cpu(cpu, &mr_stop_to_park);
		mr_ipi_vector(mr_hardware_id(cpu), REBOOT_VECTOR);
	}
	if (mr_stop_wait_parked(this, PARK_WAIT_MS))
		return;
	for_each_cpu(cpu, &mr_stop_to_park)
		mr_ipi_nmi(mr_hardware_id(cpu));
	if (!mr_stop_wait_parked(this, NMI_WAIT_MS))
		pr_emerg("CPUs %*pbl did not park\n", cpumask_pr_args(&mr_stop_to_park));
}

/* smp_ops.crash_stop_other_cpus; from a panic that wants a crash kernel behind its notifiers. */
static void mr_stop_all_in_crash(void)
{
	if (mr_ledger_others())
		mr_stop_all_others(0);
	else
		mr_stop_crash_natively();
}

/**
 * mr_stop_init() - have CPUs park where the kernel would halt them
 * @end: called on a CPU that halts by itself; true when it is to park
 *
 * Return: 0; a negative error when this kernel's functions can't be hooked.
 */
int mr_stop_init(bool (*end)(void))
{
	int err;

	mr_stop_end_root = end;
	err = register_kprobe(&mr_stop_probe);
	if (err) {
		pr_err("cannot probe %s: this root's CPUs could not be parked\n", mr_stop_probe.symbol_name);
		return err;
	}
	err = register_nmi_handler(NMI_LOCAL, mr_stop_on_nmi, 0, "multiroot");
	if (err) {
		unregister_kprobe(&mr_stop_probe);
		return err;
	}
	mr_stop_natively = smp_ops.stop_other_cpus;
	smp_ops.stop_other_cpus = mr_stop_all_others;
	/* Without one the kernel takes the other. */
	mr_stop_crash_natively = smp_ops.crash_stop_other_cpus;
	if (mr_stop_crash_natively)
		smp_ops.crash_stop_other_cpus = mr_stop_all_in_crash;
	return 0;
}

void mr_stop_exit(void)
{
	smp_ops.stop_other_cpus = mr_stop_natively;
	smp_ops.crash_stop_other_cpus = mr_stop_crash_natively;
	unregister_nmi_handler(NMI_LOCAL, "multiroot");
	unregister_kprobe(&mr_stop_probe);
}

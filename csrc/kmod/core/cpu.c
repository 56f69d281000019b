// SPDX-License-Identifier: GPL-2.0-only
/*
 * CPUs of other roots. An offline CPU is granted (taken out of this kernel's idle loop to the park, and kept from
 * coming online), started at an entry point, and reclaimed, to the park again. What does not get there keeps its owner.
 */
#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/io.h>
#include <linux/iopoll.h>
#include <linux/mm.h>
#include <linux/smp.h>
#include <asm/tsc.h>

#include "core/core.h"

#define TIMEOUT_MAX_MS	10000
#define POLL_US		100

static struct cpumask mr_cpu_granted;
static struct cpumask mr_cpu_started;
static int mr_cpu_online_state;
static int mr_cpu_offline_state;

bool mr_cpu_any_granted(void)
{
	return !cpumask_empty(&mr_cpu_granted);
}

bool mr_cpu_any_started(void)
{
	return !cpumask_empty(&mr_cpu_started);
}

static void mr_cpu_describe(struct multiroot_cpu *cpu)
{
	cpu->hardware_id = mr_hardware_id(cpu->cpu);
	cpu->root = mr_ledger_cpu_root(cpu->hardware_id);
	if (cpumask_test_cpu(cpu->cpu, &mr_cpu_started))
		cpu->state = MULTIROOT_CPU_STARTED;
	else if (cpumask_test_cpu(cpu->cpu, &mr_cpu_granted))
		cpu->state = MULTIROOT_CPU_GRANTED;
	else
		cpu->state = cpu_online(cpu->cpu) ? MULTIROOT_CPU_ONLINE : MULTIROOT_CPU_OFFLINE;
}

/* One that is there and has a place in the ledger. */
static bool mr_cpu_exists(u32 cpu)
{
	return cpu < nr_cpu_ids && cpu_present(cpu) && mr_hardware_id(cpu) < MULTIROOT_LEDGER_CPUS;
}

/* Fill in what is known of @cpu->cpu; -EINVAL when there is no such CPU. */
int mr_cpu_get(struct multiroot_cpu *cpu)
{
	if (!mr_cpu_exists(cpu->cpu))
		return -EINVAL;
	mr_cpu_describe(cpu);
	return 0;
}

/**
 * mr_cpu_find() - look a CPU up by its hardware id
 * @hardware_id: the CPU
 * @cpu: filled in
 *
 * Return: 0; -ENODEV: this kernel has no such CPU.
 */
int mr_cpu_find(u32 hardware_id, struct multiroot_cpu *cpu)
{
	unsigned int number;

	for_each_present_cpu(number) {
		if (mr_hardware_id(number) != hardware_id)
			continue;
		cpu->cpu = number;
		mr_cpu_describe(cpu);
		return 0;
	}
	return -ENODEV;
}

/**
 * mr_cpu_grant() - take an offline CPU out of this kernel's hands
 * @cpu: the CPU by number; the rest is filled in
 *
 * Return: 0; -EINVAL: no such CPU; -EPERM: the machine's boot CPU, which INIT would reset; -EBUSY: online or granted
 * already; -ENOENT: there is no carve to grant it to; -ETIMEDOUT: it did not park, and stays this root's.
 */
int mr_cpu_grant(struct multiroot_cpu *cpu)
{
	struct mr_peer *child = mr_peer(MULTIROOT_CHILD);
	u32 hardware_id;
	int err;

	if (!mr_cpu_exists(cpu->cpu))
		return -EINVAL;
	hardware_id = mr_hardware_id(cpu->cpu);
	if (hardware_id == mr_ledger->boot_hardware_id || !cpu->cpu)
		return -EPERM;
	if (!child)
		return -ENOENT;
	if (cpumask_test_cpu(cpu->cpu, &mr_cpu_granted))
		return -EBUSY;
	cpus_read_lock();
	if (cpu_online(cpu->cpu)) {
		cpus_read_unlock();
		return -EBUSY;
	}
	cpumask_set_cpu(cpu->cpu, &mr_cpu_granted);
	cpus_read_unlock();
	err = mr_slot_take(hardware_id, false);
	if (err) {
		cpumask_clear_cpu(cpu->cpu, &mr_cpu_granted);
		return err;
	}
	/* From here on the child may start it, by an INIT of which we do not hear. */
	mr_slot_forget(hardware_id);
	mr_ledger_set_cpu(hardware_id, child->root, MULTIROOT_CPU_GRANTED);
	mr_cpu_describe(cpu);
	mr_event_send(child, MR_EVENT_CPU_GRANTED);
	return 0;
}

static int mr_cpu_check_start(const struct multiroot_cpu_start *start)
{
	if (!mr_cpu_exists(start->cpu) || !start->timeout_ms || start->timeout_ms > TIMEOUT_MAX_MS || start->pad)
		return -EINVAL;
	if (!PAGE_ALIGNED(start->trampoline) || !mr_low_has(start->trampoline, PAGE_SIZE))
		return -EINVAL;
	if (!PAGE_ALIGNED(start->cr3) || start->cr3 > U32_MAX ||
	    !(mr_low_has(start->cr3, PAGE_SIZE) || mr_carve_has(start->cr3, PAGE_SIZE)))
		return -EINVAL;
	/* The stack grows down from its end, which may be the end of a range. */
	if (start->stack < PAGE_SIZE || !mr_carve_has(start->stack - PAGE_SIZE, PAGE_SIZE) ||
	    !IS_ALIGNED(start->stack, 16))
		return -EINVAL;
	if (!mr_carve_has(start->entry, 1) || !mr_carve_has(start->boot_params, PAGE_SIZE))
		return -EINVAL;
	return 0;
}

/**
 * mr_cpu_start() - send a granted CPU to the entry point
 * @start: see the uapi header; stage and times are filled in even on a timeout
 *
 * Return: 0; -EINVAL; -EBUSY: not granted, or started already; -ENOMEM; -ETIMEDOUT: it did not reach the entry.
 */
int mr_cpu_start(struct multiroot_cpu_start *start)
{
	struct mr_peer *child = mr_peer(MULTIROOT_CHILD);
	u32 hardware_id, stage, *reached;
	u8 *page;
	int err;

	start->stage = MULTIROOT_STAGE_NONE;
	start->tsc_sipi = 0;
	start->tsc_entry = 0;
	if (!child)
		return -ENOENT;
	err = mr_cpu_check_start(start);
	if (err)
		return err;
	if (!cpumask_test_cpu(start->cpu, &mr_cpu_granted) || mr_cpu_any_started())
		return -EBUSY;
	page = memremap(start->trampoline, PAGE_SIZE, MEMREMAP_WB);
	if (!page)
		return -ENOMEM;
	reached = mr_trampoline_fill(page, start);
	hardware_id = mr_hardware_id(start->cpu);

	cpumask_set_cpu(start->cpu, &mr_cpu_started);
	mr_ledger_root_started(child->root, hardware_id);
	mr_peer_child_starts(child);
	mr_ipi_stop(hardware_id);
	start->tsc_sipi = rdtsc();
	child->control->start_tsc = start->tsc_sipi;
	mr_ipi_startup(hardware_id, start->trampoline);
	err = read_poll_timeout(READ_ONCE, stage, stage == MULTIROOT_STAGE_ENTRY, POLL_US,
				start->timeout_ms * USEC_PER_MSEC, false, *reached);
	if (!err)
		start->tsc_entry = rdtsc();
	start->stage = stage;
	memunmap(page);
	mr_event_send(child, MR_EVENT_STARTED);
	return err;
}

/*
 * True when the child's module has come up, also if it has ended since, and the CPU is one that it runs on: that one
 * parks when asked by NMI. Others are not asked: a kernel that boots would not survive an NMI.
 */
static bool mr_cpu_listens(const struct mr_peer *child, u32 hardware_id)
{
	u32 side = READ_ONCE(child->theirs->state), state = mr_ledger_cpu_state(hardware_id);

	return (mr_peer_alive(child) || side == MULTIROOT_SIDE_PARKED) && state != MULTIROOT_CPU_GRANTED &&
	       state != MULTIROOT_CPU_OFFLINE;
}

/* To the park, out of whatever it executes. The child ends with the CPU that it was started on. */
static int mr_cpu_take_back(struct mr_peer *child, u32 hardware_id, bool started)
{
	bool listens = mr_cpu_listens(child, hardware_id);
	int err;

	/* Before the CPU is stopped, so that a root that ends by itself can't take itself for the last one. */
	if (started)
		mr_ledger_root_ends(hardware_id);
	err = mr_slot_take(hardware_id, listens);
	if (err && started)
		mr_ledger_root_goes_on(hardware_id);
	return err;
}

/**
 * mr_cpu_reclaim() - take a CPU back, whatever it does there
 * @cpu: the CPU by number; the rest is filled in
 *
 * Return: 0; -EINVAL: no such CPU; -EBUSY: it was not granted; -ETIMEDOUT: it did not park, and stays the child's.
 */
int mr_cpu_reclaim(struct multiroot_cpu *cpu)
{
	struct mr_peer *child = mr_peer(MULTIROOT_CHILD);
	u32 hardware_id;
	bool started;
	int err;

	if (!mr_cpu_exists(cpu->cpu))
		return -EINVAL;
	if (!cpumask_test_cpu(cpu->cpu, &mr_cpu_granted))
		return -EBUSY;
	hardware_id = mr_hardware_id(cpu->cpu);
	started = cpumask_test_cpu(cpu->cpu, &mr_cpu_started);
	err = mr_cpu_take_back(child, hardware_id, started);
	if (err)
		return err;
	mr_ledger_set_cpu(hardware_id, mr_ledger_root(), MULTIROOT_CPU_OFFLINE);
	if (started) {
		cpumask_clear_cpu(cpu->cpu, &mr_cpu_started);
		mr_join_child_gone(child);
	}
	/* Whoever is being told that it is the child's knows the child, which goes when no CPU is granted. */
	cpus_read_lock();
	cpumask_clear_cpu(cpu->cpu, &mr_cpu_granted);
	cpus_read_unlock();
	mr_cpu_describe(cpu);
	mr_event_send(child, MR_EVENT_CPU_RECLAIMED);
	return 0;
}

/*
 * Onlining a CPU that runs another root would end that root. One that was added to the machine after this module may
 * have no place in the ledger: it would park in memory that is another's, and no later root would know of it.
 */
static int mr_cpu_going_online(unsigned int cpu)
{
	if (mr_hardware_id(cpu) >= MULTIROOT_LEDGER_CPUS) {
		pr_info("CPU %u stays offline: the ledger has no place for its hardware id, %u\n", cpu,
			mr_hardware_id(cpu));
		return -E2BIG;
	}
	if (cpumask_test_cpu(cpu, &mr_cpu_granted)) {
		pr_info("CPU %u stays offline: root %u has it\n", cpu, mr_ledger_cpu_root(mr_hardware_id(cpu)));
		mr_event_send(mr_peer(MULTIROOT_CHILD), MR_EVENT_ONLINE_VETOED);
		return -EBUSY;
	}
	mr_ledger_set_cpu(mr_hardware_id(cpu), mr_ledger_root(), MULTIROOT_CPU_ONLINE);
	return 0;
}

static int mr_cpu_gone_offline(unsigned int cpu)
{
	mr_ledger_set_cpu(mr_hardware_id(cpu), mr_ledger_root(), MULTIROOT_CPU_OFFLINE);
	return 0;
}

/*
 * An offline CPU sleeps in this kernel's memory, and an INIT is what takes it out of there, to the park. The machine's
 * boot CPU can't be taken out like that: offline it would be lost to every later root.
 */
static int mr_cpu_going_offline(unsigned int cpu)
{
	if (mr_hardware_id(cpu) != mr_ledger->boot_hardware_id)
		return 0;
	pr_info("CPU %u stays online: it is the machine's boot CPU\n", cpu);
	return -EBUSY;
}

int mr_cpu_init(void)
{
	mr_cpu_online_state = cpuhp_setup_state_nocalls(CPUHP_BP_PREPARE_DYN, "multiroot:owner",
							mr_cpu_going_online, mr_cpu_gone_offline);
	if (mr_cpu_online_state < 0)
		return mr_cpu_online_state;
	mr_cpu_offline_state = cpuhp_setup_state_nocalls(CPUHP_AP_ONLINE_DYN, "multiroot:boot", NULL,
							 mr_cpu_going_offline);
	if (mr_cpu_offline_state >= 0)
		return 0;
	cpuhp_remove_state_nocalls(mr_cpu_online_state);
	return mr_cpu_offline_state;
}

void mr_cpu_exit(void)
{
	cpuhp_remove_state_nocalls(mr_cpu_offline_state);
	cpuhp_remove_state_nocalls(mr_cpu_online_state);
}

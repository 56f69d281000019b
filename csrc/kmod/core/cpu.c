// SPDX-License-Identifier: GPL-2.0-only
/*
 * CPUs of other roots. An offline CPU is granted (taken out of this kernel's idle loop by INIT, and kept from coming
 * online), started at an entry point, and reclaimed by INIT.
 */
#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/io.h>
#include <linux/iopoll.h>
#include <linux/mm.h>
#include <linux/smp.h>
#include <asm/tsc.h>

#include "core/core.h"
#include "core/x86/trampoline.h"

#define TIMEOUT_MAX_MS	10000
#define POLL_US		100
#define SELECTOR_CODE64	0x10

static struct cpumask granted;
static struct cpumask started;
static int online_state;
static int offline_state;

bool mr_cpu_any_granted(void)
{
	return !cpumask_empty(&granted);
}

bool mr_cpu_any_started(void)
{
	return !cpumask_empty(&started);
}

static u32 apic_id_of(u32 cpu)
{
	return per_cpu(x86_cpu_to_apicid, cpu);
}

static void describe(struct multiroot_cpu *cpu)
{
	cpu->apic_id = apic_id_of(cpu->cpu);
	cpu->root = mr_ledger_cpu_root(cpu->apic_id);
	if (cpumask_test_cpu(cpu->cpu, &started))
		cpu->state = MULTIROOT_CPU_STARTED;
	else if (cpumask_test_cpu(cpu->cpu, &granted))
		cpu->state = MULTIROOT_CPU_GRANTED;
	else
		cpu->state = cpu_online(cpu->cpu) ? MULTIROOT_CPU_ONLINE : MULTIROOT_CPU_OFFLINE;
}

/* One that is there and has a place in the ledger. */
static bool exists(u32 cpu)
{
	return cpu < nr_cpu_ids && cpu_present(cpu) && apic_id_of(cpu) < MULTIROOT_LEDGER_CPUS;
}

/* Fill in what is known of @cpu->cpu; -EINVAL when there is no such CPU. */
int mr_cpu_get(struct multiroot_cpu *cpu)
{
	if (!exists(cpu->cpu))
		return -EINVAL;
	describe(cpu);
	return 0;
}

/* Out of whatever it executes, or out of the park. */
static void take_out(u32 apic_id)
{
	mr_apic_send_init(apic_id);
	mr_park_forget(apic_id);
}

/**
 * mr_cpu_find() - look a CPU up by its APIC id
 * @apic_id: the CPU
 * @cpu: filled in
 *
 * Return: 0; -ENODEV: this kernel has no such CPU.
 */
int mr_cpu_find(u32 apic_id, struct multiroot_cpu *cpu)
{
	unsigned int number;

	for_each_present_cpu(number) {
		if (apic_id_of(number) != apic_id)
			continue;
		cpu->cpu = number;
		describe(cpu);
		return 0;
	}
	return -ENODEV;
}

/**
 * mr_cpu_grant() - take an offline CPU out of this kernel's hands
 * @cpu: the CPU by number; the rest is filled in
 *
 * Return: 0; -EINVAL: no such CPU; -EPERM: the machine's boot CPU, which INIT would reset; -EBUSY: online or granted
 * already; -ENOENT: there is no carve to grant it to.
 */
int mr_cpu_grant(struct multiroot_cpu *cpu)
{
	struct mr_peer *child = mr_peer(MULTIROOT_CHILD);
	u32 apic_id;

	if (!exists(cpu->cpu))
		return -EINVAL;
	apic_id = apic_id_of(cpu->cpu);
	if (apic_id == mr_ledger->boot_apic_id || !cpu->cpu)
		return -EPERM;
	if (!child)
		return -ENOENT;
	if (cpumask_test_cpu(cpu->cpu, &granted))
		return -EBUSY;
	cpus_read_lock();
	if (cpu_online(cpu->cpu)) {
		cpus_read_unlock();
		return -EBUSY;
	}
	cpumask_set_cpu(cpu->cpu, &granted);
	cpus_read_unlock();
	take_out(apic_id);
	mr_ledger_set_cpu(apic_id, child->root, MULTIROOT_CPU_GRANTED);
	describe(cpu);
	mr_dev_uevent(child, "cpu-granted");
	return 0;
}

static int check_start(const struct multiroot_cpu_start *start)
{
	if (!exists(start->cpu) || !start->timeout_ms || start->timeout_ms > TIMEOUT_MAX_MS || start->pad)
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

static void fill_trampoline(u8 *page, const struct multiroot_cpu_start *start)
{
	struct mr_trampoline_params *params = (void *)(page + MR_TRAMPOLINE_PARAMS);
	u32 base = start->trampoline;

	memset(page, 0, PAGE_SIZE);
	memcpy(page, mr_trampoline_start, mr_trampoline_end - mr_trampoline_start);
	params->cr3 = start->cr3;
	params->stack = start->stack;
	params->entry = start->entry;
	params->boot_params = start->boot_params;
	params->far_offset = base + (mr_trampoline_long - mr_trampoline_start);
	params->far_selector = SELECTOR_CODE64;
	params->gdt_limit = sizeof(params->gdt) - 1;
	params->gdt_base = base + MR_TRAMPOLINE_PARAMS + offsetof(struct mr_trampoline_params, gdt);
	/* What the 64-bit boot protocol asks for: flat __BOOT_CS at 0x10, __BOOT_DS at 0x18. */
	params->gdt[2] = 0x00af9b000000ffffULL;
	params->gdt[3] = 0x00cf93000000ffffULL;
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
	struct mr_trampoline_params *params;
	u32 apic_id, stage;
	u8 *page;
	int err;

	start->stage = MULTIROOT_STAGE_NONE;
	start->tsc_sipi = 0;
	start->tsc_entry = 0;
	if (!child)
		return -ENOENT;
	err = check_start(start);
	if (err)
		return err;
	if (!cpumask_test_cpu(start->cpu, &granted) || mr_cpu_any_started())
		return -EBUSY;
	page = memremap(start->trampoline, PAGE_SIZE, MEMREMAP_WB);
	if (!page)
		return -ENOMEM;
	fill_trampoline(page, start);
	params = (void *)(page + MR_TRAMPOLINE_PARAMS);
	apic_id = apic_id_of(start->cpu);

	cpumask_set_cpu(start->cpu, &started);
	mr_ledger_root_started(child->root, apic_id);
	mr_peer_child_starts(child);
	take_out(apic_id);
	start->tsc_sipi = rdtsc();
	child->control->start_tsc = start->tsc_sipi;
	mr_apic_send_startup(apic_id, start->trampoline);
	err = read_poll_timeout(READ_ONCE, stage, stage == MULTIROOT_STAGE_ENTRY, POLL_US,
				start->timeout_ms * USEC_PER_MSEC, false, params->stage);
	if (!err)
		start->tsc_entry = rdtsc();
	start->stage = stage;
	memunmap(page);
	mr_dev_uevent(child, "started");
	return err;
}

/**
 * mr_cpu_reclaim() - take a CPU back, whatever it does there
 * @cpu: the CPU by number; the rest is filled in
 *
 * Return: 0; -EINVAL: no such CPU; -EBUSY: it was not granted.
 */
int mr_cpu_reclaim(struct multiroot_cpu *cpu)
{
	struct mr_peer *child = mr_peer(MULTIROOT_CHILD);
	u32 apic_id;

	if (!exists(cpu->cpu))
		return -EINVAL;
	if (!cpumask_test_cpu(cpu->cpu, &granted))
		return -EBUSY;
	apic_id = apic_id_of(cpu->cpu);
	if (cpumask_test_and_clear_cpu(cpu->cpu, &started)) {
		/*
		 * Without the CPU it was started on it is no root any more. The ledger says so before the CPU is
		 * stopped, so that a root that ends by itself meanwhile can't take itself for the last one.
		 */
		mr_ledger_root_reclaimed(apic_id);
		take_out(apic_id);
		mr_peer_child_gone(child);
	} else {
		take_out(apic_id);
		mr_ledger_set_cpu(apic_id, mr_ledger_root(), MULTIROOT_CPU_OFFLINE);
	}
	cpumask_clear_cpu(cpu->cpu, &granted);
	describe(cpu);
	mr_dev_uevent(child, "cpu-reclaimed");
	return 0;
}

/* Onlining a CPU that runs another root would end that root. */
static int going_online(unsigned int cpu)
{
	if (cpumask_test_cpu(cpu, &granted)) {
		pr_info("CPU %u stays offline: root %u has it\n", cpu, mr_ledger_cpu_root(apic_id_of(cpu)));
		mr_dev_uevent(mr_peer(MULTIROOT_CHILD), "online-vetoed");
		return -EBUSY;
	}
	mr_ledger_set_cpu(apic_id_of(cpu), mr_ledger_root(), MULTIROOT_CPU_ONLINE);
	return 0;
}

static int gone_offline(unsigned int cpu)
{
	mr_ledger_set_cpu(apic_id_of(cpu), mr_ledger_root(), MULTIROOT_CPU_OFFLINE);
	return 0;
}

/*
 * An offline CPU sleeps in this kernel's memory, and an INIT is what takes it out of there. The machine's boot CPU
 * can't be taken out like that: offline it would be lost to every later root.
 */
static int going_offline(unsigned int cpu)
{
	if (apic_id_of(cpu) != mr_ledger->boot_apic_id)
		return 0;
	pr_info("CPU %u stays online: it is the machine's boot CPU\n", cpu);
	return -EBUSY;
}

int mr_cpu_init(void)
{
	online_state = cpuhp_setup_state_nocalls(CPUHP_BP_PREPARE_DYN, "multiroot:owner", going_online, gone_offline);
	if (online_state < 0)
		return online_state;
	offline_state = cpuhp_setup_state_nocalls(CPUHP_AP_ONLINE_DYN, "multiroot:boot", NULL, going_offline);
	if (offline_state >= 0)
		return 0;
	cpuhp_remove_state_nocalls(online_state);
	return offline_state;
}

void mr_cpu_exit(void)
{
	cpuhp_remove_state_nocalls(offline_state);
	cpuhp_remove_state_nocalls(online_state);
}

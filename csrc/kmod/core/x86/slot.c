// SPDX-License-Identifier: GPL-2.0-only
/*
 * Slots of the park, from outside: taking a CPU to its rest there, and waking it. A CPU is at rest when its slot says
 * that it is parked, and nothing else is proof: an INIT may be blocked, which nobody tells who has sent it.
 */
#include <linux/delay.h>
#include <linux/iopoll.h>
#include <linux/printk.h>
#include <asm/barrier.h>

#include "core/core.h"
#include "core/x86/park.h"

/* A virtual CPU may be kept from running for seconds. One that listens and does not park is asked, and led again. */
#define ANSWER_US	(10 * USEC_PER_SEC)
#define ASKED_US	(2 * USEC_PER_SEC)
#define POLL_US		100
#define NMI_GAP_US	10000
#define WAKE_GAP_US	100
#define NMI_FLIGHT_US	50	/* longer than an NMI is on its way */

static struct mr_park_slot *mr_slot(u32 apic_id)
{
	return (struct mr_park_slot *)((u8 *)mr_ledger + mr_ledger->park_offset + MR_PARK_SLOTS) + apic_id;
}

static u32 mr_slot_state(u32 apic_id)
{
	/* What the CPU has left behind when it says so is left for good. */
	return apic_id < MULTIROOT_LEDGER_CPUS ? smp_load_acquire(&mr_slot(apic_id)->state) : MR_SLOT_FREE;
}

/* True when the CPU waits in the park: nobody's memory is in use there. */
bool mr_slot_parked(u32 apic_id)
{
	return mr_slot_state(apic_id) == MR_SLOT_PARKED;
}

/* The CPU is given to somebody who may start it without a word: from now on nothing is known of it. */
void mr_slot_forget(u32 apic_id)
{
	if (apic_id < MULTIROOT_LEDGER_CPUS)
		WRITE_ONCE(mr_slot(apic_id)->state, MR_SLOT_FREE);
}

/* True when another root wants this CPU to park. */
bool mr_slot_wanted(u32 apic_id)
{
	return apic_id < MULTIROOT_LEDGER_CPUS && READ_ONCE(mr_slot(apic_id)->wanted);
}

/* The CPU is on its way: nobody need ask any more. */
void mr_slot_answer(u32 apic_id)
{
	WRITE_ONCE(mr_slot(apic_id)->wanted, 0);
}

/* Have a CPU that runs this module come by itself, out of VMX operation. Nothing is lost when it does not. */
static void mr_slot_ask(u32 apic_id)
{
	bool parked;
	int i;

	WRITE_ONCE(mr_slot(apic_id)->wanted, 1);
	for (i = 0; i < ASKED_US / NMI_GAP_US; i++) {
		mr_ipi_nmi(apic_id);
		if (!read_poll_timeout(mr_slot_parked, parked, parked, POLL_US, NMI_GAP_US, false, apic_id))
			break;
	}
	mr_slot_answer(apic_id);
}

/* Out of whatever it executes, unless it takes no INIT. */
static int mr_slot_lead(u32 apic_id, u64 wait_us)
{
	bool parked;

	/* An INIT resets the boot CPU, and all others with it. */
	if (apic_id == mr_ledger->boot_hardware_id)
		return mr_slot_parked(apic_id) ? 0 : -ETIMEDOUT;
	mr_ipi_stop(apic_id);
	/* The word of one who was started by an INIT since then is worth nothing; what it says now counts. */
	mr_slot_forget(apic_id);
	mr_ipi_startup(apic_id, mr_ledger_phys() + mr_ledger->park_offset);
	return read_poll_timeout(mr_slot_parked, parked, parked, POLL_US, wait_us, false, apic_id);
}

/**
 * mr_slot_take() - take a CPU to the park, out of whatever it executes
 * @apic_id: the CPU, one of the ledger's
 * @listens: whether a kernel with this module runs there, which parks it when asked by NMI
 *
 * Sleeps. Nobody is asked who takes an INIT: a CPU that waits for a startup IPI would wake up to an NMI in QEMU.
 *
 * Return: 0: it is parked; -ETIMEDOUT: it may still run what it ran.
 */
int mr_slot_take(u32 apic_id, bool listens)
{
	int err = mr_slot_lead(apic_id, listens ? ASKED_US : ANSWER_US);

	if (err && listens) {
		mr_slot_ask(apic_id);
		/* An INIT that was blocked may strike when it leaves VMX operation: then it waits for a startup IPI. */
		err = mr_slot_lead(apic_id, ANSWER_US);
	}
	if (err)
		pr_err_ratelimited("the CPU with APIC id %u does not park; it may still run\n", apic_id);
	return err;
}

/* Wait until the slot is in @state; false when it does not come to that. */
static bool mr_slot_answers(u32 apic_id, u32 state, bool kick)
{
	int i;

	for (i = 0; i < ANSWER_US / WAKE_GAP_US && mr_slot_state(apic_id) != state; i++) {
		if (kick)
			mr_ipi_nmi(apic_id);
		udelay(WAKE_GAP_US);
	}
	return mr_slot_state(apic_id) == state;
}

/**
 * mr_slot_wake() - what a startup IPI does, for a CPU in the park
 * @apic_id: the CPU
 * @start: where it begins in real mode, page aligned, below 1 MiB
 *
 * Does not sleep. Goes on where an earlier call has given up.
 *
 * Return: 0; -ENOENT: it is not in the park, and may be started by INIT; -EPERM: nor may it, for it is the machine's
 * boot CPU; -ETIMEDOUT: it does not answer, and is to be woken again.
 */
int mr_slot_wake(u32 apic_id, phys_addr_t start)
{
	u32 state = mr_slot_state(apic_id);

	if (state == MR_SLOT_FREE)
		return apic_id == mr_ledger->boot_hardware_id ? -EPERM : -ENOENT;
	if (state == MR_SLOT_PARKED)
		WRITE_ONCE(mr_slot(apic_id)->state, MR_SLOT_WAKE);
	if (!(state & MR_SLOT_GO)) {
		if (!mr_slot_answers(apic_id, MR_SLOT_AWAKE, true))
			return -ETIMEDOUT;
		/* One that comes later would find the CPU in real mode. */
		udelay(NMI_FLIGHT_US);
		/* The kernel's trampoline is filled in before. */
		smp_store_release(&mr_slot(apic_id)->state, MR_SLOT_GO | (u32)(start >> PAGE_SHIFT));
	}
	return mr_slot_answers(apic_id, MR_SLOT_FREE, false) ? 0 : -ETIMEDOUT;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * The ledger: 64 KiB below 1 MiB that outlive every root. Made by the machine's first root, read and written by all:
 * who has which CPU, how many roots are alive, which number the next one gets.
 */
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/smp.h>

#include "core/core.h"
#include "shared.h"

#define LOW_END		0xa0000
#define FIRST_ROOT	1

struct multiroot_ledger *mr_ledger;

static phys_addr_t mr_ledger_at;
static u32 mr_ledger_this_root;

/* Where the ledger is. */
phys_addr_t mr_ledger_phys(void)
{
	return mr_ledger_at;
}

/* This root's number. */
u32 mr_ledger_root(void)
{
	return mr_ledger_this_root;
}

/* A root lives as long as the CPU it was started on is not marked parked or taken back. */
static u16 *mr_ledger_life_of(u32 hardware_id)
{
	return &mr_ledger->cpu[hardware_id].state;
}

static bool mr_ledger_lives(u16 state)
{
	return state == MULTIROOT_CPU_ONLINE || state == MULTIROOT_CPU_STARTED;
}

/**
 * mr_ledger_root_started() - a new root is about to run
 * @root: its number
 * @hardware_id: the CPU it starts on
 */
void mr_ledger_root_started(u32 root, u32 hardware_id)
{
	WRITE_ONCE(mr_ledger->next_root, root + 1);
	mr_shared_add(&mr_ledger->roots_alive, 1);
	mr_ledger_set_cpu(hardware_id, root, MULTIROOT_CPU_STARTED);
}

/**
 * mr_ledger_root_ends() - a root's first CPU is about to be taken back from it
 * @hardware_id: that CPU, which stays that root's until it is known to be parked
 */
void mr_ledger_root_ends(u32 hardware_id)
{
	/* Atomically, for the root may come to its own end in this very moment. */
	if (mr_ledger_lives(xchg(mr_ledger_life_of(hardware_id), MULTIROOT_CPU_OFFLINE)))
		mr_shared_add(&mr_ledger->roots_alive, -1);
}

/**
 * mr_ledger_root_goes_on() - its first CPU could not be taken back after all
 * @hardware_id: that CPU
 */
void mr_ledger_root_goes_on(u32 hardware_id)
{
	u16 *life = mr_ledger_life_of(hardware_id);
	u16 was;

	mr_shared_add(&mr_ledger->roots_alive, 1);
	was = xchg(life, MULTIROOT_CPU_STARTED);
	if (was == MULTIROOT_CPU_OFFLINE)
		return;
	/* It came to its own end meanwhile. */
	xchg(life, was);
	mr_shared_add(&mr_ledger->roots_alive, -1);
}

/**
 * mr_ledger_leave() - this root comes to its end
 *
 * May be called again, from any context.
 *
 * Return: true when another root lives on, so that the machine must go on, too; false when this is the last.
 */
bool mr_ledger_leave(void)
{
	u16 *life = mr_ledger_life_of(mr_hardware_id(0));
	u16 was = xchg(life, MULTIROOT_CPU_PARKED);

	/* Left before; or our parent, which is alive, has taken our CPU back and is about to stop it. */
	if (!mr_ledger_lives(was))
		return true;
	/* One atomic step decides who is the last when several roots end at once. */
	if (mr_shared_add(&mr_ledger->roots_alive, -1) > 1)
		return true;
	mr_shared_add(&mr_ledger->roots_alive, 1);
	xchg(life, was);
	return false;
}

/* True while another root than this one is alive; also when this one has left for it. */
bool mr_ledger_others(void)
{
	if (!mr_ledger_lives(READ_ONCE(*mr_ledger_life_of(mr_hardware_id(0)))))
		return true;
	return READ_ONCE(mr_ledger->roots_alive) > 1;
}

/* Note who has a CPU and what it does there. */
void mr_ledger_set_cpu(u32 hardware_id, u32 root, u32 state)
{
	if (hardware_id >= MULTIROOT_LEDGER_CPUS)
		return;
	WRITE_ONCE(mr_ledger->cpu[hardware_id].root, root);
	WRITE_ONCE(mr_ledger->cpu[hardware_id].state, state);
}

/* What the CPU does, as its owner sees it. */
u32 mr_ledger_cpu_state(u32 hardware_id)
{
	return READ_ONCE(mr_ledger->cpu[hardware_id].state);
}

/* Number of the root that has the CPU, 0 when the ledger does not know. */
u32 mr_ledger_cpu_root(u32 hardware_id)
{
	return hardware_id < MULTIROOT_LEDGER_CPUS ? READ_ONCE(mr_ledger->cpu[hardware_id].root) : 0;
}

/**
 * multiroot_root_lives() - whether a root is alive
 * @root: its number
 *
 * From any context. A root lives by the CPU it was started on; for the first one that is the machine's boot CPU.
 */
bool multiroot_root_lives(u32 root)
{
	u32 id;

	for (id = 0; id < MULTIROOT_LEDGER_CPUS; id++) {
		u32 state = mr_ledger_cpu_state(id);

		if (mr_ledger_cpu_root(id) == root &&
		    (state == MULTIROOT_CPU_STARTED ||
		     (root == FIRST_ROOT && id == mr_ledger->boot_hardware_id && mr_ledger_lives(state))))
			return true;
	}
	return false;
}
EXPORT_SYMBOL_GPL(multiroot_root_lives);

/* This root's number, for other modules. */
u32 multiroot_root(void)
{
	return mr_ledger_this_root;
}
EXPORT_SYMBOL_GPL(multiroot_root);

void mr_ledger_exit(void)
{
	memunmap(mr_ledger);
	mr_ledger = NULL;
}

/* Lay out a new ledger in @draft; 0 or a negative error. */
static int mr_ledger_draw_up(struct multiroot_ledger *draft)
{
	int cpu, err;

	draft->abi = MULTIROOT_ABI;
	draft->size = MULTIROOT_LEDGER_SIZE;
	draft->next_root = mr_ledger_this_root + 1;
	draft->roots_alive = 1;
	draft->boot_hardware_id = mr_hardware_id(0);
	for_each_present_cpu(cpu) {
		u32 hardware_id = mr_hardware_id(cpu);

		if (hardware_id >= MULTIROOT_LEDGER_CPUS)
			continue;
		draft->cpu[hardware_id].root = mr_ledger_this_root;
		draft->cpu[hardware_id].state = cpu_online(cpu) ? MULTIROOT_CPU_ONLINE : MULTIROOT_CPU_OFFLINE;
	}
	err = mr_firmware_read(draft);
	if (err)
		return err;
	err = mr_e820_read(draft);
	if (err)
		pr_err("cannot read the firmware's memory map from /sys/firmware/memmap (%d)\n", err);
	return err;
}

static bool mr_ledger_runs_here(u32 hardware_id)
{
	int cpu;

	for_each_online_cpu(cpu)
		if (mr_hardware_id(cpu) == hardware_id)
			return true;
	return false;
}

/*
 * RAM may keep a ledger over a reset, of which nobody lives: all CPUs are this kernel's then, or nobody's. But this may
 * be a second kernel on a machine that was not reset, and then a root may live on a CPU that it does not have.
 */
static bool mr_ledger_is_lived_in(const struct multiroot_ledger *found)
{
	u32 id;

	if (found->magic != MR_LEDGER_MAGIC)
		return false;
	if (found->abi != MULTIROOT_ABI || found->size != MULTIROOT_LEDGER_SIZE) {
		pr_err("the ledger at %pa is of ABI %u, not %d: if no root lives, turn the machine off once\n",
		       &mr_ledger_at, found->abi, MULTIROOT_ABI);
		return true;
	}
	for (id = 0; id < MULTIROOT_LEDGER_CPUS; id++) {
		u32 state = found->cpu[id].state;

		if (state != MULTIROOT_CPU_STARTED && (state != MULTIROOT_CPU_ONLINE || id != found->boot_hardware_id))
			continue;
		if (mr_ledger_runs_here(id))
			continue;
		pr_err("root %u lives by the ledger at %pa, on CPU %u, which is not online here\n",
		       found->cpu[id].root, &mr_ledger_at, id);
		return true;
	}
	return false;
}

/*
 * Make the machine's first ledger, whatever an earlier boot has left in RAM. A root that was started by another one
 * does not see the ledger as RAM: there this fails before anything is overwritten. It has no magic number yet.
 */
static int mr_ledger_make(void)
{
	struct multiroot_ledger *draft = kzalloc(sizeof(*draft), GFP_KERNEL);
	int err;

	if (!draft)
		return -ENOMEM;
	err = mr_ledger_draw_up(draft);
	if (err)
		goto out;
	err = -EBUSY;
	if (!mr_e820_is_ram(draft, mr_ledger_at, MULTIROOT_LEDGER_SIZE) ||
	    !mr_memory_unused(mr_ledger_at, MULTIROOT_LEDGER_SIZE)) {
		pr_err("the ledger cannot be at %pa: this kernel uses that memory, or it is no RAM\n", &mr_ledger_at);
		goto out;
	}
	mr_ledger = memremap(mr_ledger_at, MULTIROOT_LEDGER_SIZE, MEMREMAP_WB);
	err = -ENOMEM;
	if (!mr_ledger)
		goto out;
	err = -EBUSY;
	if (mr_ledger_is_lived_in(mr_ledger)) {
		mr_ledger_exit();
		goto out;
	}
	memcpy(mr_ledger, draft, sizeof(*draft));
	err = 0;
out:
	kfree(draft);
	return err;
}

/* This kernel brought its CPUs online before there was anyone to note it. CPU 0's state says that the root lives. */
static void mr_ledger_take_seats(void)
{
	int cpu;

	for_each_online_cpu(cpu)
		if (cpu)
			mr_ledger_set_cpu(mr_hardware_id(cpu), mr_ledger_this_root, MULTIROOT_CPU_ONLINE);
}

/* Find the ledger an earlier root has made, and ourselves in it. */
static int mr_ledger_join(void)
{
	u32 hardware_id = mr_hardware_id(0);

	mr_ledger = memremap(mr_ledger_at, MULTIROOT_LEDGER_SIZE, MEMREMAP_WB);
	if (!mr_ledger)
		return -ENOMEM;
	if (mr_ledger->magic != MR_LEDGER_MAGIC) {
		pr_err("there is no ledger at %pa\n", &mr_ledger_at);
	} else if (mr_ledger->abi != MULTIROOT_ABI || mr_ledger->size != MULTIROOT_LEDGER_SIZE) {
		pr_err("the ledger at %pa is of ABI %u, not %d: this root needs the module of its parent's version\n",
		       &mr_ledger_at, mr_ledger->abi, MULTIROOT_ABI);
	} else if (mr_ledger_cpu_root(hardware_id) != mr_ledger_this_root) {
		pr_err("by the ledger CPU %u is root %u's, not root %u's\n", hardware_id,
		       mr_ledger_cpu_root(hardware_id), mr_ledger_this_root);
	} else {
		mr_ledger_take_seats();
		return 0;
	}
	memunmap(mr_ledger);
	return -EINVAL;
}

/**
 * mr_ledger_init() - make the ledger in the machine's first root, find it in every other
 * @phys: where it is, page aligned, below 1 MiB
 * @root: this root's number
 * @first: whether no other root can have made one; then park code and mr_ledger_publish() must follow
 *
 * Return: 0; -EINVAL for a bad place or, unless @first, no ledger there; -EBUSY for memory in use; -ENOMEM.
 */
int mr_ledger_init(phys_addr_t phys, u32 root, bool first)
{
	if (!PAGE_ALIGNED(phys) || !phys || phys > LOW_END - MULTIROOT_LEDGER_SIZE || !root || root > U16_MAX) {
		pr_err("no ledger can be at %pa for root %u\n", &phys, root);
		return -EINVAL;
	}
	mr_ledger_at = phys;
	mr_ledger_this_root = root;
	return first ? mr_ledger_make() : mr_ledger_join();
}

/* The ledger that mr_ledger_init() made is complete: other roots may use it. */
void mr_ledger_publish(void)
{
	/* Whoever sees the magic sees a whole ledger. */
	smp_store_release(&mr_ledger->magic, MR_LEDGER_MAGIC);
}

/* The machine ends with this root, its last: RAM may outlive it, and nobody is to believe what is found there. */
void mr_ledger_bury(void)
{
	WRITE_ONCE(mr_ledger->magic, 0);
}

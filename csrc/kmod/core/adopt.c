// SPDX-License-Identifier: GPL-2.0-only
/*
 * What roots that have ended leave behind: this one, the only one alive, takes it over. The order is user space's,
 * but nothing is touched before every CPU of theirs is known to be parked.
 */
#include <linux/acpi.h>
#include <linux/io.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/nodemask.h>
#include <linux/sched.h>
#include <linux/sizes.h>
#include <linux/timekeeping.h>

#include "core/core.h"

#define MEMORY_NAME	"System RAM (multiroot)"
#define CHUNK		SZ_2M

/* So long an ended kernel may go on with its last words, on a CPU that parks after them. */
#define PATIENCE_NS	(30 * NSEC_PER_SEC)

static u64 mr_adopt_waits_since;	/* for CPUs that have not parked by themselves; ns, 0: not yet */

/* True when nobody is left but this root, and none is being made. */
bool mr_adopt_alone(void)
{
	return !mr_ledger_others() && !mr_peer(MULTIROOT_CHILD);
}

static bool mr_adopt_is_patient(void)
{
	u64 now = ktime_get_ns();

	mr_adopt_waits_since = mr_adopt_waits_since ?: now;
	return now - mr_adopt_waits_since < PATIENCE_NS;
}

/*
 * Nobody's memory is in use there. An offline CPU sleeps in that of a root that has ended, where it would wake up when
 * somebody writes to it, and one that was granted and not started may have been left to wait for a startup IPI, which
 * firmware does not like: both are taken to the park. The others park by themselves, unless one hangs.
 */
static bool mr_adopt_at_rest(u32 hardware_id)
{
	u32 state = mr_ledger_cpu_state(hardware_id);
	bool runs = state != MULTIROOT_CPU_OFFLINE && state != MULTIROOT_CPU_GRANTED;

	if (mr_slot_parked(hardware_id))
		return true;
	if (runs && mr_adopt_is_patient())
		return false;
	return !mr_slot_take(hardware_id, runs);
}

/* True when @rests holds for every CPU that is another root's. */
static bool mr_adopt_others(bool (*rests)(u32 hardware_id))
{
	u32 id, root;

	for (id = 0; id < MULTIROOT_LEDGER_CPUS; id++) {
		root = mr_ledger_cpu_root(id);
		if (root && root != mr_ledger_root() && !rests(id))
			return false;
	}
	return true;
}

/* No device writes to memory of roots that have ended, or interrupts a CPU for them. */
static int mr_adopt_silence(void)
{
	int err = 0, i;

	for (i = 0; !err && i < MULTIROOT_LEDGER_IOAPICS && mr_ledger->ioapic[i]; i++)
		err = mr_ioapic_mask(mr_ledger->ioapic[i]);
	err = err ?: mr_ecam_silence();
	/* Only then: what is not translated any more goes elsewhere. */
	for (i = 0; !err && i < MULTIROOT_LEDGER_UNITS && mr_ledger->unit[i].kind; i++)
		err = mr_iommu_stop(&mr_ledger->unit[i]);
	return err;
}

/**
 * mr_adopt_inherit() - the parent has ended: detach from it, and stop what still works for it
 *
 * Return: 0, also when there is no parent any more; -ENOENT: the first root never had one; -EBUSY: another root is
 * alive, or user space has the parent's control page mapped; -EAGAIN: a CPU is not parked yet, and is led there
 * once this has been the answer for long enough; -ENODEV: there are devices that this root can't reach; -ETIMEDOUT: an
 * IOMMU does not stop; -ENOMEM.
 */
int mr_adopt_inherit(void)
{
	struct mr_peer *parent = mr_peer(MULTIROOT_PARENT);
	int err;

	/* The first root has none; one that is told twice has detached from it. */
	if (!parent)
		return mr_ledger_root() == 1 ? -ENOENT : 0;
	if (!mr_adopt_alone())
		return -EBUSY;
	if (!mr_adopt_others(mr_adopt_at_rest))
		return -EAGAIN;
	err = mr_adopt_silence();
	if (err)
		return err;
	/* Until this root has detached from its parent, no memory is taken. */
	if (!mr_map_close(MULTIROOT_PARENT))
		return -EBUSY;
	mr_join_detach(parent);
	return 0;
}

/* The new root's tables name a CPU's device after its hardware id, and its _STA reads the owner in the ledger. */
static int mr_adopt_plug(u32 hardware_id)
{
	acpi_handle handle;
	char name[16];
	int err;

	snprintf(name, sizeof(name), "\\_SB.C%03X", hardware_id);
	if (ACPI_FAILURE(acpi_get_handle(NULL, name, &handle)))
		return -ENODEV;
	acpi_scan_lock_acquire();
	err = acpi_bus_scan(handle);
	acpi_scan_lock_release();
	return err;
}

/**
 * mr_adopt_cpu() - make a CPU of a root that has ended one of this root
 * @cpu: the CPU by its hardware_id; the rest is filled in
 *
 * Return: 0, the CPU is present and offline; -EBUSY: another root is alive; -EINVAL: no such CPU in the ledger;
 * -EAGAIN: it is not parked; -ENODEV: this root's tables or this kernel have no place for it.
 */
int mr_adopt_cpu(struct multiroot_cpu *cpu)
{
	u32 hardware_id = cpu->hardware_id, owner, state;
	int err;

	if (hardware_id >= MULTIROOT_LEDGER_CPUS || !mr_ledger_cpu_root(hardware_id))
		return -EINVAL;
	if (!mr_adopt_alone())
		return -EBUSY;
	owner = mr_ledger_cpu_root(hardware_id);
	if (owner == mr_ledger_root())
		return mr_cpu_find(hardware_id, cpu);
	if (!mr_slot_parked(hardware_id))
		return -EAGAIN;
	state = mr_ledger_cpu_state(hardware_id);
	mr_ledger_set_cpu(hardware_id, mr_ledger_root(), MULTIROOT_CPU_OFFLINE);
	err = mr_adopt_plug(hardware_id) ?: mr_cpu_find(hardware_id, cpu);
	if (err)
		mr_ledger_set_cpu(hardware_id, owner, state);
	return err;
}

static int mr_adopt_check_memory(const struct multiroot_memory *memory)
{
	/* Of 2 GiB on a large machine. */
	u64 block = memory_block_size_bytes(), most = max_t(u64, MULTIROOT_MEMORY_MOST, block);

	if (memory->pad || memory->action > MULTIROOT_MEMORY_ADD)
		return -EINVAL;
	if (!memory->size || memory->size > most || memory->base < SZ_1M ||
	    !PAGE_ALIGNED(memory->base | memory->size) || memory->base + memory->size < memory->base)
		return -EINVAL;
	if (memory->action == MULTIROOT_MEMORY_ADD && !IS_ALIGNED(memory->base | memory->size, block))
		return -ERANGE;
	if (!mr_e820_is_ram(mr_ledger, memory->base, memory->size))
		return -EINVAL;
	if (!mr_adopt_alone() || mr_peer(MULTIROOT_PARENT) || !mr_memory_foreign(memory->base, memory->size))
		return -EBUSY;
	/* Nobody executes or watches memory that is not this root's. */
	return mr_adopt_others(mr_slot_parked) ? 0 : -EAGAIN;
}

static u64 mr_adopt_sum_up(const u64 *words, u64 count)
{
	u64 sum = 0;

	/* By position, so that words that changed places show. */
	while (count--)
		sum = sum * 31 + *words++;
	return sum;
}

static void mr_adopt_zero(void *chunk, u64 size)
{
	void *page;

	for (page = chunk; page < chunk + size; page += PAGE_SIZE)
		mr_zero_page(page);
}

static int mr_adopt_go_through(struct multiroot_memory *memory)
{
	u64 done, part;

	for (done = 0; done < memory->size; done += part) {
		void *chunk;

		part = min_t(u64, memory->size - done, CHUNK);
		chunk = memremap(memory->base + done, part, MEMREMAP_WB);
		if (!chunk)
			return -ENOMEM;
		if (memory->action == MULTIROOT_MEMORY_ZERO)
			mr_adopt_zero(chunk, part);
		else
			memory->sum = memory->sum * 31 + mr_adopt_sum_up(chunk, part / sizeof(u64));
		memunmap(chunk);
		cond_resched();
	}
	return 0;
}

/* The node of memory that this kernel did not begin with: by the tables it was started with, where they tell. */
static int mr_adopt_node_of(u64 base)
{
	int node = phys_to_target_node(base);

	return node != NUMA_NO_NODE && node_possible(node) ? node : first_memory_node;
}

/**
 * mr_adopt_memory() - look at, zero or add memory that nobody has any more
 * @memory: what to do with which range; sum is filled in
 *
 * Return: 0; -EINVAL: a bad range, or no RAM; -ERANGE: not in whole memory blocks; -EBUSY: another root is alive, or
 * this kernel uses it; -EAGAIN: a CPU of another root is not at rest; -ENOMEM; what memory hotplug returns.
 */
int mr_adopt_memory(struct multiroot_memory *memory)
{
	int err = mr_adopt_check_memory(memory);

	memory->sum = 0;
	if (err)
		return err;
	if (memory->action == MULTIROOT_MEMORY_ADD)
		return add_memory_driver_managed(mr_adopt_node_of(memory->base), memory->base, memory->size,
						 MEMORY_NAME, MHP_NONE);
	return mr_adopt_go_through(memory);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * The carve: physical memory this kernel gives to a new root. Taken only if this kernel does not use a page of it;
 * filled by copying segments, like kexec_load(2); kept from coming back online while it is taken.
 */
#include <linux/io.h>
#include <linux/memory.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/overflow.h>
#include <linux/sched.h>
#include <linux/sizes.h>

#include "core/core.h"

#define CARVE_MIN	SZ_64M
#define LOW_MIN		SZ_64K
#define LOW_END		0xa0000	/* VGA memory from here on */
#define PHYS_END	BIT_ULL(52)

struct multiroot_carve mr_carve;

/*
 * Between the carve and memory that comes online: which range is on its way (0: none; Linux does one at a time) and
 * what is in the carve. Taken last, under the lock of the ioctls or Linux's of memory hotplug.
 */
static DEFINE_MUTEX(mr_carve_arrival_lock);
static u64 mr_carve_arriving, mr_carve_arriving_size;

static bool mr_carve_inside(u64 base, u64 size, u64 phys, u64 len)
{
	return len && len <= size && phys >= base && phys - base <= size - len;
}

static bool mr_carve_overlap(u64 a, u64 a_size, u64 b, u64 b_size)
{
	return a < b + b_size && b < a + a_size;
}

/* True when the range lies inside the registered carve and outside of the shared area. */
bool mr_carve_has(u64 phys, u64 size)
{
	return mr_carve_inside(mr_carve.base, mr_carve.size, phys, size) &&
	       !mr_carve_overlap(phys, size, mr_carve.shared, MULTIROOT_SHARED_SIZE);
}

/* True when the range lies inside the registered low window. */
bool mr_low_has(u64 phys, u64 size)
{
	return mr_carve_inside(mr_carve.low_base, mr_carve.low_size, phys, size);
}

static bool mr_carve_aligned(u64 base, u64 size)
{
	u64 end;

	return PAGE_ALIGNED(base) && PAGE_ALIGNED(size) && size && !check_add_overflow(base, size, &end) &&
	       end <= PHYS_END;
}

static int mr_carve_check_shape(const struct multiroot_carve *want)
{
	if (!mr_carve_aligned(want->base, want->size) || want->size < CARVE_MIN || want->base < SZ_1M)
		return -EINVAL;
	if (!mr_carve_aligned(want->low_base, want->low_size) || want->low_size < LOW_MIN || !want->low_base ||
	    want->low_base + want->low_size > LOW_END)
		return -EINVAL;
	if (mr_carve_overlap(want->low_base, want->low_size, mr_ledger_phys(), MULTIROOT_LEDGER_SIZE))
		return -EINVAL;
	if (!IS_ALIGNED(want->shared, SZ_2M) ||
	    !mr_carve_inside(want->base, want->size, want->shared, MULTIROOT_SHARED_SIZE))
		return -EINVAL;
	return 0;
}

static int mr_carve_check_memory(u64 base, u64 size)
{
	if (!mr_e820_is_ram(mr_ledger, base, size))
		return -EINVAL;
	return mr_memory_unused(base, size) ? 0 : -EBUSY;
}

/* True when all of the range is a new root's: it lies inside the carve or its low window. */
bool mr_segment_fits(u64 phys, u64 size)
{
	return mr_carve_has(phys, size) || mr_low_has(phys, size);
}

/* False when memory in it is on its way online: it was let through, and can't be seen as online yet. */
static bool mr_carve_claim(const struct multiroot_carve *want)
{
	bool free;

	mutex_lock(&mr_carve_arrival_lock);
	free = !mr_carve_overlap(want->base, want->size, mr_carve_arriving, mr_carve_arriving_size);
	if (free)
		mr_carve = *want;
	mutex_unlock(&mr_carve_arrival_lock);
	return free;
}

static void mr_carve_forget(void)
{
	mutex_lock(&mr_carve_arrival_lock);
	memset(&mr_carve, 0, sizeof(mr_carve));
	mutex_unlock(&mr_carve_arrival_lock);
}

/**
 * mr_carve_take() - register a carve and make the shared area in it
 * @want: what user space asks for
 *
 * Return: 0; -EINVAL for a malformed request or what is no RAM; -EBUSY for memory in use or a second carve; -ENOMEM.
 */
int mr_carve_take(const struct multiroot_carve *want)
{
	int err;

	/* Until its parent has ended, this root can't tell the parent's memory from memory that is nobody's. */
	if (mr_carve.size || mr_peer(MULTIROOT_PARENT))
		return -EBUSY;
	err = mr_carve_check_shape(want);
	if (err)
		return err;
	/* Before the check, so that no memory block in it comes online behind our back. */
	if (!mr_carve_claim(want))
		return -EBUSY;
	err = mr_carve_check_memory(want->low_base, want->low_size) ?: mr_carve_check_memory(want->base, want->size);
	if (!err)
		err = mr_join_create_child(want->shared, mr_ledger->next_root);
	if (err)
		mr_carve_forget();
	else
		/* While another root may depend on this module it stays. */
		__module_get(THIS_MODULE);
	return err;
}

/**
 * mr_carve_release() - let the carve go
 *
 * No CPU may be granted to it. Return: 0; -ENOENT without one; -EBUSY while its control page is mapped.
 */
int mr_carve_release(void)
{
	if (!mr_carve.size)
		return -ENOENT;
	if (!mr_map_close(MULTIROOT_CHILD))
		return -EBUSY;
	mr_join_detach(mr_peer(MULTIROOT_CHILD));
	mr_carve_forget();
	module_put(THIS_MODULE);
	return 0;
}

/**
 * mr_segment_copy() - copy between a buffer and the carve or its low window
 * @segment: of memory, one that fits, MR_SEGMENT_PIECE at most
 * @buffer: as long
 * @out: to the buffer. A root may run there, and write what is read
 *
 * Return: 0; -ENOMEM.
 */
int mr_segment_copy(const struct multiroot_segment *segment, void *buffer, bool out)
{
	struct mr_window memory;
	int err = mr_memory_map(&memory, segment->phys, segment->size);

	if (err)
		return err;
	memcpy(out ? buffer : memory.at, out ? memory.at : buffer, segment->size);
	mr_memory_unmap(&memory);
	return 0;
}

static u64 mr_segment_find_in(const u64 *words, u64 count, u64 word)
{
	u64 i;

	for (i = 0; i < count && READ_ONCE(words[i]) != word; i++)
		;
	return i;
}

/**
 * mr_segment_find() - look for a word in the carve or its low window
 * @find: in which range, one that fits and is aligned; where it was found
 *
 * Return: 0; -ENOMEM.
 */
int mr_segment_find(struct multiroot_find *find)
{
	struct mr_window memory;
	u64 done, part, words;
	int err;

	find->found = 0;
	for (done = 0; done < find->size && !find->found; done += part) {
		part = min_t(u64, find->size - done, MR_SEGMENT_PIECE);
		err = mr_memory_map(&memory, find->phys + done, part);
		if (err)
			return err;
		words = mr_segment_find_in(memory.at, part / sizeof(find->word), find->word);
		mr_memory_unmap(&memory);
		if (words < part / sizeof(find->word))
			find->found = find->phys + done + words * sizeof(find->word);
		cond_resched();
	}
	return 0;
}

/* Memory that another root has must not come online here. */
static bool mr_carve_let_online(u64 base, u64 size)
{
	bool vetoed;

	mutex_lock(&mr_carve_arrival_lock);
	vetoed = mr_carve_overlap(mr_carve.base, mr_carve.size, base, size);
	mr_carve_arriving = vetoed ? 0 : base;
	mr_carve_arriving_size = vetoed ? 0 : size;
	mutex_unlock(&mr_carve_arrival_lock);
	return !vetoed;
}

/* It is online, or won't be. */
static void mr_carve_has_arrived(void)
{
	mutex_lock(&mr_carve_arrival_lock);
	mr_carve_arriving = 0;
	mr_carve_arriving_size = 0;
	mutex_unlock(&mr_carve_arrival_lock);
}

static int mr_carve_memory_event(struct notifier_block *nb, unsigned long action, void *data)
{
	struct memory_notify *range = data;
	u64 base = PFN_PHYS(range->start_pfn), size = PFN_PHYS(range->nr_pages);

	switch (action) {
	case MEM_GOING_ONLINE:
		if (mr_carve_let_online(base, size))
			break;
		pr_info("memory at %#llx stays offline: it is in the carve\n", base);
		return notifier_from_errno(-EBUSY);
	case MEM_ONLINE:
	case MEM_CANCEL_ONLINE:
		mr_carve_has_arrived();
		break;
	}
	return NOTIFY_OK;
}

static struct notifier_block mr_carve_memory_notifier = { .notifier_call = mr_carve_memory_event };

int mr_segments_init(void)
{
	return register_memory_notifier(&mr_carve_memory_notifier);
}

void mr_segments_exit(void)
{
	unregister_memory_notifier(&mr_carve_memory_notifier);
}

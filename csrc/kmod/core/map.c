// SPDX-License-Identifier: GPL-2.0-only
/*
 * mmap of /dev/multiroot: control pages, and the ledger to read. A peer is not forgotten while its page is mapped.
 */
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/mutex.h>

#include "compat.h"
#include "core/core.h"

/*
 * Serialises mapping a page with forgetting its peer. The lock of the ioctls can't: it is held for as long as memory is
 * brought in, say, and this is called with mmap_lock held.
 */
static DEFINE_MUTEX(mr_map_lock);

static struct {
	bool open;
	atomic_t mappings;
} mr_map_pages[] = {
	[MULTIROOT_PARENT] = { .mappings = ATOMIC_INIT(0) },
	[MULTIROOT_CHILD] = { .mappings = ATOMIC_INIT(0) },
};

/* From now on the control page of that peer can be mapped. */
void mr_map_open(u32 index)
{
	mutex_lock(&mr_map_lock);
	mr_map_pages[index].open = true;
	mutex_unlock(&mr_map_lock);
}

/* From now on it can't. False, and nothing is changed, when it is mapped. */
bool mr_map_close(u32 index)
{
	bool idle;

	mutex_lock(&mr_map_lock);
	idle = !atomic_read(&mr_map_pages[index].mappings);
	if (idle)
		mr_map_pages[index].open = false;
	mutex_unlock(&mr_map_lock);
	return idle;
}

static void mr_map_count_up(struct vm_area_struct *vma)
{
	atomic_inc(vma->vm_private_data);
}

static void mr_map_count_down(struct vm_area_struct *vma)
{
	atomic_dec(vma->vm_private_data);
}

static const struct vm_operations_struct mr_map_page_ops = { .open = mr_map_count_up, .close = mr_map_count_down };

static int mr_map_range(struct vm_area_struct *vma, phys_addr_t phys, unsigned long size)
{
	if (vma->vm_end - vma->vm_start != size)
		return -EINVAL;
	return remap_pfn_range(vma, vma->vm_start, PHYS_PFN(phys), size, vma->vm_page_prot);
}

static int mr_map_control(struct vm_area_struct *vma, u32 index)
{
	int err = -ENOENT;

	mutex_lock(&mr_map_lock);
	if (mr_map_pages[index].open) {
		err = mr_map_range(vma, mr_peer(index)->phys, MULTIROOT_CONTROL_SIZE);
		if (!err) {
			vma->vm_private_data = &mr_map_pages[index].mappings;
			vma->vm_ops = &mr_map_page_ops;
			mr_map_count_up(vma);
		}
	}
	mutex_unlock(&mr_map_lock);
	return err;
}

static int mr_map_ledger(struct vm_area_struct *vma)
{
	if (vma->vm_flags & VM_WRITE)
		return -EPERM;
	vm_flags_clear(vma, VM_MAYWRITE);
	return mr_map_range(vma, mr_ledger_phys(), MULTIROOT_LEDGER_SIZE);
}

/* file_operations.mmap */
int mr_map(struct file *file, struct vm_area_struct *vma)
{
	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	switch ((u64)vma->vm_pgoff << PAGE_SHIFT) {
	case MULTIROOT_MMAP_PARENT:
		return mr_map_control(vma, MULTIROOT_PARENT);
	case MULTIROOT_MMAP_CHILD:
		return mr_map_control(vma, MULTIROOT_CHILD);
	case MULTIROOT_MMAP_LEDGER:
		return mr_map_ledger(vma);
	default:
		return -EINVAL;
	}
}

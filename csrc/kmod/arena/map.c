// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mappings of the arena. They have struct pages, so that direct I/O, VFIO and KVM take them as any other memory, and
 * they come page by page at faults: of 2 MiB where the kernel has such, which keeps nested page tables small, or 4 KiB.
 */
#include <linux/fs.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/sizes.h>

#include "arena/arena.h"
#include "arena/fault.h"
#include "compat.h"

/* Pages of the arena are joined to larger ones by so many bits when it gets its struct pages. */
unsigned long mr_arena_pages_shift(void)
{
	return IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) ? ilog2(MR_ARENA_ALIGN) - PAGE_SHIFT : 0;
}

/* The physical address behind the page of `bytes` that a fault is in; 0 if it is not wholly in mapping and arena. */
static phys_addr_t mr_arena_page(struct vm_fault *vmf, unsigned long bytes)
{
	const struct range *range = mr_arena_range();
	struct vm_area_struct *vma = vmf->vma;
	unsigned long begin = ALIGN_DOWN(vmf->address, bytes);
	u64 offset;

	if (begin < vma->vm_start || begin + bytes > vma->vm_end)
		return 0;
	offset = ((u64)vma->vm_pgoff << PAGE_SHIFT) + (begin - vma->vm_start);
	if (offset + bytes > range_len(range) || !IS_ALIGNED(range->start + offset, bytes))
		return 0;
	return range->start + offset;
}

static vm_fault_t mr_arena_fault(struct vm_fault *vmf)
{
	phys_addr_t phys = mr_arena_page(vmf, PAGE_SIZE);

	return phys ? mr_fault_page(vmf, phys) : VM_FAULT_SIGBUS;
}

#ifdef CONFIG_TRANSPARENT_HUGEPAGE
static vm_fault_t mr_arena_huge_fault(struct vm_fault *vmf, MR_FAULT_SIZE size)
{
	phys_addr_t phys = size == MR_FAULT_SIZE_PMD ? mr_arena_page(vmf, PMD_SIZE) : 0;

	return phys ? mr_fault_huge(vmf, phys) : VM_FAULT_FALLBACK;
}

/* Such pages are mapped whole or not at all, so no mapping is split within one. */
static int mr_arena_may_split(struct vm_area_struct *vma, unsigned long address)
{
	return IS_ALIGNED(address, MR_ARENA_ALIGN) ? 0 : -EINVAL;
}
#endif

static const struct vm_operations_struct mr_arena_vm_ops = {
	.fault = mr_arena_fault,
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
	.huge_fault = mr_arena_huge_fault,
	.may_split = mr_arena_may_split,
#endif
};

/* file_operations.mmap */
int mr_arena_mmap(struct file *file, struct vm_area_struct *vma)
{
	u64 offset = (u64)vma->vm_pgoff << PAGE_SHIFT;
	u64 bytes = vma->vm_end - vma->vm_start;
	u64 size = range_len(mr_arena_range());

	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	if (offset > size || bytes > size - offset)
		return -EINVAL;
	vma->vm_ops = &mr_arena_vm_ops;
	vm_flags_set(vma, VM_MIXEDMAP | VM_HUGEPAGE | VM_DONTDUMP);
	return 0;
}

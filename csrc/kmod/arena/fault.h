/* SPDX-License-Identifier: GPL-2.0-only */
/* Differences between the kernels we build for in how a fault is answered with a page of device memory. */
#ifndef _MULTIROOT_ARENA_FAULT_H
#define _MULTIROOT_ARENA_FAULT_H

#include <linux/mm.h>
#include <linux/version.h>

/* vm_operations_struct.huge_fault() is told the size by its order from 6.6 on. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
#define MR_FAULT_SIZE		unsigned int
#define MR_FAULT_SIZE_PMD	PMD_ORDER
#else
#define MR_FAULT_SIZE		enum page_entry_size
#define MR_FAULT_SIZE_PMD	PE_SIZE_PMD
#endif

/* Pages of device memory are counted like others from 6.15 on, and pfn_t is gone. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0)

static inline vm_fault_t mr_fault_page(struct vm_fault *vmf, phys_addr_t phys)
{
	return vmf_insert_page_mkwrite(vmf, phys_to_page(phys), vmf->flags & FAULT_FLAG_WRITE);
}

static inline vm_fault_t mr_fault_huge(struct vm_fault *vmf, phys_addr_t phys)
{
	return vmf_insert_folio_pmd(vmf, page_folio(phys_to_page(phys)), vmf->flags & FAULT_FLAG_WRITE);
}

#else

#include <linux/pfn_t.h>

static inline vm_fault_t mr_fault_page(struct vm_fault *vmf, phys_addr_t phys)
{
	return vmf_insert_mixed(vmf->vma, vmf->address, phys_to_pfn_t(phys, PFN_DEV | PFN_MAP));
}

static inline vm_fault_t mr_fault_huge(struct vm_fault *vmf, phys_addr_t phys)
{
	return vmf_insert_pfn_pmd(vmf, phys_to_pfn_t(phys, PFN_DEV | PFN_MAP), vmf->flags & FAULT_FLAG_WRITE);
}

#endif

#endif /* _MULTIROOT_ARENA_FAULT_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/* Differences between the kernels we build for, in one place; see docs/kernel-module.md. */
#ifndef _MULTIROOT_COMPAT_H
#define _MULTIROOT_COMPAT_H

#include <linux/eventfd.h>
#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/types.h>
#include <linux/version.h>
#include <asm/msr.h>
/* CPUID got a folder of its own in 6.16, and the search for a hypervisor another name. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
#include <asm/cpuid/api.h>
#else
#include <asm/processor.h>
#define cpuid_base_hypervisor	hypervisor_cpuid_base
#endif

/* rdmsrl() became rdmsrq() in 6.16; the forms with two halves have not changed. */
static inline u64 mr_rdmsr(u32 msr)
{
	u32 low, high;

	rdmsr(msr, low, high);
	return (u64)high << 32 | low;
}

static inline int mr_rdmsr_safe(u32 msr, u64 *value)
{
	u32 low, high;
	int err = rdmsr_safe(msr, &low, &high);

	*value = (u64)high << 32 | low;
	return err;
}

static inline void mr_wrmsr(u32 msr, u64 value)
{
	wrmsr(msr, (u32)value, (u32)(value >> 32));
}

/* eventfd_signal() lost its count in 6.8. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
#define mr_eventfd_signal(ctx)	eventfd_signal(ctx)
#else
#define mr_eventfd_signal(ctx)	eventfd_signal(ctx, 1)
#endif

/* vm_flags are written through functions from 6.3 on. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vm_flags_clear(struct vm_area_struct *vma, unsigned long flags)
{
	vma->vm_flags &= ~flags;
}

static inline void vm_flags_set(struct vm_area_struct *vma, unsigned long flags)
{
	vma->vm_flags |= flags;
}
#endif

/* struct apic's wakeup_secondary_cpu: APIC ids are unsigned from 6.7 on, and 6.16 added the CPU's number. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
#define MR_WAKE_PARAMETERS	(u32 id, unsigned long start, unsigned int cpu)
#define MR_WAKE_ARGUMENTS	(id, start, cpu)
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
#define MR_WAKE_PARAMETERS	(u32 id, unsigned long start)
#define MR_WAKE_ARGUMENTS	(id, start)
#else
#define MR_WAKE_PARAMETERS	(int id, unsigned long start)
#define MR_WAKE_ARGUMENTS	(id, start)
#endif

/* A device's driver_override moved from struct pci_dev to struct device within stable series; Kbuild looks. */
static inline int mr_driver_override(struct pci_dev *pdev, const char *name)
{
#ifdef MR_DEVICE_DRIVER_OVERRIDE
	return device_set_driver_override(&pdev->dev, name);
#else
	return driver_set_override(&pdev->dev, &pdev->driver_override, name, strlen(name));
#endif
}

/* iotlb_sync_map() may fail from 6.7 on. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
#define MR_SYNC_MAP_TYPE int
#define MR_SYNC_MAP_DONE 0
#else
#define MR_SYNC_MAP_TYPE void
#define MR_SYNC_MAP_DONE
#endif

/* attach_dev() is told the domain before from 6.19 on. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 19, 0)
#define MR_ATTACH_ARGS struct iommu_domain *domain, struct device *dev, struct iommu_domain *old
#else
#define MR_ATTACH_ARGS struct iommu_domain *domain, struct device *dev
#endif

/* Identity and blocking domains are named in iommu_ops from 6.6 on, allocated by type before. */
#define MR_DOMAINS_NAMED (LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0))

/* vfio_migration_ops has migration_get_data_size() from 6.2 on. */
#define MR_VFIO_DATA_SIZE (LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0))

/* vfio_pci_core_match() calls an operation, match_token_uuid(), from 6.17 on. */
#define MR_VFIO_TOKENS (LINUX_VERSION_CODE >= KERNEL_VERSION(6, 17, 0))

/* What a device's regions are is asked by an operation, get_region_info_caps(), from 6.19 on. */
#define MR_VFIO_REGIONS (LINUX_VERSION_CODE >= KERNEL_VERSION(6, 19, 0))

#endif /* _MULTIROOT_COMPAT_H */

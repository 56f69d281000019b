/* SPDX-License-Identifier: GPL-2.0-or-later */
/* As much of the kernel as csrc/kmod/iommu/walk.c needs, to run it in a test. */
#ifndef _SHIM_IOMMU_H
#define _SHIM_IOMMU_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef unsigned long long u64;
typedef u64 phys_addr_t;

#define BIT_ULL(n)		(1ULL << (n))
#define GENMASK_ULL(h, l)	((~0ULL << (l)) & (~0ULL >> (63 - (h))))
#define PAGE_MASK		(~4095ULL)
#define READ_ONCE(x)		(*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, value)	(*(volatile __typeof__(x) *)&(x) = (value))

#endif /* _SHIM_IOMMU_H */

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Declarations that the kernel has, for csrc/kmod/arena. */
#ifndef _SHIM_ARENA_H
#define _SHIM_ARENA_H

#include <endian.h>
#include "kernel.h"

typedef u64 __le64;
typedef u32 __le32;

#define SZ_8K			0x2000
struct range {
	u64 start, end;
};

static inline u64 range_len(const struct range *range)
{
	return range->end - range->start + 1;
}

int region_intersects(u64 start, size_t size, unsigned long flags, unsigned long desc);

static inline u64 le64_to_cpup(const __le64 *p)
{
	return le64toh(*p);
}

static inline u32 le32_to_cpup(const __le32 *p)
{
	return le32toh(*p);
}

#endif /* _SHIM_ARENA_H */

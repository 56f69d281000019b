/* SPDX-License-Identifier: GPL-2.0-only */
/* Inside multiroot_arena.ko. */
#ifndef _MULTIROOT_ARENA_H
#define _MULTIROOT_ARENA_H

#include <linux/range.h>
#include <linux/sizes.h>

struct file;
struct vm_area_struct;

/* An arena begins and ends at a page of this size. Such pages are mapped as one where the kernel can. */
#define MR_ARENA_ALIGN	SZ_2M

/* find.c */
const struct range *mr_arena_range(void);
int mr_arena_find(unsigned long start, unsigned long size, unsigned long file_start, unsigned long file_size);

/* map.c */
unsigned long mr_arena_pages_shift(void);
int mr_arena_mmap(struct file *file, struct vm_area_struct *vma);

#endif /* _MULTIROOT_ARENA_H */

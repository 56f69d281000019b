// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where the arena lies in the persistent memory that the module is given.
 */
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/mm.h>
#include <linux/printk.h>
#include <linux/range.h>
#include <linux/sizes.h>
#include <linux/string.h>

#include "arena/arena.h"

/* The info block that ndctl writes; all in it is little-endian. Its place and form are those of libnvdimm. */
#define MR_ARENA_INFO		SZ_4K
#define MR_ARENA_SIGNATURE	"NVDIMM_DAX_INFO"	/* devdax mode: all of the data is the arena */
#define MR_ARENA_FILE_SIGNATURE	"NVDIMM_PFN_INFO"	/* fsdax mode: a file in it is */
#define MR_ARENA_DATA_OFFSET	56
#define MR_ARENA_START_PAD	76

static struct range mr_arena_bounds;

/* What `mr_arena_find()` has found. */
const struct range *mr_arena_range(void)
{
	return &mr_arena_bounds;
}

/* How many bytes lie before the data of a namespace whose block has that signature, of 16 bytes. */
static int mr_arena_data(unsigned long start, const char *signature, u64 *offset)
{
	u8 *info = memremap(start + MR_ARENA_INFO, SZ_4K, MEMREMAP_WB);
	int err = -ENXIO;

	if (!info)
		return -ENOMEM;
	if (!memcmp(info, signature, sizeof(MR_ARENA_SIGNATURE))) {
		*offset = le64_to_cpup((const __le64 *)(info + MR_ARENA_DATA_OFFSET)) +
			  le32_to_cpup((const __le32 *)(info + MR_ARENA_START_PAD));
		err = 0;
	}
	memunmap(info);
	return err;
}

static bool mr_arena_is(unsigned long kind, unsigned long start, unsigned long size)
{
	return region_intersects(start, size, IORESOURCE_MEM, kind) == REGION_INTERSECTS;
}

/* Narrow what was found to the whole pages of a file in it. */
static int mr_arena_file(unsigned long start, unsigned long size)
{
	struct range *range = &mr_arena_bounds;
	u64 room = range_len(range), pages = ALIGN_DOWN(size, MR_ARENA_ALIGN);

	if (!IS_ALIGNED(start, MR_ARENA_ALIGN) || !pages || start > room || pages > room - start) {
		pr_err("%#lx bytes from %#lx on are no pages of 2 MiB in the namespace's data\n", size, start);
		return -EINVAL;
	}
	range->start += start;
	range->end = range->start + pages - 1;
	return 0;
}

/* Find the data of the namespace in that memory, or with a `file_size` the file that begins at `file_start` of it. */
int mr_arena_find(unsigned long start, unsigned long size, unsigned long file_start, unsigned long file_size)
{
	const char *signature = file_size ? MR_ARENA_FILE_SIGNATURE : MR_ARENA_SIGNATURE;
	struct range *range = &mr_arena_bounds;
	u64 data;
	int err;

	if (size < 2 * MR_ARENA_ALIGN || start + size < start ||
	    !(mr_arena_is(IORES_DESC_PERSISTENT_MEMORY_LEGACY, start, size) ||
	      mr_arena_is(IORES_DESC_PERSISTENT_MEMORY, start, size))) {
		pr_err("%#lx and %#lx bytes from there on are no persistent memory\n", start, size);
		return -EINVAL;
	}
	err = mr_arena_data(start, signature, &data);
	if (err) {
		pr_err("the memory at %#lx is no namespace in %s mode (%d)\n", start, file_size ? "fsdax" : "devdax",
		       err);
		return err;
	}
	if (data < SZ_8K || data >= size || !IS_ALIGNED(start + data, MR_ARENA_ALIGN)) {
		pr_err("the data of the namespace at %#lx begins at no page of 2 MiB in it\n", start);
		return -EINVAL;
	}
	range->start = start + data;
	range->end = ALIGN_DOWN(start + size, MR_ARENA_ALIGN) - 1;
	if (range->end <= range->start)
		return -EINVAL;
	return file_size ? mr_arena_file(file_start, file_size) : 0;
}

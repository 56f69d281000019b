// SPDX-License-Identifier: GPL-2.0-only
/*
 * multiroot_arena.ko: the arena as a device to map, for kernels that have no device-dax; PREEMPT_RT rules that out, for
 * it rules out huge pages. The memory is where device-dax would have it, so that roots with the one and with the other
 * share an arena. The same for an arena that is a file of a file system with DAX: another root has that mounted, so
 * this one can't. See docs/kernel-module.md.
 */
#include <linux/fs.h>
#include <linux/ioport.h>
#include <linux/memremap.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sysfs.h>

#include "arena/arena.h"
#include "begin.h"

static unsigned long start;
module_param(start, ulong, MR_BEGIN_MODE);
MODULE_PARM_DESC(start, "physical address where the persistent memory (a namespace) begins");

static unsigned long size;
module_param(size, ulong, MR_BEGIN_MODE);
MODULE_PARM_DESC(size, "its size in bytes");

static unsigned long file_start;
module_param(file_start, ulong, MR_BEGIN_MODE);
MODULE_PARM_DESC(file_start, "where in the data of a namespace in fsdax mode the arena begins, a file, in bytes");

static unsigned long file_size;
module_param(file_size, ulong, MR_BEGIN_MODE);
MODULE_PARM_DESC(file_size, "its size in bytes; 0: all data of a namespace in devdax mode is the arena");

static struct dev_pagemap mr_arena_pages = { .type = MEMORY_DEVICE_GENERIC, .nr_range = 1 };

static loff_t mr_arena_llseek(struct file *file, loff_t offset, int whence)
{
	return fixed_size_llseek(file, offset, whence, range_len(mr_arena_range()));
}

static const struct file_operations mr_arena_fops = {
	.owner = THIS_MODULE,
	.llseek = mr_arena_llseek,
	.mmap = mr_arena_mmap,
	.get_unmapped_area = thp_get_unmapped_area,
};

/* The same three that a device of device-dax has. */
static ssize_t size_show(struct device *dev, struct device_attribute *attr, char *text)
{
	return sysfs_emit(text, "%llu\n", range_len(mr_arena_range()));
}
static DEVICE_ATTR_RO(size);

static ssize_t resource_show(struct device *dev, struct device_attribute *attr, char *text)
{
	return sysfs_emit(text, "%#llx\n", mr_arena_range()->start);
}
static DEVICE_ATTR_ADMIN_RO(resource);

static ssize_t align_show(struct device *dev, struct device_attribute *attr, char *text)
{
	return sysfs_emit(text, "%lu\n", (unsigned long)MR_ARENA_ALIGN);
}
static DEVICE_ATTR_RO(align);

static struct attribute *mr_arena_attrs[] = {
	&dev_attr_size.attr,
	&dev_attr_resource.attr,
	&dev_attr_align.attr,
	NULL,
};
ATTRIBUTE_GROUPS(mr_arena);

static struct miscdevice mr_arena_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "multiroot-arena",
	.fops = &mr_arena_fops,
	.groups = mr_arena_groups,
	.mode = 0600,
};

static int __mr_begin mr_arena_init(void)
{
	const struct range *range = mr_arena_range();
	void *memory;
	int err;

	err = mr_arena_find(start, size, file_start, file_size);
	if (err)
		return err;
	if (!request_mem_region(start, size, KBUILD_MODNAME)) {
		pr_err("the memory at %#lx is another driver's\n", start);
		return -EBUSY;
	}
	mr_arena_pages.range = *range;
	mr_arena_pages.vmemmap_shift = mr_arena_pages_shift();
	memory = memremap_pages(&mr_arena_pages, NUMA_NO_NODE);
	if (IS_ERR(memory)) {
		err = PTR_ERR(memory);
		goto release;
	}
	err = misc_register(&mr_arena_device);
	if (err)
		goto unmap;
	pr_info("%#llx to %#llx\n", range->start, range->end);
	return 0;
unmap:
	memunmap_pages(&mr_arena_pages);
release:
	release_mem_region(start, size);
	return err;
}

/* Whoever has the device open or mapped holds the module; pages that others have pinned are waited for. */
static void __exit mr_arena_exit(void)
{
	misc_deregister(&mr_arena_device);
	memunmap_pages(&mr_arena_pages);
	release_mem_region(start, size);
}

MR_BEGINS(mr_arena_init);
module_exit(mr_arena_exit);

MODULE_DESCRIPTION("The arena for kernels without device-dax");
MODULE_AUTHOR("The multiroot authors");
MODULE_LICENSE("GPL");

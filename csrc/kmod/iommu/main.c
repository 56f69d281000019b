// SPDX-License-Identifier: GPL-2.0-only
/*
 * multiroot_iommu.ko: a VT-d unit whose tables lie in memory that outlives a root, so that a device at work can change
 * its root. Touches nothing until it is told to start or to join; see docs/device-handoff.md.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>

#include "core/core.h"
#include "ioctl.h"
#include "iommu/iommu.h"

static struct mr_ioctls mr_iommu_calls;
static bool mr_iommu_on;		/* this root takes part; under the lock of the calls */

static int mr_iommu_begin(int (*tables)(const struct multiroot_iommu_start *), void (*undo)(void),
			  const struct multiroot_iommu_start *start)
{
	int err;

	if (mr_iommu_on)
		return -EBUSY;
	err = tables(start);
	if (err)
		return err;
	err = mr_domain_register();
	if (err) {
		pr_err("Linux takes no iommu driver (%d)\n", err);
		undo();
		return err;
	}
	mr_tables_settle();
	mr_iommu_on = true;
	__module_get(THIS_MODULE);
	pr_info("root %u takes part in the tables at %#llx\n", multiroot_root(), start->tables);
	return 0;
}

static int mr_iommu_call_info(struct file *file, void *argument)
{
	struct multiroot_iommu_info *info = argument;

	*info = (struct multiroot_iommu_info){ .abi = MULTIROOT_IOMMU_ABI };
	if (mr_iommu_on) {
		info->flags = MULTIROOT_IOMMU_ON;
		mr_tables_fill_info(info);
		mr_unit_info(info);
	}
	return 0;
}

static int mr_iommu_call_claim(struct file *file, void *argument)
{
	return mr_ioctl_claim(&mr_iommu_calls, file);
}

static int mr_iommu_call_start(struct file *file, void *argument)
{
	return mr_iommu_begin(mr_share_create, mr_share_undo_create, argument);
}

/* Parts of roots that have ended are free only when no device uses tables there any more. */
static int mr_iommu_join(const struct multiroot_iommu_start *start)
{
	int err = mr_share_join(start);
	u32 devices;

	if (err)
		return err;
	err = mr_inherit(&devices) ?: mr_share_take_part();
	if (err)
		mr_share_undo_join();
	return err;
}

static int mr_iommu_call_join(struct file *file, void *argument)
{
	return mr_iommu_begin(mr_iommu_join, mr_share_undo_join, argument);
}

static int mr_iommu_call_device(struct file *file, void *argument)
{
	return mr_iommu_on ? mr_switch_device(argument) : -ENODEV;
}

static int mr_iommu_call_switch(struct file *file, void *argument)
{
	return mr_iommu_on ? mr_switch(argument) : -ENODEV;
}

static int mr_iommu_call_inherit(struct file *file, void *argument)
{
	struct multiroot_iommu_inherit *inherit = argument;

	return mr_iommu_on ? mr_inherit(&inherit->devices) : -ENODEV;
}

static const struct mr_ioctl mr_iommu_call_table[] = {
	MR_IOCTL(MULTIROOT_IOMMU_IOC_INFO, false, mr_iommu_call_info),
	MR_IOCTL(MULTIROOT_IOMMU_IOC_CLAIM, false, mr_iommu_call_claim),
	MR_IOCTL(MULTIROOT_IOMMU_IOC_START, true, mr_iommu_call_start),
	MR_IOCTL(MULTIROOT_IOMMU_IOC_JOIN, true, mr_iommu_call_join),
	MR_IOCTL(MULTIROOT_IOMMU_IOC_DEVICE, false, mr_iommu_call_device),
	MR_IOCTL(MULTIROOT_IOMMU_IOC_SWITCH, true, mr_iommu_call_switch),
	MR_IOCTL(MULTIROOT_IOMMU_IOC_INHERIT, true, mr_iommu_call_inherit),
};

static struct mr_ioctls mr_iommu_calls = {
	.lock = __MUTEX_INITIALIZER(mr_iommu_calls.lock),
	.table = mr_iommu_call_table,
	.count = ARRAY_SIZE(mr_iommu_call_table),
};

static long mr_iommu_dev_ioctl(struct file *file, unsigned int command, unsigned long user)
{
	return mr_ioctl(&mr_iommu_calls, file, command, user);
}

static int mr_iommu_release(struct inode *inode, struct file *file)
{
	mr_ioctl_release(&mr_iommu_calls, file);
	return 0;
}

static const struct file_operations mr_iommu_fops = {
	.owner = THIS_MODULE,
	.open = mr_ioctl_open,
	.release = mr_iommu_release,
	.unlocked_ioctl = mr_iommu_dev_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice mr_iommu_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "multiroot_iommu",
	.fops = &mr_iommu_fops,
	.mode = 0600,
};

module_misc_device(mr_iommu_device);

MODULE_DESCRIPTION("A VT-d unit whose tables outlive a root");
MODULE_AUTHOR("The multiroot authors");
MODULE_LICENSE("GPL");

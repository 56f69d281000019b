// SPDX-License-Identifier: GPL-2.0-only
/*
 * multiroot_iommu.ko: a VT-d unit whose tables lie in memory that outlives a root, so that a device at work can change
 * its root. Touches nothing until it is told to start or to join; see docs/device-handoff.md.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/uaccess.h>

#include "iommu/iommu.h"

static DEFINE_MUTEX(lock);
static bool on;

union argument {
	struct multiroot_iommu_info info;
	struct multiroot_iommu_start start;
	struct multiroot_iommu_device device;
	struct multiroot_iommu_switch change;
};

static int begin(int (*tables)(const struct multiroot_iommu_start *), const struct multiroot_iommu_start *start)
{
	int err;

	if (on)
		return -EBUSY;
	err = tables(start);
	if (err)
		return err;
	err = mr_domain_register();
	if (err) {
		/* The unit stays on with everything passed through, which it can't be told from being off. */
		pr_err("Linux takes no iommu driver (%d)\n", err);
		return err;
	}
	on = true;
	__module_get(THIS_MODULE);
	pr_info("root %u takes part in the tables at %#llx\n", start->root, start->tables);
	return 0;
}

static int dispatch(unsigned int command, union argument *arg)
{
	switch (command) {
	case MULTIROOT_IOMMU_IOC_INFO:
		arg->info = (struct multiroot_iommu_info){ .abi = MULTIROOT_IOMMU_ABI };
		if (on) {
			arg->info.flags = MULTIROOT_IOMMU_ON;
			mr_tables_fill_info(&arg->info);
			mr_unit_info(&arg->info);
		}
		return 0;
	case MULTIROOT_IOMMU_IOC_START:
		return begin(mr_tables_create, &arg->start);
	case MULTIROOT_IOMMU_IOC_JOIN:
		return begin(mr_tables_join, &arg->start);
	case MULTIROOT_IOMMU_IOC_DEVICE:
		return on ? mr_switch_device(&arg->device) : -ENODEV;
	case MULTIROOT_IOMMU_IOC_SWITCH:
		return on ? mr_switch(&arg->change) : -ENODEV;
	default:
		return -ENOTTY;
	}
}

static long dev_ioctl(struct file *file, unsigned int command, unsigned long user)
{
	void __user *from = (void __user *)user;
	unsigned int size = _IOC_SIZE(command);
	union argument arg = {};
	int err;

	if (_IOC_TYPE(command) != MULTIROOT_IOMMU_IOC_MAGIC || size > sizeof(arg))
		return -ENOTTY;
	if ((_IOC_DIR(command) & _IOC_WRITE) && copy_from_user(&arg, from, size))
		return -EFAULT;
	if (mutex_lock_interruptible(&lock))
		return -ERESTARTSYS;
	err = dispatch(command, &arg);
	mutex_unlock(&lock);
	/* A switch that was refused says what differs. */
	if ((!err || err == -EXDEV) && (_IOC_DIR(command) & _IOC_READ) && copy_to_user(from, &arg, size))
		return -EFAULT;
	return err;
}

static int dev_open(struct inode *inode, struct file *file)
{
	return capable(CAP_SYS_ADMIN) ? 0 : -EPERM;
}

static const struct file_operations fops = {
	.owner = THIS_MODULE,
	.open = dev_open,
	.unlocked_ioctl = dev_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "multiroot_iommu",
	.fops = &fops,
	.mode = 0600,
};

module_misc_device(device);

MODULE_DESCRIPTION("A VT-d unit whose tables outlive a root");
MODULE_AUTHOR("The multiroot authors");
MODULE_LICENSE("GPL");

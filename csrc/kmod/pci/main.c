// SPDX-License-Identifier: GPL-2.0-only
/*
 * multiroot_pci.ko: PCI functions that change their root while they are at work; see docs/device-handoff.md. Touches
 * nothing until somebody asks.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/uaccess.h>

#include "pci/pci.h"

static DEFINE_MUTEX(lock);

static int dispatch(unsigned int command, const struct multiroot_pci_function *function)
{
	int err;

	switch (command) {
	case MULTIROOT_PCI_IOC_ADD:
		err = mr_pci_add(function);
		if (!err)
			__module_get(THIS_MODULE);
		return err;
	case MULTIROOT_PCI_IOC_REMOVE:
		err = mr_pci_remove(function->segment);
		if (!err)
			module_put(THIS_MODULE);
		return err;
	default:
		return -ENOTTY;
	}
}

static long dev_ioctl(struct file *file, unsigned int command, unsigned long user)
{
	struct multiroot_pci_function function;
	int err;

	if (_IOC_TYPE(command) != MULTIROOT_PCI_IOC_MAGIC || _IOC_SIZE(command) != sizeof(function))
		return -ENOTTY;
	if (copy_from_user(&function, (void __user *)user, sizeof(function)))
		return -EFAULT;
	if (mutex_lock_interruptible(&lock))
		return -ERESTARTSYS;
	err = dispatch(command, &function);
	mutex_unlock(&lock);
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
	.name = "multiroot_pci",
	.fops = &fops,
	.mode = 0600,
};

module_misc_device(device);

MODULE_DESCRIPTION("PCI functions that change their root while they are at work");
MODULE_AUTHOR("The multiroot authors");
MODULE_LICENSE("GPL");

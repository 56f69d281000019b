// SPDX-License-Identifier: GPL-2.0-only
/*
 * multiroot_pci.ko: PCI functions that change their root while they are at work; see docs/device-handoff.md. Touches
 * nothing until somebody asks.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>

#include "ioctl.h"
#include "pci/pci.h"

static struct mr_ioctls mr_pci_calls;

static int mr_pci_call_claim(struct file *file, void *argument)
{
	return mr_ioctl_claim(&mr_pci_calls, file);
}

static int mr_pci_call_add(struct file *file, void *argument)
{
	/* For good: whoever has a reference to the function, or gives the last one back, comes here at any time. */
	__module_get(THIS_MODULE);
	return mr_pci_add(argument);
}

static int mr_pci_call_remove(struct file *file, void *argument)
{
	const struct multiroot_pci_function *function = argument;

	return mr_pci_remove(function->segment);
}

static const struct mr_ioctl mr_pci_call_table[] = {
	MR_IOCTL(MULTIROOT_PCI_IOC_CLAIM, false, mr_pci_call_claim),
	MR_IOCTL(MULTIROOT_PCI_IOC_ADD, true, mr_pci_call_add),
	MR_IOCTL(MULTIROOT_PCI_IOC_REMOVE, true, mr_pci_call_remove),
};

static struct mr_ioctls mr_pci_calls = {
	.lock = __MUTEX_INITIALIZER(mr_pci_calls.lock),
	.table = mr_pci_call_table,
	.count = ARRAY_SIZE(mr_pci_call_table),
};

static long mr_pci_dev_ioctl(struct file *file, unsigned int command, unsigned long user)
{
	return mr_ioctl(&mr_pci_calls, file, command, user);
}

static int mr_pci_release(struct inode *inode, struct file *file)
{
	mr_ioctl_release(&mr_pci_calls, file);
	return 0;
}

static const struct file_operations mr_pci_fops = {
	.owner = THIS_MODULE,
	.open = mr_ioctl_open,
	.release = mr_pci_release,
	.unlocked_ioctl = mr_pci_dev_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice mr_pci_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "multiroot_pci",
	.fops = &mr_pci_fops,
	.mode = 0600,
};

module_misc_device(mr_pci_device);

MODULE_DESCRIPTION("PCI functions that change their root while they are at work");
MODULE_AUTHOR("The multiroot authors");
MODULE_LICENSE("GPL");

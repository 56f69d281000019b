/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The ioctls of a device, as a table: one argument is copied in, one command runs at a time, and its answer is copied
 * out. Each module that has a device has one such table.
 */
#ifndef _MR_IOCTL_H
#define _MR_IOCTL_H

#include <linux/capability.h>
#include <linux/errno.h>
#include <linux/fs.h>
#include <linux/ioctl.h>
#include <linux/mutex.h>
#include <linux/security.h>
#include <linux/types.h>
#include <linux/uaccess.h>

#define MR_IOCTL_SIZE_MOST	256

/**
 * struct mr_ioctl - one command
 * @command: its number, with the argument's size and direction
 * @needs_claim: whether only the file that has the claim may give it
 * @handler: called with the lock held; @argument is zeroed where nothing was copied in
 */
struct mr_ioctl {
	unsigned int command;
	bool needs_claim;
	int (*handler)(struct file *file, void *argument);
};

#define MR_IOCTL(number, claim, function)	{ .command = (number), .needs_claim = (claim), .handler = (function) }

/**
 * struct mr_ioctls - a device's commands
 * @lock: held while one of them runs, and while user memory is read by its handler
 * @claimant: the file that has the claim, NULL: none has it; under @lock
 * @table: the commands
 * @count: how many
 */
struct mr_ioctls {
	struct mutex lock;		/* see above */
	struct file *claimant;
	const struct mr_ioctl *table;
	unsigned int count;
};

/* As for kexec, and for its reason: what is loaded here runs with all rights. 0, or -EPERM. */
static inline int mr_ioctl_permission(void)
{
	return capable(CAP_SYS_BOOT) ? security_locked_down(LOCKDOWN_KEXEC) : -EPERM;
}

/* file_operations.open */
static inline int mr_ioctl_open(struct inode *inode, struct file *file)
{
	return mr_ioctl_permission() ?: nonseekable_open(inode, file);
}

/* A start that timed out still says how far it came, and a switch that was refused what differs. */
static inline bool mr_ioctl_answers(int err)
{
	return !err || err == -ETIMEDOUT || err == -EXDEV;
}

/* file_operations.unlocked_ioctl, for a device with these commands. */
static inline long mr_ioctl(struct mr_ioctls *calls, struct file *file, unsigned int command, unsigned long user)
{
	u8 argument[MR_IOCTL_SIZE_MOST] __aligned(8) = {};
	const struct mr_ioctl *call = calls->table, *end = calls->table + calls->count;
	void __user *from = (void __user *)user;
	unsigned int size = _IOC_SIZE(command);
	int err;

	while (call < end && call->command != command)
		call++;
	if (call == end || size > sizeof(argument))
		return -ENOTTY;
	if ((_IOC_DIR(command) & _IOC_WRITE) && copy_from_user(argument, from, size))
		return -EFAULT;
	if (mutex_lock_interruptible(&calls->lock))
		return -ERESTARTSYS;
	err = call->needs_claim && calls->claimant != file ? -EPERM : call->handler(file, argument);
	mutex_unlock(&calls->lock);
	if (mr_ioctl_answers(err) && (_IOC_DIR(command) & _IOC_READ) && copy_to_user(from, argument, size))
		return -EFAULT;
	return err;
}

#endif /* _MR_IOCTL_H */

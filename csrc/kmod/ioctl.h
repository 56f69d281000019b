/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The ioctls of a device, as a table: one argument is copied in, one command runs at a time, and its answer is copied
 * out. Each module that has a device has one such table. User memory may be a file system's in user space, which
 * answers when it wants to: it is never copied with the lock held.
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
 * @unlocked: the handler copies user memory or sleeps, and calls mr_ioctl_enter() itself for the rest
 * @handler: called with the lock held, unless @unlocked; @argument is zeroed where nothing was copied in
 */
struct mr_ioctl {
	unsigned int command;
	bool needs_claim;
	bool unlocked;
	int (*handler)(struct file *file, void *argument);
};

#define MR_IOCTL(number, claim, function)	{ .command = (number), .needs_claim = (claim), .handler = (function) }
#define MR_IOCTL_UNLOCKED(number, function)	{ .command = (number), .unlocked = true, .handler = (function) }

/**
 * struct mr_ioctls - a device's commands
 * @lock: held while one of them runs
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

/* Take the lock for a command: 0, -EPERM when it needs the claim and another file has it, -ERESTARTSYS. */
static inline int mr_ioctl_enter(struct mr_ioctls *calls, struct file *file, bool needs_claim)
{
	if (mutex_lock_interruptible(&calls->lock))
		return -ERESTARTSYS;
	if (!needs_claim || calls->claimant == file)
		return 0;
	mutex_unlock(&calls->lock);
	return -EPERM;
}

/* What a device's command CLAIM does: 0, or -EBUSY when another file has the claim. */
static inline int mr_ioctl_claim(struct mr_ioctls *calls, struct file *file)
{
	if (calls->claimant && calls->claimant != file)
		return -EBUSY;
	calls->claimant = file;
	return 0;
}

/* For file_operations.release: the claim ends with its file. */
static inline void mr_ioctl_release(struct mr_ioctls *calls, struct file *file)
{
	mutex_lock(&calls->lock);
	if (calls->claimant == file)
		calls->claimant = NULL;
	mutex_unlock(&calls->lock);
}

static inline int mr_ioctl_run(struct mr_ioctls *calls, const struct mr_ioctl *call, struct file *file, void *argument)
{
	int err;

	if (call->unlocked)
		return call->handler(file, argument);
	err = mr_ioctl_enter(calls, file, call->needs_claim);
	if (err)
		return err;
	err = call->handler(file, argument);
	mutex_unlock(&calls->lock);
	return err;
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
	err = mr_ioctl_run(calls, call, file, argument);
	if (mr_ioctl_answers(err) && (_IOC_DIR(command) & _IOC_READ) && copy_to_user(from, argument, size))
		return -EFAULT;
	return err;
}

#endif /* _MR_IOCTL_H */

// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/multiroot: the ioctls of uapi/multiroot.h. One open file at a time may hold the coordinator's claim, without
 * which nothing can be changed.
 */
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/uaccess.h>
#include <asm/tsc.h>

#include "core/core.h"
#include "ioctl.h"

#define RING_GAP_US	100

static struct mr_ioctls mr_dev_calls;	/* its lock serialises whatever changes carve, CPUs or peers */
static DEFINE_MUTEX(mr_dev_ring_lock);	/* one ring at a time, with the pause after it */

static int mr_dev_release(struct inode *inode, struct file *file)
{
	mr_ioctl_release(&mr_dev_calls, file);
	return 0;
}

static int mr_dev_call_claim(struct file *file, void *argument)
{
	return mr_ioctl_claim(&mr_dev_calls, file);
}

static int mr_dev_call_info(struct file *file, void *argument)
{
	struct mr_peer *parent = mr_peer(MULTIROOT_PARENT), *child = mr_peer(MULTIROOT_CHILD);
	struct multiroot_info *info = argument;

	*info = (struct multiroot_info) {
		.abi = MULTIROOT_ABI,
		.flags = mr_ipi_info_flags() |
			 (parent ? MULTIROOT_INFO_PARENT : 0) |
			 (mr_carve.size ? MULTIROOT_INFO_CARVED : 0) |
			 (mr_dev_calls.claimant ? MULTIROOT_INFO_CLAIMED : 0),
		.root = mr_ledger_root(),
		.boot_hardware_id = mr_ledger->boot_hardware_id,
		.tsc_khz = tsc_khz,
		.ledger = mr_ledger_phys(),
		.parent_control = parent ? parent->phys : 0,
		.child_control = child ? child->phys : 0,
		.carve_base = mr_carve.base,
		.carve_size = mr_carve.size,
		.low_base = mr_carve.low_base,
		.low_size = mr_carve.low_size,
	};
	return 0;
}

static int mr_dev_call_carve(struct file *file, void *argument)
{
	return mr_carve_take(argument);
}

static int mr_dev_call_uncarve(struct file *file, void *argument)
{
	return mr_cpu_any_granted() ? -EBUSY : mr_carve_release();
}

/* For a piece of memory, or a whole one without a buffer: then it is only seen if it would do. */
static int mr_dev_copy_piece(struct file *file, const struct multiroot_segment *piece, void *buffer, bool out)
{
	int err = mr_ioctl_enter(&mr_dev_calls, file, !out);

	if (err)
		return err;
	/* Asked again, for the file may have been opened by somebody else, or before the lockdown. */
	if (!out && mr_ioctl_permission())
		err = -EPERM;
	else if (!mr_segment_fits(piece->phys, piece->size))
		err = -EINVAL;
	else if (!out && mr_cpu_any_started())
		err = -EBUSY;
	else if (buffer)
		err = mr_segment_copy(piece, buffer, out);
	mutex_unlock(&mr_dev_calls.lock);
	return err;
}

/* Between user space and the carve, a piece at a time; @out: to user space. */
static int mr_dev_copy(struct file *file, const struct multiroot_segment *segment, bool out)
{
	struct multiroot_segment piece;
	void *buffer;
	u64 done;
	int err;

	err = mr_dev_copy_piece(file, segment, NULL, out);
	if (err)
		return err;
	buffer = kvmalloc(min_t(u64, segment->size, MR_SEGMENT_PIECE), GFP_KERNEL);
	if (!buffer)
		return -ENOMEM;
	for (done = 0; !err && done < segment->size; done += piece.size) {
		void __user *user = u64_to_user_ptr(segment->buf + done);

		piece.phys = segment->phys + done;
		piece.size = min_t(u64, segment->size - done, MR_SEGMENT_PIECE);
		if (!out && copy_from_user(buffer, user, piece.size))
			err = -EFAULT;
		err = err ?: mr_dev_copy_piece(file, &piece, buffer, out);
		if (!err && out && copy_to_user(user, buffer, piece.size))
			err = -EFAULT;
		cond_resched();
	}
	kvfree(buffer);
	return err;
}

static int mr_dev_call_write(struct file *file, void *argument)
{
	return mr_dev_copy(file, argument, false);
}

static int mr_dev_call_read(struct file *file, void *argument)
{
	return mr_dev_copy(file, argument, true);
}

static int mr_dev_call_find(struct file *file, void *argument)
{
	struct multiroot_find *find = argument;

	if (!mr_segment_fits(find->phys, find->size) || !IS_ALIGNED(find->phys | find->size, sizeof(find->word)))
		return -EINVAL;
	return mr_segment_find(find);
}

static int mr_dev_call_cpu_get(struct file *file, void *argument)
{
	return mr_cpu_get(argument);
}

static int mr_dev_call_cpu_grant(struct file *file, void *argument)
{
	return mr_cpu_grant(argument);
}

static int mr_dev_call_cpu_start(struct file *file, void *argument)
{
	return mr_ioctl_permission() ?: mr_cpu_start(argument);
}

static int mr_dev_call_cpu_reclaim(struct file *file, void *argument)
{
	return mr_cpu_reclaim(argument);
}

static int mr_dev_call_inherit(struct file *file, void *argument)
{
	return mr_adopt_inherit();
}

static int mr_dev_call_cpu_adopt(struct file *file, void *argument)
{
	return mr_adopt_cpu(argument);
}

static int mr_dev_call_memory(struct file *file, void *argument)
{
	return mr_adopt_memory(argument);
}

static int mr_dev_call_pci_adopt(struct file *file, void *argument)
{
	const struct multiroot_pci *pci = argument;

	return mr_bridge_let_in(pci->segment, pci->function);
}

static int mr_dev_call_doorbell(struct file *file, void *argument)
{
	const struct multiroot_doorbell *doorbell = argument;
	struct mr_peer *peer = mr_peer(doorbell->peer);

	if (doorbell->peer > MULTIROOT_CHILD || doorbell->pad || doorbell->fd < -1)
		return -EINVAL;
	return peer ? mr_doorbell_set_eventfd(peer, doorbell->fd, doorbell->mask) : -ENOENT;
}

static int mr_dev_ring(struct file *file, const struct multiroot_ring *ring)
{
	int err = mr_ioctl_enter(&mr_dev_calls, file, false);
	struct mr_peer *peer;

	if (err)
		return err;
	peer = mr_peer(ring->peer);
	if (peer)
		mr_doorbell_ring(peer, ring->events);
	mutex_unlock(&mr_dev_calls.lock);
	return peer ? 0 : -ENOENT;
}

/* Called in a loop, or by many at once, this must not take up the peer's CPU; nor keep other commands waiting. */
static int mr_dev_call_ring(struct file *file, void *argument)
{
	const u32 reserved = MULTIROOT_EVENT_LINK | MULTIROOT_EVENT_CONSOLE;
	const struct multiroot_ring *ring = argument;
	int err;

	if (ring->peer > MULTIROOT_CHILD || !ring->events || ring->events & reserved)
		return -EINVAL;
	if (mutex_lock_interruptible(&mr_dev_ring_lock))
		return -ERESTARTSYS;
	err = mr_dev_ring(file, ring);
	if (!err)
		fsleep(RING_GAP_US);
	mutex_unlock(&mr_dev_ring_lock);
	return err;
}

static const struct mr_ioctl mr_dev_call_table[] = {
	MR_IOCTL(MULTIROOT_IOC_INFO, false, mr_dev_call_info),
	MR_IOCTL(MULTIROOT_IOC_CLAIM, false, mr_dev_call_claim),
	MR_IOCTL(MULTIROOT_IOC_CARVE, true, mr_dev_call_carve),
	MR_IOCTL(MULTIROOT_IOC_UNCARVE, true, mr_dev_call_uncarve),
	MR_IOCTL_UNLOCKED(MULTIROOT_IOC_WRITE, mr_dev_call_write),
	MR_IOCTL_UNLOCKED(MULTIROOT_IOC_READ, mr_dev_call_read),
	MR_IOCTL(MULTIROOT_IOC_FIND, false, mr_dev_call_find),
	MR_IOCTL(MULTIROOT_IOC_CPU_GET, false, mr_dev_call_cpu_get),
	MR_IOCTL(MULTIROOT_IOC_CPU_GRANT, true, mr_dev_call_cpu_grant),
	MR_IOCTL(MULTIROOT_IOC_CPU_START, true, mr_dev_call_cpu_start),
	MR_IOCTL(MULTIROOT_IOC_CPU_RECLAIM, true, mr_dev_call_cpu_reclaim),
	MR_IOCTL(MULTIROOT_IOC_INHERIT, true, mr_dev_call_inherit),
	MR_IOCTL(MULTIROOT_IOC_CPU_ADOPT, true, mr_dev_call_cpu_adopt),
	MR_IOCTL(MULTIROOT_IOC_MEMORY, true, mr_dev_call_memory),
	MR_IOCTL(MULTIROOT_IOC_PCI_ADOPT, true, mr_dev_call_pci_adopt),
	MR_IOCTL(MULTIROOT_IOC_DOORBELL, false, mr_dev_call_doorbell),
	MR_IOCTL_UNLOCKED(MULTIROOT_IOC_RING, mr_dev_call_ring),
};

static struct mr_ioctls mr_dev_calls = {
	.lock = __MUTEX_INITIALIZER(mr_dev_calls.lock),
	.table = mr_dev_call_table,
	.count = ARRAY_SIZE(mr_dev_call_table),
};

static long mr_dev_ioctl(struct file *file, unsigned int command, unsigned long user)
{
	return mr_ioctl(&mr_dev_calls, file, command, user);
}

static const struct file_operations mr_dev_fops = {
	.owner = THIS_MODULE,
	.open = mr_ioctl_open,
	.release = mr_dev_release,
	.unlocked_ioctl = mr_dev_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = mr_map,
};

static struct miscdevice mr_dev_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "multiroot",
	.fops = &mr_dev_fops,
	.mode = 0600,
};

int mr_dev_init(void)
{
	int err;

	err = mr_event_init(&mr_dev_device);
	if (err)
		return err;
	err = misc_register(&mr_dev_device);
	if (err)
		mr_event_exit();
	return err;
}

void mr_dev_exit(void)
{
	/* No peer is left that could queue an event; those that are queued want the device. */
	mr_event_exit();
	misc_deregister(&mr_dev_device);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/multiroot: the ioctls of uapi/multiroot.h. One open file at a time may hold the coordinator's claim, without
 * which nothing can be changed.
 */
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>
#include <asm/tsc.h>

#include "core/core.h"

static struct file *claimant;	/* under mr_lock */

/* True while some file holds the claim. */
bool mr_dev_claimed(void)
{
	return READ_ONCE(claimant);
}

static int dev_open(struct inode *inode, struct file *file)
{
	return capable(CAP_SYS_ADMIN) ? nonseekable_open(inode, file) : -EPERM;
}

static int dev_release(struct inode *inode, struct file *file)
{
	mutex_lock(&mr_lock);
	if (claimant == file)
		WRITE_ONCE(claimant, NULL);
	mutex_unlock(&mr_lock);
	return 0;
}

static int claim(struct file *file)
{
	if (claimant && claimant != file)
		return -EBUSY;
	WRITE_ONCE(claimant, file);
	return 0;
}

static void fill_info(struct multiroot_info *info)
{
	struct mr_peer *parent = mr_peer(MULTIROOT_PARENT), *child = mr_peer(MULTIROOT_CHILD);

	*info = (struct multiroot_info) {
		.abi = MULTIROOT_ABI,
		.flags = (mr_apic_x2apic() ? MULTIROOT_INFO_X2APIC : 0) |
			 (parent ? MULTIROOT_INFO_PARENT : 0) |
			 (mr_carve.size ? MULTIROOT_INFO_CARVED : 0) |
			 (mr_dev_claimed() ? MULTIROOT_INFO_CLAIMED : 0),
		.root = mr_ledger_root(),
		.boot_apic_id = mr_ledger->boot_apic_id,
		.tsc_khz = tsc_khz,
		.ledger = mr_ledger_phys(),
		.parent_control = parent ? parent->phys : 0,
		.child_control = child ? child->phys : 0,
		.carve_base = mr_carve.base,
		.carve_size = mr_carve.size,
		.low_base = mr_carve.low_base,
		.low_size = mr_carve.low_size,
	};
}

static int set_doorbell(const struct multiroot_doorbell *doorbell)
{
	struct mr_peer *peer = mr_peer(doorbell->peer);

	if (doorbell->peer > MULTIROOT_CHILD || doorbell->pad || doorbell->fd < -1)
		return -EINVAL;
	return peer ? mr_doorbell_set_eventfd(peer, doorbell->fd, doorbell->mask) : -ENOENT;
}

static int ring(const struct multiroot_ring *ring)
{
	const u32 reserved = MULTIROOT_EVENT_LINK | MULTIROOT_EVENT_CONSOLE;
	struct mr_peer *peer = mr_peer(ring->peer);

	if (ring->peer > MULTIROOT_CHILD || !ring->events || ring->events & reserved)
		return -EINVAL;
	if (!peer)
		return -ENOENT;
	mr_doorbell_ring(peer, ring->events);
	return 0;
}

union argument {
	struct multiroot_info info;
	struct multiroot_carve carve;
	struct multiroot_segment segment;
	struct multiroot_cpu cpu;
	struct multiroot_cpu_start start;
	struct multiroot_memory memory;
	struct multiroot_pci pci;
	struct multiroot_doorbell doorbell;
	struct multiroot_ring ring;
};

static bool needs_claim(unsigned int command)
{
	switch (command) {
	case MULTIROOT_IOC_CARVE:
	case MULTIROOT_IOC_UNCARVE:
	case MULTIROOT_IOC_WRITE:
	case MULTIROOT_IOC_CPU_GRANT:
	case MULTIROOT_IOC_CPU_START:
	case MULTIROOT_IOC_CPU_RECLAIM:
	case MULTIROOT_IOC_INHERIT:
	case MULTIROOT_IOC_CPU_ADOPT:
	case MULTIROOT_IOC_MEMORY:
	case MULTIROOT_IOC_PCI_ADOPT:
		return true;
	default:
		return false;
	}
}

static int dispatch(struct file *file, unsigned int command, union argument *arg)
{
	if (needs_claim(command) && claimant != file)
		return -EPERM;
	switch (command) {
	case MULTIROOT_IOC_INFO:
		fill_info(&arg->info);
		return 0;
	case MULTIROOT_IOC_CLAIM:
		return claim(file);
	case MULTIROOT_IOC_CARVE:
		return mr_carve_take(&arg->carve);
	case MULTIROOT_IOC_UNCARVE:
		return mr_carve_release();
	case MULTIROOT_IOC_WRITE:
		return mr_segment_write(&arg->segment);
	case MULTIROOT_IOC_CPU_GET:
		return mr_cpu_get(&arg->cpu);
	case MULTIROOT_IOC_CPU_GRANT:
		return mr_cpu_grant(&arg->cpu);
	case MULTIROOT_IOC_CPU_START:
		return mr_cpu_start(&arg->start);
	case MULTIROOT_IOC_CPU_RECLAIM:
		return mr_cpu_reclaim(&arg->cpu);
	case MULTIROOT_IOC_INHERIT:
		return mr_adopt_inherit();
	case MULTIROOT_IOC_CPU_ADOPT:
		return mr_adopt_cpu(&arg->cpu);
	case MULTIROOT_IOC_MEMORY:
		return mr_adopt_memory(&arg->memory);
	case MULTIROOT_IOC_PCI_ADOPT:
		return arg->pci.pad ? -EINVAL : mr_bridge_let_in(arg->pci.function);
	case MULTIROOT_IOC_DOORBELL:
		return set_doorbell(&arg->doorbell);
	case MULTIROOT_IOC_RING:
		return ring(&arg->ring);
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

	if (_IOC_TYPE(command) != MULTIROOT_IOC_MAGIC || size > sizeof(arg))
		return -ENOTTY;
	if ((_IOC_DIR(command) & _IOC_WRITE) && copy_from_user(&arg, from, size))
		return -EFAULT;
	if (mutex_lock_interruptible(&mr_lock))
		return -ERESTARTSYS;
	err = dispatch(file, command, &arg);
	mutex_unlock(&mr_lock);
	/* A start that timed out still says how far it came. */
	if ((!err || err == -ETIMEDOUT) && (_IOC_DIR(command) & _IOC_READ) && copy_to_user(from, &arg, size))
		return -EFAULT;
	return err;
}

static const struct file_operations dev_fops = {
	.owner = THIS_MODULE,
	.open = dev_open,
	.release = dev_release,
	.unlocked_ioctl = dev_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = mr_map,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "multiroot",
	.fops = &dev_fops,
	.mode = 0600,
};

static struct workqueue_struct *uevent_queue;	/* keeps them in order */

struct uevent {
	struct work_struct work;
	u32 peer;
	u32 state;
	const char *event;
};

static void send_uevent(struct work_struct *work)
{
	struct uevent *uevent = container_of(work, struct uevent, work);
	char event[40], peer[16], state[16];
	char *env[] = { event, peer, state, NULL };

	snprintf(event, sizeof(event), "MULTIROOT_EVENT=%s", uevent->event);
	snprintf(peer, sizeof(peer), "PEER=%s", uevent->peer == MULTIROOT_PARENT ? "parent" : "child");
	snprintf(state, sizeof(state), "STATE=%u", uevent->state);
	kobject_uevent_env(&device.this_device->kobj, KOBJ_CHANGE, env);
	kfree(uevent);
}

/**
 * mr_dev_uevent() - tell user space that something about a peer has changed
 * @peer: the peer, or NULL: nothing is told
 * @event: a string constant, MULTIROOT_EVENT of the uevent
 *
 * From any context but NMI.
 */
void mr_dev_uevent(const struct mr_peer *peer, const char *event)
{
	struct uevent *uevent = kmalloc(sizeof(*uevent), GFP_ATOMIC);

	if (!uevent || !peer) {
		kfree(uevent);
		return;
	}
	*uevent = (struct uevent) { .peer = peer->index, .state = READ_ONCE(peer->theirs->state), .event = event };
	INIT_WORK(&uevent->work, send_uevent);
	queue_work(uevent_queue, &uevent->work);
}

int mr_dev_init(void)
{
	int err;

	uevent_queue = alloc_ordered_workqueue("multiroot", 0);
	if (!uevent_queue)
		return -ENOMEM;
	err = misc_register(&device);
	if (err)
		destroy_workqueue(uevent_queue);
	return err;
}

void mr_dev_exit(void)
{
	/* No peer is left that could queue an event; those that are queued want the device. */
	destroy_workqueue(uevent_queue);
	misc_deregister(&device);
}

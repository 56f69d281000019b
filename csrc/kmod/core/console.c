// SPDX-License-Identifier: GPL-2.0-only
/*
 * The console ring: a child's kernel messages go into the shared area, where its parent reads them from
 * /dev/multiroot-console even when the child is dead. The writer never waits; what is not read in time is lost.
 */
#include <linux/console.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#include "core/core.h"

#define RING_SIZE	SZ_128K		/* a power of two */

/* In shared memory; written by the child alone but for reader_waits. */
struct mr_console_ring {
	u64 written ____cacheline_aligned;
	u32 reader_waits ____cacheline_aligned;
	u8 data[] ____cacheline_aligned;
};

static_assert(sizeof(struct mr_console_ring) + RING_SIZE <= MR_CONSOLE_SIZE);

/* An open file; under child_lock. */
struct reader {
	u32 root;		/* of the child it has read from */
	u64 read;
};

static struct mr_peer *mr_console_parent;		/* where this root's own messages go */

static DEFINE_MUTEX(mr_console_child_lock);	/* child stays while this is held; user memory is not copied then */
static struct mr_peer *mr_console_child;		/* whose messages are read here */

static atomic_t mr_console_changes = ATOMIC_INIT(0);	/* count of what readers may want to look at */
static DECLARE_WAIT_QUEUE_HEAD(mr_console_readers);

static struct mr_console_ring *mr_console_ring_of(struct mr_peer *peer)
{
	return peer->shared + MR_CONSOLE_OFFSET;
}

static void mr_console_write(struct console *console, const char *text, unsigned int size)
{
	struct mr_console_ring *ring = mr_console_ring_of(mr_console_parent);
	u64 at = ring->written;
	unsigned int i;

	for (i = 0; i < size; i++)
		ring->data[(at + i) & (RING_SIZE - 1)] = text[i];
	/* Pairs with mr_console_available(): first the text, then where it ends. */
	smp_store_release(&ring->written, at + size);
	/* Pairs with mr_console_available(): the reader that has not seen this text is seen waiting. */
	smp_mb();
	if (READ_ONCE(ring->reader_waits) && xchg(&ring->reader_waits, 0))
		mr_doorbell_ring(mr_console_parent, MULTIROOT_EVENT_CONSOLE);
}

static struct console mr_console_ring_console = {
	.name = "multiroot",
	.write = mr_console_write,
	.flags = CON_PRINTBUFFER | CON_ENABLED | CON_ANYTIME,
	.index = -1,
};

/**
 * mr_console_attach() - write to our parent from now on
 * @peer: the parent
 *
 * Begins with all messages since this kernel started.
 */
void mr_console_attach(struct mr_peer *peer)
{
	mr_console_parent = peer;
	register_console(&mr_console_ring_console);
}

void mr_console_detach(void)
{
	if (!mr_console_parent)
		return;
	unregister_console(&mr_console_ring_console);
	mr_console_parent = NULL;
}

/* The child has written: wake all readers up, which look for themselves. From its doorbell. */
void mr_console_event(struct mr_peer *peer)
{
	atomic_inc(&mr_console_changes);
	wake_up_interruptible(&mr_console_readers);
}

/* There is a new child, or (NULL) none any more. */
void mr_console_child_changed(struct mr_peer *peer)
{
	mutex_lock(&mr_console_child_lock);
	mr_console_child = peer;
	mutex_unlock(&mr_console_child_lock);
	mr_console_event(peer);
}

static int mr_console_open(struct inode *inode, struct file *file)
{
	struct reader *reader = kzalloc(sizeof(*reader), GFP_KERNEL);

	if (!reader)
		return -ENOMEM;
	file->private_data = reader;
	return stream_open(inode, file);
}

static int mr_console_release(struct inode *inode, struct file *file)
{
	kfree(file->private_data);
	return 0;
}

/* Bytes there are for @reader; asks for the doorbell when there are none. Called with child_lock held. */
static u64 mr_console_available(struct reader *reader)
{
	struct mr_console_ring *ring;
	u64 there;

	if (!mr_console_child)
		return 0;
	ring = mr_console_ring_of(mr_console_child);
	if (reader->root != mr_console_child->root) {
		reader->root = mr_console_child->root;
		reader->read = 0;
	}
	/* Pairs with mr_console_write(). */
	there = smp_load_acquire(&ring->written) - reader->read;
	if (!there) {
		WRITE_ONCE(ring->reader_waits, 1);
		/* Either the writer sees us waiting, or we see what it wrote. */
		smp_mb();
		there = READ_ONCE(ring->written) - reader->read;
	}
	/* What was overwritten is skipped. */
	if (there > RING_SIZE) {
		reader->read += there - RING_SIZE;
		there = RING_SIZE;
	}
	return there;
}

/* What there is, @size bytes at most. */
static size_t mr_console_take(struct reader *reader, u8 *text, size_t size)
{
	size_t part;
	u32 offset;
	u64 there;

	mutex_lock(&mr_console_child_lock);
	there = mr_console_available(reader);
	offset = reader->read & (RING_SIZE - 1);
	part = min3(there, (u64)size, (u64)(RING_SIZE - offset));
	if (part)
		memcpy(text, mr_console_ring_of(mr_console_child)->data + offset, part);
	reader->read += part;
	mutex_unlock(&mr_console_child_lock);
	return part;
}

/* User memory answers when it wants to; who holds the lock keeps the child from being taken apart. */
static ssize_t mr_console_copy_out(struct reader *reader, char __user *to, size_t size)
{
	size_t most = min_t(size_t, size, PAGE_SIZE);
	u8 *text = kmalloc(most, GFP_KERNEL);
	ssize_t part;

	if (!text)
		return -ENOMEM;
	part = mr_console_take(reader, text, most);
	if (part && copy_to_user(to, text, part))
		part = -EFAULT;
	kfree(text);
	return part;
}

static ssize_t mr_console_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	struct reader *reader = file->private_data;
	ssize_t done;
	int seen;

	if (!size)
		return 0;
	do {
		seen = atomic_read(&mr_console_changes);
		done = mr_console_copy_out(reader, to, size);
		if (done)
			break;
		if (file->f_flags & O_NONBLOCK)
			done = -EAGAIN;
		else
			done = wait_event_interruptible(mr_console_readers, atomic_read(&mr_console_changes) != seen);
		/* A child that rings all the time has the wait end before it looks for signals. */
		if (!done && signal_pending(current))
			done = -ERESTARTSYS;
	} while (!done);
	return done;
}

static __poll_t console_poll(struct file *file, poll_table *wait)
{
	struct reader *reader = file->private_data;
	u64 there;

	poll_wait(file, &mr_console_readers, wait);
	mutex_lock(&mr_console_child_lock);
	there = mr_console_available(reader);
	mutex_unlock(&mr_console_child_lock);
	return there ? EPOLLIN | EPOLLRDNORM : 0;
}

static const struct file_operations mr_console_fops = {
	.owner = THIS_MODULE,
	.open = mr_console_open,
	.release = mr_console_release,
	.read = mr_console_read,
	.poll = console_poll,
};

static struct miscdevice mr_console_reader_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "multiroot-console",
	.fops = &mr_console_fops,
	.mode = 0400,
};

int mr_console_init(void)
{
	return misc_register(&mr_console_reader_device);
}

void mr_console_exit(void)
{
	misc_deregister(&mr_console_reader_device);
}

// SPDX-License-Identifier: GPL-2.0-only
/* uevents: what user space learns of peers and CPUs without asking. */
#include <linux/kobject.h>
#include <linux/miscdevice.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "core/core.h"

static struct workqueue_struct *mr_event_queue;	/* keeps them in order */
static const struct miscdevice *mr_event_told_device;

struct uevent {
	struct work_struct work;
	u32 peer;
	u32 state;
	const char *event;
};

static void mr_event_send_uevent(struct work_struct *work)
{
	struct uevent *uevent = container_of(work, struct uevent, work);
	char event[40], peer[16], state[16];
	char *env[] = { event, peer, state, NULL };

	snprintf(event, sizeof(event), "MULTIROOT_EVENT=%s", uevent->event);
	snprintf(peer, sizeof(peer), "PEER=%s", uevent->peer == MULTIROOT_PARENT ? "parent" : "child");
	snprintf(state, sizeof(state), "STATE=%u", uevent->state);
	kobject_uevent_env(&mr_event_told_device->this_device->kobj, KOBJ_CHANGE, env);
	kfree(uevent);
}

/**
 * mr_event_send() - tell user space that something about a peer has changed
 * @peer: the peer, or NULL: nothing is told
 * @event: a string constant, MULTIROOT_EVENT of the uevent
 *
 * From any context but NMI.
 */
void mr_event_send(const struct mr_peer *peer, const char *event)
{
	struct uevent *uevent = kmalloc(sizeof(*uevent), GFP_ATOMIC);

	if (!uevent || !peer) {
		kfree(uevent);
		return;
	}
	*uevent = (struct uevent) { .peer = peer->index, .state = READ_ONCE(peer->theirs->state), .event = event };
	INIT_WORK(&uevent->work, mr_event_send_uevent);
	queue_work(mr_event_queue, &uevent->work);
}

/**
 * mr_event_init() - make ready to send uevents
 * @device: whose they are; it need not be registered before somebody can open it
 *
 * Return: 0 or -ENOMEM.
 */
int mr_event_init(const struct miscdevice *device)
{
	mr_event_told_device = device;
	mr_event_queue = alloc_ordered_workqueue("multiroot", 0);
	return mr_event_queue ? 0 : -ENOMEM;
}

/* Send what is queued. The device must still be there, and no peer that could queue an event. */
void mr_event_exit(void)
{
	destroy_workqueue(mr_event_queue);
}

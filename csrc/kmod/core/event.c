// SPDX-License-Identifier: GPL-2.0-only
/*
 * uevents: what user space learns of peers and CPUs without asking. A peer can cause any number of them, so of each
 * kind only one waits, and there is some time between them. The last one always comes.
 */
#include <linux/jiffies.h>
#include <linux/kobject.h>
#include <linux/miscdevice.h>
#include <linux/workqueue.h>

#include "core/core.h"

#define GAP	msecs_to_jiffies(20)

static const char * const mr_event_names[MR_EVENTS] = {
	[MR_EVENT_STATE] = "state",
	[MR_EVENT_STARTED] = "started",
	[MR_EVENT_CPU_GRANTED] = "cpu-granted",
	[MR_EVENT_CPU_RECLAIMED] = "cpu-reclaimed",
	[MR_EVENT_ONLINE_VETOED] = "online-vetoed",
};

#define PEERS	(MULTIROOT_CHILD + 1)

/* Those of a peer follow each other. */
static struct mr_uevent {
	struct delayed_work work;
	u32 state;		/* of the peer, when it was caused last */
	unsigned long sent;	/* in jiffies */
} mr_event_waiting[PEERS * MR_EVENTS];

static struct workqueue_struct *mr_event_queue;	/* one at a time */
static const struct miscdevice *mr_event_told_device;

static void mr_event_send_uevent(struct work_struct *work)
{
	struct mr_uevent *uevent = container_of(to_delayed_work(work), struct mr_uevent, work);
	u32 index = uevent - mr_event_waiting;
	char event[40], peer[16], state[16];
	char *env[] = { event, peer, state, NULL };

	WRITE_ONCE(uevent->sent, jiffies);
	snprintf(event, sizeof(event), "MULTIROOT_EVENT=%s", mr_event_names[index % MR_EVENTS]);
	snprintf(peer, sizeof(peer), "PEER=%s", index < MR_EVENTS ? "parent" : "child");
	snprintf(state, sizeof(state), "STATE=%u", READ_ONCE(uevent->state));
	kobject_uevent_env(&mr_event_told_device->this_device->kobj, KOBJ_CHANGE, env);
}

/**
 * mr_event_send() - tell user space that something about a peer has changed
 * @peer: the peer, or NULL: nothing is told
 * @kind: MULTIROOT_EVENT of the uevent
 *
 * From any context but NMI.
 */
void mr_event_send(const struct mr_peer *peer, enum mr_event_kind kind)
{
	struct mr_uevent *uevent;
	unsigned long next;

	if (!peer)
		return;
	uevent = &mr_event_waiting[peer->index * MR_EVENTS + kind];
	WRITE_ONCE(uevent->state, READ_ONCE(peer->theirs->state));
	next = READ_ONCE(uevent->sent) + GAP;
	queue_delayed_work(mr_event_queue, &uevent->work, time_before(jiffies, next) ? next - jiffies : 0);
}

/**
 * mr_event_init() - make ready to send uevents
 * @device: whose they are; it need not be registered before somebody can open it
 *
 * Return: 0 or -ENOMEM.
 */
int mr_event_init(const struct miscdevice *device)
{
	u32 i;

	for (i = 0; i < ARRAY_SIZE(mr_event_waiting); i++) {
		INIT_DELAYED_WORK(&mr_event_waiting[i].work, mr_event_send_uevent);
		mr_event_waiting[i].sent = jiffies - GAP;
	}
	mr_event_told_device = device;
	mr_event_queue = alloc_ordered_workqueue("multiroot", 0);
	return mr_event_queue ? 0 : -ENOMEM;
}

/* Send what is queued. The device must still be there, and no peer that could queue an event. */
void mr_event_exit(void)
{
	u32 i;

	for (i = 0; i < ARRAY_SIZE(mr_event_waiting); i++)
		flush_delayed_work(&mr_event_waiting[i].work);
	destroy_workqueue(mr_event_queue);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * The doorbell: an interrupt vector of this kernel that peers raise by IPI. What it means is in our half of the
 * control page: events, set by the peer, cleared here. It stays on CPU 0, which never goes offline.
 */
#include <linux/eventfd.h>
#include <linux/interrupt.h>
#include <linux/iopoll.h>
#include <linux/irq.h>
#include <linux/irqdomain.h>
#include <linux/spinlock.h>
#include <linux/time64.h>

#include "compat.h"
#include "core/core.h"
#include "shared.h"

#define CREATE_TRACE_POINTS
#include "core/trace.h"

/* An emulated CPU may be kept from running for a while; one that works answers within microseconds. */
#define SELF_TEST_US	(5 * USEC_PER_SEC)

static DEFINE_SPINLOCK(mr_doorbell_lock);	/* every peer's eventfd and mask */
static int mr_doorbell_irq;
static unsigned int mr_doorbell_taken;		/* interrupts, by anyone */
static const struct mr_listener *mr_doorbell_listeners;

static void mr_doorbell_signal_eventfd(struct mr_peer *peer, u32 events)
{
	unsigned long flags;

	spin_lock_irqsave(&mr_doorbell_lock, flags);
	if (peer->eventfd && (peer->eventfd_mask & events))
		mr_eventfd_signal(peer->eventfd);
	spin_unlock_irqrestore(&mr_doorbell_lock, flags);
}

/**
 * mr_doorbell_deliver() - tell the listeners of the events that are set for us
 * @peer: by whom
 *
 * Called from the interrupt, and once when a peer is new. User space's eventfd is told last.
 */
void mr_doorbell_deliver(struct mr_peer *peer)
{
	u32 events = xchg(&peer->mine->events, 0);
	const struct mr_listener *listener;

	if (!events)
		return;
	trace_doorbell_heard(peer->root, events);
	for (listener = mr_doorbell_listeners; listener->heard; listener++)
		if (events & listener->event)
			listener->heard(peer);
	mr_doorbell_signal_eventfd(peer, events);
}

static irqreturn_t mr_doorbell_interrupt(int irq, void *data)
{
	u32 i;

	WRITE_ONCE(mr_doorbell_taken, mr_doorbell_taken + 1);
	for (i = MULTIROOT_PARENT; i <= MULTIROOT_CHILD; i++) {
		struct mr_peer *peer = mr_peer(i);

		if (!peer)
			continue;
		if (READ_ONCE(peer->mine->events))
			peer->mine->rings++;
		mr_doorbell_deliver(peer);
	}
	return IRQ_HANDLED;
}

/* Tell a peer where to ring us. */
void mr_doorbell_publish(struct mr_peer *peer)
{
	WRITE_ONCE(peer->mine->hardware_id, mr_hardware_id(0));
	/* Whoever sees the vector sees the CPU it is for. */
	smp_store_release(&peer->mine->vector, mr_vector_of(mr_doorbell_irq));
}

/**
 * mr_doorbell_ring() - set events for a peer and interrupt it
 * @peer: the peer
 * @events: MULTIROOT_EVENT_*
 *
 * From any context. A peer that is not up yet is not interrupted; it looks at its events when it comes up.
 */
void mr_doorbell_ring(struct mr_peer *peer, u32 events)
{
	struct multiroot_side *theirs = peer->theirs;
	u32 vector, hardware_id;

	/*
	 * A full barrier, too: either we see below that the peer is up, or the peer, which marks itself up before it
	 * looks at its events, sees these.
	 */
	mr_shared_or(&theirs->events, events);
	if (!mr_peer_alive(peer))
		return;
	/* Pairs with mr_doorbell_publish(). */
	vector = smp_load_acquire(&theirs->vector);
	hardware_id = READ_ONCE(theirs->hardware_id);
	/* What the peer wrote must not make us interrupt anybody else. */
	if (mr_vector_good(vector) && mr_ledger_cpu_root(hardware_id) == peer->root) {
		trace_doorbell_ring(peer->root, events);
		mr_ipi_vector(hardware_id, vector);
	}
}

/**
 * mr_doorbell_set_eventfd() - replace the eventfd that is told of events
 * @peer: of events from this peer
 * @fd: the file descriptor, or -1: none
 * @mask: of which events
 *
 * Return: 0, or a negative error when @fd is no eventfd.
 */
int mr_doorbell_set_eventfd(struct mr_peer *peer, int fd, u32 mask)
{
	struct eventfd_ctx *new = NULL, *old;
	unsigned long flags;

	if (fd >= 0) {
		new = eventfd_ctx_fdget(fd);
		if (IS_ERR(new))
			return PTR_ERR(new);
	}
	spin_lock_irqsave(&mr_doorbell_lock, flags);
	old = peer->eventfd;
	peer->eventfd = new;
	peer->eventfd_mask = mask;
	spin_unlock_irqrestore(&mr_doorbell_lock, flags);
	if (old)
		eventfd_ctx_put(old);
	return 0;
}

/* Wait until no handler runs any more. */
void mr_doorbell_wait(void)
{
	synchronize_irq(mr_doorbell_irq);
}

static bool mr_doorbell_on_cpu_0(void)
{
	return !cpumask_first(irq_data_get_effective_affinity_mask(irq_get_irq_data(mr_doorbell_irq)));
}

/* Ring ourselves as a peer would: by hand, by hardware id. */
static int mr_doorbell_self_test(void)
{
	unsigned int before = READ_ONCE(mr_doorbell_taken), now;
	u32 vector = mr_vector_of(mr_doorbell_irq);

	if (!mr_vector_good(vector) || !mr_doorbell_on_cpu_0()) {
		pr_err("self-test: the doorbell got no vector on CPU 0\n");
		return -ENOSPC;
	}
	mr_ipi_vector(mr_hardware_id(0), vector);
	if (read_poll_timeout(READ_ONCE, now, now != before, 10, SELF_TEST_US, false, mr_doorbell_taken)) {
		pr_err("self-test: the doorbell (vector %#x of CPU %u) was rung and did not sound\n", vector,
		       mr_hardware_id(0));
		return -EIO;
	}
	return 0;
}

/**
 * mr_doorbell_init() - get an interrupt for the doorbell and ring it as a test
 * @told: who is told of which event, in this order; ends with an entry that tells nobody
 *
 * Return: 0; -EIO: it does not sound; another negative error.
 */
int mr_doorbell_init(const struct mr_listener *told)
{
	int err;

	mr_doorbell_listeners = told;
	mr_doorbell_irq = mr_vector_alloc();
	if (mr_doorbell_irq < 0)
		return mr_doorbell_irq;
	/*
	 * IRQF_NOBALANCING keeps request_irq() from moving it away from CPU 0. In a kernel that has its interrupts in
	 * threads (PREEMPT_RT) this one is in a thread, too: listeners and eventfds take locks that sleep there.
	 */
	err = request_irq(mr_doorbell_irq, mr_doorbell_interrupt, IRQF_NOBALANCING, "multiroot", &mr_doorbell_irq);
	if (err)
		goto dispose;
	err = mr_doorbell_self_test();
	if (!err)
		return 0;
	free_irq(mr_doorbell_irq, &mr_doorbell_irq);
dispose:
	irq_dispose_mapping(mr_doorbell_irq);
	return err;
}

void mr_doorbell_exit(void)
{
	free_irq(mr_doorbell_irq, &mr_doorbell_irq);
	irq_dispose_mapping(mr_doorbell_irq);
}

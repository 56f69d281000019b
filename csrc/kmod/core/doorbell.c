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
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/time64.h>
#include <asm/hw_irq.h>
#include <asm/irqdomain.h>

#include "compat.h"
#include "core/core.h"
#include "shared.h"

#define CREATE_TRACE_POINTS
#include "core/trace.h"

/* An emulated CPU may be kept from running for a while; one that works answers within microseconds. */
#define SELF_TEST_US	(5 * USEC_PER_SEC)

static DEFINE_SPINLOCK(doorbell_lock);	/* every peer's eventfd and mask */
static int doorbell_irq;
static unsigned int taken;		/* interrupts, by anyone */

static void signal_eventfd(struct mr_peer *peer, u32 events)
{
	unsigned long flags;

	spin_lock_irqsave(&doorbell_lock, flags);
	if (peer->eventfd && (peer->eventfd_mask & events))
		mr_eventfd_signal(peer->eventfd);
	spin_unlock_irqrestore(&doorbell_lock, flags);
}

/**
 * mr_doorbell_deliver() - act on the events that are set for us
 * @peer: by whom
 *
 * Called from the interrupt, and once when a peer is new.
 */
void mr_doorbell_deliver(struct mr_peer *peer)
{
	u32 events = xchg(&peer->mine->events, 0);

	if (!events)
		return;
	trace_doorbell_heard(peer->root, events);
	if (events & MULTIROOT_EVENT_STATE) {
		mr_link_carrier(peer);
		mr_dev_uevent(peer, "state");
	}
	if (events & MULTIROOT_EVENT_LINK)
		mr_link_event(peer);
	if (events & MULTIROOT_EVENT_CONSOLE)
		mr_console_event();
	signal_eventfd(peer, events);
}

static irqreturn_t interrupt(int irq, void *data)
{
	u32 i;

	WRITE_ONCE(taken, taken + 1);
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

static u32 our_vector(void)
{
	return irqd_cfg(irq_get_irq_data(doorbell_irq))->vector;
}

/* Not irq_cfg's destination: that is a logical mask on small xAPIC machines. */
static u32 our_apic_id(void)
{
	return per_cpu(x86_cpu_to_apicid, 0);
}

/* Tell a peer where to ring us. */
void mr_doorbell_publish(struct mr_peer *peer)
{
	WRITE_ONCE(peer->mine->apic_id, our_apic_id());
	/* Whoever sees the vector sees the CPU it is for. */
	smp_store_release(&peer->mine->vector, our_vector());
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
	u32 vector, apic_id;

	/*
	 * A full barrier, too: either we see below that the peer is up, or the peer, which marks itself up before it
	 * looks at its events, sees these.
	 */
	mr_shared_or(&theirs->events, events);
	if (!mr_peer_alive(peer))
		return;
	/* Pairs with mr_doorbell_publish(). */
	vector = smp_load_acquire(&theirs->vector);
	apic_id = READ_ONCE(theirs->apic_id);
	/* What the peer wrote must not make us interrupt anybody else. */
	if (vector >= FIRST_EXTERNAL_VECTOR && vector < NR_VECTORS && mr_ledger_cpu_root(apic_id) == peer->root) {
		trace_doorbell_ring(peer->root, events);
		mr_apic_send_fixed(apic_id, vector);
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
	spin_lock_irqsave(&doorbell_lock, flags);
	old = peer->eventfd;
	peer->eventfd = new;
	peer->eventfd_mask = mask;
	spin_unlock_irqrestore(&doorbell_lock, flags);
	if (old)
		eventfd_ctx_put(old);
	return 0;
}

/* Wait until no handler runs any more. */
void mr_doorbell_wait(void)
{
	synchronize_irq(doorbell_irq);
}

static bool on_cpu_0(void)
{
	return !cpumask_first(irq_data_get_effective_affinity_mask(irq_get_irq_data(doorbell_irq)));
}

/* Ring ourselves as a peer would: by hand, by APIC id. */
static int self_test(void)
{
	unsigned int before = READ_ONCE(taken), now;

	if (our_vector() < FIRST_EXTERNAL_VECTOR || !on_cpu_0()) {
		pr_err("self-test: the doorbell got no vector on CPU 0\n");
		return -ENOSPC;
	}
	mr_apic_send_fixed(our_apic_id(), our_vector());
	if (read_poll_timeout(READ_ONCE, now, now != before, 10, SELF_TEST_US, false, taken)) {
		pr_err("self-test: the doorbell (vector %#x of CPU %u) was rung and did not sound\n", our_vector(),
		       our_apic_id());
		return -EIO;
	}
	return 0;
}

int mr_doorbell_init(void)
{
	/*
	 * The vector is allocated where it is to stay: moving it later waits for an interrupt to come, and a peer
	 * would ring the old place until then. IRQF_NOBALANCING keeps request_irq() from moving it.
	 */
	struct irq_alloc_info info = { .mask = cpumask_of(0) };
	int err;

	if (!x86_vector_domain) {
		pr_err("this kernel has no vector domain\n");
		return -ENODEV;
	}
	doorbell_irq = irq_domain_alloc_irqs(x86_vector_domain, 1, NUMA_NO_NODE, &info);
	if (doorbell_irq < 0)
		return doorbell_irq;
	irq_set_handler(doorbell_irq, handle_edge_irq);
	err = request_irq(doorbell_irq, interrupt, IRQF_NO_THREAD | IRQF_NOBALANCING, "multiroot", &doorbell_irq);
	if (err)
		goto dispose;
	err = self_test();
	if (!err)
		return 0;
	free_irq(doorbell_irq, &doorbell_irq);
dispose:
	irq_dispose_mapping(doorbell_irq);
	return err;
}

void mr_doorbell_exit(void)
{
	free_irq(doorbell_irq, &doorbell_irq);
	irq_dispose_mapping(doorbell_irq);
}

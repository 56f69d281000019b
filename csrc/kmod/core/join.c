// SPDX-License-Identifier: GPL-2.0-only
/*
 * How a peer is joined up with doorbell, network device, console and mmap, and how it is taken apart again: the order
 * is what counts here.
 */
#include <linux/errno.h>
#include <linux/printk.h>
#include <asm/barrier.h>
#include <asm/rwonce.h>

#include "core/core.h"

static void mr_join_tell_state(struct mr_peer *peer)
{
	mr_event_send(peer, MR_EVENT_STATE);
}

/* What a peer's doorbell means, in the order in which it is acted upon. */
const struct mr_listener mr_join_listeners[] = {
	{ MULTIROOT_EVENT_STATE, mr_link_carrier },
	{ MULTIROOT_EVENT_STATE, mr_join_tell_state },
	{ MULTIROOT_EVENT_LINK, mr_link_event },
	{ MULTIROOT_EVENT_CONSOLE, mr_console_event },
	{}
};

/* Tell the peer what has become of us. */
void mr_join_set_state(struct mr_peer *peer, u32 state)
{
	WRITE_ONCE(peer->mine->state, state);
	mr_doorbell_ring(peer, MULTIROOT_EVENT_STATE);
}

/* Forget the mapping; whoever came in before is an interrupt handler, and those are waited for. */
static void mr_join_leave(struct mr_peer *peer)
{
	mr_peer_hide(peer);
	mr_doorbell_wait();
	mr_peer_unmap(peer);
}

static int mr_join_enter(struct mr_peer *peer, phys_addr_t shared)
{
	int err;

	mr_peer_enter(peer, shared);
	mr_doorbell_publish(peer);
	err = mr_link_create(peer);
	if (err)
		mr_join_leave(peer);
	return err;
}

/**
 * mr_join_attach_parent() - take our place in the area our parent made
 * @shared: its physical address, from the kernel command line
 *
 * Return: 0, -EINVAL if there is no such area, -EBUSY: a kernel has taken that place already, -ENOMEM.
 */
int mr_join_attach_parent(phys_addr_t shared)
{
	struct mr_peer *peer = mr_peer_map(MULTIROOT_PARENT, shared);
	int err;

	if (!peer)
		return -ENOMEM;
	if (!mr_peer_is_ours(peer)) {
		pr_err("no shared area of ABI %d for root %u at %pa\n", MULTIROOT_ABI, mr_ledger_root(), &shared);
		mr_join_leave(peer);
		return -EINVAL;
	}
	/* A kernel that came in place of this root's own, by kexec or after its crash, may have its command line. */
	if (READ_ONCE(peer->mine->state) != MULTIROOT_SIDE_STARTED) {
		pr_err("root %u has been up before: this is another kernel in its place\n", mr_ledger_root());
		mr_join_leave(peer);
		return -EBUSY;
	}
	peer->root = peer->theirs->root;
	err = mr_join_enter(peer, shared);
	if (err)
		return err;
	mr_console_attach(peer);
	mr_map_open(peer->index);
	mr_join_set_state(peer, MULTIROOT_SIDE_ATTACHED);
	/* Events that were set before the parent could see that there is a doorbell. */
	mr_doorbell_deliver(peer);
	return 0;
}

/**
 * mr_join_create_child() - lay out the area shared with a root to be
 * @shared: physical address, inside the carve
 * @root: number the new root will have
 *
 * Return: 0 or -ENOMEM.
 */
int mr_join_create_child(phys_addr_t shared, u32 root)
{
	struct mr_peer *peer = mr_peer_map(MULTIROOT_CHILD, shared);
	int err;

	if (!peer)
		return -ENOMEM;
	mr_peer_lay_out(peer, root);
	err = mr_join_enter(peer, shared);
	if (err)
		return err;
	WRITE_ONCE(peer->mine->state, MULTIROOT_SIDE_ATTACHED);
	/* Whoever sees the magic sees a whole area. */
	smp_store_release(&peer->control->magic, MR_CONTROL_MAGIC);
	mr_console_child_changed(peer);
	mr_map_open(peer->index);
	return 0;
}

/**
 * mr_join_detach() - forget a peer
 * @peer: whose control page is not mapped by user space any more
 *
 * Its memory may be used for something else afterwards.
 */
void mr_join_detach(struct mr_peer *peer)
{
	if (peer->index == MULTIROOT_PARENT) {
		mr_console_detach();
		/* This root still runs, but its parent must not ring here any more. */
		mr_join_set_state(peer, MULTIROOT_SIDE_STARTED);
	} else {
		mr_console_child_changed(NULL);
	}
	mr_doorbell_set_eventfd(peer, -1, 0);
	mr_link_destroy(peer);
	mr_join_leave(peer);
}

/* The child is gone: its CPU was taken back. */
void mr_join_child_gone(struct mr_peer *child)
{
	WRITE_ONCE(child->theirs->state, MULTIROOT_SIDE_ABSENT);
	mr_link_carrier(child);
}

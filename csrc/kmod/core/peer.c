// SPDX-License-Identifier: GPL-2.0-only
/*
 * Shared areas: one with the root that started us (parent), one with the root we started (child). The parent lays a
 * new area out; both sides check what they find before they use it.
 */
#include <linux/io.h>
#include <linux/utsname.h>
#include <asm/tsc.h>

#include "core/core.h"

static struct mr_peer peers[] = {
	[MULTIROOT_PARENT] = { .index = MULTIROOT_PARENT },
	[MULTIROOT_CHILD] = { .index = MULTIROOT_CHILD },
};

/* The peer in that place, or NULL when there is none. */
struct mr_peer *mr_peer(u32 index)
{
	/* Pairs with enter(). */
	if (index >= ARRAY_SIZE(peers) || !smp_load_acquire(&peers[index].phys))
		return NULL;
	return &peers[index];
}

/* True while the peer's module runs: its half of the control page may be believed and rung. */
bool mr_peer_alive(const struct mr_peer *peer)
{
	u32 state = READ_ONCE(peer->theirs->state);

	return state == MULTIROOT_SIDE_ATTACHED || state == MULTIROOT_SIDE_READY;
}

static int map(struct mr_peer *peer, phys_addr_t phys)
{
	u32 side = peer->index == MULTIROOT_PARENT;

	peer->shared = memremap(phys, MULTIROOT_SHARED_SIZE, MEMREMAP_WB);
	if (!peer->shared)
		return -ENOMEM;
	peer->control = peer->shared;
	peer->mine = &peer->control->side[side];
	peer->theirs = &peer->control->side[!side];
	return 0;
}

/* Forget the mapping; whoever came in before is an interrupt handler, and those are waited for. */
static void unmap(struct mr_peer *peer)
{
	WRITE_ONCE(peer->phys, 0);
	mr_doorbell_wait();
	memunmap(peer->shared);
	peer->shared = NULL;
	peer->control = NULL;
	peer->mine = NULL;
	peer->theirs = NULL;
}

/* Fill our half in, and let interrupts find the peer. */
static void enter(struct mr_peer *peer, phys_addr_t phys)
{
	struct multiroot_side *mine = peer->mine;

	mine->root = mr_ledger_root();
	mine->attached_tsc = rdtsc();
	strscpy(mine->release, utsname()->release, sizeof(mine->release));
	/* Interrupt handlers that see the address see all the rest. */
	smp_store_release(&peer->phys, phys);
	mr_doorbell_publish(peer);
}

/**
 * mr_peer_attach_parent() - take our place in the area our parent made
 * @shared: its physical address, from the kernel command line
 *
 * Return: 0, -EINVAL if there is no such area, -ENOMEM.
 */
int mr_peer_attach_parent(phys_addr_t shared)
{
	struct mr_peer *peer = &peers[MULTIROOT_PARENT];
	struct multiroot_control *control;
	int err;

	err = map(peer, shared);
	if (err)
		return err;
	control = peer->control;
	if (control->magic != MR_CONTROL_MAGIC || control->abi != MULTIROOT_ABI ||
	    control->size != MULTIROOT_SHARED_SIZE || control->console_offset != MR_CONSOLE_OFFSET ||
	    control->console_size != MR_CONSOLE_SIZE || control->link_offset[0] != MR_LINK_OFFSET ||
	    control->link_offset[1] != MR_LINK_OFFSET + MR_LINK_SIZE || control->link_size != MR_LINK_SIZE ||
	    peer->mine->root != mr_ledger_root()) {
		pr_err("no shared area of ABI %d for root %u at %pa\n", MULTIROOT_ABI, mr_ledger_root(), &shared);
		unmap(peer);
		return -EINVAL;
	}
	peer->root = peer->theirs->root;
	enter(peer, shared);
	err = mr_link_create(peer);
	if (err) {
		unmap(peer);
		return err;
	}
	mr_console_attach(peer);
	mr_map_open(peer->index);
	mr_peer_set_state(peer, MULTIROOT_SIDE_ATTACHED);
	/* Events that were set before the parent could see that there is a doorbell. */
	mr_doorbell_deliver(peer);
	return 0;
}

/**
 * mr_peer_create_child() - lay out the area shared with a root to be
 * @shared: physical address, inside the carve
 * @root: number the new root will have
 *
 * Return: 0 or -ENOMEM.
 */
int mr_peer_create_child(phys_addr_t shared, u32 root)
{
	struct mr_peer *peer = &peers[MULTIROOT_CHILD];
	struct multiroot_control *control;
	int err;

	err = map(peer, shared);
	if (err)
		return err;
	memset(peer->shared, 0, MULTIROOT_SHARED_SIZE);
	control = peer->control;
	control->abi = MULTIROOT_ABI;
	control->size = MULTIROOT_SHARED_SIZE;
	control->tsc_khz = tsc_khz;
	control->console_offset = MR_CONSOLE_OFFSET;
	control->console_size = MR_CONSOLE_SIZE;
	control->link_offset[0] = MR_LINK_OFFSET;
	control->link_offset[1] = MR_LINK_OFFSET + MR_LINK_SIZE;
	control->link_size = MR_LINK_SIZE;
	peer->root = root;
	peer->theirs->root = root;
	enter(peer, shared);
	err = mr_link_create(peer);
	if (err) {
		unmap(peer);
		return err;
	}
	WRITE_ONCE(peer->mine->state, MULTIROOT_SIDE_ATTACHED);
	/* Whoever sees the magic sees a whole area. */
	smp_store_release(&control->magic, MR_CONTROL_MAGIC);
	mr_console_child_changed(peer);
	mr_map_open(peer->index);
	return 0;
}

/**
 * mr_peer_detach() - forget a peer
 * @peer: whose control page is not mapped by user space any more
 *
 * Its memory may be used for something else afterwards.
 */
void mr_peer_detach(struct mr_peer *peer)
{
	if (peer->index == MULTIROOT_PARENT) {
		mr_console_detach();
		/* This root still runs, but its parent must not ring here any more. */
		mr_peer_set_state(peer, MULTIROOT_SIDE_STARTED);
	} else {
		mr_console_child_changed(NULL);
	}
	mr_doorbell_set_eventfd(peer, -1, 0);
	mr_link_destroy(peer);
	unmap(peer);
}

/**
 * mr_peer_child_starts() - make the child's half ready for a new root
 * @child: the peer in whose place a root is about to be started
 *
 * What an earlier root there has left must not be taken for the new one's.
 */
void mr_peer_child_starts(struct mr_peer *child)
{
	*child->theirs = (struct multiroot_side) {
		.state = MULTIROOT_SIDE_STARTED,
		.root = child->root,
		/* Goes on from where it is: whoever watches it must not take this for a beat. */
		.heartbeat = child->theirs->heartbeat,
	};
}

/* The child is gone: its CPU was taken back. */
void mr_peer_child_gone(struct mr_peer *child)
{
	WRITE_ONCE(child->theirs->state, MULTIROOT_SIDE_ABSENT);
	mr_link_carrier(child);
}

/* Tell the peer what has become of us. */
void mr_peer_set_state(struct mr_peer *peer, u32 state)
{
	WRITE_ONCE(peer->mine->state, state);
	mr_doorbell_ring(peer, MULTIROOT_EVENT_STATE);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Shared areas: one with the root that started us (parent), one with the root we started (child). The parent lays a
 * new area out, and the child checks what it finds. Who joins them up with doorbell, link and console is join.c.
 */
#include <linux/io.h>
#include <linux/utsname.h>
#include <asm/tsc.h>

#include "core/core.h"

static struct mr_peer mr_peers[] = {
	[MULTIROOT_PARENT] = { .index = MULTIROOT_PARENT },
	[MULTIROOT_CHILD] = { .index = MULTIROOT_CHILD },
};

/* The peer in that place, or NULL when there is none. */
struct mr_peer *mr_peer(u32 index)
{
	/* Pairs with mr_peer_enter(). */
	if (index >= ARRAY_SIZE(mr_peers) || !smp_load_acquire(&mr_peers[index].phys))
		return NULL;
	return &mr_peers[index];
}

/* True while the peer's module runs: its half of the control page may be believed and rung. */
bool mr_peer_alive(const struct mr_peer *peer)
{
	u32 state = READ_ONCE(peer->theirs->state);

	return state == MULTIROOT_SIDE_ATTACHED || state == MULTIROOT_SIDE_READY;
}

/**
 * mr_peer_map() - map the area that is shared with a peer
 * @index: which peer
 * @phys: physical address of the area
 *
 * mr_peer() does not find the peer before mr_peer_enter(). Return: the peer, or NULL when there is no memory.
 */
struct mr_peer *mr_peer_map(u32 index, phys_addr_t phys)
{
	struct mr_peer *peer = &mr_peers[index];
	u32 side = peer->index == MULTIROOT_PARENT;

	if (mr_memory_map(&peer->window, phys, MULTIROOT_SHARED_SIZE))
		return NULL;
	peer->shared = peer->window.at;
	peer->control = peer->shared;
	peer->mine = &peer->control->side[side];
	peer->theirs = &peer->control->side[!side];
	return peer;
}

/* True when the area is one that a parent has laid out for this root. */
bool mr_peer_is_ours(const struct mr_peer *peer)
{
	const struct multiroot_control *control = peer->control;

	return control->magic == MR_CONTROL_MAGIC && control->abi == MULTIROOT_ABI &&
	       control->size == MULTIROOT_SHARED_SIZE && control->console_offset == MR_CONSOLE_OFFSET &&
	       control->console_size == MR_CONSOLE_SIZE && control->link_offset[0] == MR_LINK_OFFSET &&
	       control->link_offset[1] == MR_LINK_OFFSET + MR_LINK_SIZE && control->link_size == MR_LINK_SIZE &&
	       peer->mine->root == mr_ledger_root();
}

/* Lay out the area for a child, all but the magic number. */
void mr_peer_lay_out(struct mr_peer *peer, u32 root)
{
	struct multiroot_control *control = peer->control;

	memset(peer->shared, 0, MULTIROOT_SHARED_SIZE);
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
}

/* Fill our half in, and let interrupts find the peer. */
void mr_peer_enter(struct mr_peer *peer, phys_addr_t phys)
{
	struct multiroot_side *mine = peer->mine;

	mine->root = mr_ledger_root();
	mine->attached_tsc = rdtsc();
	strscpy(mine->release, utsname()->release, sizeof(mine->release));
	/* Interrupt handlers that see the address see all the rest. */
	smp_store_release(&peer->phys, phys);
}

/* Interrupts that come from now on do not find the peer; those that came before must be waited for. */
void mr_peer_hide(struct mr_peer *peer)
{
	WRITE_ONCE(peer->phys, 0);
}

/* Forget the mapping of a peer that is hidden. */
void mr_peer_unmap(struct mr_peer *peer)
{
	mr_memory_unmap(&peer->window);
	peer->shared = NULL;
	peer->control = NULL;
	peer->mine = NULL;
	peer->theirs = NULL;
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

// SPDX-License-Identifier: GPL-2.0-or-later
/* A shared area that a parent has made, and as much of the core as a root needs to take its place in it. */
#include "core/core.h"

static struct multiroot_control control;
static struct mr_peer parent = { .control = &control, .theirs = &control.side[0], .mine = &control.side[1] };

int mapped, entered, rung;

u32 mr_ledger_root(void) { return 2; }
bool mr_peer_is_ours(const struct mr_peer *peer) { return true; }
void mr_peer_lay_out(struct mr_peer *peer, u32 root) {}
void mr_peer_hide(struct mr_peer *peer) {}
void mr_peer_unmap(struct mr_peer *peer) { mapped--; }
void mr_peer_enter(struct mr_peer *peer, phys_addr_t phys) { entered++; }
void mr_event_send(const struct mr_peer *peer, enum mr_event_kind kind) {}
void mr_doorbell_wait(void) {}
void mr_doorbell_publish(struct mr_peer *peer) {}
void mr_doorbell_deliver(struct mr_peer *peer) {}
void mr_doorbell_ring(struct mr_peer *peer, u32 events) { rung++; }
int mr_doorbell_set_eventfd(struct mr_peer *peer, int fd, u32 mask) { return 0; }
int mr_link_create(struct mr_peer *peer) { return 0; }
void mr_link_destroy(struct mr_peer *peer) {}
void mr_link_carrier(struct mr_peer *peer) {}
void mr_link_event(struct mr_peer *peer) {}
void mr_console_attach(struct mr_peer *peer) {}
void mr_console_detach(void) {}
void mr_console_child_changed(struct mr_peer *child) {}
void mr_console_event(struct mr_peer *peer) {}
void mr_map_open(u32 index) {}

struct mr_peer *mr_peer_map(u32 index, phys_addr_t phys)
{
	mapped++;
	return &parent;
}

/* The kernel comes up when the parent's page says that of it. */
int come_up(u32 state)
{
	control.side[1].state = state;
	return mr_join_attach_parent(0x1000);
}

u32 state(void)
{
	return control.side[1].state;
}

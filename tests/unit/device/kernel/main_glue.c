// SPDX-License-Identifier: GPL-2.0-or-later
/* The parts that main.c wires up: each notes that it begins or ends, and one does not work. */
#include "core/core.h"

static struct multiroot_ledger machine_ledger;
static struct mr_peer parent = { .index = MULTIROOT_PARENT, .root = 1 };
static bool attached;

struct multiroot_ledger *mr_ledger = &machine_ledger;
const struct mr_listener mr_join_listeners[1];
bool crash_kernel, locked_down;
int host_says, holds, lines;
char said[4][160];
char done[1024];			/* in words */
const char *fails = "";			/* the name of a part */

bool is_kdump_kernel(void) { return crash_kernel; }
int security_locked_down(enum lockdown_reason what) { return locked_down && what == LOCKDOWN_KEXEC ? -EPERM : 0; }
int mr_host_check(void) { return host_says; }

static int begins(const char *part)
{
	if (!strcmp(part, fails))
		return -ENODEV;
	strcat(strcat(done, part), " ");
	return 0;
}

static void ends(const char *part)
{
	strcat(strcat(strcat(done, "-"), part), " ");
}

#define PART(function, name)							\
	int mr_##function##_init(void) { return begins(name); }		\
	void mr_##function##_exit(void) { ends(name); }

PART(ipi, "APIC")
PART(park, "parking")
PART(probes, "ftrace")
PART(contain, "containment")
PART(veto, "vetoes")
PART(cpu, "online-veto")
PART(segments, "memory-veto")
PART(console, "console")
PART(dev, "device")

int mr_ledger_init(phys_addr_t phys, u32 root, bool first) { return begins(first ? "new-ledger" : "ledger"); }
void mr_park_build(struct multiroot_ledger *ledger, phys_addr_t phys) { begins("park-code"); }
void mr_ledger_publish(void) { begins("published"); }
void mr_ledger_exit(void) { ends("ledger"); }
int mr_doorbell_init(const struct mr_listener *told) { return begins("doorbell"); }
void mr_doorbell_exit(void) { ends("doorbell"); }
void mr_bridge_exit(void) { ends("host-bridge"); }
void mr_ecam_exit(void) { ends("ecam"); }

int mr_join_attach_parent(phys_addr_t shared)
{
	attached = !begins("parent");
	return attached ? 0 : -ENODEV;
}

struct mr_peer *mr_peer(u32 index) { return index == MULTIROOT_PARENT && attached ? &parent : NULL; }
void mr_join_detach(struct mr_peer *peer) { ends("parent"); }

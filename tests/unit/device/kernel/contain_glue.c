// SPDX-License-Identifier: GPL-2.0-or-later
/* A kernel that ends, on a machine with firmware that gets ready for the end when it is told. */
#include "core/core.h"

#define FIRMWARE	224		/* SYS_OFF_PRIO_FIRMWARE */
#define HANDLERS	4

struct sys_off_handler {
	enum sys_off_mode mode;
	int priority;
	int (*before)(struct sys_off_data *data);
};

static struct sys_off_handler *handlers[HANDLERS];
static struct notifier_block *reboot_notifier;
static struct kprobe *restart_probe;
static int registered;
static struct multiroot_ledger machine_ledger;
static struct mr_peer child = { .index = MULTIROOT_CHILD, .root = 2 };

struct notifier_block *panic_notifier;
long (*panic_blink)(int state);
struct multiroot_ledger *mr_ledger = &machine_ledger;
bool others_live, left;
int fails_at = -1;
char done[64];				/* in words */

/* A kernel that is parked does nothing any more. */
static void note(const char *what)
{
	if (!strstr(done, "parked"))
		strcat(done, what);
}

/* What the core has of the machine. */
bool mr_ledger_others(void) { return others_live || left; }
u32 mr_ledger_root(void) { return 1; }
void mr_ledger_bury(void) {}
void mr_power_reset(const struct multiroot_ledger *ledger) {}
void mr_power_off(const struct multiroot_ledger *ledger) { note("by-port "); }
int mr_stop_init(bool (*end)(void)) { return 0; }
void mr_stop_exit(void) {}
void mr_stop_others(void) {}
void mr_park_self(void) { note("parked "); }
struct mr_peer *mr_peer(u32 index) { return index == MULTIROOT_CHILD && others_live ? &child : NULL; }

bool mr_ledger_leave(void)
{
	left = left || others_live;
	return left;
}

void mr_join_set_state(struct mr_peer *peer, u32 state)
{
	note(state == MULTIROOT_SIDE_PARKED ? "told " : "? ");
}

int register_kprobe(struct kprobe *probe)
{
	restart_probe = probe;
	return 0;
}

void unregister_kprobe(struct kprobe *probe)
{
	restart_probe = NULL;
}

int register_reboot_notifier(struct notifier_block *nb)
{
	reboot_notifier = nb;
	return 0;
}

void unregister_reboot_notifier(struct notifier_block *nb)
{
	reboot_notifier = NULL;
}

struct sys_off_handler *register_sys_off_handler(enum sys_off_mode mode, int priority,
						 int (*before)(struct sys_off_data *data), void *data)
{
	struct sys_off_handler *handler = calloc(1, sizeof(*handler));
	int i = 0;

	if (registered++ == fails_at) {
		free(handler);
		return ERR_PTR(-ENOMEM);
	}
	*handler = (struct sys_off_handler){ mode, priority, before };
	while (handlers[i])
		i++;
	handlers[i] = handler;
	return handler;
}

void unregister_sys_off_handler(struct sys_off_handler *handler)
{
	int i;

	for (i = 0; i < HANDLERS; i++)
		if (handler && handlers[i] == handler)
			handlers[i] = NULL;
	free(handler);
}

/* All that come before firmware, and firmware if it is their will. */
static void call_handlers(enum sys_off_mode mode, const char *firmware)
{
	int i;

	for (i = 0; i < HANDLERS; i++)
		if (handlers[i] && handlers[i]->mode == mode && handlers[i]->priority > FIRMWARE &&
		    handlers[i]->before(NULL) == NOTIFY_STOP)
			return;
	note(firmware);
}

/* What a test does. */
void power_off(bool alone_meanwhile)
{
	call_handlers(SYS_OFF_MODE_POWER_OFF_PREPARE, "prepared ");
	if (alone_meanwhile)
		others_live = false;
	call_handlers(SYS_OFF_MODE_POWER_OFF, "off ");
}

void restart(void)
{
	call_handlers(SYS_OFF_MODE_RESTART_PREPARE, "prepared ");
	restart_probe->pre_handler(restart_probe, NULL);
	note("reset ");
}

/* Hooks that are left. */
int hooks(void)
{
	int i, count = !!reboot_notifier + !!restart_probe + !!panic_notifier + !!panic_blink;

	for (i = 0; i < HANDLERS; i++)
		count += !!handlers[i];
	return count;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What stands between a device state that has been loaded and a guest that goes on, in one call: hear the VMM
 * say so, see that the state was whole, take the VM by its owner word, let the VMM go. The guest stands still
 * meanwhile, so nothing here allocates, and no interpreter runs. Needs _GNU_SOURCE, which Python.h defines.
 */
#ifndef MULTIROOT_ARENA_SWITCH_H
#define MULTIROOT_ARENA_SWITCH_H

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "atomics.h"

/* How far a switch has come; mra_switch() goes on from there. */
enum { MRA_BEGUN, MRA_HEARD, MRA_CHECKED, MRA_TAKEN, MRA_GONE };

/* What mra_switch() returns: it has come as far as it was to, or why not. */
enum {
	MRA_DONE,
	MRA_SAID,	/* the VMM has said something else: `line` bytes of `buffer` */
	MRA_HUNG_UP,	/* the VMM has, or it cannot be written to any more */
	MRA_TOO_LONG,	/* what it says has no end */
	MRA_DAMAGED,	/* the state was not whole */
	MRA_ABORTED,	/* somebody decided against it first */
	MRA_FENCED,	/* the owner word holds `seen`, which is not `expected` */
};

/* The word `state`: the end of the device state's way to the VMM. */
enum { MRA_STATE_COMING, MRA_STATE_WHOLE, MRA_STATE_DAMAGED };

/* The word `decision`: who takes and who aborts are in different threads, and one of them is first. */
enum { MRA_OPEN, MRA_DECIDED_TAKEN, MRA_DECIDED_ABORTED };

struct mra_switch {
	int vmm;		/* connected socket: what the VMM says, in lines */
	int state_changed;	/* eventfd: readable once `state` has changed */
	uint64_t state;
	uint64_t decision;
	void *owner;		/* the owner word */
	uint64_t expected, desired, seen;
	const char *loaded[4];	/* a line with all of these says that the state is loaded; NULL ends them */
	const char *go;		/* what lets the VMM go on */
	size_t go_size;
	char *buffer;
	size_t size, used, line;
	int step;
	uint64_t stamps[MRA_GONE + 1];	/* of each step, TSC */
};

static int mra_line_says_(const struct mra_switch *s)
{
	const char *const *word;

	for (word = s->loaded; *word; word++)
		if (!memmem(s->buffer, s->line, *word, strlen(*word)))
			return 0;
	return 1;
}

/* Forget the line that was found last. */
static void mra_next_line_(struct mra_switch *s)
{
	s->used -= s->line;
	memmove(s->buffer, s->buffer + s->line, s->used);
	s->line = 0;
}

static int mra_hear_(struct mra_switch *s)
{
	const char *end;
	ssize_t got;

	if (s->line)
		mra_next_line_(s);
	while (!(end = memchr(s->buffer, '\n', s->used))) {
		if (s->used == s->size)
			return MRA_TOO_LONG;
		got = recv(s->vmm, s->buffer + s->used, s->size - s->used, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return MRA_HUNG_UP;
		s->used += got;
	}
	s->line = end + 1 - s->buffer;
	return mra_line_says_(s) ? MRA_DONE : MRA_SAID;
}

static int mra_check_(struct mra_switch *s)
{
	struct pollfd changed = { .fd = s->state_changed, .events = POLLIN };
	uint64_t state;

	while ((state = mra_load_acquire(&s->state)) == MRA_STATE_COMING)
		poll(&changed, 1, -1);
	return state == MRA_STATE_WHOLE ? MRA_DONE : MRA_DAMAGED;
}

static int mra_take_(struct mra_switch *s)
{
	if (mra_compare_exchange(&s->decision, MRA_OPEN, MRA_DECIDED_TAKEN) != MRA_OPEN)
		return MRA_ABORTED;
	s->seen = mra_compare_exchange(s->owner, s->expected, s->desired);
	mra_flush(s->owner, sizeof(uint64_t));
	if (s->seen == s->expected)
		return MRA_DONE;
	/* Nothing was taken: whoever aborts now has to clear up. */
	mra_store_release(&s->decision, MRA_OPEN);
	return MRA_FENCED;
}

static int mra_go_(struct mra_switch *s)
{
	size_t sent = 0;
	ssize_t got;

	while (sent < s->go_size) {
		got = send(s->vmm, s->go + sent, s->go_size - sent, MSG_NOSIGNAL);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return MRA_HUNG_UP;
		sent += got;
	}
	return MRA_DONE;
}

/* Go on until the step `until`; each step is taken once, whatever comes between two calls. */
static int mra_switch(struct mra_switch *s, int until)
{
	static int (*const steps[])(struct mra_switch *) = {
		[MRA_HEARD] = mra_hear_,
		[MRA_CHECKED] = mra_check_,
		[MRA_TAKEN] = mra_take_,
		[MRA_GONE] = mra_go_,
	};
	int result;

	while (s->step < until) {
		result = steps[s->step + 1](s);
		if (result != MRA_DONE)
			return result;
		s->stamps[++s->step] = mra_tsc();
	}
	return MRA_DONE;
}

/* Decide against it; returns what was decided before, if anything was. */
static uint64_t mra_abort_switch(struct mra_switch *s)
{
	return mra_compare_exchange(&s->decision, MRA_OPEN, MRA_DECIDED_ABORTED);
}

#endif

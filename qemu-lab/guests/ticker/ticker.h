/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the parts of the ticker share. Each part has a structure of its own, which main() holds. */
#ifndef TICKER_H
#define TICKER_H

#include <linux/aio_abi.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	WRITES = 4,	/* under way at a time */
	BUTTONS = 4,	/* inputs that are listened to */
};

/* Memory that is rewritten and checked all the time. */
struct region {
	uint64_t *words;
	struct page *pages;
	size_t count;
	size_t next;
	uint64_t checked;	/* bytes */
	uint64_t bad;		/* bytes */
	uint64_t *dirty;	/* DIRTY_PAGES pages, NULL without ticker.dirty= */
	size_t dirty_a_tick;	/* pages */
	size_t dirty_next;
};

/* Numbered frames from the wire: what came, in which order. */
struct frames {
	int socket;		/* -1: none wanted */
	uint64_t first;
	uint64_t last;
	uint64_t count;
	uint64_t lost;		/* numbers passed over */
	uint64_t again;		/* numbers not above the last */
	uint64_t dropped;	/* that came and found no room in the socket */
	uint64_t told;		/* count in the last line */
};

/* Numbered blocks to a disk; number N goes to place N % BLOCKS behind the first block, and the first is 1. */
struct writes {
	int disk;		/* -1: none wanted */
	aio_context_t context;
	struct iocb request[WRITES];
	uint64_t *block[WRITES];
	bool busy[WRITES];
	uint64_t begun;		/* number of the last one begun */
	uint64_t done;		/* so many have ended well */
	uint64_t bad;		/* and so many have not */
	uint64_t told;		/* done in the last line */
};

/* Inputs that a power button may be among. */
struct buttons {
	int input[BUTTONS];
	int count;
};

/* Power the guest off: what it is for can't be done. */
void die(const char *what);
void say(int serial, const char *line, int length);

void make_region(struct region *region, size_t mib);
void make_dirty(struct region *region, size_t mib_a_second, uint64_t period);
void work(struct region *region);

/* Give eth0 the address, "A.B.C.D/LEN", or other cards theirs, "A.B.C.D/LEN@MAC,...". */
void bring_up(const char *text);
int open_card(const char *name);
void take_frames(struct frames *frames);
void tell_frames(int serial, struct frames *frames);

/* A socket on which so many may wait; -1 if there can be none, which is said. */
int listen_on(int port, int waiting);
/* Start a process that says back what comes on TCP connections to this port. */
void echo(int port);
/* Start a process that keeps a board and shows it to browsers on this port. */
void board(int port);
extern const char board_page[];
/* Start a process that feeds the watchdog for so long, and then never again. */
void guard(int seconds);
/* Start a process that takes all memory after so long. */
void starve(int seconds);
void open_buttons(struct buttons *buttons);
bool is_pressed(const struct buttons *buttons);
void power_off(void) __attribute__((noreturn));

/* A descriptor for what is not to be cached, once the disk is there; -1 if that fails. */
int wait_for_disk(const char *name, int how);
/* Write and read there, and say on the serial port how long that took. */
void tell_speed(int serial, const char *name);
void open_disk(struct writes *writes, const char *name);
void go_on_writing(struct writes *writes);
void tell_writes(int serial, struct writes *writes);

#endif

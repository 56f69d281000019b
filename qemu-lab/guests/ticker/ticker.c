// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The lab's guest: a counter that ticks, usually every 10 ms, and a region of memory that is rewritten and checked all
 * the time. It is the guest's init, and but for ticker.echo, ticker.board, ticker.watchdog and ticker.starve its only process. README.md in the folder above describes the
 * output; lines are short because every byte on a serial port is a VM exit.
 *
 * Kernel command line: ticker.region=MIB (default 32), ticker.ip=A.B.C.D/LEN (default: no address),
 * ticker.period=MS (default 10), ticker.dirty=MIB/S (default 0), ticker.card=NAME and ticker.disk=NAME (default: none),
 * ticker.reboot=TICKS and ticker.panic=TICKS (default: never), ticker.echo=PORT and ticker.board=PORT
 * (default: none), ticker.watchdog=SECONDS (default: left alone), ticker.starve=SECONDS (default: never).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "ticker.h"

enum {
	DEFAULT_PERIOD_MS = 10,
	REPORT_EVERY = 64,		/* ticks */
	FRAMES_EVERY = 8,		/* ticks */
	LATE_PERIODS = 5,		/* later than this, ticks are not caught up with */
	DEFAULT_REGION_MIB = 32,
};

void die(const char *what)
{
	fprintf(stderr, "ticker: %s: %s\n", what, strerror(errno));
	power_off();
}

static uint64_t now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * UINT64_C(1000000000) + t.tv_nsec;
}

/* First line of a file without its newline; an empty string when there is none. */
static void read_line(const char *path, char *line, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, line, size - 1);

	line[n > 0 ? n : 0] = 0;
	line[strcspn(line, "\n")] = 0;
	if (fd >= 0)
		close(fd);
}

/* Value of "name=" on the kernel command line, up to the next blank; NULL when absent. */
static const char *parameter(const char *cmdline, const char *name)
{
	static char value[512];
	const char *at = strstr(cmdline, name);

	if (!at)
		return NULL;
	at += strlen(name);
	snprintf(value, sizeof(value), "%.*s", (int)strcspn(at, " "), at);
	return value;
}

/* A positive number given as a parameter. */
static int number(const char *cmdline, const char *name, int otherwise)
{
	const char *value = parameter(cmdline, name);

	return value && atoi(value) > 0 ? atoi(value) : otherwise;
}

/* Loading these takes a while, and nearly no guest has such a disk. */
static bool is_for_scsi(const char *path)
{
	return strstr(path, "scsi") || strstr(path, "sd_mod") || strstr(path, "sr_mod") || strstr(path, "cdrom");
}

static bool is_for_a_watchdog(const char *path)
{
	return strstr(path, "i6300esb") || strstr(path, "watchdog");
}

static void load_modules(bool scsi, bool watchdog)
{
	char path[128];
	FILE *order = fopen("/modules/order", "re");

	while (order && fgets(path, sizeof(path), order)) {
		int fd;

		path[strcspn(path, "\n")] = 0;
		if ((is_for_scsi(path) && !scsi) || (is_for_a_watchdog(path) && !watchdog))
			continue;
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
			fprintf(stderr, "ticker: %s: %s\n", path, strerror(errno));
		close(fd);
	}
	if (order)
		fclose(order);
}

static int open_serial(void)
{
	int fd = open("/dev/ttyS0", O_RDWR | O_NOCTTY | O_CLOEXEC);
	struct termios mode;

	if (fd < 0 || tcgetattr(fd, &mode))
		die("/dev/ttyS0");
	cfmakeraw(&mode);
	cfsetspeed(&mode, B115200);
	tcsetattr(fd, TCSANOW, &mode);
	return fd;
}

void say(int serial, const char *line, int length)
{
	while (length > 0) {
		ssize_t n = write(serial, line, length);

		if (n < 0 && errno != EINTR && errno != EAGAIN)
			die("/dev/ttyS0");
		if (n > 0) {
			line += n;
			length -= n;
		}
	}
}

/* Returns after so many ticks; never for 0. */
static void tick(int serial, struct region *region, struct frames *frames, struct writes *writes,
		 const struct buttons *buttons, const char *boot_id, uint64_t period, uint64_t ticks)
{
	uint64_t due = now(CLOCK_MONOTONIC), last = due, gap = 0;
	char line[192];
	int length;

	for (uint64_t counter = 1; !ticks || counter <= ticks; counter++) {
		struct timespec until;
		uint64_t at;

		due += period;
		until = (struct timespec){ due / 1000000000, due % 1000000000 };
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
		at = now(CLOCK_MONOTONIC);
		/* A clock that was set back is no gap. */
		if (at > last && at - last > gap)
			gap = at - last;
		last = at;
		if (at > due + LATE_PERIODS * period)
			due = at;
		if (counter % REPORT_EVERY) {
			length = snprintf(line, sizeof(line), "T %" PRIx64 "\n", counter);
		} else {
			length = snprintf(line, sizeof(line),
					  "R %" PRIx64 " boot=%s mono=%" PRIu64 " wall=%" PRIu64 " checked=%" PRIu64
					  " bad=%" PRIu64 " gap=%" PRIu64 "\n",
					  counter, boot_id, at, now(CLOCK_REALTIME), region->checked, region->bad, gap);
			gap = 0;
		}
		say(serial, line, length);
		if (is_pressed(buttons)) {
			tcdrain(serial);
			power_off();
		}
		work(region);
		if (frames->socket >= 0)
			take_frames(frames);
		if (writes->disk >= 0)
			go_on_writing(writes);
		if (counter % FRAMES_EVERY == 0) {
			tell_frames(serial, frames);
			tell_writes(serial, writes);
		}
	}
}

int main(void)
{
	char cmdline[4096], boot_id[64], ready[96];
	struct region region = { 0 };
	struct frames frames = { .socket = -1 };
	struct writes writes = { .disk = -1 };
	struct buttons buttons = { 0 };
	uint64_t period;	/* ns */
	bool scsi;
	int panic, fed_s;
	const char *value;
	int serial;

	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	read_line("/proc/cmdline", cmdline, sizeof(cmdline));
	read_line("/proc/sys/kernel/random/boot_id", boot_id, sizeof(boot_id));
	value = parameter(cmdline, "ticker.disk=");
	scsi = value && !strncmp(value, "s", 1);
	fed_s = number(cmdline, "ticker.watchdog=", 0);
	load_modules(scsi, fed_s);
	open_buttons(&buttons);
	if (fed_s)
		guard(fed_s);
	value = parameter(cmdline, "ticker.ip=");
	if (value)
		bring_up(value);
	if (number(cmdline, "ticker.echo=", 0))
		echo(number(cmdline, "ticker.echo=", 0));
	if (number(cmdline, "ticker.board=", 0))
		board(number(cmdline, "ticker.board=", 0));
	value = parameter(cmdline, "ticker.card=");
	if (value)
		frames.socket = open_card(value);
	value = parameter(cmdline, "ticker.disk=");
	if (value)
		open_disk(&writes, value);
	period = number(cmdline, "ticker.period=", DEFAULT_PERIOD_MS) * UINT64_C(1000000);
	make_region(&region, number(cmdline, "ticker.region=", DEFAULT_REGION_MIB));
	make_dirty(&region, number(cmdline, "ticker.dirty=", 0), period);
	mlockall(MCL_CURRENT | MCL_FUTURE);
	serial = open_serial();
	if (number(cmdline, "ticker.starve=", 0))
		starve(number(cmdline, "ticker.starve=", 0));
	say(serial, ready, snprintf(ready, sizeof(ready), "READY boot=%s\n", boot_id));
	value = parameter(cmdline, "ticker.speed=");
	if (value)
		tell_speed(serial, value);
	panic = number(cmdline, "ticker.panic=", 0);
	tick(serial, &region, &frames, &writes, &buttons, boot_id, period, panic ? panic : number(cmdline, "ticker.reboot=", 0));
	tcdrain(serial);
	if (!panic)
		reboot(RB_AUTOBOOT);
	/* And if init ends, the kernel panics. */
}

// SPDX-License-Identifier: GPL-2.0-or-later
/* How fast a disk is, measured once: one request after the other, nothing cached. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "ticker.h"

enum {
	LARGE = 64 << 10,
	SMALL = 4 << 10,
	REQUESTS = 512,
	FIRST = 1 << 20,	/* what is before that stays as it is */
};

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * UINT64_C(1000000000) + time.tv_nsec;
}

/* Time of all requests, ns; 0 if one failed. */
static uint64_t run(int disk, void *room, size_t size, bool write)
{
	uint64_t began = now();

	for (off_t i = 0; i < REQUESTS; i++) {
		off_t at = FIRST + i * (off_t)size;
		ssize_t n = write ? pwrite(disk, room, size, at) : pread(disk, room, size, at);

		if (n != (ssize_t)size)
			return 0;
	}
	if (write && fdatasync(disk))
		return 0;
	return now() - began;
}

void tell_speed(int serial, const char *name)
{
	static const size_t sizes[] = { LARGE, SMALL };
	char line[128];
	void *room = mmap(NULL, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int disk = wait_for_disk(name, O_RDWR);

	if (disk < 0 || room == MAP_FAILED) {
		fprintf(stderr, "ticker: %s: %s\n", name, strerror(errno));
		return;
	}
	memset(room, 0x5a, LARGE);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		uint64_t wrote = run(disk, room, sizes[i], true);
		uint64_t read = run(disk, room, sizes[i], false);

		say(serial, line,
		    snprintf(line, sizeof(line), "S %zu requests=%d write=%" PRIu64 " read=%" PRIu64 "\n", sizes[i],
			     REQUESTS, wrote, read));
	}
	close(disk);
	munmap(room, LARGE);
}

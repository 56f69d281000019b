// SPDX-License-Identifier: GPL-2.0-or-later
/* A disk that numbered blocks are written to. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "ticker.h"

enum {
	BLOCK = 512,			/* bytes of a numbered write */
	BLOCKS = 1 << 13,		/* of the disk's beginning that these go round and round in */
	DISK_WAIT_MS = 30 * 1000,	/* its driver may take so long */
};

int wait_for_disk(const char *name, int how)
{
	char path[64];

	snprintf(path, sizeof(path), "/dev/%s", name);
	for (int ms = 0; access(path, F_OK) && ms < DISK_WAIT_MS; ms += 10)
		usleep(10 * 1000);
	return open(path, how | O_DIRECT | O_CLOEXEC);
}

void open_disk(struct writes *writes, const char *name)
{
	uint8_t *room;

	writes->disk = wait_for_disk(name, O_WRONLY);
	room = mmap(NULL, WRITES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (writes->disk < 0 || room == MAP_FAILED || syscall(SYS_io_setup, WRITES, &writes->context))
		fprintf(stderr, "ticker: %s: %s\n", name, strerror(errno));
	for (int i = 0; i < WRITES; i++)
		writes->block[i] = (uint64_t *)(room + i * 4096);
}

static void begin_write(struct writes *writes, int slot)
{
	struct iocb *request = &writes->request[slot], *list[] = { request };
	uint64_t number = writes->begun + 1;

	for (size_t i = 0; i < BLOCK / sizeof(number); i++)
		writes->block[slot][i] = number;
	*request = (struct iocb){
		.aio_data = slot,
		.aio_lio_opcode = IOCB_CMD_PWRITE,
		.aio_fildes = writes->disk,
		.aio_buf = (uintptr_t)writes->block[slot],
		.aio_nbytes = BLOCK,
		.aio_offset = (number % BLOCKS + 1) * BLOCK,
	};
	if (syscall(SYS_io_submit, writes->context, 1, list) == 1) {
		writes->busy[slot] = true;
		writes->begun = number;
	}
}

void go_on_writing(struct writes *writes)
{
	struct io_event events[WRITES];
	struct timespec no_time = { 0 };
	int n = syscall(SYS_io_getevents, writes->context, 0, WRITES, events, &no_time);

	for (int i = 0; i < n; i++) {
		writes->busy[events[i].data] = false;
		if (events[i].res == BLOCK)
			writes->done++;
		else
			writes->bad++;
	}
	for (int slot = 0; slot < WRITES; slot++)
		if (!writes->busy[slot])
			begin_write(writes, slot);
}

void tell_writes(int serial, struct writes *writes)
{
	char line[96];

	if (writes->done == writes->told)
		return;
	writes->told = writes->done;
	say(serial, line,
	    snprintf(line, sizeof(line), "B %" PRIu64 " begun=%" PRIu64 " bad=%" PRIu64 "\n", writes->done,
		     writes->begun, writes->bad));
}

// SPDX-License-Identifier: GPL-2.0-or-later
/* A process that takes all memory until the kernel kills it: whoever runs this guest is told. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ticker.h"

enum {
	BITE = 1 << 20,
};

void starve(int seconds)
{
	static const char first[] = "1000";	/* to be killed, before init */
	int fd;

	if (fork())
		return;
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, first, strlen(first)) < 0)
		perror("ticker: oom_score_adj");
	sleep(seconds);
	for (;;) {
		char *more = malloc(BITE);

		if (more)
			memset(more, 1, BITE);
	}
}

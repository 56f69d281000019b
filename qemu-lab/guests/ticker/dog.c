// SPDX-License-Identifier: GPL-2.0-or-later
/* A watchdog that is fed for a while and then no more: whoever runs this guest sees it fire. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "ticker.h"

enum {
	PATIENCE_S = 40,	/* it fires so long after it was fed last */
};

void guard(int seconds)
{
	int patience = PATIENCE_S, fd;

	if (fork())
		return;
	fd = open("/dev/watchdog", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, WDIOC_SETTIMEOUT, &patience)) {
		fprintf(stderr, "ticker: the watchdog: %s\n", strerror(errno));
		_exit(1);
	}
	for (; seconds > 0; seconds--) {
		ioctl(fd, WDIOC_KEEPALIVE, 0);
		sleep(1);
	}
	/* Closed, it would be stopped, or so a driver may think. */
	for (;;)
		pause();
}

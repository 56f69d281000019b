// SPDX-License-Identifier: GPL-2.0-or-later
/* Says back whatever comes on TCP connections: whoever is at the other end sees what a handoff does to one. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ticker.h"

enum {
	CONNECTIONS = 15,
	LISTENER = 0,		/* place among the descriptors */
};

int listen_on(int port, int waiting)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) || listen(fd, waiting)) {
		fprintf(stderr, "ticker: port %d: %s\n", port, strerror(errno));
		return -1;
	}
	return fd;
}

static void take_in(struct pollfd *fds)
{
	int at_once = 1, fd = accept4(fds[LISTENER].fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof(at_once));
	for (int n = 1; n <= CONNECTIONS; n++) {
		if (fds[n].fd < 0) {
			fds[n] = (struct pollfd){ .fd = fd, .events = POLLIN };
			return;
		}
	}
	close(fd);
}

/* 0 when the other end has gone. */
static int say_back(int fd)
{
	char data[4096];
	ssize_t n = read(fd, data, sizeof(data)), done = 0;

	while (done < n) {
		ssize_t written = write(fd, data + done, n - done);

		if (written < 0)
			return 0;
		done += written;
	}
	return n > 0;
}

void echo(int port)
{
	struct pollfd fds[1 + CONNECTIONS];

	if (fork())
		return;
	for (int n = 0; n <= CONNECTIONS; n++)
		fds[n] = (struct pollfd){ .fd = -1 };
	fds[LISTENER] = (struct pollfd){ .fd = listen_on(port, CONNECTIONS), .events = POLLIN };
	while (fds[LISTENER].fd >= 0 && poll(fds, 1 + CONNECTIONS, -1) >= 0) {
		for (int n = 1; n <= CONNECTIONS; n++) {
			if (fds[n].revents && !say_back(fds[n].fd)) {
				close(fds[n].fd);
				fds[n].fd = -1;
			}
		}
		if (fds[LISTENER].revents)
			take_in(fds);
	}
	_exit(1);
}

// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A game of life that browsers share: whoever looks sees the same board, and whoever draws draws for all. It is kept in
 * this process's memory and nowhere else, so it is where the guest is, and it is gone when the guest is.
 *
 *	GET /			a page that shows the board and draws on it
 *	GET /cells		"GENERATION LOOKS\n" and a line of 0 and 1 for each row
 *	POST /draw/X/Y		the cell there and those around it live
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ticker.h"

enum {
	WIDE = 96,
	HIGH = 48,
	VISITORS = 31,		/* connections at a time; each asks once */
	REQUEST = 1024,		/* bytes of one that are read */
	STEP_MS = 200,
	LISTENER = 0,		/* place among the descriptors */
};

struct board {
	unsigned char cells[HIGH][WIDE];
	unsigned long generation;
	unsigned long looks;	/* how often the cells were asked for */
};

struct visitor {
	char request[REQUEST];
	size_t length;
};

/* What there is at first: a gun that shoots for ever. */
static const char *const gun[] = {
	"........................O...........",
	"......................O.O...........",
	"............OO......OO............OO",
	"...........O...O....OO............OO",
	"OO........O.....O...OO..............",
	"OO........O...O.OO....O.O...........",
	"..........O.....O.......O...........",
	"...........O...O....................",
	"............OO......................",
};

static void begin(struct board *board)
{
	for (size_t y = 0; y < sizeof(gun) / sizeof(gun[0]); y++)
		for (size_t x = 0; gun[y][x]; x++)
			board->cells[y + 3][x + 4] = gun[y][x] == 'O';
}

static int lives(const struct board *board, int x, int y)
{
	return x >= 0 && y >= 0 && x < WIDE && y < HIGH && board->cells[y][x];
}

static void step(struct board *board)
{
	unsigned char next[HIGH][WIDE];

	for (int y = 0; y < HIGH; y++) {
		for (int x = 0; x < WIDE; x++) {
			int around = -lives(board, x, y);

			for (int n = 0; n < 9; n++)
				around += lives(board, x + n % 3 - 1, y + n / 3 - 1);
			next[y][x] = around == 3 || (around == 2 && board->cells[y][x]);
		}
	}
	memcpy(board->cells, next, sizeof(next));
	board->generation++;
}

static void draw(struct board *board, int x, int y)
{
	if (x < 1 || y < 1 || x >= WIDE - 1 || y >= HIGH - 1)
		return;
	/* Five cells that go on for a thousand steps. */
	board->cells[y][x] = board->cells[y - 1][x] = board->cells[y + 1][x] = 1;
	board->cells[y][x - 1] = board->cells[y - 1][x + 1] = 1;
}

static void answer(int fd, const char *status, const char *type, const char *body, size_t length)
{
	char head[256];
	int size = snprintf(head, sizeof(head),
			    "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n"
			    "Access-Control-Allow-Origin: *\r\nConnection: close\r\n\r\n", status, type, length);

	/* Whoever does not take this at once is not waited for. */
	if (send(fd, head, size, MSG_DONTWAIT | MSG_NOSIGNAL) == size)
		send(fd, body, length, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void tell_cells(int fd, struct board *board)
{
	char body[64 + HIGH * (WIDE + 1)];
	size_t length = snprintf(body, 64, "%lu %lu\n", board->generation, ++board->looks);

	for (int y = 0; y < HIGH; y++) {
		for (int x = 0; x < WIDE; x++)
			body[length++] = '0' + board->cells[y][x];
		body[length++] = '\n';
	}
	answer(fd, "200 OK", "text/plain", body, length);
}

static void serve(int fd, const char *request, struct board *board)
{
	int x, y;

	if (!strncmp(request, "GET / ", 6)) {
		answer(fd, "200 OK", "text/html; charset=utf-8", board_page, strlen(board_page));
	} else if (!strncmp(request, "GET /cells ", 11)) {
		tell_cells(fd, board);
	} else if (sscanf(request, "POST /draw/%d/%d ", &x, &y) == 2) {
		draw(board, x, y);
		answer(fd, "200 OK", "text/plain", "", 0);
	} else {
		answer(fd, "404 Not Found", "text/plain", "", 0);
	}
}

/* 0 when the connection is over. */
static int hear(int fd, struct visitor *visitor, struct board *board)
{
	ssize_t n = read(fd, visitor->request + visitor->length, REQUEST - 1 - visitor->length);

	if (n <= 0)
		return 0;
	visitor->length += n;
	visitor->request[visitor->length] = 0;
	if (!strstr(visitor->request, "\r\n\r\n"))
		/* What is longer than ours are is none of ours. */
		return visitor->length < REQUEST - 1;
	serve(fd, visitor->request, board);
	shutdown(fd, SHUT_WR);
	return 0;
}

static void let_in(struct pollfd *fds, struct visitor *visitors, int *oldest)
{
	int fd = accept4(fds[LISTENER].fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int place = 1;

	if (fd < 0)
		return;
	while (place <= VISITORS && fds[place].fd >= 0)
		place++;
	if (place > VISITORS) {
		/* Somebody who came and asked nothing makes room. */
		place = 1 + (*oldest)++ % VISITORS;
		close(fds[place].fd);
	}
	fds[place] = (struct pollfd){ .fd = fd, .events = POLLIN };
	visitors[place - 1].length = 0;
}

static long now_ms(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1000 + at.tv_nsec / 1000000;
}

void board(int port)
{
	static struct visitor visitors[VISITORS];
	static struct board board;
	struct pollfd fds[1 + VISITORS];
	long due = now_ms() + STEP_MS;
	int oldest = 0;

	if (fork())
		return;
	begin(&board);
	for (int n = 0; n <= VISITORS; n++)
		fds[n] = (struct pollfd){ .fd = -1 };
	fds[LISTENER] = (struct pollfd){ .fd = listen_on(port, VISITORS), .events = POLLIN };
	while (fds[LISTENER].fd >= 0) {
		long wait = due - now_ms();

		if (poll(fds, 1 + VISITORS, wait > 0 ? wait : 0) < 0)
			break;
		for (int n = 1; n <= VISITORS; n++) {
			if (fds[n].fd >= 0 && fds[n].revents && !hear(fds[n].fd, &visitors[n - 1], &board)) {
				close(fds[n].fd);
				fds[n].fd = -1;
			}
		}
		if (fds[LISTENER].revents)
			let_in(fds, visitors, &oldest);
		if (now_ms() >= due) {
			step(&board);
			/* After a pause the rhythm begins anew. */
			due = now_ms() + STEP_MS;
		}
	}
	_exit(1);
}

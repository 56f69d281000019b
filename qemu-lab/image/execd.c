// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * execd listen PORT TOKEN MARKS IP...   run commands for who brings what the file TOKEN holds (the lab, over the
 *                                       machine's forwarded port), on these addresses, there or not
 * execd relay IP PORT SECONDS           join standard input and output to a connection, to reach the execd of another
 *                                       root, until nothing was heard of that root for so long
 *
 * The lab's way in that needs no Python, no agent and no link: it works as long as the kernel does.
 *
 * Both ways a connection carries frames: type (1 byte), length (4 bytes, big endian), that many bytes.
 * From the client: 'T' the token (once, first); 'A' the program and its arguments, each ended by NUL (once, then);
 * 'I' standard input; 'C' its end. From us: 'O' and 'E' standard output and error; 'X' exit code (4 bytes, big endian; 128 + N when
 * signal N ended it), last. When the client hangs up, the command's process group is killed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHUNK = 65536, ARGUMENTS = 4096, LONGEST = 1 << 20, TOKEN_MOST = 256, ADDRESSES = 8 };

static void die(const char *what)
{
	fprintf(stderr, "execd: %s: %s\n", what, strerror(errno));
	exit(125);
}

static bool read_all(int fd, void *data, size_t size)
{
	char *at = data;

	while (size) {
		ssize_t n = read(fd, at, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		at += n;
		size -= n;
	}
	return true;
}

static bool write_all(int fd, const void *data, size_t size)
{
	const char *at = data;

	while (size) {
		ssize_t n = write(fd, at, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		at += n;
		size -= n;
	}
	return true;
}

static bool send_frame(int fd, char type, const void *data, uint32_t size)
{
	char head[5] = { type };
	uint32_t length = htonl(size);

	memcpy(head + 1, &length, 4);
	return write_all(fd, head, 5) && write_all(fd, data, size);
}

/* Returns the type and a buffer the caller frees, or 0 when the client is gone or talks nonsense. */
static char read_frame(int fd, char **data, uint32_t *size)
{
	char head[5];

	if (!read_all(fd, head, 5))
		return 0;
	memcpy(size, head + 1, 4);
	*size = ntohl(*size);
	if (*size > LONGEST)
		return 0;
	*data = malloc(*size + 1);
	if (!*data || !read_all(fd, *data, *size))
		return 0;
	(*data)[*size] = 0;
	return head[0];
}

static pid_t start(char *words, uint32_t size, int in, int out, int err)
{
	static char *argv[ARGUMENTS + 1];
	int argc = 0;
	pid_t pid;

	for (char *word = words; word < words + size && argc < ARGUMENTS; word += strlen(word) + 1)
		argv[argc++] = word;
	if (!argc)
		return -1;
	pid = fork();
	if (pid)
		return pid;
	setsid();
	dup2(in, 0);
	dup2(out, 1);
	dup2(err, 2);
	signal(SIGPIPE, SIG_DFL);
	execvp(argv[0], argv);
	dprintf(2, "execd: %s: %s\n", argv[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

/* Pass on what can be read now; false once there is no more to come. */
static bool forward(int client, char type, int from)
{
	static char buffer[CHUNK];
	ssize_t n = read(from, buffer, sizeof(buffer));

	if (n > 0)
		return send_frame(client, type, buffer, n);
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

static void drain(int client, char type, int from)
{
	struct pollfd poller = { from, POLLIN, 0 };

	/* Only what is there: a child left in the background may hold the pipe open for ever. */
	while (from >= 0 && poll(&poller, 1, 0) == 1 && forward(client, type, from))
		;
}

/* The last that the client hears. */
static int say_end(int client, uint32_t code)
{
	static char rest[CHUNK];

	code = htonl(code);
	send_frame(client, 'X', &code, 4);
	/* Closing with something unread would reset the connection, and what we sent could get lost on its way. */
	shutdown(client, SHUT_WR);
	while (read(client, rest, sizeof(rest)) > 0)
		;
	return 0;
}

static int finish(int client, pid_t pid)
{
	int status;

	waitpid(pid, &status, 0);
	return say_end(client, WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

/* Standard input on its way to the command; while some is pending, no more is taken from the client. */
struct input {
	int fd;
	char *data;
	uint32_t size, done;
};

static void feed(struct input *input)
{
	ssize_t n = write(input->fd, input->data + input->done, input->size - input->done);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	input->done = n < 0 ? input->size : input->done + n;	/* a command that closed its input loses the rest */
	if (input->done == input->size) {
		free(input->data);
		input->data = NULL;
	}
}

/* False once the client hung up. */
static bool take(int client, struct input *input)
{
	uint32_t size;
	char *data, type = read_frame(client, &data, &size);

	if (!type)
		return false;
	if (type == 'I' && input->fd >= 0 && size) {
		*input = (struct input){ input->fd, data, size, 0 };
		return true;
	}
	free(data);
	if (type == 'C' && input->fd >= 0) {
		close(input->fd);
		input->fd = -1;
	}
	return true;
}

static int converse(int client, pid_t pid, int pidfd, int in, int out, int err)
{
	struct input input = { .fd = in };

	for (;;) {
		struct pollfd fds[] = {
			{ client, input.data ? 0 : POLLIN, 0 }, { pidfd, POLLIN, 0 }, { out, POLLIN, 0 },
			{ err, POLLIN, 0 }, { input.data ? input.fd : -1, POLLOUT, 0 },
		};

		if (poll(fds, 5, -1) < 0)
			continue;
		if (fds[2].revents && !forward(client, 'O', out))
			out = -1;
		if (fds[3].revents && !forward(client, 'E', err))
			err = -1;
		if (fds[1].revents) {
			drain(client, 'O', out);
			drain(client, 'E', err);
			return finish(client, pid);
		}
		if (fds[4].revents)
			feed(&input);
		if ((fds[0].revents && !input.data && !take(client, &input)) ||
		    (fds[0].revents & (POLLHUP | POLLERR))) {
			kill(-pid, SIGKILL);
			return 1;
		}
	}
}

/* Whether the client's first frame is what the file holds. How long that takes does not tell how much of it was right. */
static bool is_known(int client, const char *path)
{
	char wanted[TOKEN_MOST] = "", *brought;
	uint32_t size, wanted_size;
	unsigned char differs = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, wanted, sizeof(wanted) - 1);

	close(fd);
	wanted_size = n > 0 ? strcspn(wanted, "\n") : 0;
	if (read_frame(client, &brought, &size) != 'T' || !wanted_size || size != wanted_size)
		return false;
	for (uint32_t i = 0; i < size; i++)
		differs |= brought[i] ^ wanted[i];
	free(brought);
	return !differs;
}

static int serve(int client, const char *token)
{
	int in[2], out[2], err[2], pidfd;
	uint32_t size;
	char *data;
	pid_t pid;

	static const char stranger[] = "execd: wrong token\n";

	if (!is_known(client, token)) {
		send_frame(client, 'E', stranger, strlen(stranger));
		return say_end(client, 126);
	}
	if (read_frame(client, &data, &size) != 'A')
		return 1;
	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
		die("pipe");
	pid = start(data, size, in[0], out[1], err[1]);
	free(data);
	if (pid < 0)
		return 1;
	close(in[0]);
	close(out[1]);
	close(err[1]);
	pidfd = syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		die("pidfd_open");
	fcntl(in[1], F_SETFL, O_NONBLOCK);
	return converse(client, pid, pidfd, in[1], out[0], err[0]);
}

/*
 * Standard output leads to the kernel's log (<3>: shown even by one that is quiet) and so to the console, where the lab
 * waits for this line; marks is where the root keeps its own.
 */
static void mark(const char *name, const char *marks)
{
	char up[32] = "", line[64];
	int fd = open("/proc/uptime", O_RDONLY | O_CLOEXEC);

	if (read(fd, up, sizeof(up) - 1) > 0)
		up[strcspn(up, " ")] = 0;
	close(fd);
	printf("<3>multiroot: mark %s %s\n", name, up);
	fflush(stdout);
	snprintf(line, sizeof(line), "%s %s\n", name, up);
	fd = open(marks, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	write_all(fd, line, strlen(line));
	close(fd);
}

static int listen_on(const char *address, int port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };
	int one = 1, server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	/* A later root gets some of its addresses later. */
	setsockopt(server, IPPROTO_IP, IP_FREEBIND, &one, sizeof(one));
	if (inet_pton(AF_INET, address, &at.sin_addr) != 1 || bind(server, (struct sockaddr *)&at, sizeof(at)) ||
	    listen(server, 64))
		die(address);
	return server;
}

static void take_client(int server, const char *token)
{
	int one = 1, client = accept4(server, NULL, NULL, SOCK_CLOEXEC);

	if (client < 0)
		return;
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (!fork())
		_exit(serve(client, token));
	close(client);
}

static _Noreturn void serve_all(int port, const char *token, const char *marks, char **addresses, int count)
{
	struct pollfd servers[ADDRESSES];

	for (int i = 0; i < count; i++)
		servers[i] = (struct pollfd){ listen_on(addresses[i], port), POLLIN, 0 };
	signal(SIGPIPE, SIG_IGN);
	setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", "/root", 1);
	setenv("TERM", "dumb", 1);
	if (chdir("/root") && chdir("/"))
		die("/");
	mark("exec", marks);
	for (;;) {
		if (poll(servers, count, -1) < 0)
			continue;
		for (int i = 0; i < count; i++)
			if (servers[i].revents)
				take_client(servers[i].fd, token);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
}

/* A root that ends says nothing. One that only stands still for a while is waited for. */
static void notice_silence(int peer, int most_s)
{
	const int probe = most_s < 6 ? 1 : most_s / 6, probes = 5, on = 1;
	const int most_ms = most_s * 1000;

	if (setsockopt(peer, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) ||
	    setsockopt(peer, IPPROTO_TCP, TCP_KEEPIDLE, &probe, sizeof(probe)) ||
	    setsockopt(peer, IPPROTO_TCP, TCP_KEEPINTVL, &probe, sizeof(probe)) ||
	    setsockopt(peer, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes)) ||
	    setsockopt(peer, IPPROTO_TCP, TCP_USER_TIMEOUT, &most_ms, sizeof(most_ms)))
		die("setsockopt");
}

static int relay(const char *host, int port, int silence_s)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	int peer = socket(AF_INET, SOCK_STREAM, 0);
	static char buffer[CHUNK];
	bool input = true;

	notice_silence(peer, silence_s);
	if (inet_pton(AF_INET, host, &address.sin_addr) != 1 || connect(peer, (struct sockaddr *)&address, sizeof(address)))
		die(host);
	for (;;) {
		struct pollfd fds[] = { { input ? 0 : -1, POLLIN, 0 }, { peer, POLLIN, 0 } };
		ssize_t n;

		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[0].revents) {
			n = read(0, buffer, sizeof(buffer));
			if (n <= 0) {
				shutdown(peer, SHUT_WR);
				input = false;
			} else if (!write_all(peer, buffer, n)) {
				return 1;
			}
		}
		if (fds[1].revents) {
			n = read(peer, buffer, sizeof(buffer));
			if (n < 0)
				die(host);
			if (!n)
				return 0;
			if (!write_all(1, buffer, n))
				return 1;
		}
	}
}

int main(int argc, char **argv)
{
	if (argc > 5 && argc <= 5 + ADDRESSES && !strcmp(argv[1], "listen"))
		serve_all(atoi(argv[2]), argv[3], argv[4], argv + 5, argc - 5);
	if (argc == 5 && !strcmp(argv[1], "relay") && atoi(argv[4]) > 0)
		return relay(argv[2], atoi(argv[3]), atoi(argv[4]));
	fprintf(stderr, "usage: execd listen PORT TOKEN MARKS IP... | execd relay IP PORT SECONDS\n");
	return 2;
}

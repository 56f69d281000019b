// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest that looks for somebody to talk to: it tries to connect to ports of addresses, and sends frames of its own
 * making, with and without VLAN tags, to whoever may take them. README.md beside this file describes the output. It is
 * in the initramfs of the ticker, and is its guest's init with rdinit=/scanner.
 *
 * Kernel command line: scan.ip=A.B.C.D/LEN (own address), scan.via=A.B.C.D (router to everywhere, which is tried, too),
 * scan.at=IP,... (IPv4 and link-local IPv6), scan.ports=N,FROM-TO,...
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if_arp.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
	TARGETS = 16,
	PORTS = 1024,
	CRAFTED_PORTS = 16,		/* of the list's beginning, with frames of our own */
	CONNECT_MS = 5000,		/* an address that nobody has is known as such after three seconds */
	LISTEN_MS = 3000,
	TAGS = 2,
};

struct target {
	char name[INET6_ADDRSTRLEN];
	int family;
	struct sockaddr_in6 v6;
	struct sockaddr_in v4;
};

static struct target targets[TARGETS];
static uint16_t ports[PORTS];
static int target_count, port_count, link_index;
static uint8_t own_mac[ETH_ALEN];
static uint32_t own_ip;

static const char *parameter(const char *cmdline, const char *name)
{
	static char value[2048];
	const char *at = strstr(cmdline, name);

	if (!at)
		return "";
	at += strlen(name);
	snprintf(value, sizeof(value), "%.*s", (int)strcspn(at, " \n"), at);
	return value;
}

static void load_modules(void)
{
	char path[128];
	FILE *order = fopen("/modules/order", "re");

	while (order && fgets(path, sizeof(path), order)) {
		int fd;

		path[strcspn(path, "\n")] = 0;
		fd = open(path, O_RDONLY | O_CLOEXEC);
		syscall(SYS_finit_module, fd, "", 0);
		close(fd);
	}
}

static void bring_up(const char *text, const char *via)
{
	struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = { .ifr_name = "eth0" };
	struct sockaddr_in *in = (struct sockaddr_in *)&request.ifr_addr;
	char address[INET_ADDRSTRLEN] = "";
	unsigned int length = 0;

	sscanf(text, "%15[0-9.]/%u", address, &length);
	in->sin_family = AF_INET;
	inet_pton(AF_INET, address, &in->sin_addr);
	own_ip = in->sin_addr.s_addr;
	if (ioctl(fd, SIOCSIFADDR, &request))
		perror("scanner: eth0");
	in->sin_addr.s_addr = htonl(~UINT32_C(0) << (32 - length));
	ioctl(fd, SIOCSIFNETMASK, &request);
	request.ifr_flags = IFF_UP;
	ioctl(fd, SIOCSIFFLAGS, &request);
	ioctl(fd, SIOCGIFHWADDR, &request);
	memcpy(own_mac, request.ifr_hwaddr.sa_data, ETH_ALEN);
	link_index = if_nametoindex("eth0");
	route.rt_dst.sa_family = route.rt_genmask.sa_family = AF_INET;
	in = (struct sockaddr_in *)&route.rt_gateway;
	in->sin_family = AF_INET;
	inet_pton(AF_INET, via, &in->sin_addr);
	if (ioctl(fd, SIOCADDRT, &route))
		perror("scanner: route");
	close(fd);
}

static struct target read_target(const char *word)
{
	struct target target = {
		.family = strchr(word, ':') ? AF_INET6 : AF_INET,
		.v4 = { .sin_family = AF_INET },
		.v6 = { .sin6_family = AF_INET6, .sin6_scope_id = link_index },
	};
	void *address = target.family == AF_INET ? (void *)&target.v4.sin_addr : (void *)&target.v6.sin6_addr;

	snprintf(target.name, sizeof(target.name), "%s", word);
	if (inet_pton(target.family, word, address) != 1)
		fprintf(stderr, "scanner: not an address: %s\n", word);
	return target;
}

static void read_targets(char *text)
{
	for (char *word = strtok(text, ","); word && target_count < TARGETS; word = strtok(NULL, ","))
		targets[target_count++] = read_target(word);
}

static void read_ports(char *text)
{
	for (char *word = strtok(text, ","); word; word = strtok(NULL, ",")) {
		int from, to;

		if (sscanf(word, "%d-%d", &from, &to) != 2)
			from = to = atoi(word);
		for (; from <= to && port_count < PORTS; from++)
			ports[port_count++] = from;
	}
}

/* Begin a connection; the socket, and in @error how that went so far. */
static int begin(struct target *target, uint16_t port, int *error)
{
	int fd = socket(target->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), failed;

	target->v4.sin_port = target->v6.sin6_port = htons(port);
	failed = target->family == AF_INET ? connect(fd, (struct sockaddr *)&target->v4, sizeof(target->v4)) :
					     connect(fd, (struct sockaddr *)&target->v6, sizeof(target->v6));
	*error = failed ? errno : 0;
	return fd;
}

/* Try all ports at once: how many took the connection, and how many were at least answered for. */
static void try_target(struct target *target)
{
	int open = 0, answered = 0, waiting = port_count, errors[PORTS];
	static struct pollfd polled[PORTS];
	struct timespec first, now;

	for (int i = 0; i < port_count; i++)
		polled[i] = (struct pollfd){ begin(target, ports[i], &errors[i]), POLLOUT, 0 };
	clock_gettime(CLOCK_MONOTONIC, &first);
	do {
		poll(polled, port_count, 100);
		for (int i = 0; i < port_count; i++) {
			socklen_t size = sizeof(int);

			if (polled[i].fd < 0 || (errors[i] == EINPROGRESS && !polled[i].revents))
				continue;
			if (errors[i] == EINPROGRESS)
				getsockopt(polled[i].fd, SOL_SOCKET, SO_ERROR, &errors[i], &size);
			open += !errors[i];
			answered += errors[i] == ECONNREFUSED || errors[i] == ECONNRESET;
			close(polled[i].fd);
			polled[i].fd = -1;
			waiting--;
		}
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (waiting > 0 && (now.tv_sec - first.tv_sec) * 1000 < CONNECT_MS);
	for (int i = 0; i < port_count; i++)
		if (polled[i].fd >= 0)
			close(polled[i].fd);
	printf("SCAN at=%s tried=%d open=%d answered=%d\n", target->name, port_count, open, answered);
}

static uint16_t sum(const void *data, size_t size, uint32_t total)
{
	const uint8_t *at = data;

	for (size_t i = 0; i < size; i++)
		total += i & 1 ? at[i] : at[i] << 8;
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return htons(~total);
}

/* A frame's beginning, for the station @to, behind so many tags; where its contents go. */
static uint8_t *begin_frame(uint8_t *at, const uint8_t *to, const uint16_t tags[TAGS][2], uint16_t type)
{
	at = mempcpy(at, to, ETH_ALEN);
	at = mempcpy(at, own_mac, ETH_ALEN);
	for (int i = 0; i < TAGS && tags[i][0]; i++) {
		uint16_t tag[2] = { htons(tags[i][0]), htons(tags[i][1]) };

		at = mempcpy(at, tag, sizeof(tag));
	}
	type = htons(type);
	return mempcpy(at, &type, sizeof(type));
}

/* A SYN to @port of @ip; the frame's size. */
static size_t craft_syn(uint8_t *frame, const uint8_t *to, const uint16_t tags[TAGS][2], uint32_t ip, uint16_t port)
{
	struct iphdr header = { .version = 4, .ihl = 5, .tot_len = htons(40), .ttl = 64, .protocol = IPPROTO_TCP };
	struct tcphdr tcp = { .source = htons(4444), .dest = htons(port), .doff = 5, .syn = 1, .window = htons(1000) };
	struct { uint32_t from, to; uint16_t protocol, size; } pseudo = { own_ip, ip, htons(IPPROTO_TCP), htons(20) };
	uint8_t *at = begin_frame(frame, to, tags, ETH_P_IP);

	header.saddr = own_ip;
	header.daddr = ip;
	header.check = sum(&header, sizeof(header), 0);
	tcp.check = sum(&tcp, sizeof(tcp), (uint16_t)~ntohs(sum(&pseudo, sizeof(pseudo), 0)));
	at = mempcpy(at, &header, sizeof(header));
	at = mempcpy(at, &tcp, sizeof(tcp));
	return at - frame;
}

/* Who has @ip? The frame's size. */
static size_t craft_question(uint8_t *frame, const uint8_t *to, const uint16_t tags[TAGS][2], uint32_t ip)
{
	struct arphdr header = { htons(ARPHRD_ETHER), htons(ETH_P_IP), ETH_ALEN, 4, htons(ARPOP_REQUEST) };
	uint8_t *at = begin_frame(frame, to, tags, ETH_P_ARP);

	at = mempcpy(at, &header, sizeof(header));
	at = mempcpy(at, own_mac, ETH_ALEN);
	at = mempcpy(at, &own_ip, sizeof(own_ip));
	memset(at, 0, ETH_ALEN);
	at = mempcpy(at + ETH_ALEN, &ip, sizeof(ip));
	return at - frame;
}

/* The station that an address resolves to, by the kernel's table. */
static bool station_of(const char *ip, uint8_t *mac)
{
	char line[256], address[64];
	unsigned int m[ETH_ALEN];
	FILE *table = fopen("/proc/net/arp", "re");
	bool found = false;

	while (table && !found && fgets(line, sizeof(line), table))
		found = sscanf(line, "%63s %*s %*s %x:%x:%x:%x:%x:%x", address, m, m + 1, m + 2, m + 3, m + 4, m + 5) == 7 &&
			!strcmp(address, ip);
	if (table)
		fclose(table);
	for (int i = 0; found && i < ETH_ALEN; i++)
		mac[i] = m[i];
	return found;
}

/* Whether a frame is from one of the targets, whatever tags it has. */
static bool is_answer(const uint8_t *frame, ssize_t size)
{
	size_t at = 2 * ETH_ALEN;
	uint16_t type;

	for (;; at += 4) {
		memcpy(&type, frame + at, 2);
		if (size < (ssize_t)at + 34 || (type != htons(ETH_P_8021Q) && type != htons(ETH_P_8021AD)))
			break;
	}
	for (int i = 0; i < target_count; i++) {
		const void *ip = &targets[i].v4.sin_addr;

		if (targets[i].family == AF_INET && size >= (ssize_t)at + 34 &&
		    (type == htons(ETH_P_IP) ? !memcmp(frame + at + 14, ip, 4) :
		     type == htons(ETH_P_ARP) && !memcmp(frame + at + 16, ip, 4)))
			return true;
	}
	return false;
}

/* To one station, with all tags: who has the target's address, and SYNs to some of its ports. How many were sent. */
static int send_crafted(int fd, const uint8_t *station, const struct target *target)
{
	static const uint16_t kinds[][TAGS][2] = {
		{ { 0, 0 } },
		{ { ETH_P_8021Q, 0 } }, { { ETH_P_8021Q, 1 } }, { { ETH_P_8021Q, 2 } }, { { ETH_P_8021Q, 100 } },
		{ { ETH_P_8021Q, 4094 } }, { { ETH_P_8021AD, 1 } }, { { ETH_P_8021AD, 100 } },
		{ { ETH_P_8021Q, 1 }, { ETH_P_8021Q, 100 } }, { { ETH_P_8021AD, 1 }, { ETH_P_8021Q, 1 } },
	};
	uint32_t ip = target->v4.sin_addr.s_addr;
	uint8_t frame[256];
	int sent = 0;

	for (size_t kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]); kind++) {
		sent += write(fd, frame, craft_question(frame, station, kinds[kind], ip)) > 0;
		for (int p = 0; p < port_count && p < CRAFTED_PORTS; p++)
			sent += write(fd, frame, craft_syn(frame, station, kinds[kind], ip, ports[p])) > 0;
	}
	return sent;
}

/* Frames of our own making, to all stations, to the router's, and to the one that says it has the address. */
static void try_frames(const char *via)
{
	static const uint8_t all[ETH_ALEN] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = link_index };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)), sent = 0, heard = 0;
	struct pollfd polled = { fd, POLLIN, 0 };
	uint8_t station[ETH_ALEN], frame[2048];

	bind(fd, (struct sockaddr *)&at, sizeof(at));
	for (int i = 0; i < target_count; i++) {
		if (targets[i].family != AF_INET)
			continue;
		sent += send_crafted(fd, all, &targets[i]);
		if (station_of(via, station))
			sent += send_crafted(fd, station, &targets[i]);
		if (station_of(targets[i].name, station))
			sent += send_crafted(fd, station, &targets[i]);
	}
	while (poll(&polled, 1, LISTEN_MS) > 0) {
		struct sockaddr_ll from;
		socklen_t size = sizeof(from);
		ssize_t n = recvfrom(fd, frame, sizeof(frame), 0, (struct sockaddr *)&from, &size);

		heard += n > 0 && from.sll_pkttype != PACKET_OUTGOING && is_answer(frame, n);
	}
	printf("SCAN crafted=%d heard=%d\n", sent, heard);
}

int main(void)
{
	struct rlimit files = { 4096, 4096 };
	struct target router;
	char cmdline[4096] = "", via[64], text[2048];
	int serial, fd;

	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	setrlimit(RLIMIT_NOFILE, &files);
	fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	if (read(fd, cmdline, sizeof(cmdline) - 1) < 0)
		perror("scanner: /proc/cmdline");
	serial = open("/dev/ttyS0", O_RDWR | O_NOCTTY);
	dup2(serial, 1);
	dup2(serial, 2);
	setlinebuf(stdout);
	load_modules();
	snprintf(via, sizeof(via), "%s", parameter(cmdline, "scan.via="));
	bring_up(strcpy(text, parameter(cmdline, "scan.ip=")), via);
	read_targets(strcpy(text, parameter(cmdline, "scan.at=")));
	read_ports(strcpy(text, parameter(cmdline, "scan.ports=")));
	sleep(3);		/* until the card has its link-local address */
	router = read_target(via);
	try_target(&router);
	for (int i = 0; i < target_count; i++)
		try_target(&targets[i]);
	try_frames(via);
	printf("SCAN done\n");
	for (;;)
		pause();
}

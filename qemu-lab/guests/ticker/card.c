// SPDX-License-Identifier: GPL-2.0-or-later
/* Network cards: the one on the bridge, and one on which numbered frames are expected. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ticker.h"

enum {
	ETH_P_NUMBERED = 0x88b5,	/* IEEE 802: for local experiments */
	QUEUE_BYTES = 32 << 20,		/* of frames, while this program does something else */
};

void bring_up(const char *text)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in *in;
	struct ifreq request = { .ifr_name = "eth0" };
	char address[INET_ADDRSTRLEN];
	unsigned int length = 0;

	in = (struct sockaddr_in *)&request.ifr_addr;
	in->sin_family = AF_INET;
	if (sscanf(text, "%15[0-9.]/%u", address, &length) != 2 || length < 1 || length > 32 ||
	    inet_pton(AF_INET, address, &in->sin_addr) != 1) {
		fprintf(stderr, "ticker: not an address: %s\n", text);
	} else if (ioctl(fd, SIOCSIFADDR, &request)) {
		fprintf(stderr, "ticker: eth0: %s\n", strerror(errno));
	} else {
		in->sin_addr.s_addr = htonl(~UINT32_C(0) << (32 - length));
		ioctl(fd, SIOCSIFNETMASK, &request);
		request.ifr_flags = IFF_UP;
		ioctl(fd, SIOCSIFFLAGS, &request);
	}
	close(fd);
}

/* As many descriptors as the card can have: the device fills them while nobody runs here. */
static void lengthen_ring(int fd, const char *name)
{
	struct ethtool_ringparam ring = { .cmd = ETHTOOL_GRINGPARAM };
	struct ifreq request = { .ifr_data = (void *)&ring };

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (ioctl(fd, SIOCETHTOOL, &request))
		return;		/* its driver has no say in this */
	ring.cmd = ETHTOOL_SRINGPARAM;
	ring.rx_pending = ring.rx_max_pending;
	if (ioctl(fd, SIOCETHTOOL, &request))
		fprintf(stderr, "ticker: %s: ring: %s\n", name, strerror(errno));
}

int open_card(const char *name)
{
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_NUMBERED));
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_NUMBERED) };
	struct ifreq request = { .ifr_flags = IFF_UP };
	int room = QUEUE_BYTES;

	lengthen_ring(fd, name);
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	at.sll_ifindex = if_nametoindex(name);
	if (fd < 0 || !at.sll_ifindex || setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) ||
	    bind(fd, (struct sockaddr *)&at, sizeof(at)) || ioctl(fd, SIOCSIFFLAGS, &request))
		fprintf(stderr, "ticker: %s: %s\n", name, strerror(errno));
	return fd;
}

void take_frames(struct frames *frames)
{
	uint8_t frame[2048];
	uint64_t number;
	ssize_t n;

	while ((n = recv(frames->socket, frame, sizeof(frame), 0)) > 0) {
		if (n < ETH_HLEN + (ssize_t)sizeof(number))
			continue;
		memcpy(&number, frame + ETH_HLEN, sizeof(number));
		if (!frames->count++)
			frames->first = number;
		else if (number <= frames->last)
			frames->again++;
		else
			frames->lost += number - frames->last - 1;
		frames->last = number;
	}
}

void tell_frames(int serial, struct frames *frames)
{
	struct tpacket_stats seen = { 0 };
	socklen_t size = sizeof(seen);
	char line[192];

	if (frames->count == frames->told)
		return;
	frames->told = frames->count;
	/* Reading them sets them to zero. */
	if (!getsockopt(frames->socket, SOL_PACKET, PACKET_STATISTICS, &seen, &size))
		frames->dropped += seen.tp_drops;
	say(serial, line,
	    snprintf(line, sizeof(line),
		     "F %" PRIu64 " %" PRIu64 " count=%" PRIu64 " lost=%" PRIu64 " again=%" PRIu64
		     " dropped=%" PRIu64 "\n",
		     frames->first, frames->last, frames->count, frames->lost, frames->again, frames->dropped));
}

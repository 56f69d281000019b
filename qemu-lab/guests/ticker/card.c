// SPDX-License-Identifier: GPL-2.0-or-later
/* Network cards: those on the bridge, and one on which numbered frames are expected. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
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

/* The name of the card with this MAC address; false if there is none. Which one is eth0 differs between machines. */
static bool find_card(int fd, const char *mac, struct ifreq *request)
{
	struct if_nameindex *all = if_nameindex();
	bool found = false;

	for (struct if_nameindex *card = all; card && card->if_index && !found; card++) {
		const uint8_t *own = (const uint8_t *)request->ifr_hwaddr.sa_data;
		char text[18];

		snprintf(request->ifr_name, sizeof(request->ifr_name), "%s", card->if_name);
		if (ioctl(fd, SIOCGIFHWADDR, request))
			continue;
		snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", own[0], own[1], own[2], own[3], own[4],
			 own[5]);
		found = !strcmp(text, mac);
	}
	if (all)
		if_freenameindex(all);
	return found;
}

static void bring_up_one(int fd, const char *text)
{
	struct ifreq request = { .ifr_name = "eth0" };
	struct sockaddr_in *in = (struct sockaddr_in *)&request.ifr_addr;
	char address[INET_ADDRSTRLEN], mac[18];
	unsigned int length = 0;
	struct in_addr own;
	int given = sscanf(text, "%15[0-9.]/%u@%17[0-9a-f:]", address, &length, mac);

	if (given < 2 || length < 1 || length > 32 || inet_pton(AF_INET, address, &own) != 1) {
		fprintf(stderr, "ticker: not an address: %s\n", text);
	} else if (given == 3 && !find_card(fd, mac, &request)) {
		fprintf(stderr, "ticker: no card %s\n", mac);
	} else {
		memset(in, 0, sizeof(*in));
		in->sin_family = AF_INET;
		in->sin_addr = own;
		if (ioctl(fd, SIOCSIFADDR, &request)) {
			fprintf(stderr, "ticker: %s: %s\n", request.ifr_name, strerror(errno));
			return;
		}
		in->sin_addr.s_addr = htonl(~UINT32_C(0) << (32 - length));
		ioctl(fd, SIOCSIFNETMASK, &request);
		request.ifr_flags = IFF_UP;
		ioctl(fd, SIOCSIFFLAGS, &request);
	}
}

/* Linux answers for all its addresses on each card, if nobody tells it not to. */
static void answer_for_own_address(void)
{
	int fd = open("/proc/sys/net/ipv4/conf/all/arp_ignore", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "1", 1) != 1)
		fprintf(stderr, "ticker: arp_ignore: %s\n", strerror(errno));
	close(fd);
}

void bring_up(const char *text)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (strchr(text, ','))
		answer_for_own_address();
	while (text) {
		bring_up_one(fd, text);
		text = strchr(text, ',');
		if (text)
			text++;
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

// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The lab's guest: a counter that ticks, usually every 10 ms, and a region of memory that is rewritten and checked all
 * the time. It is the guest's init and its only process. README.md beside this file describes the output;
 * lines are short because every byte on a serial port is a VM exit.
 *
 * Kernel command line: ticker.region=MIB (default 32), ticker.ip=A.B.C.D/LEN (default: no address),
 * ticker.period=MS (default 10), ticker.dirty=MIB/S (default 0), ticker.card=NAME and ticker.disk=NAME (default: none).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/aio_abi.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum {
	WORDS = 4096 / 8,		/* in a page */
	PAGES_A_TICK = 16,
	DEFAULT_PERIOD_MS = 10,
	REPORT_EVERY = 64,		/* ticks */
	FRAMES_EVERY = 8,		/* ticks */
	BLOCK = 512,			/* bytes of a numbered write */
	BLOCKS = 1 << 13,		/* of the disk's beginning that these go round and round in */
	WRITES = 4,			/* under way at a time */
	DISK_WAIT_MS = 30 * 1000,	/* its driver may take so long */
	ETH_P_NUMBERED = 0x88b5,	/* IEEE 802: for local experiments */
	LATE_PERIODS = 5,		/* later than this, ticks are not caught up with */
	DEFAULT_REGION_MIB = 32,
	DIRTY_PAGES = 64 << 8,		/* 64 MiB that are only made dirty */
	QUEUE_BYTES = 32 << 20,		/* of frames, while this program does something else */
};

static void die(const char *what)
{
	fprintf(stderr, "ticker: %s: %s\n", what, strerror(errno));
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static uint64_t now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * UINT64_C(1000000000) + t.tv_nsec;
}

/* First line of a file without its newline; an empty string when there is none. */
static void read_line(const char *path, char *line, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, line, size - 1);

	line[n > 0 ? n : 0] = 0;
	line[strcspn(line, "\n")] = 0;
	if (fd >= 0)
		close(fd);
}

/* Value of "name=" on the kernel command line, up to the next blank; NULL when absent. */
static const char *parameter(const char *cmdline, const char *name)
{
	static char value[64];
	const char *at = strstr(cmdline, name);

	if (!at)
		return NULL;
	at += strlen(name);
	snprintf(value, sizeof(value), "%.*s", (int)strcspn(at, " "), at);
	return value;
}

/* A positive number given as a parameter. */
static int number(const char *cmdline, const char *name, int otherwise)
{
	const char *value = parameter(cmdline, name);

	return value && atoi(value) > 0 ? atoi(value) : otherwise;
}

static void load_modules(void)
{
	char path[128];
	FILE *order = fopen("/modules/order", "re");

	while (order && fgets(path, sizeof(path), order)) {
		int fd;

		path[strcspn(path, "\n")] = 0;
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
			fprintf(stderr, "ticker: %s: %s\n", path, strerror(errno));
		close(fd);
	}
	if (order)
		fclose(order);
}

/* Give eth0 the address, "A.B.C.D/LEN". */
static void bring_up(const char *text)
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

/* Numbered frames from the wire: what came, in which order. */
struct frames {
	int socket;		/* -1: none wanted */
	uint64_t first;
	uint64_t last;
	uint64_t count;
	uint64_t lost;		/* numbers passed over */
	uint64_t again;		/* numbers not above the last */
	uint64_t dropped;	/* that came and found no room in the socket */
	uint64_t told;		/* count in the last line */
};

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

static int open_card(const char *name)
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

static void take_frames(struct frames *frames)
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

/* Numbered blocks to a disk; number N goes to place N % BLOCKS behind the first block, and the first is 1. */
struct writes {
	int disk;		/* -1: none wanted */
	aio_context_t context;
	struct iocb request[WRITES];
	uint64_t *block[WRITES];
	bool busy[WRITES];
	uint64_t begun;		/* number of the last one begun */
	uint64_t done;		/* so many have ended well */
	uint64_t bad;		/* and so many have not */
	uint64_t told;		/* done in the last line */
};

static void open_disk(struct writes *writes, const char *name)
{
	char path[64];
	uint8_t *room;

	snprintf(path, sizeof(path), "/dev/%s", name);
	for (int ms = 0; access(path, F_OK) && ms < DISK_WAIT_MS; ms += 10)
		usleep(10 * 1000);
	writes->disk = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
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

static void go_on_writing(struct writes *writes)
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

static int open_serial(void)
{
	int fd = open("/dev/ttyS0", O_RDWR | O_NOCTTY | O_CLOEXEC);
	struct termios mode;

	if (fd < 0 || tcgetattr(fd, &mode))
		die("/dev/ttyS0");
	cfmakeraw(&mode);
	cfsetspeed(&mode, B115200);
	tcsetattr(fd, TCSANOW, &mode);
	return fd;
}

/* A page holds the stream that starts from `seed`; `sum` is its checksum and the seed of the next contents. */
struct page {
	uint64_t seed;
	uint64_t sum;
};

struct region {
	uint64_t *words;
	struct page *pages;
	size_t count;
	size_t next;
	uint64_t checked;	/* bytes */
	uint64_t bad;		/* bytes */
	uint64_t *dirty;	/* DIRTY_PAGES pages, NULL without ticker.dirty= */
	size_t dirty_a_tick;	/* pages */
	size_t dirty_next;
};

/* xorshift64; the state is never 0. */
static uint64_t step(uint64_t x)
{
	x ^= x << 13;
	x ^= x >> 7;
	return x ^ x << 17;
}

/* FNV-1a over words. */
static uint64_t fold(uint64_t sum, uint64_t word)
{
	return (sum ^ word) * UINT64_C(1099511628211);
}

static unsigned int wrong_bytes(uint64_t difference)
{
	unsigned int count = 0;

	for (; difference; difference >>= 8)
		count += (difference & 0xff) != 0;
	return count;
}

static void write_page(struct region *region, size_t number, uint64_t seed)
{
	uint64_t *words = region->words + number * WORDS, x = seed | 1, sum = seed;

	for (int i = 0; i < WORDS; i++) {
		x = step(x);
		words[i] = x;
		sum = fold(sum, x);
	}
	region->pages[number] = (struct page){ seed, sum };
}

static void check_page(struct region *region, size_t number)
{
	volatile uint64_t *words = region->words + number * WORDS;
	struct page *page = &region->pages[number];
	uint64_t x = page->seed | 1, sum = page->seed;
	unsigned int bad = 0;

	for (int i = 0; i < WORDS; i++) {
		uint64_t word = words[i];

		x = step(x);
		bad += wrong_bytes(word ^ x);
		sum = fold(sum, word);
	}
	/* Damage to the bookkeeping is damage too. */
	region->bad += bad ? bad : sum == page->sum ? 0 : sizeof(*page);
	region->checked += WORDS * sizeof(uint64_t);
}

static void make_region(struct region *region, size_t mib)
{
	region->count = mib * (1024 * 1024 / 4096);
	region->pages = calloc(region->count, sizeof(*region->pages));
	region->words = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!region->pages || region->words == MAP_FAILED)
		die("region");
	for (size_t i = 0; i < region->count; i++)
		write_page(region, i, (i + 1) * UINT64_C(0x9e3779b97f4a7c15));
}

static void make_dirty(struct region *region, size_t mib_a_second, uint64_t period)
{
	region->dirty_a_tick = (mib_a_second << 8) * period / 1000000000;
	if (!region->dirty_a_tick)
		return;
	region->dirty = mmap(NULL, DIRTY_PAGES << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (region->dirty == MAP_FAILED)
		die("dirty");
}

static void work(struct region *region)
{
	for (size_t i = 0; i < region->dirty_a_tick; i++) {
		region->dirty[region->dirty_next * WORDS]++;
		region->dirty_next = (region->dirty_next + 1) % DIRTY_PAGES;
	}
	for (int i = 0; i < PAGES_A_TICK; i++) {
		check_page(region, region->next);
		write_page(region, region->next, region->pages[region->next].sum);
		region->next = (region->next + 1) % region->count;
	}
}

static void say(int serial, const char *line, int length)
{
	while (length > 0) {
		ssize_t n = write(serial, line, length);

		if (n < 0 && errno != EINTR && errno != EAGAIN)
			die("/dev/ttyS0");
		if (n > 0) {
			line += n;
			length -= n;
		}
	}
}

static void tell_frames(int serial, struct frames *frames)
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

static void tell_writes(int serial, struct writes *writes)
{
	char line[96];

	if (writes->done == writes->told)
		return;
	writes->told = writes->done;
	say(serial, line,
	    snprintf(line, sizeof(line), "B %" PRIu64 " begun=%" PRIu64 " bad=%" PRIu64 "\n", writes->done,
		     writes->begun, writes->bad));
}

static void tick_for_ever(int serial, struct region *region, struct frames *frames, struct writes *writes,
			  const char *boot_id, uint64_t period)
{
	uint64_t due = now(CLOCK_MONOTONIC), last = due, gap = 0;
	char line[192];
	int length;

	for (uint64_t counter = 1;; counter++) {
		struct timespec until;
		uint64_t at;

		due += period;
		until = (struct timespec){ due / 1000000000, due % 1000000000 };
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
		at = now(CLOCK_MONOTONIC);
		if (at - last > gap)
			gap = at - last;
		last = at;
		if (at > due + LATE_PERIODS * period)
			due = at;
		if (counter % REPORT_EVERY) {
			length = snprintf(line, sizeof(line), "T %" PRIx64 "\n", counter);
		} else {
			length = snprintf(line, sizeof(line),
					  "R %" PRIx64 " boot=%s mono=%" PRIu64 " wall=%" PRIu64 " checked=%" PRIu64
					  " bad=%" PRIu64 " gap=%" PRIu64 "\n",
					  counter, boot_id, at, now(CLOCK_REALTIME), region->checked, region->bad, gap);
			gap = 0;
		}
		say(serial, line, length);
		work(region);
		if (frames->socket >= 0)
			take_frames(frames);
		if (writes->disk >= 0)
			go_on_writing(writes);
		if (counter % FRAMES_EVERY == 0) {
			tell_frames(serial, frames);
			tell_writes(serial, writes);
		}
	}
}

int main(void)
{
	char cmdline[4096], boot_id[64], ready[96];
	struct region region = { 0 };
	struct frames frames = { .socket = -1 };
	struct writes writes = { .disk = -1 };
	uint64_t period;	/* ns */
	const char *value;
	int serial;

	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	read_line("/proc/cmdline", cmdline, sizeof(cmdline));
	read_line("/proc/sys/kernel/random/boot_id", boot_id, sizeof(boot_id));
	load_modules();
	value = parameter(cmdline, "ticker.ip=");
	if (value)
		bring_up(value);
	value = parameter(cmdline, "ticker.card=");
	if (value)
		frames.socket = open_card(value);
	value = parameter(cmdline, "ticker.disk=");
	if (value)
		open_disk(&writes, value);
	period = number(cmdline, "ticker.period=", DEFAULT_PERIOD_MS) * UINT64_C(1000000);
	make_region(&region, number(cmdline, "ticker.region=", DEFAULT_REGION_MIB));
	make_dirty(&region, number(cmdline, "ticker.dirty=", 0), period);
	mlockall(MCL_CURRENT | MCL_FUTURE);
	serial = open_serial();
	say(serial, ready, snprintf(ready, sizeof(ready), "READY boot=%s\n", boot_id));
	tick_for_ever(serial, &region, &frames, &writes, boot_id, period);
}

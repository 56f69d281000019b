// SPDX-License-Identifier: GPL-2.0-only
/*
 * The links: Ethernet devices over two rings each in the shared area, one written by each root. A record is a frame
 * behind a virtio_net_hdr, which carries checksum and segmentation offload across, as between a guest and its host.
 * The doorbell is rung only when the other side waits for it. One link is for the roots themselves and one for their
 * guests: no frame gets from one to the other here, and a guest can't fill the rings that roots need.
 */
#include <linux/etherdevice.h>
#include <linux/netdevice.h>
#include <linux/sizes.h>
#include <linux/virtio_net.h>

#include "core/core.h"
#include "core/trace.h"

#define CONTROL_SIZE	SZ_512K		/* bytes of records, a power of two; room for a device state */
#define GUESTS_SIZE	SZ_256K
#define GUESTS_OFFSET	0x90000		/* of the guests' ring, behind the roots' own */
#define RECORD_ALIGN	8
#define FRAME_MAX	(SZ_64K + ETH_HLEN + VLAN_HLEN)
#define MTU_MAX		SZ_32K
#define LINEAR_MAX	256		/* of a received frame: its headers */

/* In shared memory. Positions only grow; each is written by one side, on a cache line of its own. */
struct mr_ring {
	u64 written ____cacheline_aligned;
	u64 read ____cacheline_aligned;
	u32 wake_reader ____cacheline_aligned;	/* set by the reader before it sleeps */
	u32 wake_writer;			/* set by the writer when the ring is full */
	u8 data[] ____cacheline_aligned;
};

struct mr_record {
	__le32 size;				/* of the frame; not of this header, not of padding */
	u32 reserved;
	struct virtio_net_hdr offload;
};

/**
 * struct mr_link_layout - where a kind of link has its rings, and what its devices are called
 * @offset: of each ring, in the part of the shared area that its side writes
 * @size: bytes of records, a power of two
 * @up: the device towards the parent
 * @down: the one towards the child
 */
static const struct mr_link_layout {
	u32 offset;
	u32 size;
	const char *up;
	const char *down;
} mr_link_layouts[MR_LINKS] = {
	[MR_LINK_CONTROL] = { 0, CONTROL_SIZE, "mrctlup0", "mrctldown0" },
	[MR_LINK_GUESTS] = { GUESTS_OFFSET, GUESTS_SIZE, "mrup0", "mrdown0" },
};

static_assert(sizeof(struct mr_ring) + CONTROL_SIZE <= GUESTS_OFFSET);
static_assert(GUESTS_OFFSET + sizeof(struct mr_ring) + GUESTS_SIZE <= MR_LINK_SIZE);

struct mr_link {
	struct net_device *dev;
	struct napi_struct napi;
	struct mr_peer *peer;
	u32 size;				/* bytes of records in each ring */
	struct mr_ring *tx;
	struct mr_ring *rx;
	u64 tx_written;				/* ours, for what is in shared memory may change under us */
	u64 rx_read;
	bool broken;
};

static u32 mr_link_record_space(u32 size)
{
	return ALIGN(sizeof(struct mr_record) + size, RECORD_ALIGN);
}

/* Copy into or out of a ring at a position, which may be near its end. */
static void mr_link_ring_put(const struct mr_link *link, u64 at, const void *from, u32 size)
{
	u32 offset = at & (link->size - 1), first = min_t(u32, size, link->size - offset);

	memcpy(link->tx->data + offset, from, first);
	memcpy(link->tx->data, from + first, size - first);
}

static void mr_link_ring_get(const struct mr_link *link, u64 at, void *to, u32 size)
{
	u32 offset = at & (link->size - 1), first = min_t(u32, size, link->size - offset);

	memcpy(to, link->rx->data + offset, first);
	memcpy(to + first, link->rx->data, size - first);
}

static int mr_link_ring_put_skb(const struct mr_link *link, u64 at, const struct sk_buff *skb)
{
	u32 offset = at & (link->size - 1), first = min_t(u32, skb->len, link->size - offset);

	return skb_copy_bits(skb, 0, link->tx->data + offset, first) ?:
	       skb_copy_bits(skb, first, link->tx->data, skb->len - first);
}

/* A frame of @size bytes; what is not headers goes to pages, for 64 KiB in one piece are hard to get. */
static struct sk_buff *mr_link_ring_get_skb(const struct mr_link *link, u64 at, u32 size)
{
	u32 linear = min_t(u32, size, LINEAR_MAX), offset = at & (link->size - 1);
	u32 first = min_t(u32, size, link->size - offset);
	struct sk_buff *skb;
	int err;

	skb = alloc_skb_with_frags(NET_SKB_PAD + NET_IP_ALIGN + linear, size - linear, PAGE_ALLOC_COSTLY_ORDER, &err,
				   GFP_ATOMIC);
	if (!skb)
		return NULL;
	skb_reserve(skb, NET_SKB_PAD + NET_IP_ALIGN);
	skb_put(skb, linear);
	skb->data_len = size - linear;
	skb->len += size - linear;
	if (!skb_store_bits(skb, 0, link->rx->data + offset, first) &&
	    !skb_store_bits(skb, first, link->rx->data, size - first))
		return skb;
	kfree_skb(skb);
	return NULL;
}

/* The peer wrote nonsense: from now on nothing of it is believed. */
static void mr_link_break_link(struct mr_link *link, const char *what)
{
	if (!link->broken)
		netdev_err(link->dev, "the peer's ring is corrupt (%s); link is down\n", what);
	link->broken = true;
	netif_carrier_off(link->dev);
}

/* Bytes free for us to write. */
static u64 mr_link_tx_free(struct mr_link *link)
{
	/* Pairs with mr_link_receive(): what it has read may be overwritten. */
	u64 used = link->tx_written - smp_load_acquire(&link->tx->read);

	if (used > link->size) {
		mr_link_break_link(link, "read position");
		return 0;
	}
	return link->size - used;
}

/*
 * Stop the queue when the ring has no room for a frame of any size; true when it has none for @space bytes, and only
 * with the queue stopped, for otherwise the same frame would come again and again.
 */
static bool mr_link_tx_full(struct mr_link *link, u32 space)
{
	const u32 enough = mr_link_record_space(FRAME_MAX);
	u64 room;

	if (mr_link_tx_free(link) >= enough)
		return false;
	netif_stop_queue(link->dev);
	WRITE_ONCE(link->tx->wake_writer, 1);
	/* Pairs with mr_link_poll(): either the reader sees us waiting, or we see the room it has made. */
	smp_mb();
	room = mr_link_tx_free(link);
	if (room >= enough)
		netif_start_queue(link->dev);
	return room < space;
}

static netdev_tx_t mr_link_xmit(struct sk_buff *skb, struct net_device *dev)
{
	struct mr_link *link = *(struct mr_link **)netdev_priv(dev);
	struct mr_record record = { .size = cpu_to_le32(skb->len) };
	u32 space = mr_link_record_space(skb->len), size = skb->len;

	if (link->broken || size > FRAME_MAX || virtio_net_hdr_from_skb(skb, &record.offload, true, false, 0))
		goto drop;
	if (mr_link_tx_full(link, space))
		return NETDEV_TX_BUSY;
	mr_link_ring_put(link, link->tx_written, &record, sizeof(record));
	if (mr_link_ring_put_skb(link, link->tx_written + sizeof(record), skb))
		goto drop;
	link->tx_written += space;
	/* Pairs with mr_link_receive(): first the frame, then where it ends. */
	smp_store_release(&link->tx->written, link->tx_written);
	mr_link_tx_full(link, 0);
	/* Pairs with mr_link_poll(): either we see the reader waiting, or it sees this frame. */
	smp_mb();
	if (READ_ONCE(link->tx->wake_reader) && xchg(&link->tx->wake_reader, 0))
		mr_doorbell_ring(link->peer, MULTIROOT_EVENT_LINK);
	trace_link_sent(link->peer->root, size);
	dev_sw_netstats_tx_add(dev, 1, size);
	dev_consume_skb_any(skb);
	return NETDEV_TX_OK;
drop:
	DEV_STATS_INC(dev, tx_dropped);
	dev_kfree_skb_any(skb);
	return NETDEV_TX_OK;
}

/*
 * What a frame's sender leaves to others must be what this device offers: TCP segmentation, with the checksum that
 * comes with it. Anything else the network stack would stumble over further on.
 */
static bool mr_link_offload_good(const struct virtio_net_hdr *offload)
{
	switch (offload->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_NONE:
		return true;
	case VIRTIO_NET_HDR_GSO_TCPV4:
	case VIRTIO_NET_HDR_GSO_TCPV6:
		return offload->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
	default:
		return false;
	}
}

/* Take one frame off the ring; false when there is none. */
static bool mr_link_receive(struct mr_link *link)
{
	/* Pairs with mr_link_xmit(). */
	u64 there = smp_load_acquire(&link->rx->written) - link->rx_read;
	struct net_device *dev = link->dev;
	struct mr_record record;
	struct sk_buff *skb;
	u32 size;

	if (!there || link->broken)
		return false;
	if (there > link->size || there < sizeof(record)) {
		mr_link_break_link(link, "write position");
		return false;
	}
	mr_link_ring_get(link, link->rx_read, &record, sizeof(record));
	size = le32_to_cpu(record.size);
	if (size < ETH_HLEN || size > FRAME_MAX || mr_link_record_space(size) > there) {
		mr_link_break_link(link, "record size");
		return false;
	}
	skb = mr_link_ring_get_skb(link, link->rx_read + sizeof(record), size);
	link->rx_read += mr_link_record_space(size);
	/* Pairs with mr_link_tx_free(). */
	smp_store_release(&link->rx->read, link->rx_read);
	if (!skb) {
		DEV_STATS_INC(dev, rx_dropped);
		return true;
	}
	/* It takes the frame's start for the start of the data, which is true until the next call. */
	if (!mr_link_offload_good(&record.offload) || virtio_net_hdr_to_skb(skb, &record.offload, true)) {
		DEV_STATS_INC(dev, rx_frame_errors);
		kfree_skb(skb);
		return true;
	}
	trace_link_received(link->peer->root, size);
	skb->protocol = eth_type_trans(skb, dev);
	dev_sw_netstats_rx_add(dev, size);
	napi_gro_receive(&link->napi, skb);
	return true;
}

static int mr_link_poll(struct napi_struct *napi, int budget)
{
	struct mr_link *link = container_of(napi, struct mr_link, napi);
	int done = 0;

	while (done < budget && mr_link_receive(link))
		done++;
	/* Pairs with mr_link_tx_full(). */
	smp_mb();
	if (done && READ_ONCE(link->rx->wake_writer) && xchg(&link->rx->wake_writer, 0))
		mr_doorbell_ring(link->peer, MULTIROOT_EVENT_LINK);
	if (done < budget && napi_complete_done(napi, done)) {
		WRITE_ONCE(link->rx->wake_reader, 1);
		/* Pairs with mr_link_xmit(): a frame written before its sender could see the flag rings no doorbell. */
		smp_mb();
		if (READ_ONCE(link->rx->written) != link->rx_read && !link->broken)
			napi_schedule(napi);
	}
	return done;
}

/* The doorbell rang: something to read, or room to write. */
void mr_link_event(struct mr_peer *peer)
{
	for (int kind = 0; kind < MR_LINKS; kind++) {
		struct mr_link *link = READ_ONCE(peer->links[kind]);

		if (!link || !netif_running(link->dev))
			continue;
		napi_schedule(&link->napi);
		if (netif_queue_stopped(link->dev))
			netif_wake_queue(link->dev);
	}
}

/* Carrier follows the peer: on while its module runs. */
void mr_link_carrier(struct mr_peer *peer)
{
	for (int kind = 0; kind < MR_LINKS; kind++) {
		struct mr_link *link = READ_ONCE(peer->links[kind]);

		if (!link)
			continue;
		if (mr_peer_alive(peer) && !link->broken)
			netif_carrier_on(link->dev);
		else
			netif_carrier_off(link->dev);
	}
}

static int mr_link_open(struct net_device *dev)
{
	struct mr_link *link = *(struct mr_link **)netdev_priv(dev);

	napi_enable(&link->napi);
	netif_start_queue(dev);
	/* Look at the ring once, and so ask for the doorbell. */
	local_bh_disable();
	napi_schedule(&link->napi);
	local_bh_enable();
	return 0;
}

static int mr_link_stop(struct net_device *dev)
{
	struct mr_link *link = *(struct mr_link **)netdev_priv(dev);

	netif_stop_queue(dev);
	napi_disable(&link->napi);
	return 0;
}

static const struct net_device_ops mr_link_ops = {
	.ndo_open = mr_link_open,
	.ndo_stop = mr_link_stop,
	.ndo_start_xmit = mr_link_xmit,
	.ndo_get_stats64 = dev_get_tstats64,
	.ndo_validate_addr = eth_validate_addr,
	.ndo_set_mac_address = eth_mac_addr,
};

static void mr_link_setup(struct net_device *dev)
{
	ether_setup(dev);
	dev->netdev_ops = &mr_link_ops;
	dev->max_mtu = MTU_MAX;
	dev->features = NETIF_F_SG | NETIF_F_FRAGLIST | NETIF_F_HW_CSUM | NETIF_F_TSO | NETIF_F_TSO6 |
			NETIF_F_TSO_ECN | NETIF_F_HIGHDMA;
	dev->hw_features = dev->features;
	dev->vlan_features = dev->features;
}

/* Addresses are fixed by the two roots' numbers, so that they are the same after every start. */
static void mr_link_set_address(struct net_device *dev, const struct mr_peer *peer, enum mr_link_kind kind)
{
	u32 mine = mr_ledger_root(), theirs = peer->root;
	u8 address[ETH_ALEN] = { 0x02, 0x4d, 0x52, mine, theirs, kind << 1 | peer->index };

	eth_hw_addr_set(dev, address);
}

static void mr_link_remove(struct mr_peer *peer, enum mr_link_kind kind)
{
	struct mr_link *link = peer->links[kind];

	if (!link)
		return;
	WRITE_ONCE(peer->links[kind], NULL);
	mr_doorbell_wait();
	unregister_netdev(link->dev);
	netif_napi_del(&link->napi);
	free_percpu(link->dev->tstats);
	free_netdev(link->dev);
	kfree(link);
}

static int mr_link_add(struct mr_peer *peer, enum mr_link_kind kind)
{
	const struct mr_link_layout *layout = &mr_link_layouts[kind];
	void *rings = peer->shared + MR_LINK_OFFSET + layout->offset;
	bool up = peer->index == MULTIROOT_PARENT;
	struct net_device *dev;
	struct mr_link *link;
	int err;

	link = kzalloc(sizeof(*link), GFP_KERNEL);
	dev = alloc_netdev(sizeof(link), up ? layout->up : layout->down, NET_NAME_PREDICTABLE, mr_link_setup);
	if (!link || !dev) {
		err = -ENOMEM;
		goto free;
	}
	*(struct mr_link **)netdev_priv(dev) = link;
	dev->tstats = netdev_alloc_pcpu_stats(struct pcpu_sw_netstats);
	if (!dev->tstats) {
		err = -ENOMEM;
		goto free;
	}
	link->dev = dev;
	link->peer = peer;
	link->size = layout->size;
	link->tx = rings + up * MR_LINK_SIZE;
	link->rx = rings + !up * MR_LINK_SIZE;
	link->tx_written = link->tx->written;
	link->rx_read = link->rx->read;
	mr_link_set_address(dev, peer, kind);
	netif_napi_add(dev, &link->napi, mr_link_poll);
	netif_carrier_off(dev);
	err = register_netdev(dev);
	if (err)
		goto free;
	WRITE_ONCE(peer->links[kind], link);
	return 0;
free:
	if (dev) {
		free_percpu(dev->tstats);
		free_netdev(dev);
	}
	kfree(link);
	return err;
}

/**
 * mr_link_create() - make the network devices towards a peer
 * @peer: with its shared area mapped
 *
 * "mrctlup0" and "mrup0" lead to the parent, "mrctldown0" and "mrdown0" to the child: the roots' own and their
 * guests'. Return: 0 or a negative error.
 */
int mr_link_create(struct mr_peer *peer)
{
	int err = 0;

	for (int kind = 0; kind < MR_LINKS && !err; kind++)
		err = mr_link_add(peer, kind);
	if (err)
		mr_link_destroy(peer);
	else
		mr_link_carrier(peer);
	return err;
}

/* Take the network devices away; no event finds them afterwards. */
void mr_link_destroy(struct mr_peer *peer)
{
	for (int kind = MR_LINKS - 1; kind >= 0; kind--)
		mr_link_remove(peer, kind);
}

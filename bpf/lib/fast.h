/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The short way of established connections: one lookup tells an ordinary packet's verdict and its way. Anything out of the
 * ordinary, and whatever was judged under another generation, takes the long way, which says the same of it.
 */
#pragma once

#include "lib/admit.h"
#include "lib/forwarded.h"
#include "lib/transport.h"

/* What no program returns. */
#define NOT_FAST 0x7fff

/*
 * The ports of an ordinary packet, of which a UDP header's length is there; or where it is none: both 0, which no TCP or UDP stack
 * sends from.
 */
static __always_inline __u32 fast_ports(const void *end, void *transport, __u8 proto, __u32 length, __u8 *tcp_flags)
{
	struct tcp *tcp = transport;

	*tcp_flags = 0;
	if (likely(proto == IPPROTO_TCP)) {
		if (unlikely(length < TCP_HLEN || transport + TCP_HLEN > end || tcp->offset >> 4 < TCP_HLEN / 4))
			return 0;
		*tcp_flags = tcp->flags;
		if (unlikely((*tcp_flags & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK)) != TCP_ACK))
			return 0;
	} else if (proto != IPPROTO_UDP || length < UDP_HLEN) {
		return 0;
	}
	return *(__u32 *)transport;
}

/* The parts of a direction that a packet needs, read between two looks at the seal. */
struct fast_path {
	__u64 seal;
	__u64 devices; /* in, out */
	__u64 macs; /* destination, source */
	__u64 macs_end; /* the rest of the source, .tcp_flags, .lifetime */
	__u64 in_mac; /* and .dst_id */
};

static __always_inline __u8 fast_flags(const struct fast_path *path)
{
	return path->seal;
}

static __always_inline __u8 fast_tcp_flags(const struct fast_path *path)
{
	return path->macs_end >> 32;
}

static __always_inline __u16 fast_lifetime(const struct fast_path *path)
{
	return path->macs_end >> 48;
}

/* The first place in a bucket with a tag, or CT_WAYS. */
static __always_inline __u32 fast_way(const struct podwire_ct_bucket *bucket, __u16 tag)
{
	__u64 lanes = tag_lanes(READ_ONCE(*(__u64 *)(bucket->tag + 0)), tag);

	if (lanes)
		return first_tag_lane(lanes);
	lanes = tag_lanes(READ_ONCE(*(__u64 *)(bucket->tag + CT_WAYS / 2)), tag);
	return lanes ? CT_WAYS / 2 + first_tag_lane(lanes) : CT_WAYS;
}

/* The entry at the first place in the key's buckets with its tag: nearly always its own, if it has one. */
static __always_inline struct podwire_ct_entry *fast_entry(const __u64 *key, const struct podwire_runtime *switches)
{
	struct podwire_ct_bucket *bucket;
	struct ct_spot spot;
	__u32 way;

	ct_spot_of(&spot, key, switches);
	bucket = ct_bucket(spot.home);
	if (unlikely(!bucket))
		return NULL;
	way = fast_way(bucket, spot.tag);
	if (unlikely(way == CT_WAYS)) {
		bucket = READ_ONCE(bucket->away) ? ct_bucket(spot.other) : NULL;
		if (!bucket)
			return NULL;
		way = fast_way(bucket, spot.tag);
		if (way == CT_WAYS)
			return NULL;
	}
	return way_entry(bucket, way);
}

/* Reads a path if it is that of the key's connection, and holds. */
static __always_inline bool fast_read(const struct podwire_ct_entry *entry, const struct podwire_ct_dir *dir,
				      const struct flow *flow, __u32 generation, struct fast_path *path)
{
	path->seal = READ_ONCE(dir->seal);
	if (unlikely(path->seal >> CT_SEAL_GENERATION_SHIFT != generation))
		return false;
	loads_in_order(dir->seal);
	if (unlikely(!entry_is(entry, (const __u64 *)&flow->key)))
		return false;
	path->devices = READ_ONCE(*(__u64 *)&dir->in_ifindex);
	path->macs = READ_ONCE(*(__u64 *)dir->dst_mac);
	path->macs_end = READ_ONCE(*(__u64 *)(dir->dst_mac + 8));
	path->in_mac = READ_ONCE(*(__u64 *)dir->in_mac);
	loads_in_order(dir->seal);
	return READ_ONCE(dir->seal) == path->seal;
}

/*
 * Counts a packet and keeps its connection. If the place was given to another connection in the meantime, what was counted there
 * is taken back; its end may have been moved, until its own next packet sets it.
 */
static __always_inline void fast_count(const struct podwire_ct_entry *entry, struct podwire_ct_dir *dir,
				       const struct flow *flow, const struct fast_path *path, __u32 length, __u64 now)
{
	WRITE_ONCE(dir->expires, now + fast_lifetime(path) * cfg_ticks_per_second);
	__sync_fetch_and_add(&dir->counts, ct_counts_of(length));
	if (unlikely(READ_ONCE(dir->seal) != path->seal) && !entry_is(entry, (const __u64 *)&flow->key))
		__sync_fetch_and_add(&dir->counts, -ct_counts_of(length));
}

/*
 * Whether a path is of this hook's kind. Both programs of a pod run on one device: what leaves towards the pod must not use the
 * path of what the pod sends, nor the other way round.
 */
static __always_inline bool fast_is_of(__u32 hook, __u8 flags)
{
	return (hook == HOOK_TO_POD) == !(flags & (CT_DIR_F_REDIRECT_PEER | CT_DIR_F_TO_STACK));
}

/* Whether a frame comes from whom the path's packets come from: six bytes, and two behind them that do not count. */
static __always_inline bool fast_is_from(const struct ethernet *eth, const struct fast_path *path)
{
	return !((load64(eth->source) ^ path->in_mac) << 16);
}

/* Finds an ordinary packet's way, and counts it; false where it has to take the long one. */
static __always_inline bool fast_find(struct __sk_buff *skb, const struct ethernet *eth, const struct flow *flow,
				      __u32 hook, struct fast_path *path)
{
	const struct podwire_runtime *switches = runtime();
	struct podwire_ct_entry *entry;
	struct podwire_ct_dir *dir;
	__u32 generation;
	__u64 now;

	if (unlikely(!switches || switches->trace))
		return false;
	generation = READ_ONCE(switches->generation);
	entry = fast_entry((const __u64 *)&flow->key, switches);
	if (unlikely(!entry))
		return false;
	dir = ct_dir(entry, flow->direction);
	if (unlikely(!fast_read(entry, dir, flow, generation, path) || (__u32)path->devices != skb->ifindex))
		return false;
	/* A flag that this direction has not seen may change the connection's state: the long way knows. */
	if (unlikely(!fast_is_of(hook, fast_flags(path)) || flow->tcp_flags & ~fast_tcp_flags(path)))
		return false;
	if (hook == HOOK_FROM_POD && unlikely(!fast_is_from(eth, path)))
		return false;
	now = bpf_jiffies64();
	if (unlikely(!ticks_ahead(READ_ONCE(dir->expires), now) || ct_counts_lag(dir)))
		return false;
	fast_count(entry, dir, flow, path, skb->len, now);
	return true;
}

/* Whether a packet goes to a pod as one that is routed, and not up the host's stack or out of it. */
static __always_inline bool fast_is_routed(const struct fast_path *path, __u32 hook)
{
	return hook == HOOK_FROM_NETWORK || (hook == HOOK_FROM_POD && fast_flags(path) & CT_DIR_F_REDIRECT_PEER);
}

static __always_inline int fast_send(struct __sk_buff *skb, struct ethernet *eth, const struct fast_path *path, __u32 hook)
{
	if (hook == HOOK_TO_POD) {
		count_forward(skb, FORWARD_STACK_TO_POD);
		return PASS;
	}
	store64(eth->destination, path->macs);
	*(__u32 *)(eth->source + 2) = path->macs_end;
	if (fast_flags(path) & CT_DIR_F_REDIRECT_PEER) {
		count_forward(skb, hook == HOOK_FROM_NETWORK ? FORWARD_NETWORK_TO_POD : FORWARD_POD_TO_POD);
		return bpf_redirect_peer(path->devices >> 32, 0);
	}
	count_forward(skb, hook == HOOK_FROM_NETWORK ? FORWARD_NETWORK_TO_POD : FORWARD_POD_TO_STACK);
	return bpf_redirect(path->devices >> 32, BPF_F_INGRESS);
}

static __always_inline int fast_ipv4(struct __sk_buff *skb, struct ethernet *eth, const void *end, __u32 hook)
{
	struct ipv4 *ip = (void *)(eth + 1);
	struct fast_path path;
	struct flow flow;
	__u64 source[2], destination[2];
	__u32 ports, total;

	if (unlikely(ip->version_ihl != 0x45 ||
		     ip->fragment & bpf_htons(IPV4_FRAGMENT_OFFSET | IPV4_MORE_FRAGMENTS)))
		return NOT_FAST;
	total = bpf_ntohs(ip->total_length);
	if (unlikely(total < IPV4_HLEN || total > skb->len - ETH_HLEN || (hook != HOOK_TO_POD && ip->ttl <= 1)))
		return NOT_FAST;
	ports = fast_ports(end, ip + 1, ip->protocol, total - IPV4_HLEN, &flow.tcp_flags);
	if (unlikely(!ports))
		return NOT_FAST;
	source[0] = ip->source;
	source[1] = 0;
	destination[0] = ip->destination;
	destination[1] = 0;
	if (hook == HOOK_TO_POD && unlikely(is_forwarded(skb)) && claim_of(source, ENDPOINT_IPV4) == CLAIM_POD)
		return NOT_FAST;
	flow_set(&flow, source, destination, ports, ports >> 16, ip->protocol, ENDPOINT_IPV4, 0);
	if (unlikely(!fast_find(skb, eth, &flow, hook, &path)))
		return NOT_FAST;
	if (fast_is_routed(&path, hook))
		ipv4_decrement_ttl(ip);
	return fast_send(skb, eth, &path, hook);
}

static __always_inline int fast_ipv6(struct __sk_buff *skb, struct ethernet *eth, const void *end, __u32 hook)
{
	struct ipv6 *ip = (void *)(eth + 1);
	struct fast_path path;
	struct flow flow;
	__u64 source[2], destination[2];
	__u32 ports, payload;

	if (unlikely((void *)(ip + 1) + UDP_HLEN > end || ip->version_class >> 4 != 6))
		return NOT_FAST;
	payload = bpf_ntohs(ip->payload_length);
	if (unlikely(payload > skb->len - ETH_HLEN - IPV6_HLEN || (hook != HOOK_TO_POD && ip->hop_limit <= 1)))
		return NOT_FAST;
	ports = fast_ports(end, ip + 1, ip->next_header, payload, &flow.tcp_flags);
	if (unlikely(!ports))
		return NOT_FAST;
	copy_ipv6(source, ip->source);
	copy_ipv6(destination, ip->destination);
	if (hook == HOOK_TO_POD && unlikely(is_forwarded(skb)) && claim_of(source, ENDPOINT_IPV6) == CLAIM_POD)
		return NOT_FAST;
	flow_set(&flow, source, destination, ports, ports >> 16, ip->next_header, ENDPOINT_IPV6, 0);
	if (unlikely(!fast_find(skb, eth, &flow, hook, &path)))
		return NOT_FAST;
	if (fast_is_routed(&path, hook))
		ip->hop_limit -= 1;
	/* As on the long way. */
	if (hook == HOOK_FROM_NETWORK)
		bpf_csum_update(skb, ~(__u32)bpf_htons(1));
	return fast_send(skb, eth, &path, hook);
}

/* The verdict on an ordinary packet of an established connection, or NOT_FAST. A copy for every hook is shorter than one for all. */
static __always_inline int fast(struct __sk_buff *skb, __u32 hook)
{
	struct ethernet *eth = packet_start(skb);
	const void *end = packet_end(skb);

	if (unlikely((void *)(eth + 1) + IPV4_HLEN + UDP_HLEN > end || skb->vlan_present))
		return NOT_FAST;
	if (hook == HOOK_FROM_NETWORK && skb->pkt_type != PACKET_HOST)
		return NOT_FAST;
	if (likely(eth->type == ETHERTYPE_IPV4))
		return fast_ipv4(skb, eth, end, hook);
	if (likely(eth->type == ETHERTYPE_IPV6))
		return fast_ipv6(skb, eth, end, hook);
	return NOT_FAST;
}

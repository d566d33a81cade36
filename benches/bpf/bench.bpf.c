// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * What the datapath is measured against: an empty program, and the floor. The floor does what any container datapath has
 * to do at the least: parse, find the destination (one hash lookup), find the connection (one LRU lookup), write both MAC
 * addresses, redirect. It checks nothing, counts nothing and knows no policy. floor_new makes the connection's entry as well.
 */
#include "lib/packet.h"

#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define DESTINATION_IPV4 1
#define DESTINATION_IPV6 2
/* As many as podwire_ct holds: inserting into a larger table takes longer. */
#define CONNECTIONS 262144

struct destination_key {
	__u8 ip[16];
	__u32 family;
};

struct destination {
	__u32 ifindex;
	__u32 pad;
	__u8 mac[8];
	__u8 node_mac[8];
};

struct tuple4 {
	__be32 source;
	__be32 destination;
	__be16 source_port;
	__be16 destination_port;
	__u32 protocol;
};

struct tuple6 {
	__u8 source[16];
	__u8 destination[16];
	__be16 source_port;
	__be16 destination_port;
	__u32 protocol;
};

struct connection {
	__u64 packets;
	__u64 bytes;
	__u32 verdict;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65535);
	__type(key, struct destination_key);
	__type(value, struct destination);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} bench_destination SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CONNECTIONS);
	__type(key, struct tuple4);
	__type(value, struct connection);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} bench_tuple4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CONNECTIONS);
	__type(key, struct tuple6);
	__type(value, struct connection);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} bench_tuple6 SEC(".maps");

/* Makes every packet of floor_new one of a new connection. */
__u32 bench_flow;

struct header4 {
	__u8 version_ihl;
	__u8 tos;
	__be16 total_length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 checksum;
	__be32 source;
	__be32 destination;
	__be16 source_port;
	__be16 destination_port;
};

struct header6 {
	__be32 version_class_flow;
	__be16 payload_length;
	__u8 next_header;
	__u8 hop_limit;
	__u8 source[16];
	__u8 destination[16];
	__be16 source_port;
	__be16 destination_port;
};

static __always_inline int send(struct ethernet *eth, const struct destination *to)
{
	copy_mac(eth->destination, to->mac);
	copy_mac(eth->source, to->node_mac);
	return bpf_redirect_peer(to->ifindex, 0);
}

static __always_inline int floor4(struct __sk_buff *skb, bool new)
{
	struct destination_key key = { .family = DESTINATION_IPV4 };
	struct connection fresh = {};
	struct destination *to;
	struct tuple4 tuple;
	struct ethernet *eth = packet_bytes(skb, ETH_HLEN + sizeof(struct header4));
	struct header4 *ip = (void *)(eth + 1);

	if (!eth || ip->version_ihl != 0x45 || (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP))
		return TC_ACT_SHOT;
	*(__be32 *)key.ip = ip->destination;
	to = bpf_map_lookup_elem(&bench_destination, &key);
	if (!to)
		return TC_ACT_SHOT;
	tuple.source = ip->source;
	tuple.destination = ip->destination;
	tuple.source_port = ip->source_port;
	tuple.destination_port = ip->destination_port;
	tuple.protocol = ip->protocol;
	if (new) {
		tuple.source ^= bench_flow++;
		bpf_map_update_elem(&bench_tuple4, &tuple, &fresh, BPF_ANY);
	} else if (!bpf_map_lookup_elem(&bench_tuple4, &tuple)) {
		return TC_ACT_SHOT;
	}
	return send(eth, to);
}

static __always_inline int floor6(struct __sk_buff *skb, bool new)
{
	struct destination_key key __attribute__((aligned(8))) = { .family = DESTINATION_IPV6 };
	struct tuple6 tuple __attribute__((aligned(8)));
	struct connection fresh = {};
	struct destination *to;
	struct ethernet *eth = packet_bytes(skb, ETH_HLEN + sizeof(struct header6));
	struct header6 *ip = (void *)(eth + 1);

	if (!eth || (ip->next_header != IPPROTO_TCP && ip->next_header != IPPROTO_UDP))
		return TC_ACT_SHOT;
	copy_ipv6(key.ip, ip->destination);
	to = bpf_map_lookup_elem(&bench_destination, &key);
	if (!to)
		return TC_ACT_SHOT;
	copy_ipv6(tuple.source, ip->source);
	copy_ipv6(tuple.destination, ip->destination);
	tuple.source_port = ip->source_port;
	tuple.destination_port = ip->destination_port;
	tuple.protocol = ip->next_header;
	if (new) {
		*(__u32 *)tuple.source ^= bench_flow++;
		bpf_map_update_elem(&bench_tuple6, &tuple, &fresh, BPF_ANY);
	} else if (!bpf_map_lookup_elem(&bench_tuple6, &tuple)) {
		return TC_ACT_SHOT;
	}
	return send(eth, to);
}

static __always_inline int floor(struct __sk_buff *skb, bool new)
{
	struct ethernet *eth = packet_bytes(skb, ETH_HLEN);

	if (eth && eth->type == ETHERTYPE_IPV4)
		return floor4(skb, new);
	if (eth && eth->type == ETHERTYPE_IPV6)
		return floor6(skb, new);
	return TC_ACT_SHOT;
}

/* ---- packets that differ ---- */

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} bench_next SEC(".maps");

__u32 bench_packet;

/*
 * Makes each repetition another packet, then goes on with the program under test: adds the packet's number, reduced by the mask in
 * cb[0], to the source port, and the rest of it, reduced by that in cb[1], to the destination port in cb[3], or takes it for the
 * destination port where cb[2] is set; 64 to live.
 */
SEC("tc")
int bench_vary(struct __sk_buff *skb)
{
	struct ethernet *eth = packet_bytes(skb, ETH_HLEN + sizeof(struct header6));
	__u32 number = bench_packet++;
	__be16 source = bpf_htons(20000 + (number & skb->cb[0]));
	__be16 destination = bpf_htons(skb->cb[3] + ((number >> 16) & skb->cb[1]));

	if (skb->cb[2])
		destination = bpf_htons(number);
	if (!eth)
		return TC_ACT_SHOT;
	if (eth->type == ETHERTYPE_IPV4) {
		struct header4 *ip = (void *)(eth + 1);

		ip->ttl = 64;
		ip->source_port = source;
		ip->destination_port = destination;
	} else {
		struct header6 *ip = (void *)(eth + 1);

		ip->hop_limit = 64;
		ip->source_port = source;
		ip->destination_port = destination;
	}
	bpf_tail_call(skb, &bench_next, 0);
	return TC_ACT_SHOT;
}

SEC("tc")
int bench_empty(struct __sk_buff *skb)
{
	(void)skb;
	return TC_ACT_OK;
}

SEC("tc")
int bench_floor(struct __sk_buff *skb)
{
	return floor(skb, false);
}

SEC("tc")
int bench_floor_new(struct __sk_buff *skb)
{
	return floor(skb, true);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What connection tracking and policy need to know of a packet: its connection's key, its direction, its part in it. */
#pragma once

#include "lib/common.h"

#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_ICMP6 58
#define IPPROTO_SCTP 132

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

enum flow_kind {
	FLOW_PLAIN = 0, /* a packet of a connection, if there is one, else its first */
	FLOW_OPENS = 1, /* opens one whatever there is: a SYN, an echo request */
	FLOW_UNTRACKED = 2, /* makes no entry: ICMP other than echo requests */
	FLOW_ICMP_ERROR = 3, /* makes none, and may belong to the connection of the packet that it bears */
};

struct flow {
	struct podwire_ct_key key __attribute__((aligned(8)));
	__u8 direction; /* enum ct_direction of this packet */
	__u8 kind; /* enum flow_kind */
	__u8 tcp_flags;
	__u8 pad;
	__be16 dport_be; /* for the policy: the destination port, or the type of an ICMP message */
	__u16 offset; /* of the transport header */
	__u32 length; /* bytes of the packet from there on, by its own account */
};

/* The fields of the fifth word of a key that are not ports. */
static __always_inline __u64 key_tail(__u8 proto, __u8 family, __u8 asker)
{
	return (__u64)proto << 32 | (__u64)family << 40 | (__u64)asker << 48;
}

/*
 * Writes key and direction. `source` and `destination` are 16 bytes each, aligned to 8; `echo` is 0, or 1 where the
 * sender asks, or 2 where it answers.
 */
static __always_inline void flow_set(struct flow *flow, const __u64 *source, const __u64 *destination, __be16 sport,
				     __be16 dport, __u8 proto, __u8 family, __u8 echo)
{
	__u64 *words = (__u64 *)&flow->key;
	bool from_hi;

	if (source[0] != destination[0])
		from_hi = bpf_be64_to_cpu(source[0]) > bpf_be64_to_cpu(destination[0]);
	else if (source[1] != destination[1])
		from_hi = bpf_be64_to_cpu(source[1]) > bpf_be64_to_cpu(destination[1]);
	else
		from_hi = bpf_ntohs(sport) > bpf_ntohs(dport);
	if (from_hi) {
		words[0] = destination[0];
		words[1] = destination[1];
		words[2] = source[0];
		words[3] = source[1];
		words[4] = dport | (__u32)sport << 16 | key_tail(proto, family, echo ? 3 - echo : 0);
	} else {
		words[0] = source[0];
		words[1] = source[1];
		words[2] = destination[0];
		words[3] = destination[1];
		words[4] = sport | (__u32)dport << 16 | key_tail(proto, family, echo);
	}
	flow->direction = from_hi ? CT_FROM_HI : CT_FROM_LO;
}

/* Whether TCP flags go together in a way that a stack sends (as nf_conntrack_proto_tcp.c sees it). */
static __always_inline bool tcp_flags_valid(__u8 flags)
{
	const __u32 valid = 1 << TCP_SYN | 1 << (TCP_SYN | TCP_ACK) | 1 << TCP_ACK | 1 << (TCP_FIN | TCP_ACK) |
			    1 << TCP_RST | 1 << (TCP_RST | TCP_ACK);

	return valid >> (flags & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK)) & 1;
}

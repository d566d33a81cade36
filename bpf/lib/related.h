/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* ICMP errors: the packet that one bears tells whose connection it is about (RFC 792, RFC 4443, RFC 5927). */
#pragma once

#include "lib/extensions.h"
#include "lib/ip.h"
#include "lib/transport.h"

/* What of a packet's payload every error bears at the least. */
#define RELATED_PAYLOAD 8

static __always_inline bool related_ipv4(struct __sk_buff *skb, struct datagram *inner)
{
	struct ipv4 ip;
	__u32 header;

	if (bpf_skb_load_bytes(skb, inner->offset, &ip, sizeof(ip)))
		return false;
	header = (ip.version_ihl & 0x0f) * 4;
	if (ip.version_ihl >> 4 != 4 || header < IPV4_HLEN || ip.fragment & bpf_htons(IPV4_FRAGMENT_OFFSET))
		return false;
	inner->source[0] = ip.source;
	inner->destination[0] = ip.destination;
	inner->proto = ip.protocol;
	inner->offset += header;
	return true;
}

static __always_inline bool related_ipv6(struct __sk_buff *skb, struct datagram *inner)
{
	__u8 head[8]; /* up to the addresses, which lie side by side in a datagram as they do in a packet */

	_Static_assert(offsetof(struct datagram, destination) == offsetof(struct datagram, source) + 16, "addresses");
	if (bpf_skb_load_bytes(skb, inner->offset, head, sizeof(head)))
		return false;
	if (head[0] >> 4 != 6 || bpf_skb_load_bytes(skb, inner->offset + sizeof(head), inner->source, 32))
		return false;
	inner->proto = head[offsetof(struct ipv6, next_header)];
	inner->offset += IPV6_HLEN;
	/* Of fragments only the first bears ports. */
	return !extensions_walk_here(skb, inner) && !inner->fragment.is_later;
}

/* The connection of the packet that an error bears: true where there is enough of it, and the error goes to who sent it. */
static __noinline bool related_parse(struct __sk_buff *skb, const struct flow *error, struct flow *flow)
{
	const __u64 *to = (const __u64 *)(error->direction == CT_FROM_LO ? error->key.hi_addr : error->key.lo_addr);
	struct datagram inner = { .family = error->key.family, .offset = error->offset + ICMP_HLEN };
	__be16 head[RELATED_PAYLOAD / 2];
	__u8 type;

	if (!(inner.family == ENDPOINT_IPV4 ? related_ipv4(skb, &inner) : related_ipv6(skb, &inner)))
		return false;
	if (inner.source[0] != to[0] || inner.source[1] != to[1])
		return false;
	/* What stands behind the packet's end is not part of it. */
	if (inner.offset + sizeof(head) > error->offset + error->length)
		return false;
	if (bpf_skb_load_bytes(skb, inner.offset, head, sizeof(head)))
		return false;
	if (has_ports(inner.proto)) {
		flow_of(flow, &inner, head[0], head[1], 0);
		return true;
	}
	if (!is_icmp(&inner)) {
		flow_of(flow, &inner, 0, 0, 0);
		return true;
	}
	type = *(__u8 *)head;
	if (!is_echo(inner.family, type) && !is_echo_reply(inner.family, type))
		return false;
	flow_of_icmp(flow, &inner, type, head[2]);
	return true;
}

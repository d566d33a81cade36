/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* IPv6 (RFC 8200): checks of a header and its extensions, the hop limit, and where a packet goes. */
#pragma once

#include "lib/deliver.h"
#include "lib/lxc.h"
#include "lib/ndp.h"
#include "lib/packet.h"

#undef THIS_FILE
#define THIS_FILE FILE_IPV6

/* How many extension headers a packet may bear. */
#define EXTENSIONS_MAX 8
#define IPV6_LARGEST 65535

enum ipv6_extension {
	EXTENSION_HOP_BY_HOP = 0,
	EXTENSION_ROUTING = 43,
	EXTENSION_FRAGMENT = 44,
	EXTENSION_AUTH = 51,
	EXTENSION_DESTINATION = 60,
	EXTENSION_MOBILITY = 135,
};

static __always_inline bool is_extension(__u8 header)
{
	return header == EXTENSION_HOP_BY_HOP || header == EXTENSION_ROUTING || header == EXTENSION_FRAGMENT ||
	       header == EXTENSION_AUTH || header == EXTENSION_DESTINATION || header == EXTENSION_MOBILITY;
}

/* The first eight bytes of an extension header. */
struct extension {
	__u8 next;
	__u8 length;
	__u8 type; /* of a routing header */
	__u8 rest[5];
};

static __always_inline __u32 extension_length(__u8 header, __u8 length)
{
	if (header == EXTENSION_FRAGMENT)
		return 8;
	/* In units of 4 bytes less 2 (RFC 4302), others in units of 8 bytes less 1. */
	return header == EXTENSION_AUTH ? (length + 2) * 4 : (length + 1) * 8;
}

/* Whether the ICMPv6 message at an offset is one of neighbour discovery, or not even there to tell. */
static __always_inline bool icmp6_hidden(struct __sk_buff *skb, __u32 offset)
{
	__u8 type;

	return bpf_skb_load_bytes(skb, offset, &type, sizeof(type)) || is_ndp(type);
}

/*
 * Walks the extension headers: 0 where they are whole and none is forbidden, else -1. Behind a fragment header that
 * is not the first there are no headers to look at. Routing headers of type 0 are forbidden (RFC 5095), and so is
 * neighbour discovery behind any extension header, where a check of the first header would miss it (RFC 6980).
 */
static __noinline int extensions_valid(struct __sk_buff *skb, __u32 header)
{
	__u32 offset = ETH_HLEN + IPV6_HLEN;
	struct extension extension;

	for (int count = 0; count <= EXTENSIONS_MAX; count++) {
		if (!is_extension(header))
			return header == IPPROTO_ICMP6 && icmp6_hidden(skb, offset) ? -1 : 0;
		/* Hop-by-hop options may only come first. */
		if (count == EXTENSIONS_MAX || (header == EXTENSION_HOP_BY_HOP && count > 0))
			return -1;
		if (bpf_skb_load_bytes(skb, offset, &extension, sizeof(extension)))
			return -1;
		if (header == EXTENSION_ROUTING && extension.type == 0)
			return -1;
		if (header == EXTENSION_FRAGMENT &&
		    (*(__be16 *)&extension.type & bpf_htons(0xfff8)))
			return 0;
		offset += extension_length(header, extension.length);
		if (offset > skb->len)
			return -1;
		header = extension.next;
	}
	return -1;
}

/* The Ethernet header of a packet whose IPv6 header is whole, or NULL. */
static __always_inline struct ethernet *ipv6_packet(struct __sk_buff *skb)
{
	struct ethernet *eth = packet_bytes(skb, ETH_HLEN + IPV6_HLEN);
	struct ipv6 *ip = (void *)(eth + 1);
	__u32 payload;

	if (!eth)
		return NULL;
	payload = bpf_ntohs(ip->payload_length);
	/* The length field of a segment above 64 KiB, yet to be cut, is zero (Linux: BIG TCP). */
	if (unlikely(payload == 0 && skb->len - ETH_HLEN - IPV6_HLEN > IPV6_LARGEST))
		payload = skb->len - ETH_HLEN - IPV6_HLEN;
	if (unlikely((ip->version_class >> 4) != 6 || payload > skb->len - ETH_HLEN - IPV6_HLEN))
		return NULL;
	return eth;
}

static __always_inline bool ipv6_is_multicast(const __u8 *address)
{
	return address[0] == 0xff;
}

static __always_inline bool ipv6_is_link_local(const __u8 *address)
{
	return address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}

/* Not an address of one host elsewhere: of the link, the loopback address, the unspecified one (RFC 4291). */
static __always_inline bool ipv6_is_confined(const __u8 *address)
{
	return ipv6_is_link_local(address) ||
	       (load64(address) == 0 && (load64(address + 8) & ~bpf_cpu_to_be64(1)) == 0);
}

/* Behind the checks of ipv6_from_pod: where an IPv6 packet of a pod goes. */
static __always_inline int ipv6_route_from_pod(struct __sk_buff *skb, struct ethernet *eth, struct sender from)
{
	struct ipv6 *ip = (void *)(eth + 1);
	const struct endpoint_info *pod = endpoint_by_ipv6(ip->destination);

	if (likely(pod && !(pod->flags & ENDPOINT_F_HOST))) {
		if (unlikely(ip->hop_limit <= 1))
			return expire(skb, DROP(REASON_TTL_EXCEEDED), from);
		ip->hop_limit -= 1;
		return deliver_to_pod(skb, eth, pod, from, FORWARD_POD_TO_POD);
	}
	if (!pod && in_pods_ipv6(ip->destination))
		return DROP(REASON_UNROUTABLE);
	if (!pod && ipv6_is_confined(ip->destination))
		return DROP(REASON_UNKNOWN_TARGET);
	return deliver_to_stack(skb, eth, from);
}

/* What a pod sends: its source is checked, neighbour discovery is answered, then its destination decides. */
static __always_inline int ipv6_from_pod(struct __sk_buff *skb, const struct podwire_endpoint *self, struct sender from)
{
	struct ethernet *eth = ipv6_packet(skb);
	struct ipv6 *ip;

	if (unlikely(!eth))
		return DROP(REASON_INVALID_PACKET);
	ip = (void *)(eth + 1);
	if (ip->next_header == IPPROTO_ICMP6) {
		__u8 type = ndp_type(skb);

		if (type)
			return ndp_from_pod(skb, self, type);
	}
	if (unlikely(is_extension(ip->next_header))) {
		if (extensions_valid(skb, ip->next_header))
			return DROP(REASON_INVALID_EXTHDR);
		eth = ipv6_packet(skb);
		if (!eth)
			return DROP(REASON_INVALID_PACKET);
		ip = (void *)(eth + 1);
	}
	/* Listener reports and the like, which a pod's stack sends by itself before and beside its address. */
	if (unlikely(ipv6_is_multicast(ip->destination))) {
		if (ip->next_header == IPPROTO_ICMP6 || ip->next_header == EXTENSION_HOP_BY_HOP)
			return DROP(REASON_FORBIDDEN_ICMP6);
		return DROP(REASON_UNKNOWN_TARGET);
	}
	if (unlikely(!same_ipv6(ip->source, self->ipv6) || !(self->flags & PODWIRE_ENDPOINT_F_IPV6)))
		return DROP(REASON_INVALID_SIP);
	return ipv6_route_from_pod(skb, eth, from);
}

/* What the network sends: past the stack where it is for a local pod, to the stack otherwise. */
static __always_inline int ipv6_from_network(struct __sk_buff *skb, struct sender from)
{
	struct ethernet *eth = ipv6_packet(skb);
	const struct endpoint_info *pod;
	struct ipv6 *ip;

	if (!eth)
		return PASS;
	ip = (void *)(eth + 1);
	if (unlikely(in_pods_ipv6(ip->source)))
		return DROP(REASON_INVALID_SIP);
	pod = endpoint_by_ipv6(ip->destination);
	/* The stack answers a packet at the end of its hops with an ICMP error. */
	if (!pod || pod->flags & ENDPOINT_F_HOST || ip->hop_limit <= 1)
		return PASS;
	if (unlikely(is_extension(ip->next_header))) {
		if (extensions_valid(skb, ip->next_header))
			return DROP(REASON_INVALID_EXTHDR);
		eth = ipv6_packet(skb);
		if (!eth)
			return PASS;
		ip = (void *)(eth + 1);
	}
	ip->hop_limit -= 1;
	/* Where the device summed up the packet, header included, the sum follows; it fails, rightly, where it did not. */
	bpf_csum_update(skb, ~(__u32)bpf_htons(1));
	return deliver_to_pod(skb, eth, pod, from, FORWARD_NETWORK_TO_POD);
}

/* What the host's stack routes to the pods. It has already counted down the hops of what it forwards. */
static __always_inline int ipv6_from_host(struct __sk_buff *skb, __u32 identity)
{
	struct ethernet *eth = ipv6_packet(skb);
	const struct endpoint_info *pod;
	struct ipv6 *ip;

	if (!eth)
		return DROP(REASON_INVALID_PACKET);
	ip = (void *)(eth + 1);
	pod = endpoint_by_ipv6(ip->destination);
	if (likely(pod && !(pod->flags & ENDPOINT_F_HOST)))
		return deliver_from_egress(skb, eth, pod, identity);
	return in_pods_ipv6(ip->destination) ? DROP(REASON_UNROUTABLE) : PASS;
}

/* What leaves the host side of a pod's pair: only what is for that pod, and what is for its link. */
static __always_inline int ipv6_to_pod(struct __sk_buff *skb, const struct podwire_endpoint *self)
{
	struct ethernet *eth = ipv6_packet(skb);
	struct ipv6 *ip;

	if (!eth)
		return DROP(REASON_INVALID_PACKET);
	ip = (void *)(eth + 1);
	if (ipv6_is_multicast(ip->destination) || ipv6_is_link_local(ip->destination))
		return PASS;
	if (!same_ipv6(ip->destination, self->ipv6) || !(self->flags & PODWIRE_ENDPOINT_F_IPV6))
		return DROP(REASON_UNROUTABLE);
	return PASS;
}

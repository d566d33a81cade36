/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* IPv4 (RFC 791): checks of a header, the time to live, and where a packet goes. */
#pragma once

#include "lib/deliver.h"
#include "lib/lxc.h"
#include "lib/packet.h"

#undef THIS_FILE
#define THIS_FILE FILE_IPV4

#define IPV4_HLEN 20
#define IPV4_LARGEST 65535

struct ipv4 {
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
};

/*
 * The Ethernet header of a packet whose IPv4 header is whole, or NULL. Options are left to the receiver; they only have
 * to be there.
 */
static __always_inline struct ethernet *ipv4_packet(struct __sk_buff *skb)
{
	struct ethernet *eth = packet_bytes(skb, ETH_HLEN + IPV4_HLEN);
	struct ipv4 *ip = (void *)(eth + 1);
	__u32 header, total;

	if (!eth)
		return NULL;
	header = (ip->version_ihl & 0x0f) * 4;
	total = bpf_ntohs(ip->total_length);
	if (unlikely((ip->version_ihl >> 4) != 4 || header < IPV4_HLEN))
		return NULL;
	/* The length field of a segment above 64 KiB, yet to be cut, is zero (Linux: BIG TCP). */
	if (unlikely(total == 0 && skb->len - ETH_HLEN > IPV4_LARGEST))
		total = skb->len - ETH_HLEN;
	return likely(total >= header && total <= skb->len - ETH_HLEN) ? eth : NULL;
}

/* Takes one from the time to live and mends the checksum (RFC 1624). The caller made sure that more than one is left. */
static __always_inline void ipv4_decrement_ttl(struct ipv4 *ip)
{
	__u32 checksum = ip->checksum + bpf_htons(0x0100);

	ip->checksum = checksum + (checksum >= 0xffff);
	ip->ttl -= 1;
}

/* Not an address of one host elsewhere: multicast (RFC 5771), limited broadcast, loopback, this network (RFC 1122). */
static __always_inline bool ipv4_is_confined(__be32 address)
{
	__be32 net = address & bpf_htonl(0xff000000);

	return (address & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000) || address == 0xffffffff ||
	       net == bpf_htonl(0x7f000000) || net == 0;
}

/* What a pod sends: its source is checked, then its destination decides. */
static __always_inline int ipv4_from_pod(struct __sk_buff *skb, const struct podwire_endpoint *self, struct sender from)
{
	struct ethernet *eth = ipv4_packet(skb);
	const struct endpoint_info *pod;
	struct ipv4 *ip;

	if (unlikely(!eth))
		return DROP(REASON_INVALID_PACKET);
	ip = (void *)(eth + 1);
	if (unlikely(ip->source != self->ipv4 || !(self->flags & PODWIRE_ENDPOINT_F_IPV4)))
		return DROP(REASON_INVALID_SIP);
	pod = endpoint_by_ipv4(ip->destination);
	if (likely(pod && !(pod->flags & ENDPOINT_F_HOST))) {
		if (unlikely(ip->ttl <= 1))
			return expire(skb, DROP(REASON_TTL_EXCEEDED), from);
		ipv4_decrement_ttl(ip);
		return deliver_to_pod(skb, eth, pod, from, FORWARD_POD_TO_POD);
	}
	if (!pod && in_pods_ipv4(ip->destination))
		return DROP(REASON_UNROUTABLE);
	if (!pod && ipv4_is_confined(ip->destination))
		return DROP(REASON_UNKNOWN_TARGET);
	return deliver_to_stack(skb, eth, from);
}

/* What the network sends: past the stack where it is for a local pod, to the stack otherwise. */
static __always_inline int ipv4_from_network(struct __sk_buff *skb, struct sender from)
{
	struct ethernet *eth = ipv4_packet(skb);
	const struct endpoint_info *pod;
	struct ipv4 *ip;

	if (!eth)
		return PASS;
	ip = (void *)(eth + 1);
	if (unlikely(in_pods_ipv4(ip->source)))
		return DROP(REASON_INVALID_SIP);
	pod = endpoint_by_ipv4(ip->destination);
	/* The stack answers a packet at the end of its time with an ICMP error. */
	if (!pod || pod->flags & ENDPOINT_F_HOST || ip->ttl <= 1)
		return PASS;
	ipv4_decrement_ttl(ip);
	return deliver_to_pod(skb, eth, pod, from, FORWARD_NETWORK_TO_POD);
}

/* What the host's stack routes to the pods. It has already counted down the time to live of what it forwards. */
static __always_inline int ipv4_from_host(struct __sk_buff *skb, __u32 identity)
{
	struct ethernet *eth = ipv4_packet(skb);
	const struct endpoint_info *pod;
	struct ipv4 *ip;

	if (!eth)
		return DROP(REASON_INVALID_PACKET);
	ip = (void *)(eth + 1);
	pod = endpoint_by_ipv4(ip->destination);
	if (likely(pod && !(pod->flags & ENDPOINT_F_HOST)))
		return deliver_from_egress(skb, eth, pod, identity);
	return in_pods_ipv4(ip->destination) ? DROP(REASON_UNROUTABLE) : PASS;
}

/* What leaves the host side of a pod's pair: only what is for that pod. */
static __always_inline int ipv4_to_pod(struct __sk_buff *skb, const struct podwire_endpoint *self)
{
	struct ethernet *eth = ipv4_packet(skb);
	struct ipv4 *ip;

	if (!eth)
		return DROP(REASON_INVALID_PACKET);
	ip = (void *)(eth + 1);
	if (ip->destination != self->ipv4 || !(self->flags & PODWIRE_ENDPOINT_F_IPV4))
		return DROP(REASON_UNROUTABLE);
	return PASS;
}

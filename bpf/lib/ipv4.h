/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* IPv4 (RFC 791): checks of a header, the time to live, and where a packet goes. */
#pragma once

#include "lib/admit.h"
#include "lib/deliver.h"
#include "lib/forwarded.h"
#include "lib/ip.h"
#include "lib/lxc.h"
#include "lib/packet.h"

#undef THIS_FILE
#define THIS_FILE FILE_IPV4

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
	if (unlikely(total == 0 && skb->len - ETH_HLEN > IP_LARGEST))
		total = skb->len - ETH_HLEN;
	return likely(total >= header && total <= skb->len - ETH_HLEN) ? eth : NULL;
}

/* The connection of a packet whose header ipv4_packet() found whole: 0, or a drop. */
__noinline int ipv4_flow(struct __sk_buff *skb, struct flow *flow)
{
	struct ethernet *eth = packet_bytes(skb, ETH_HLEN + IPV4_HLEN);
	struct datagram packet;
	struct ipv4 *ip = (void *)(eth + 1);
	__u32 header, total;

	if (!eth || !flow)
		return DROP(REASON_INVALID_PACKET);
	header = (ip->version_ihl & 0x0f) * 4;
	total = bpf_ntohs(ip->total_length);
	packet.source[0] = ip->source;
	packet.source[1] = 0;
	packet.destination[0] = ip->destination;
	packet.destination[1] = 0;
	packet.family = ENDPOINT_IPV4;
	packet.proto = ip->protocol;
	packet.offset = ETH_HLEN + header;
	packet.length = (total ? total : skb->len - ETH_HLEN) - header;
	packet.fragment.id = ip->id;
	packet.fragment.is_later = ip->fragment & bpf_htons(IPV4_FRAGMENT_OFFSET);
	packet.fragment.is_first = ip->fragment & bpf_htons(IPV4_MORE_FRAGMENTS) && !packet.fragment.is_later;
	return flow_parse(skb, flow, &packet);
}

/* What a pod sends: its source is checked, then policy and connections decide. */
static __always_inline int ipv4_from_pod(struct __sk_buff *skb, const struct podwire_endpoint *self, struct admission *a)
{
	struct ethernet *eth = ipv4_packet(skb);
	struct ipv4 *ip;
	int verdict;

	if (unlikely(!eth))
		return DROP(REASON_INVALID_PACKET);
	ip = (void *)(eth + 1);
	if (unlikely(ip->source != self->ipv4 || !(self->flags & PODWIRE_ENDPOINT_F_IPV4)))
		return DROP(REASON_INVALID_SIP);
	verdict = ipv4_flow(skb, &a->flow);
	if (verdict)
		return verdict;
	verdict = admit(skb, a);
	if (verdict)
		return verdict;
	eth = packet_bytes(skb, ETH_HLEN + IPV4_HLEN);
	if (!eth)
		return DROP(REASON_INVALID_PACKET);
	ip = (void *)(eth + 1);
	if (!a->target.ifindex)
		return deliver_to_stack(skb, eth, &a->from);
	if (unlikely(ip->ttl <= 1))
		return expire(skb, DROP(REASON_TTL_EXCEEDED), &a->from);
	ipv4_decrement_ttl(ip);
	return deliver_to_pod(skb, eth, &a->target, &a->from, FORWARD_POD_TO_POD);
}

/* What the network sends: past the stack where it is for a local pod that may have it, to the stack otherwise. */
static __always_inline int ipv4_from_network(struct __sk_buff *skb, struct admission *a)
{
	struct ethernet *eth = ipv4_packet(skb);
	const struct endpoint_info *local;
	struct ipv4 *ip;
	int verdict;

	if (!eth)
		return PASS;
	ip = (void *)(eth + 1);
	if (unlikely(in_pods_ipv4(ip->source)))
		return DROP(REASON_INVALID_SIP);
	local = endpoint_by_ipv4(ip->destination);
	/* The stack answers a packet at the end of its time with an ICMP error. */
	if (!local || local->flags & ENDPOINT_F_HOST || ip->ttl <= 1)
		return PASS;
	/* Nobody out there is who is here, whatever the pods' range is by now. */
	if (unlikely(endpoint_by_ipv4(ip->source)))
		return DROP(REASON_INVALID_SIP);
	verdict = ipv4_flow(skb, &a->flow);
	if (verdict)
		return verdict;
	verdict = admit(skb, a);
	if (verdict)
		return verdict;
	eth = packet_bytes(skb, ETH_HLEN + IPV4_HLEN);
	if (!eth || !a->target.ifindex)
		return DROP(REASON_UNROUTABLE);
	ipv4_decrement_ttl((void *)(eth + 1));
	return deliver_to_pod(skb, eth, &a->target, &a->from, FORWARD_NETWORK_TO_POD);
}

/* What the host's stack routes to the pods. It has already counted down the time to live of what it forwards. */
static __always_inline int ipv4_from_host(struct __sk_buff *skb, struct sender *from)
{
	struct ethernet *eth = ipv4_packet(skb);
	const struct endpoint_info *pod;
	struct ipv4 *ip;

	if (!eth)
		return DROP(REASON_INVALID_PACKET);
	ip = (void *)(eth + 1);
	pod = endpoint_by_ipv4(ip->destination);
	if (likely(pod && !(pod->flags & ENDPOINT_F_HOST)))
		return deliver_from_egress(skb, eth, pod, from);
	return in_pods_ipv4(ip->destination) ? DROP(REASON_UNROUTABLE) : PASS;
}

/* What leaves the host side of a pod's pair: only what is for that pod, and what it may have. */
static __always_inline int ipv4_to_pod(struct __sk_buff *skb, const struct podwire_endpoint *self, struct admission *a)
{
	struct ethernet *eth = ipv4_packet(skb);
	struct ipv4 *ip;
	int verdict;

	if (!eth)
		return DROP(REASON_INVALID_PACKET);
	ip = (void *)(eth + 1);
	if (ip->destination != self->ipv4 || !(self->flags & PODWIRE_ENDPOINT_F_IPV4))
		return DROP(REASON_UNROUTABLE);
	if (unlikely(is_forwarded(skb))) {
		__u64 source[2] = { ip->source };

		/* The stack lets nobody speak for the host; what bears its address was masqueraded. */
		if (claim_of(source, ENDPOINT_IPV4) == CLAIM_POD)
			return DROP(REASON_INVALID_SIP);
	}
	verdict = ipv4_flow(skb, &a->flow);
	if (verdict)
		return verdict;
	verdict = admit(skb, a);
	return verdict ? verdict : PASS;
}

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* IPv6 (RFC 8200): checks of a header and its extensions, the hop limit, and where a packet goes. */
#pragma once

#include "lib/admit.h"
#include "lib/deliver.h"
#include "lib/extensions.h"
#include "lib/forwarded.h"
#include "lib/ip.h"
#include "lib/lxc.h"
#include "lib/ndp.h"
#include "lib/packet.h"

#undef THIS_FILE
#define THIS_FILE FILE_IPV6

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
	if (unlikely(payload == 0 && skb->len - ETH_HLEN - IPV6_HLEN > IP_LARGEST))
		payload = skb->len - ETH_HLEN - IPV6_HLEN;
	if (unlikely((ip->version_class >> 4) != 6 || payload > skb->len - ETH_HLEN - IPV6_HLEN))
		return NULL;
	return eth;
}

/* Listener reports and the like, which a pod's stack sends by itself before and beside its address: dropped. */
static __noinline int ipv6_multicast(struct __sk_buff *skb)
{
	struct ethernet *eth = packet_bytes(skb, ETH_HLEN + IPV6_HLEN);
	struct datagram packet = { .family = ENDPOINT_IPV6, .offset = ETH_HLEN + IPV6_HLEN };
	struct ipv6 *ip = (void *)(eth + 1);
	__u8 header;

	if (!eth)
		return DROP(REASON_INVALID_PACKET);
	header = ip->next_header;
	packet.proto = header;
	if (extensions_walk(skb, &packet))
		return DROP(REASON_INVALID_EXTHDR);
	if (header == IPPROTO_ICMP6 || header == EXTENSION_HOP_BY_HOP)
		return DROP(REASON_FORBIDDEN_ICMP6);
	return DROP(REASON_UNKNOWN_TARGET);
}

/*
 * The connection of a packet whose header ipv6_packet() found whole: 0, or a drop. Multicast messages that a pod's stack sends by
 * itself, beside and before its address, belong to none.
 */
__noinline int ipv6_flow(struct __sk_buff *skb, struct flow *flow)
{
	struct ethernet *eth = packet_bytes(skb, ETH_HLEN + IPV6_HLEN);
	struct datagram packet = { .family = ENDPOINT_IPV6, .offset = ETH_HLEN + IPV6_HLEN };
	struct ipv6 *ip = (void *)(eth + 1);
	__u32 payload;

	if (!eth || !flow)
		return DROP(REASON_INVALID_PACKET);
	payload = bpf_ntohs(ip->payload_length);
	copy_ipv6(packet.source, ip->source);
	copy_ipv6(packet.destination, ip->destination);
	packet.proto = ip->next_header;
	if (extensions_walk(skb, &packet))
		return DROP(REASON_INVALID_EXTHDR);
	if (payload == 0 && skb->len - ETH_HLEN - IPV6_HLEN > IP_LARGEST)
		payload = skb->len - ETH_HLEN - IPV6_HLEN;
	packet.length = payload + ETH_HLEN + IPV6_HLEN - packet.offset;
	/* Extension headers may end behind the packet's own account of its length. */
	if ((__s32)packet.length < 0)
		return DROP(REASON_INVALID_EXTHDR);
	return flow_parse(skb, flow, &packet);
}

/* What a pod sends: its source is checked, neighbour discovery is answered, then policy and connections decide. */
static __always_inline int ipv6_from_pod(struct __sk_buff *skb, const struct podwire_endpoint *self, struct admission *a)
{
	struct ethernet *eth = ipv6_packet(skb);
	struct ipv6 *ip;
	int verdict;

	if (unlikely(!eth))
		return DROP(REASON_INVALID_PACKET);
	ip = (void *)(eth + 1);
	if (ip->next_header == IPPROTO_ICMP6) {
		__u8 type = ndp_type(skb);

		if (type)
			return ndp_from_pod(skb, self, type);
	}
	if (unlikely(ipv6_is_multicast(ip->destination)))
		return ipv6_multicast(skb);
	if (unlikely(!same_ipv6(ip->source, self->ipv6) || !(self->flags & PODWIRE_ENDPOINT_F_IPV6)))
		return DROP(REASON_INVALID_SIP);
	verdict = ipv6_flow(skb, &a->flow);
	if (verdict)
		return verdict;
	verdict = admit(skb, a);
	if (verdict)
		return verdict;
	eth = packet_bytes(skb, ETH_HLEN + IPV6_HLEN);
	if (!eth)
		return DROP(REASON_INVALID_PACKET);
	ip = (void *)(eth + 1);
	if (!a->target.ifindex)
		return deliver_to_stack(skb, eth, &a->from);
	if (unlikely(ip->hop_limit <= 1))
		return expire(skb, DROP(REASON_TTL_EXCEEDED), &a->from);
	ip->hop_limit -= 1;
	return deliver_to_pod(skb, eth, &a->target, &a->from, FORWARD_POD_TO_POD);
}

/* What the network sends: past the stack where it is for a local pod that may have it, to the stack otherwise. */
static __always_inline int ipv6_from_network(struct __sk_buff *skb, struct admission *a)
{
	struct ethernet *eth = ipv6_packet(skb);
	const struct endpoint_info *local;
	struct ipv6 *ip;
	int verdict;

	if (!eth)
		return PASS;
	ip = (void *)(eth + 1);
	if (unlikely(in_pods_ipv6(ip->source)))
		return DROP(REASON_INVALID_SIP);
	local = endpoint_by_ipv6(ip->destination);
	/* The stack answers a packet at the end of its hops with an ICMP error. */
	if (!local || local->flags & ENDPOINT_F_HOST || ip->hop_limit <= 1)
		return PASS;
	/* Nobody out there is who is here, whatever the pods' range is by now. */
	if (unlikely(endpoint_by_ipv6(ip->source)))
		return DROP(REASON_INVALID_SIP);
	verdict = ipv6_flow(skb, &a->flow);
	if (verdict)
		return verdict;
	verdict = admit(skb, a);
	if (verdict)
		return verdict;
	eth = packet_bytes(skb, ETH_HLEN + IPV6_HLEN);
	if (!eth || !a->target.ifindex)
		return DROP(REASON_UNROUTABLE);
	ip = (void *)(eth + 1);
	ip->hop_limit -= 1;
	/* Where the device summed up the packet, header included, the sum follows; it fails, rightly, where it did not. */
	bpf_csum_update(skb, ~(__u32)bpf_htons(1));
	return deliver_to_pod(skb, eth, &a->target, &a->from, FORWARD_NETWORK_TO_POD);
}

/* What the host's stack routes to the pods. It has already counted down the hops of what it forwards. */
static __always_inline int ipv6_from_host(struct __sk_buff *skb, struct sender *from)
{
	struct ethernet *eth = ipv6_packet(skb);
	const struct endpoint_info *pod;
	struct ipv6 *ip;

	if (!eth)
		return DROP(REASON_INVALID_PACKET);
	ip = (void *)(eth + 1);
	pod = endpoint_by_ipv6(ip->destination);
	if (likely(pod && !(pod->flags & ENDPOINT_F_HOST)))
		return deliver_from_egress(skb, eth, pod, from);
	return in_pods_ipv6(ip->destination) ? DROP(REASON_UNROUTABLE) : PASS;
}

/*
 * What leaves the host side of a pod's pair: only what is for that pod, and what it may have. What is for its link is the host's
 * own neighbour discovery.
 */
static __always_inline int ipv6_to_pod(struct __sk_buff *skb, const struct podwire_endpoint *self, struct admission *a)
{
	struct ethernet *eth = ipv6_packet(skb);
	struct ipv6 *ip;
	int verdict;

	if (!eth)
		return DROP(REASON_INVALID_PACKET);
	ip = (void *)(eth + 1);
	if (ipv6_is_multicast(ip->destination) || ipv6_is_link_local(ip->destination))
		return PASS;
	if (!same_ipv6(ip->destination, self->ipv6) || !(self->flags & PODWIRE_ENDPOINT_F_IPV6))
		return DROP(REASON_UNROUTABLE);
	if (unlikely(is_forwarded(skb))) {
		__u64 source[2];
		enum claim claim;

		copy_ipv6(source, ip->source);
		claim = claim_of(source, ENDPOINT_IPV6);
		if (claim == CLAIM_POD)
			return DROP(REASON_INVALID_SIP);
		/* The stack lets anybody speak for the host; answers to what it translated bear its address too. */
		a->opens_nothing = claim == CLAIM_HOST;
	}
	verdict = ipv6_flow(skb, &a->flow);
	if (verdict)
		return verdict;
	verdict = admit(skb, a);
	return verdict ? verdict : PASS;
}

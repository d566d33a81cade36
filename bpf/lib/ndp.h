/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Neighbour discovery (RFC 4861): solicitations for the gateway are answered here, a pod's other messages end here. */
#pragma once

#include "lib/config.h"
#include "lib/flow.h"
#include "lib/ip.h"
#include "lib/packet.h"

#undef THIS_FILE
#define THIS_FILE FILE_NDP

enum ndp_message {
	NDP_ROUTER_SOLICITATION = 133,
	NDP_SOLICITATION = 135,
	NDP_ADVERTISEMENT = 136,
	NDP_REDIRECT = 137,
};

#define NDP_HOP_LIMIT 255
#define NDP_TARGET_LINK_ADDRESS 2
/* Sent by a router, in answer to a solicitation, replacing what was known. */
#define NDP_ROUTER_SOLICITED_OVERRIDE 0xe0

struct ndp {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__u8 flags;
	__u8 reserved[3];
	__u8 target[16];
};

/* The one option of our answer. */
struct ndp_option {
	__u8 type;
	__u8 length; /* in units of 8 bytes */
	__u8 mac[ETH_ALEN];
};

#define NDP_ANSWER (sizeof(struct ndp) + sizeof(struct ndp_option))
#define NDP_PACKET (ETH_HLEN + IPV6_HLEN + NDP_ANSWER)

static __always_inline bool is_ndp(__u8 type)
{
	return type >= NDP_ROUTER_SOLICITATION && type <= NDP_REDIRECT;
}

/* The type of the ICMPv6 message behind the fixed header if it is one of neighbour discovery, else 0. */
static __always_inline __u8 ndp_type(struct __sk_buff *skb)
{
	__u8 type;

	if (bpf_skb_load_bytes(skb, ETH_HLEN + IPV6_HLEN, &type, sizeof(type)))
		return 0;
	return is_ndp(type) ? type : 0;
}

static __always_inline __be16 fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* The one's complement sum of the pseudo-header (RFC 8200, 8.1) and `NDP_ANSWER` or `sizeof(struct ndp)` bytes behind it. */
static __always_inline __u64 ndp_sum(struct ipv6 *ip, struct ndp *message, __u32 length)
{
	__be32 pseudo[2] = { bpf_htonl(length), bpf_htonl(IPPROTO_ICMP6) };
	__s64 sum = bpf_csum_diff(NULL, 0, pseudo, sizeof(pseudo), 0);

	sum = bpf_csum_diff(NULL, 0, (__be32 *)ip->source, 32, sum);
	return bpf_csum_diff(NULL, 0, (__be32 *)message, length, sum);
}

/* Writes the advertisement over the solicitation: the packet is NDP_PACKET bytes long by now. */
static __always_inline void ndp_write_answer(struct ethernet *eth, const struct podwire_endpoint *self)
{
	struct ipv6 *ip = (void *)(eth + 1);
	struct ndp *message = (void *)(ip + 1);
	struct ndp_option *option = (void *)(message + 1);

	copy_mac(eth->destination, self->mac);
	copy_mac(eth->source, self->node_mac);
	__builtin_memcpy(ip->destination, ip->source, sizeof(ip->source));
	__builtin_memcpy(ip->source, message->target, sizeof(ip->source));
	*(__be32 *)ip = bpf_htonl(0x60000000);
	ip->payload_length = bpf_htons(NDP_ANSWER);
	ip->hop_limit = NDP_HOP_LIMIT;
	message->type = NDP_ADVERTISEMENT;
	message->flags = NDP_ROUTER_SOLICITED_OVERRIDE;
	__builtin_memset(message->reserved, 0, sizeof(message->reserved));
	message->checksum = 0;
	option->type = NDP_TARGET_LINK_ADDRESS;
	option->length = 1;
	copy_mac(option->mac, self->node_mac);
	message->checksum = ~fold(ndp_sum(ip, message, NDP_ANSWER));
}

/* Whether the source of a solicitation is the pod's own address or one of its link. */
static __always_inline bool ndp_source_valid(const __u8 *source, const struct podwire_endpoint *self)
{
	if (source[0] == 0xfe && (source[1] & 0xc0) == 0x80)
		return true;
	return (self->flags & PODWIRE_ENDPOINT_F_IPV6) && same_ipv6(source, self->ipv6);
}

/* A pod's neighbour discovery message (the IPv6 header is whole). */
/* Only solicitations are looked at any further: others, which may be shorter, are none of a pod's business. */
static __noinline int ndp_from_pod(struct __sk_buff *skb, const struct podwire_endpoint *self, __u32 type)
{
	struct ethernet *eth = packet_bytes(skb, ETH_HLEN + IPV6_HLEN + sizeof(struct ndp));
	struct ipv6 *ip = (void *)(eth + 1);
	struct ndp *message = (void *)(ip + 1);

	if (!self)
		return DROP(REASON_UNKNOWN_SENDER);
	if (type != NDP_SOLICITATION)
		return DROP(REASON_FORBIDDEN_ICMP6);
	if (!eth)
		return DROP(REASON_INVALID_PACKET);
	if (ip->hop_limit != NDP_HOP_LIMIT || message->code != 0 || bpf_ntohs(ip->payload_length) < sizeof(*message))
		return DROP(REASON_INVALID_PACKET);
	/* Also the duplicate address detection of the pod's own addresses, to which silence is the right answer. */
	if (!cfg_router_ipv6[0] || !is_router_ipv6(message->target))
		return DROP(REASON_UNKNOWN_TARGET);
	if (!ndp_source_valid(ip->source, self))
		return DROP(REASON_INVALID_SIP);
	if (bpf_skb_change_tail(skb, NDP_PACKET, 0))
		return DROP(REASON_WRITE_ERROR);
	eth = packet_bytes(skb, NDP_PACKET);
	if (!eth)
		return DROP(REASON_WRITE_ERROR);
	ndp_write_answer(eth, self);
	return bpf_redirect_peer(skb->ifindex, 0);
}

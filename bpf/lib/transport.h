/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Transport headers: TCP (RFC 9293), UDP (RFC 768), SCTP (RFC 9260), ICMP (RFC 792), ICMPv6 (RFC 4443). */
#pragma once

#include "lib/flow.h"
#include "lib/fragments.h"
#include "lib/ip.h"
#include "lib/packet.h"

#undef THIS_FILE
#define THIS_FILE FILE_TRANSPORT

#define TCP_HLEN 20
#define UDP_HLEN 8
#define SCTP_HLEN 12
#define ICMP_HLEN 8

enum icmp_type {
	ICMP_ECHO_REPLY = 0,
	ICMP_UNREACHABLE = 3,
	ICMP_ECHO = 8,
	ICMP_TIME_EXCEEDED = 11,
	ICMP_PARAMETER_PROBLEM = 12,
	ICMP6_PARAMETER_PROBLEM = 4,
	ICMP6_ECHO = 128,
	ICMP6_ECHO_REPLY = 129,
};

struct tcp {
	__be16 source;
	__be16 destination;
	__be32 sequence;
	__be32 acknowledged;
	__u8 offset; /* upper half: length of the header in words */
	__u8 flags;
	__be16 window;
	__be16 checksum;
	__be16 urgent;
};

struct icmp {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 identifier;
	__be16 sequence;
};

/* A packet between its network and its transport header. */
struct datagram {
	__u64 source[2];
	__u64 destination[2];
	struct fragment fragment;
	__u32 offset; /* of the transport header in the frame */
	__u32 length; /* bytes from there to the end of the packet, by its own account */
	__u8 proto;
	__u8 family;
};

static __always_inline bool has_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP;
}

static __always_inline bool is_icmp(const struct datagram *packet)
{
	return packet->proto == (packet->family == ENDPOINT_IPV4 ? IPPROTO_ICMP : IPPROTO_ICMP6);
}

static __always_inline bool is_echo(__u8 family, __u8 type)
{
	return type == (family == ENDPOINT_IPV4 ? ICMP_ECHO : ICMP6_ECHO);
}

static __always_inline bool is_echo_reply(__u8 family, __u8 type)
{
	return type == (family == ENDPOINT_IPV4 ? ICMP_ECHO_REPLY : ICMP6_ECHO_REPLY);
}

static __always_inline bool is_icmp_error(__u8 family, __u8 type)
{
	if (family == ENDPOINT_IPV4)
		return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER_PROBLEM;
	return type >= 1 && type <= ICMP6_PARAMETER_PROBLEM;
}

static __always_inline void flow_of(struct flow *flow, const struct datagram *packet, __be16 sport, __be16 dport,
				    __u8 echo)
{
	flow_set(flow, packet->source, packet->destination, sport, dport, packet->proto, packet->family, echo);
}

static __always_inline void flow_of_icmp(struct flow *flow, const struct datagram *packet, __u8 type, __be16 identifier)
{
	if (is_echo(packet->family, type)) {
		flow->kind = FLOW_OPENS;
		flow_of(flow, packet, identifier, identifier, 1);
	} else if (is_echo_reply(packet->family, type)) {
		flow->kind = FLOW_UNTRACKED;
		flow_of(flow, packet, identifier, identifier, 2);
	} else {
		flow->kind = is_icmp_error(packet->family, type) ? FLOW_ICMP_ERROR : FLOW_UNTRACKED;
		flow_of(flow, packet, 0, 0, 0);
	}
	flow->dport_be = bpf_htons(type);
}

/* The key's ports as the fragment table keeps them. */
static __always_inline void fragment_first(const struct datagram *packet, __be16 sport, __be16 dport)
{
	fragment_note(packet->source, packet->destination, packet->family << 8 | packet->proto, packet->fragment.id,
		      sport | (__u32)dport << 16);
}

/*
 * What the first fragment said, where one behind it announces the extension header that the first one bears in place of the
 * protocol (RFC 8200, 4.5): the packet is then of the first one's protocol. NULL where none is known.
 */
static __always_inline const struct frag_l4ports *fragment_extended(struct datagram *packet)
{
	const __u32 noted = IPPROTO_TCP | IPPROTO_UDP << 8 | (__u32)IPPROTO_SCTP << 16 | (__u32)IPPROTO_ICMP6 << 24;
	const struct frag_l4ports *ports = NULL;

#pragma clang loop unroll(full)
	for (int count = 0; count < 4; count++) {
		__u8 proto = noted >> count * 8;

		if (ports)
			continue;
		ports = fragment_find(packet->source, packet->destination, ENDPOINT_IPV6 << 8 | proto, packet->fragment.id);
		if (ports)
			packet->proto = proto;
	}
	return ports;
}

static __always_inline int flow_of_fragment(struct flow *flow, struct datagram *packet)
{
	const struct frag_l4ports *ports = NULL;

	if (has_ports(packet->proto) || is_icmp(packet)) {
		ports = fragment_find(packet->source, packet->destination, packet->family << 8 | packet->proto,
				      packet->fragment.id);
		if (!ports)
			return DROP(REASON_FIRST_FRAGMENT_NOT_FOUND);
	} else if (packet->family == ENDPOINT_IPV6 && is_extension(packet->proto)) {
		ports = fragment_extended(packet);
	}
	flow->kind = FLOW_PLAIN;
	flow->tcp_flags = packet->proto == IPPROTO_TCP ? TCP_ACK : 0;
	if (!ports) {
		flow->dport_be = 0;
		flow_of(flow, packet, 0, 0, 0);
		return 0;
	}
	if (is_icmp(packet)) {
		flow_of_icmp(flow, packet, bpf_ntohs(ports->dport_be), ports->sport_be);
		/* Only the first one bears the packet that an error is about. */
		if (flow->kind == FLOW_ICMP_ERROR)
			flow->kind = FLOW_UNTRACKED;
		return 0;
	}
	flow->dport_be = ports->dport_be;
	flow_of(flow, packet, ports->sport_be, ports->dport_be, 0);
	return 0;
}

/*
 * A transport header: in place where it stands behind a plain network header in the linear part, else in `copy`; NULL where there
 * is none.
 */
static __always_inline const void *transport_header(struct __sk_buff *skb, __u32 offset, void *copy, __u32 size)
{
	void *start = packet_start(skb), *end = packet_end(skb);

	if (offset == ETH_HLEN + IPV4_HLEN && start + ETH_HLEN + IPV4_HLEN + size <= end)
		return start + ETH_HLEN + IPV4_HLEN;
	if (offset == ETH_HLEN + IPV6_HLEN && start + ETH_HLEN + IPV6_HLEN + size <= end)
		return start + ETH_HLEN + IPV6_HLEN;
	return bpf_skb_load_bytes(skb, offset, copy, size) ? NULL : copy;
}

static __always_inline int flow_of_tcp(struct __sk_buff *skb, struct flow *flow, const struct datagram *packet)
{
	__be16 source, destination;
	const struct tcp *tcp;
	struct tcp copy;
	__u8 offset;

	if (packet->length < TCP_HLEN)
		return DROP(REASON_INVALID_PACKET);
	tcp = transport_header(skb, packet->offset, &copy, sizeof(copy));
	if (!tcp)
		return DROP(REASON_INVALID_PACKET);
	source = tcp->source;
	destination = tcp->destination;
	offset = tcp->offset;
	flow->tcp_flags = tcp->flags;
	if (offset >> 4 < TCP_HLEN / 4 || !tcp_flags_valid(flow->tcp_flags))
		return DROP(REASON_INVALID_PACKET);
	flow->kind = (flow->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN ? FLOW_OPENS : FLOW_PLAIN;
	flow->dport_be = destination;
	flow_of(flow, packet, source, destination, 0);
	if (packet->fragment.is_first)
		fragment_first(packet, source, destination);
	return 0;
}

static __always_inline int flow_of_ports(struct __sk_buff *skb, struct flow *flow, const struct datagram *packet)
{
	__u32 header = packet->proto == IPPROTO_UDP ? UDP_HLEN : SCTP_HLEN;
	__be16 copy[2], source, destination;
	const __be16 *ports;

	if (packet->length < header)
		return DROP(REASON_INVALID_PACKET);
	ports = transport_header(skb, packet->offset, copy, sizeof(copy));
	if (!ports)
		return DROP(REASON_INVALID_PACKET);
	source = ports[0];
	destination = ports[1];
	flow->tcp_flags = 0;
	flow->kind = FLOW_PLAIN;
	flow->dport_be = destination;
	flow_of(flow, packet, source, destination, 0);
	if (packet->fragment.is_first)
		fragment_first(packet, source, destination);
	return 0;
}

/* The connection that a packet belongs to: 0, or a drop. */
static __always_inline int flow_parse(struct __sk_buff *skb, struct flow *flow, struct datagram *packet)
{
	const struct icmp *icmp;
	struct icmp copy;
	__be16 identifier;
	__u8 type;

	flow->offset = packet->offset;
	flow->length = packet->length;
	if (packet->fragment.is_later)
		return flow_of_fragment(flow, packet);
	if (packet->proto == IPPROTO_TCP)
		return flow_of_tcp(skb, flow, packet);
	if (has_ports(packet->proto))
		return flow_of_ports(skb, flow, packet);
	flow->tcp_flags = 0;
	if (is_icmp(packet)) {
		if (packet->length < ICMP_HLEN)
			return DROP(REASON_INVALID_PACKET);
		icmp = transport_header(skb, packet->offset, &copy, sizeof(copy));
		if (!icmp)
			return DROP(REASON_INVALID_PACKET);
		type = icmp->type;
		identifier = icmp->identifier;
		flow_of_icmp(flow, packet, type, identifier);
		if (packet->fragment.is_first)
			fragment_first(packet, identifier, bpf_htons(type));
		return 0;
	}
	flow->kind = FLOW_PLAIN;
	flow->dport_be = 0;
	flow_of(flow, packet, 0, 0, 0);
	return 0;
}

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The headers of IPv4 (RFC 791) and IPv6 (RFC 8200), and what their addresses tell. */
#pragma once

#include "lib/common.h"

#define IPV4_HLEN 20
#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV6_HLEN 40
/* The largest length that a length field holds. */
#define IP_LARGEST 65535

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

struct ipv6 {
	__u8 version_class;
	__u8 class_flow[3];
	__be16 payload_length;
	__u8 next_header;
	__u8 hop_limit;
	__u8 source[16];
	__u8 destination[16];
};

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

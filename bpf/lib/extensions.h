/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Extension headers of IPv6 (RFC 8200), of a packet and of the one that an ICMP error bears. */
#pragma once

#include "lib/ip.h"
#include "lib/ndp.h"
#include "lib/transport.h"

/* How many extension headers a packet may bear. */
#define EXTENSIONS_MAX 8

/* The first eight bytes of an extension header. */
struct extension {
	__u8 next;
	__u8 length;
	__u8 type; /* of a routing header; of a fragment header it begins the place */
	__u8 rest[5];
};

/* The place of a fragment: 13 bits of offset in units of 8 bytes, whether more follow in the last bit. */
#define FRAGMENT_OFFSET 0xfff8
#define FRAGMENT_MORE 0x0001

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

enum extension_step {
	EXTENSION_NEXT, /* another header follows */
	EXTENSION_END, /* the transport header follows, or nothing that can be looked at */
	EXTENSION_BAD,
};

/*
 * Looks at the header that packet->proto announces at packet->offset, and moves both behind it. A global function, which the
 * verifier checks once and not for every header.
 */
__noinline int extension_step(struct __sk_buff *skb, struct datagram *packet, __u32 count)
{
	struct extension extension;
	__u8 header;

	if (!packet)
		return EXTENSION_BAD;
	header = packet->proto;
	if (!is_extension(header)) {
		if (count && header == IPPROTO_ICMP6 && icmp6_hidden(skb, packet->offset))
			return EXTENSION_BAD;
		return EXTENSION_END;
	}
	/* Hop-by-hop options may only come first. */
	if (count == EXTENSIONS_MAX || (header == EXTENSION_HOP_BY_HOP && count > 0))
		return EXTENSION_BAD;
	if (bpf_skb_load_bytes(skb, packet->offset, &extension, sizeof(extension)))
		return EXTENSION_BAD;
	if (header == EXTENSION_ROUTING && extension.type == 0)
		return EXTENSION_BAD;
	packet->proto = extension.next;
	packet->offset += extension_length(header, extension.length);
	if (header == EXTENSION_FRAGMENT) {
		__be16 place = *(__be16 *)&extension.type;

		packet->fragment.id = *(__be32 *)&extension.rest[1];
		packet->fragment.is_later = place & bpf_htons(FRAGMENT_OFFSET);
		packet->fragment.is_first = place & bpf_htons(FRAGMENT_MORE) && !packet->fragment.is_later;
		if (packet->fragment.is_later)
			return EXTENSION_END;
	}
	return packet->offset > skb->len ? EXTENSION_BAD : EXTENSION_NEXT;
}

/*
 * Walks the extension headers, which begin at packet->offset, to the transport header: 0 where they are whole and none is forbidden,
 * else -1. Behind a fragment header that is not the first there are no headers to look at. Routing headers of type 0 are forbidden
 * (RFC 5095), and so is neighbour discovery behind any extension header, where a check of the first header would miss it (RFC 6980).
 */
static __always_inline int extensions_walk_here(struct __sk_buff *skb, struct datagram *packet)
{
	int step = EXTENSION_NEXT;

	/* Without a loop: Linux 6.1 takes one only in a shape that the compiler does not promise. */
#pragma clang loop unroll(full)
	for (int count = 0; count <= EXTENSIONS_MAX; count++) {
		if (step == EXTENSION_NEXT)
			step = extension_step(skb, packet, count);
	}
	return step == EXTENSION_END ? 0 : -1;
}

static __noinline int extensions_walk(struct __sk_buff *skb, struct datagram *packet)
{
	return extensions_walk_here(skb, packet);
}

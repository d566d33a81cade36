/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The ports of a packet in fragments: noted from the first one, for those behind it. */
#pragma once

#include "lib/conntrack_maps.h"

/* How a packet is a part of a larger one. */
struct fragment {
	__be32 id;
	bool is_first; /* more follow it */
	bool is_later; /* others came before it: no transport header */
};

static __always_inline struct ipv4_frag_id fragment4(const __u64 *source, const __u64 *destination, __u8 proto, __be32 id)
{
	return (struct ipv4_frag_id){ .daddr = destination[0], .saddr = source[0], .id_be = id, .proto = proto };
}

static __always_inline void fragment6(struct ipv6_frag_id *key, const __u64 *source, const __u64 *destination,
				      __u8 proto, __be32 id)
{
	*key = (struct ipv6_frag_id){ .id_be = id, .proto = proto };
	copy_ipv6(key->saddr, source);
	copy_ipv6(key->daddr, destination);
}

/* A table that is full forgets the packet used least recently: its later fragments are dropped, and it is sent again. */
static __noinline int fragment_note(const __u64 *source, const __u64 *destination, __u32 proto_family, __be32 id,
				    __u32 both_ports)
{
	struct frag_l4ports ports = { .sport_be = both_ports, .dport_be = both_ports >> 16 };
	struct ipv6_frag_id key6 __attribute__((aligned(8)));

	if (proto_family >> 8 == ENDPOINT_IPV4) {
		struct ipv4_frag_id key4 = fragment4(source, destination, proto_family, id);

		return bpf_map_update_elem(&cilium_ipv4_frag_datagrams, &key4, &ports, BPF_ANY);
	}
	fragment6(&key6, source, destination, proto_family, id);
	return bpf_map_update_elem(&cilium_ipv6_frag_datagrams, &key6, &ports, BPF_ANY);
}

static __noinline const struct frag_l4ports *fragment_find(const __u64 *source, const __u64 *destination,
							   __u32 proto_family, __be32 id)
{
	struct ipv6_frag_id key6 __attribute__((aligned(8)));

	if (proto_family >> 8 == ENDPOINT_IPV4) {
		struct ipv4_frag_id key4 = fragment4(source, destination, proto_family, id);

		return bpf_map_lookup_elem(&cilium_ipv4_frag_datagrams, &key4);
	}
	fragment6(&key6, source, destination, proto_family, id);
	return bpf_map_lookup_elem(&cilium_ipv6_frag_datagrams, &key6);
}

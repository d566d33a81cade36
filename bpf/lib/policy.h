/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What endpoints let in and out, and how often each entry decided. */
#pragma once

#include "lib/common.h"

/* The inner maps resemble this one; user space makes them, each as large as its policy. */
struct policy_map {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__uint(key_size, sizeof(struct policy_key));
	__uint(value_size, sizeof(struct policy_entry));
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
};

/* By endpoint id. An array of maps, because its lookup is inlined. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 65536);
	__uint(key_size, sizeof(__u32));
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__array(values, struct policy_map);
} podwire_policy SEC(".maps");

/* A power of two: endpoint ids are reduced by masking. Endpoints of one row do without an outline in turn. */
#define POLICY_OUTLINES 4096

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, POLICY_OUTLINES);
	__type(key, __u32);
	__type(value, struct podwire_policy_outline);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} podwire_policy_outlines SEC(".maps");

/* Each CPU evicts from its own share, without a common list to lock. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct policy_stats_key);
	__type(value, struct policy_stats_value);
	__uint(map_flags, BPF_F_NO_COMMON_LRU);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cilium_policystats SEC(".maps");

/* What a policy says, and why. */
struct decision {
	__u32 rule; /* number of the rule, 0 none */
	__u8 reason; /* 0 allowed */
	__u8 match; /* enum policy_match */
};

/* The running kernel's, of which one field is of interest. */
struct bpf_map___policy {
	__u32 id;
} __attribute__((preserve_access_index));

/* Which of an endpoint's entries are worth looking for. */
struct prospect {
	bool of_peer;
	bool of_any;
};

/* Behind the prefix length in an entry's flags: 8 bits of protocol, then those of the port. */
#define PROTOCOL_BITS 8

static __always_inline __u8 policy_match_of(const struct policy_entry *entry, bool of_peer)
{
	__u8 bits = entry->flags >> POLICY_PREFIX_SHIFT;

	if (!bits)
		return of_peer ? MATCHED_L3_ONLY : MATCHED_ALL;
	if (bits <= PROTOCOL_BITS)
		return of_peer ? MATCHED_L3_PROTO : MATCHED_PROTO_ONLY;
	return of_peer ? MATCHED_L3_L4 : MATCHED_L4_ONLY;
}

/* Whether the entry for any peer decides rather than the one for this peer. */
static __always_inline bool any_decides(const struct policy_entry *any, const struct policy_entry *peer)
{
	if (!peer || !any)
		return !peer;
	if (any->precedence != peer->precedence)
		return any->precedence > peer->precedence;
	return any->flags & POLICY_F_DENY && !(peer->flags & POLICY_F_DENY);
}

/*
 * Reads a policy's outline. Where there is none of just this map, everything may be in it: an outline of the policy before or after
 * it would make a mixture of the two.
 */
static __always_inline void policy_prospect(struct prospect *prospect, __u32 endpoint, __u32 map_id, __u32 peer,
					    __u8 direction, __be16 dport_be)
{
	__u32 index = endpoint & (POLICY_OUTLINES - 1), port = bpf_ntohs(dport_be) & 63;
	struct podwire_policy_outline *outline = bpf_map_lookup_elem(&podwire_policy_outlines, &index);
	__u64 named, whole, of_any;

	*prospect = (struct prospect){ .of_peer = true, .of_any = true };
	if (unlikely(!outline || READ_ONCE(outline->map_id) != map_id))
		return;
	loads_in_order(outline->map_id);
	named = READ_ONCE(outline->peers[direction]) >> (peer & 63) & READ_ONCE(outline->peer_ports[direction]) >> port;
	whole = READ_ONCE(outline->whole_peers[direction]) >> (peer & 63);
	of_any = READ_ONCE(outline->any_ports[direction]) >> port;
	loads_in_order(outline->map_id);
	if (unlikely(READ_ONCE(outline->map_id) != map_id))
		return;
	prospect->of_peer = (named | whole) & 1;
	prospect->of_any = of_any & 1;
}

/*
 * Asks an endpoint's policy: for the peer and for any peer; the entry of higher precedence decides. The whole policy is one
 * map, so that a packet is judged by the old one or by the new one.
 */
static __always_inline void policy_decide(struct decision *decision, __u32 endpoint, __u32 peer, __u8 direction,
					  __u8 protocol, __be16 dport_be)
{
	struct policy_key key = {
		.prefixlen = POLICY_STATIC_BITS + 24,
		.sec_label = peer,
		.egress = direction,
		.protocol = protocol,
		.dport_be = dport_be,
	};
	const struct policy_entry *of_peer = NULL, *of_any = NULL, *entry;
	struct prospect prospect;
	void *policy = bpf_map_lookup_elem(&podwire_policy, &endpoint);

	*decision = (struct decision){ .reason = REASON_ENDPOINT_NOT_READY };
	if (!policy)
		return;
	policy_prospect(&prospect, endpoint, ((struct bpf_map___policy *)policy)->id, peer, direction, dport_be);
	if (prospect.of_peer)
		of_peer = bpf_map_lookup_elem(policy, &key);
	key.sec_label = 0;
	if (prospect.of_any)
		of_any = bpf_map_lookup_elem(policy, &key);
	entry = any_decides(of_any, of_peer) ? of_any : of_peer;
	decision->reason = REASON_POLICY_DENIED;
	if (!entry)
		return;
	decision->reason = entry->flags & POLICY_F_DENY ? REASON_POLICY_DENY_RULE : 0;
	decision->rule = entry->cookie;
	decision->match = policy_match_of(entry, entry == of_peer);
}

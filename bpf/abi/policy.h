/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* cilium_policy_v2_<id>: what an endpoint lets in and out. cilium_policystats: how often each entry decided. */
#pragma once

#include <linux/types.h>

/*
 * The bits of policy_key that are always significant: identity and direction. With a protocol 8 more are, and up to 16
 * of the port behind it.
 */
#define POLICY_STATIC_BITS 40

enum policy_direction {
	POLICY_INGRESS = 0,
	POLICY_EGRESS = 1,
};

/* policy_entry.flags */
enum policy_entry_flags {
	POLICY_F_DENY = 1,
	/* Bits 3 to 7: significant bits of the key behind the static ones, so that a stored entry tells its own prefix. */
	POLICY_PREFIX_SHIFT = 3,
};

/* policy_entry.auth */
enum policy_auth {
	POLICY_AUTH_TYPE_MASK = 0x7f,
	POLICY_AUTH_F_EXPLICIT = 0x80,
};

struct policy_key {
	__u32 prefixlen;
	__u32 sec_label; /* the peer's identity, 0 any */
	__u8 egress; /* enum policy_direction in bit 0 */
	__u8 protocol;
	__be16 dport_be;
};

struct policy_entry {
	__be16 proxy_port_be; /* 0: no proxy */
	__u8 flags; /* enum policy_entry_flags */
	__u8 auth; /* enum policy_auth */
	__u32 precedence; /* of two matching entries the higher wins */
	__u32 cookie; /* number of the rule */
};

/*
 * What the entries of a policy can match at the most, so that nobody looks for what is not there. It holds for the policy's map of
 * this id alone: one that replaces it has another. Whoever writes a row takes the id away first and sets it last.
 */
struct podwire_policy_outline {
	__u64 map_id; /* 0: of none */
	/* By enum policy_direction, a bit for each value that the lower six bits of something take: */
	__u64 peers[2]; /* of the identities that are named with ports */
	__u64 peer_ports[2]; /* of those ports */
	__u64 whole_peers[2]; /* of the identities that are named without ports, or with so many that all bits would be set */
	__u64 any_ports[2]; /* of the ports that go with any peer */
};

/* policy_verdict_notify: what part of the traffic the deciding entry named */
enum policy_match {
	MATCHED_NONE = 0,
	MATCHED_L3_ONLY = 1,
	MATCHED_L3_L4 = 2,
	MATCHED_L4_ONLY = 3,
	MATCHED_ALL = 4,
	MATCHED_L3_PROTO = 5,
	MATCHED_PROTO_ONLY = 6,
};

struct policy_stats_key {
	__u16 endpoint_id;
	__u8 pad1;
	__u8 prefix_len; /* significant bits behind the static ones */
	__u32 sec_label;
	__u8 egress; /* enum policy_direction in bit 0 */
	__u8 protocol;
	__be16 dport_be;
};

struct policy_stats_value {
	__u64 packets;
	__u64 bytes;
};

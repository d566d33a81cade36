/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * cilium_lb4_*, cilium_lb6_*: services, their backends and what goes with them.
 * Reverse-NAT numbers are in network byte order, wherever they stand; backend slots and backend ids in host order.
 */
#pragma once

#include <linux/types.h>

/* lb4_service.flags, lb6_service.flags */
enum lb_service_flags {
	LB_F_EXTERNAL_IP = 0x01,
	LB_F_NODE_PORT = 0x02,
	LB_F_EXT_LOCAL = 0x04, /* external traffic only to backends of this node */
	LB_F_HOST_PORT = 0x08,
	LB_F_AFFINITY = 0x10,
	LB_F_LOAD_BALANCER = 0x20,
	LB_F_ROUTABLE = 0x40,
	LB_F_SOURCE_RANGE = 0x80,
};

/* lb4_service.flags2, lb6_service.flags2 */
enum lb_service_flags2 {
	LB_F2_LOCAL_REDIRECT = 0x01,
	LB_F2_NAT_46X64 = 0x02,
	LB_F2_L7 = 0x04,
	LB_F2_LOOPBACK = 0x08,
	LB_F2_INT_LOCAL = 0x10, /* internal traffic only to backends of this node */
	LB_F2_TWO_SCOPES = 0x20,
	LB_F2_SOURCE_RANGE_DENY = 0x40, /* in a slot: the backend is quarantined */
	LB_F2_DSR = 0x80,
};

/* lb4_service.word of a master entry is algorithm << LB_ALGORITHM_SHIFT | affinity timeout in seconds. */
enum lb_algorithm {
	LB_RANDOM = 1,
	LB_MAGLEV = 2,
};

#define LB_ALGORITHM_SHIFT 24
#define LB_AFFINITY_TIMEOUT_MASK 0x00ffffff

/* lb4_key.scope */
enum lb_scope {
	LB_SCOPE_EXTERNAL = 0,
	LB_SCOPE_INTERNAL = 1,
};

/* lb4_backend.flags */
enum lb_backend_state {
	LB_BACKEND_ACTIVE = 0,
	LB_BACKEND_TERMINATING = 1,
	LB_BACKEND_QUARANTINED = 2,
	LB_BACKEND_MAINTENANCE = 3,
};

/* The bits of a source-range key between the prefix length and the address. */
#define LB_SRC_RANGE_STATIC_BITS 32

/* lb4_affinity_key.flags */
#define LB_AFFINITY_F_NETNS_COOKIE 1 /* client_id is a namespace's cookie, not an address */

struct lb4_key {
	__be32 address;
	__be16 dport_be;
	__u16 backend_slot; /* 0: the master entry */
	__u8 proto;
	__u8 scope; /* enum lb_scope */
	__u8 pad[2];
};

struct lb6_key {
	__u8 address[16];
	__be16 dport_be;
	__u16 backend_slot;
	__u8 proto;
	__u8 scope;
	__u8 pad[2];
};

struct lb4_service {
	__u32 word; /* master: algorithm and affinity timeout, or an L7 proxy's port; slot: the backend's id */
	__u16 count; /* master: number of active slots */
	__be16 rev_nat_index_be;
	__u8 flags; /* enum lb_service_flags */
	__u8 flags2; /* enum lb_service_flags2 */
	__u16 qcount; /* master: number of quarantined slots behind the active ones */
};

struct lb6_service {
	__u32 word;
	__u16 count;
	__be16 rev_nat_index_be;
	__u8 flags;
	__u8 flags2;
	__u16 qcount;
};

struct lb4_backend {
	__be32 address;
	__be16 port_be;
	__u8 proto;
	__u8 flags; /* enum lb_backend_state */
	__u16 cluster_id;
	__u8 zone;
	__u8 pad;
};

struct lb6_backend {
	__u8 address[16];
	__be16 port_be;
	__u8 proto;
	__u8 flags;
	__u16 cluster_id;
	__u8 zone;
	__u8 pad;
};

/* Bytes, not a word, so that the struct is 6 bytes long. */
struct lb4_reverse_nat {
	__u8 address[4];
	__be16 port_be;
};

struct lb6_reverse_nat {
	__u8 address[16];
	__be16 port_be;
};

struct lb4_affinity_key {
	__u64 client_id; /* the client's address in the first four bytes, or a cookie */
	__be16 rev_nat_id_be;
	__u8 flags; /* LB_AFFINITY_F_NETNS_COOKIE */
	__u8 pad1;
	__u32 pad2;
};

struct lb6_affinity_key {
	__u8 client_id[16]; /* the client's address, or a cookie in the first eight bytes */
	__be16 rev_nat_id_be;
	__u8 flags;
	__u8 pad1;
	__u32 pad2;
};

struct lb_affinity_val {
	__u64 last_used; /* seconds since boot */
	__u32 backend_id;
	__u32 pad;
};

struct lb_affinity_match {
	__u32 backend_id;
	__be16 rev_nat_id_be;
	__u16 pad;
};

struct lb4_src_range_key {
	__u32 prefixlen; /* LB_SRC_RANGE_STATIC_BITS + significant bits of the address */
	__be16 rev_nat_id_be;
	__u16 pad;
	__be32 addr;
};

struct lb6_src_range_key {
	__u32 prefixlen;
	__be16 rev_nat_id_be;
	__u16 pad;
	__u8 addr[16];
};

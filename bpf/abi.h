/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Every struct and enum shared by the programs and user space, declared once. src/abi mirrors each of them and is
 * asserted equal (size and every offset) against the BTF of abi.bpf.c when the crate is compiled.
 *
 * Rules: no bit-fields, no bools, no anonymous unions, no holes: padding is explicit and always zero.
 * Fields ending in _be are in network byte order, so are addresses; everything else is in host order.
 * Structs without the prefix podwire_ have the layout of Cilium 1.19, so that its tools read them.
 */
#pragma once

#include <linux/types.h>

#include "abi/conntrack.h"
#include "abi/events.h"
#include "abi/ipcache.h"
#include "abi/lb.h"
#include "abi/node.h"
#include "abi/policy.h"

/* ---- cilium_lxc: local endpoints by address ---- */

enum endpoint_family {
	ENDPOINT_IPV4 = 1,
	ENDPOINT_IPV6 = 2,
};

enum endpoint_flags {
	ENDPOINT_F_HOST = 1,
	ENDPOINT_F_AT_HOST_NS = 2,
	ENDPOINT_F_NO_SNAT_V4 = 4,
	ENDPOINT_F_NO_SNAT_V6 = 8,
	ENDPOINT_F_AUDIT = 0x100, /* podwire's own: what the endpoint's policy denies is let through, and reported */
};

struct endpoint_key {
	__u8 ip[16]; /* IPv4 in the first four bytes, the rest zero */
	__u8 family; /* enum endpoint_family */
	__u8 key;
	__u16 cluster_id;
};

struct endpoint_info {
	__u32 ifindex; /* host side of the veth pair */
	__u16 unused;
	__u16 lxc_id;
	__u32 flags; /* enum endpoint_flags */
	__u32 pad1;
	__u8 mac[8]; /* the container's, then two zero bytes */
	__u8 node_mac[8]; /* the host side's, then two zero bytes */
	__u32 sec_id;
	__u32 parent_ifindex;
	__u32 pad[2];
};

/* ---- cilium_metrics: packets and bytes by reason and direction ---- */

enum metrics_direction {
	METRICS_INGRESS = 1,
	METRICS_EGRESS = 2,
	METRICS_SERVICE = 3,
};

struct metrics_key {
	__u8 reason; /* 0 forwarded, else the drop reason as a positive number below 256 */
	__u8 dir; /* enum metrics_direction in the low two bits */
	__u16 line;
	__u8 file;
	__u8 reserved[3];
};

struct metrics_value {
	__u64 count;
	__u64 bytes;
};

/* ---- podwire_endpoints: a row per local endpoint, found by the host side's ifindex ---- */

enum podwire_endpoint_flags {
	PODWIRE_ENDPOINT_F_IPV4 = 1, /* ipv4 is set */
	PODWIRE_ENDPOINT_F_IPV6 = 2, /* ipv6 is set */
};

/*
 * An array row is found at ifindex modulo the table's size, or in one of the ENDPOINT_PROBES - 1 rows after it. A row
 * counts only while its ifindex is the packet's: it is written last when a row is filled and zeroed first when it ends.
 */
struct podwire_endpoint {
	__u32 ifindex; /* 0: free */
	__u16 lxc_id;
	__u16 flags; /* enum podwire_endpoint_flags */
	__u32 ipv4; /* network order */
	__u32 sec_id;
	__u8 ipv6[16];
	__u8 mac[8]; /* the container's, then two zero bytes */
	__u8 node_mac[8]; /* the host side's, then two zero bytes */
	__u32 pad[4];
};

#define ENDPOINT_PROBES 4

/* ---- podwire_runtime: what user space switches while programs run ---- */

struct podwire_runtime {
	__u32 trace; /* not 0: forwarded packets emit trace events */
	__u32 drop_events_per_window; /* drop events per CPU and window of 256 ticks; 0: none */
	__u32 generation; /* of policy, identities and endpoints; never 0 */
	__u32 verdict_events; /* not 0: verdicts emit events */
	__u32 pad[2];
	__u64 hash_keys[5]; /* random and odd, chosen when the map is made: nobody outside can choose what collides */
};

/* ---- podwire_forwards: forwarded packets by where they went, one value per CPU ---- */

enum podwire_forward_point {
	FORWARD_POD_TO_POD = 0,
	FORWARD_POD_TO_STACK = 1,
	FORWARD_HOST_TO_POD = 2,
	FORWARD_NETWORK_TO_POD = 3,
	FORWARD_STACK_TO_POD = 4, /* through cil_to_container */
	FORWARD_TO_HOST = 5,
	FORWARD_FROM_NETWORK = 6, /* handed to the stack */
	FORWARD_TO_NETWORK = 7,
	/* Not forwarded at all: a flood of what a policy denies is to be cheap, too. */
	DENIED_EGRESS = 8, /* reason 133 */
	DENIED_INGRESS = 9,
	DENY_RULE_EGRESS = 10, /* reason 181 */
	DENY_RULE_INGRESS = 11,
	FORWARD_POINTS = 12,
};

/* ---- podwire_verdict_counts: connections that policies let pass, one count per CPU ---- */

enum podwire_verdict_count {
	VERDICT_ALLOWED_EGRESS = 0,
	VERDICT_ALLOWED_INGRESS = 1,
	VERDICT_AUDITED_EGRESS = 2, /* that the policy would have denied */
	VERDICT_AUDITED_INGRESS = 3,
	VERDICT_COUNTS = 4,
};

/* ---- podwire_verdicts: each CPU's latest verdicts, found by a hash of the connection without the opener's port ---- */

enum podwire_verdict_flags {
	VERDICT_ROW_F_EGRESS = 0x01, /* the source's egress policy was asked */
	VERDICT_ROW_F_INGRESS = 0x02, /* the destination's ingress policy was asked */
	VERDICT_ROW_F_EGRESS_AUDITED = 0x04,
	VERDICT_ROW_F_INGRESS_AUDITED = 0x08,
	VERDICT_ROW_F_HOST = 0x10, /* the destination is an address of the node itself */
};

struct podwire_verdict {
	__u8 src[16]; /* of the opener */
	__u8 dst[16];
	__be16 dport_be; /* ICMP: the type */
	__u8 proto;
	__u8 family; /* enum endpoint_family */
	__u32 generation; /* 0: an empty row */
	__u32 src_label;
	__u32 dst_label;
	__u32 egress_rule;
	__u32 ingress_rule;
	__u16 src_id; /* 0: not a local pod */
	__u16 dst_id;
	__u32 dst_ifindex; /* of the local pod's pair, 0 none */
	__u8 dst_mac[8];
	__u8 dst_node_mac[8];
	__u8 reason; /* 0 allowed, else the drop reason */
	__u8 flags; /* enum podwire_verdict_flags */
	__u8 egress_match; /* enum policy_match */
	__u8 ingress_match;
	__u32 pad;
};

/* ---- podwire_parties: whom each CPU lately found behind an address, found by a hash of the address ---- */

enum podwire_party_flags {
	PARTY_F_HOST = 0x01, /* an address of the node itself */
	PARTY_F_AUDITED = 0x02, /* what the pod's policy denies is let through, and reported */
};

struct podwire_party {
	__u8 address[16];
	__u32 family; /* enum endpoint_family */
	__u32 generation; /* 0: an empty row */
	__u32 identity;
	__u16 id; /* of a local pod, else 0 */
	__u16 flags; /* enum podwire_party_flags */
	__u32 ifindex; /* of the local pod's pair, 0 none */
	__u32 pad;
	__u8 mac[8];
	__u8 node_mac[8];
};

/* ---- podwire_event_budget: how many events a CPU may still emit, and how many it could not ---- */

struct podwire_event_budget {
	__u64 window; /* number of the current window of 256 ticks */
	__u64 emitted; /* drop events in this window */
	__u64 limited; /* events withheld by the limit, ever */
	__u64 lost; /* events lost to a full ring, ever */
};

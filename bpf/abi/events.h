/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Heads of the records in the event ring: what happened to a packet. The first cap_len bytes of the packet follow.
 * The structs are Cilium 1.19's, so that decoders of its monitor read them.
 */
#pragma once

#include <linux/types.h>

/* The first byte of every record. */
enum notify_type {
	NOTIFY_DROP = 1,
	NOTIFY_DEBUG = 2,
	NOTIFY_CAPTURE = 3,
	NOTIFY_TRACE = 4,
	NOTIFY_POLICY_VERDICT = 5,
};

/* The version byte of each record that has one. */
enum notify_version {
	NOTIFY_DROP_VERSION = 3,
	NOTIFY_TRACE_VERSION = 2,
	NOTIFY_POLICY_VERDICT_VERSION = 1,
};

/* drop_notify.flags and trace_notify.flags */
enum notify_flags {
	NOTIFY_F_IPV6 = 1, /* the packet is IPv6 */
	NOTIFY_F_L3_DEVICE = 2, /* the packet has no Ethernet header */
	NOTIFY_F_VXLAN = 4,
	NOTIFY_F_GENEVE = 8,
};

/* trace_notify.subtype: where the packet was seen */
enum trace_point {
	TRACE_TO_LXC = 0,
	TRACE_TO_PROXY = 1,
	TRACE_TO_HOST = 2,
	TRACE_TO_STACK = 3,
	TRACE_TO_OVERLAY = 4,
	TRACE_FROM_LXC = 5,
	TRACE_FROM_PROXY = 6,
	TRACE_FROM_HOST = 7,
	TRACE_FROM_STACK = 8,
	TRACE_FROM_OVERLAY = 9,
	TRACE_FROM_NETWORK = 10,
	TRACE_TO_NETWORK = 11,
	TRACE_FROM_CRYPTO = 12,
	TRACE_TO_CRYPTO = 13,
};

/* trace_notify.reason: what connection tracking knew; TRACE_REASON_ENCRYPTED is or'ed in */
enum trace_reason {
	TRACE_REASON_NEW = 0,
	TRACE_REASON_ESTABLISHED = 1,
	TRACE_REASON_REPLY = 2,
	TRACE_REASON_RELATED = 3,
	TRACE_REASON_UNKNOWN = 5,
	TRACE_REASON_ENCRYPTED = 0x80,
};

struct drop_notify {
	__u8 type; /* NOTIFY_DROP */
	__u8 subtype; /* the drop reason as a positive number */
	__u16 source; /* endpoint id whose program dropped; 0 for the host's */
	__u32 hash; /* the packet's hash */
	__u32 len_orig; /* the packet's length */
	__u16 len_cap; /* bytes of it that follow */
	__u8 version; /* NOTIFY_DROP_VERSION */
	__u8 ext_version;
	__u32 src_label;
	__u32 dst_label;
	__u32 dst_id; /* endpoint id of the destination; 0 for the host or unknown */
	__u16 line;
	__u8 file;
	__s8 ext_error;
	__u32 ifindex;
	__u8 flags; /* enum notify_flags */
	__u8 pad2[3];
	__u64 ip_trace_id;
};

struct trace_notify {
	__u8 type; /* NOTIFY_TRACE */
	__u8 subtype; /* enum trace_point */
	__u16 source; /* endpoint id whose program traced; 0 for the host's */
	__u32 hash;
	__u32 len_orig;
	__u16 len_cap;
	__u8 version; /* NOTIFY_TRACE_VERSION */
	__u8 ext_version;
	__u32 src_label;
	__u32 dst_label;
	__u16 dst_id;
	__u8 reason; /* enum trace_reason */
	__u8 flags; /* enum notify_flags */
	__u32 ifindex;
	__u8 orig_ip[16]; /* source before translation; IPv4 in the first four bytes, the rest zero */
	__u64 ip_trace_id;
};

/* policy_verdict_notify.flags */
enum policy_verdict_flags {
	VERDICT_DIR_MASK = 0x03, /* 1 ingress, 2 egress */
	VERDICT_F_IPV6 = 0x04,
	VERDICT_MATCH_MASK = 0x38, /* what matched, see VERDICT_MATCH_SHIFT */
	VERDICT_MATCH_SHIFT = 3,
	VERDICT_F_AUDITED = 0x40,
	VERDICT_F_L3 = 0x80,
};

/* policy_verdict_notify.raised_by: the packet at hand; 0: one of the opener's. All else is told of the connection as it was opened. */
enum policy_verdict_raised_by {
	VERDICT_BY_REPLY = 1, /* a reply; where an error raised it: an error about a reply */
	VERDICT_BY_ERROR = 2, /* an ICMP error about a packet of the connection */
};

struct policy_verdict_notify {
	__u8 type; /* NOTIFY_POLICY_VERDICT */
	__u8 subtype;
	__u16 source;
	__u32 hash;
	__u32 len_orig;
	__u16 len_cap;
	__u8 version; /* NOTIFY_POLICY_VERDICT_VERSION */
	__u8 ext_version;
	__u32 remote_label;
	__s32 verdict; /* negative drop reason, 0 allowed, positive proxy port */
	__u16 dst_port;
	__u8 proto;
	__u8 flags; /* enum policy_verdict_flags */
	__u8 auth_type;
	__u8 raised_by; /* enum policy_verdict_raised_by; padding in Cilium's struct */
	__u8 pad1[2];
	__u32 cookie;
	__u32 pad2;
};

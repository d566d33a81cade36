/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * podwire_ct: one entry per connection, found by the packets of both directions.
 *
 * The key names the connection's two sides in a fixed order: "lo" is the side with the smaller (address, port), compared as
 * numbers, the address first. A packet sent by lo is of direction 0, one sent by hi of direction 1; two equal sides are
 * direction 0. For ICMP echo both ports are the echo identifier, for protocols without ports both are 0.
 * IPv4 addresses stand in the first four bytes, the rest zero. 40 bytes: a multiple of 4, which the kernel hashes faster.
 */
#pragma once

#include <linux/types.h>

enum ct_direction {
	CT_FROM_LO = 0,
	CT_FROM_HI = 1,
};

enum ct_state {
	CT_NEW = 0, /* packets of one direction only */
	CT_ESTABLISHED = 1, /* packets of both directions */
	CT_CLOSING = 2, /* a FIN of either side, or RST */
	CT_CLOSED = 3, /* FINs of both sides, or RST: only late packets are to come */
};

/* podwire_ct_dir.flags */
enum ct_dir_flags {
	CT_DIR_F_JUDGED = 0x01, /* verdict and path below hold for .generation */
	CT_DIR_F_ALLOWED = 0x02, /* the verdict */
	CT_DIR_F_REDIRECT_PEER = 0x04, /* leave into the peer of .out_ifindex, else by .out_ifindex itself */
	CT_DIR_F_TO_STACK = 0x08, /* leave to the stack, no redirect */
	CT_DIR_F_NAT_SRC = 0x10, /* rewrite the source to nat[direction] */
	CT_DIR_F_NAT_DST = 0x20, /* rewrite the destination to nat[direction] */
	CT_DIR_F_AUDITED = 0x40, /* allowed only because the policy is in audit mode */
};

/* podwire_ct_entry.flags */
enum ct_entry_flags {
	CT_F_SEEN_NON_SYN = 0x0001, /* TCP: more than the opening SYN was seen */
	CT_F_RST = 0x0002,
	CT_F_NODE_PORT = 0x0004,
	CT_F_LOOPBACK = 0x0008, /* hairpin: a backend reached itself through a service */
	CT_F_DSR = 0x0010,
	CT_F_PROXY = 0x0020,
	CT_F_FROM_TUNNEL = 0x0040,
};

struct podwire_ct_key {
	__u8 lo_addr[16];
	__u8 hi_addr[16];
	__be16 lo_port_be;
	__be16 hi_port_be;
	__u8 proto;
	__u8 family; /* enum endpoint_family */
	__u8 pad[2];
};

/*
 * All that an established packet of one direction needs, in one cache line's worth of bytes, so that the two directions do
 * not write to each other's.
 */
struct podwire_ct_dir {
	__u64 packets;
	__u64 bytes;
	__u64 expires; /* jiffies64; the connection lives while either direction's lies ahead */
	__u32 generation; /* under which the verdict was given */
	__u32 in_ifindex; /* device the packets must come in by */
	__u32 out_ifindex; /* device they leave by */
	__u8 flags; /* enum ct_dir_flags */
	__u8 tcp_flags; /* every TCP flag seen, as in the header's 14th byte */
	__u16 dst_id; /* endpoint that receives, 0 none */
	__u8 dst_mac[6]; /* written to the Ethernet header, followed by .src_mac */
	__u8 src_mac[6];
	__u8 in_mac[6]; /* source address the packets must come in with */
	__u16 pad;
	__u32 cookie; /* number of the rule that decided, 0 none */
};

struct podwire_ct_nat {
	__u8 addr[16];
	__be16 port_be;
	__be16 rev_nat_index_be; /* the service, 0 none */
};

struct podwire_ct_entry {
	struct podwire_ct_dir dir[2]; /* by enum ct_direction */
	struct podwire_ct_nat nat[2]; /* by enum ct_direction */
	__u64 created; /* jiffies64 */
	__u32 src_label; /* identity of the side that opened the connection */
	__u32 dst_label; /* identity of the other */
	__u32 backend_id; /* of a service, 0 none */
	__u8 state; /* enum ct_state */
	__u8 opener; /* enum ct_direction of the first packet */
	__u16 flags; /* enum ct_entry_flags */
};

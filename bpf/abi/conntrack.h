/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * podwire_ct: one entry per connection, found by the packets of both directions.
 *
 * The key names the connection's two sides in a fixed order: "lo" is the side with the smaller (address, port), compared as
 * numbers, the address first. A packet sent by lo is of direction 0, one sent by hi of direction 1; two equal sides are
 * direction 0. For ICMP echo both ports are the echo identifier and asker says who asks, for protocols without ports both
 * are 0.
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

/* The low byte of podwire_ct_dir.seal. */
enum ct_dir_flags {
	CT_DIR_F_JUDGED = 0x01, /* the path below holds for the seal's generation */
	CT_DIR_F_ALLOWED = 0x02, /* the verdict */
	CT_DIR_F_REDIRECT_PEER = 0x04, /* leave into the peer of .out_ifindex */
	CT_DIR_F_TO_STACK = 0x08, /* leave to the host's stack through .out_ifindex; without either flag: pass */
	CT_DIR_F_NAT_SRC = 0x10, /* rewrite the source to nat[direction] */
	CT_DIR_F_NAT_DST = 0x20, /* rewrite the destination to nat[direction] */
	CT_DIR_F_AUDITED = 0x40, /* allowed only because the policy is in audit mode */
};

/*
 * A seal: generation << 32 | tag << 8 | flags. The generation is that of podwire_runtime under which the path was found, or 0
 * while somebody writes it. The tag is a hash of the entry's key: the kernel may give a node of an LRU map to another key
 * while a program still reads it.
 */
#define CT_SEAL_GENERATION_SHIFT 32
#define CT_SEAL_TAG_SHIFT 8
#define CT_SEAL_TAG_BITS 24
#define CT_SEAL_FLAGS_MASK 0xff

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

/* podwire_ct_key.asker */
enum ct_asker {
	CT_ASKER_NONE = 0, /* not an ICMP echo */
	CT_ASKER_LO = 1, /* lo sends the requests */
	CT_ASKER_HI = 2,
};

struct podwire_ct_key {
	__u8 lo_addr[16];
	__u8 hi_addr[16];
	__be16 lo_port_be;
	__be16 hi_port_be;
	__u8 proto;
	__u8 family; /* enum endpoint_family */
	__u8 asker; /* enum ct_asker */
	__u8 pad;
};

/*
 * All that an established packet of one direction needs, in one cache line's worth of bytes, so that the two directions do
 * not write to each other's.
 */
struct podwire_ct_dir {
	__u64 seal;
	__u64 packets;
	__u64 bytes;
	__u64 expires; /* jiffies64; the connection lives while either direction's lies ahead */
	__u32 in_ifindex; /* device the packets must come in by */
	__u32 out_ifindex; /* device they leave by */
	__u8 dst_mac[6]; /* written to the Ethernet header, followed by .src_mac */
	__u8 src_mac[6];
	__u8 in_mac[6]; /* source address the packets must come in with, where they come from a pod */
	__u16 dst_id; /* endpoint that receives, 0 none */
	__u8 tcp_flags; /* every TCP flag seen, as in the header's 14th byte */
	__u8 pad;
	__u16 lifetime; /* seconds that a packet of this direction keeps the entry */
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
	__u32 egress_rule; /* number of the rule that let the opener send, 0 none */
	__u32 ingress_rule; /* number of the rule that let the other side receive, 0 none */
	__u32 claim; /* 1 while somebody revives or removes a dead entry */
	__u32 judged; /* generation of the latest verdict that was reported */
};

/*
 * The argument of podwire_ct_collect: up to CT_COLLECT_KEYS entries that looked dead, and what became of them.
 */
#define CT_COLLECT_KEYS 32

struct podwire_ct_collect {
	__u64 now; /* out: jiffies64 */
	__u32 count; /* in: keys to look at; 0 only asks for the time */
	__u32 removed; /* out */
	__u32 alive; /* out: had been used since, or somebody was at it */
	__u32 gone; /* out: were not there any more */
	struct podwire_ct_key keys[CT_COLLECT_KEYS];
};

/* ---- fragments: ports of the first one, for those behind it ---- */

struct ipv4_frag_id {
	__be32 daddr;
	__be32 saddr;
	__be16 id_be;
	__u8 proto;
	__u8 pad;
};

struct ipv6_frag_id {
	__be32 id_be;
	__u8 proto;
	__u8 pad[3];
	__u8 saddr[16];
	__u8 daddr[16];
};

/* For ICMP echo the identifier and the type. */
struct frag_l4ports {
	__be16 sport_be;
	__be16 dport_be;
};

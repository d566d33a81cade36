/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * podwire_ct: one entry per connection, found by the packets of both directions.
 *
 * Entries lie one behind the other in the order in which they were needed first. podwire_ct_index says where a key's entry lies: in
 * the bucket that the key's hash says, its home, or, if that was full, in the other one that the hash says. podwire_ct_pool
 * knows the free ones.
 *
 * The key names the connection's two sides in a fixed order: "lo" is the side with the smaller (address, port), compared as
 * numbers, the address first. A packet sent by lo is of direction 0, one sent by hi of direction 1; two equal sides are
 * direction 0. For ICMP echo both ports are the echo identifier and asker says who asks, for protocols without ports both
 * are 0. IPv4 addresses stand in the first four bytes, the rest zero.
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
	CT_DIR_F_AUDITED = 0x40, /* allowed only because the policy is in audit mode */
	CT_DIR_F_MOVING = 0x80, /* in both seals of an entry: it is free, or changes its connection */
};

/*
 * A seal: generation << 32 | turn << 8 | flags. The generation is that of podwire_runtime under which the path was found, or 0
 * where none holds: nobody found one, or somebody is writing it. The turn counts how often the path was written, so that two
 * equal seals before and after a read say that nothing was written in between. An entry that changes its connection gets two
 * new seals, a path that is written one.
 */
#define CT_SEAL_GENERATION_SHIFT 32
#define CT_SEAL_TURN_SHIFT 8
#define CT_SEAL_TURN_MASK 0xffffff
#define CT_SEAL_FLAGS_MASK 0xff

/*
 * A direction counts packets and bytes by one addition, to podwire_ct_dir.counts. What goes beyond its 64 bits, and what the bytes
 * carry into the packets, is known from the upper parts: each has its two lowest bits in common with the highest two of what it
 * continues, and is brought up to date long before those have gone round.
 */
#define CT_COUNTS_SHIFT 44
#define CT_COUNTS_HIGH_SHIFT 62
#define CT_BYTES_HIGH_SHIFT 42

/* podwire_ct_entry.flags */
enum ct_entry_flags {
	CT_F_SEEN_NON_SYN = 0x0001, /* TCP: more than the opening SYN was seen */
	CT_F_RST = 0x0002,
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
	__u64 counts; /* packets << CT_COUNTS_SHIFT + bytes: the lower 64 bits of this number */
	__u32 counts_high; /* its bits from CT_COUNTS_HIGH_SHIFT on, as they were a while ago */
	__u32 bytes_high; /* those of the bytes alone from CT_BYTES_HIGH_SHIFT on, as they were then */
	__u64 expires; /* jiffies64; the connection lives while either direction's lies ahead */
	__u32 in_ifindex; /* device the packets must come in by */
	__u32 out_ifindex; /* device they leave by */
	__u8 dst_mac[6]; /* written to the Ethernet header, followed by .src_mac */
	__u8 src_mac[6];
	__u8 tcp_flags; /* every TCP flag seen, as in the header's 14th byte */
	__u8 pad;
	__u16 lifetime; /* seconds that a packet of this direction keeps the entry */
	__u8 in_mac[6]; /* source address the packets must come in with, where they come from a pod */
	__u16 dst_id; /* endpoint that receives, 0 none */
};

struct podwire_ct_entry {
	struct podwire_ct_dir dir[2]; /* by enum ct_direction */
	struct podwire_ct_key key;
	__u32 src_label; /* identity of the side that opened the connection */
	__u32 dst_label; /* identity of the other */
	__u32 egress_rule; /* number of the rule that let the opener send, 0 none */
	__u32 ingress_rule; /* number of the rule that let the other side receive, 0 none */
	__u32 judged; /* generation of the latest verdict that was reported; of a free entry: the next free one's number plus 1 */
	__u8 state; /* enum ct_state */
	__u8 opener; /* enum ct_direction of the first packet */
	__u16 flags; /* enum ct_entry_flags */
};

#define CT_WAYS 8

/* What an entry is worth when its bucket is full, the least first. */
enum ct_rank {
	CT_RANK_FREE = 0,
	CT_RANK_OVER = 1, /* both sides have closed */
	CT_RANK_UNANSWERED = 2, /* packets of one direction only */
	CT_RANK_OPEN = 3,
};

/*
 * A row of podwire_ct_index, a cache line: places of eight entries. Whoever changes a bucket, or the entries that it leads to, holds
 * its lock; who reads does without, and looks at an entry's seals before and after.
 */
struct podwire_ct_bucket {
	__u32 lock; /* 1 while somebody writes */
	__u32 away; /* entries whose home this is, and which are in their other bucket */
	__u16 tag[CT_WAYS]; /* of the keys' hashes, 0 where a place is free */
	__u8 rank[CT_WAYS]; /* enum ct_rank */
	__u32 slot[CT_WAYS]; /* numbers of entries */
};

/* The only row of podwire_ct_pool. */
struct podwire_ct_pool {
	__u64 free; /* turn << 32 | number of the first free entry plus 1; it knows the next one */
	__u64 used; /* entries below this number were in use before; those from here on never */
	__u64 pad[6];
};

/* ---- arguments of the programs that user space calls ---- */

/* podwire_ct_collect: removes what has ended among some entries. */
struct podwire_ct_collect {
	__u64 now; /* out: jiffies64 */
	__u32 first; /* in: entry to begin with */
	__u32 count; /* in: entries to look through; 0 only asks for the time */
	__u32 everything; /* in: not 0 removes what has not ended, too */
	__u32 looked_at; /* out: connections that were there */
	__u32 removed; /* out */
	__u32 busy; /* out: those that had ended and were left alone, because somebody was at them */
};

#define CT_REMOVE_KEYS 32

/* podwire_ct_remove: removes up to CT_REMOVE_KEYS entries, whatever their state. */
struct podwire_ct_remove {
	__u32 count; /* in: keys to look at */
	__u32 removed; /* out */
	struct podwire_ct_key keys[CT_REMOVE_KEYS];
};

/* podwire_ct_insert: writes an entry, over the one that has its key. Seals keep their generation and flags, and get a turn. */
struct podwire_ct_insert {
	__s32 error; /* out: 0, or a negative errno: -EBUSY where somebody held a lock, -ENOSPC where no entry was to be had */
	__u32 pad;
	struct podwire_ct_entry entry;
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

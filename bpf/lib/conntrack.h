/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Connections: how an entry's parts are read and written by several CPUs at once. */
#pragma once

#include "lib/config.h"
#include "lib/conntrack_room.h"
#include "lib/flow.h"

#define CT_PATH_HOLDS (CT_DIR_F_JUDGED | CT_DIR_F_ALLOWED)

/* Where packets of one direction come from and go to. */
struct path {
	__u32 in_ifindex;
	__u32 out_ifindex;
	__u8 macs[16] __attribute__((aligned(8))); /* destination, source, and the first 4 bytes of what they must come in with */
	__u16 in_mac_tail;
	__u16 dst_id;
	__u8 flags; /* enum ct_dir_flags */
};

static __always_inline bool ticks_ahead(__u64 time, __u64 now)
{
	return (__s64)(time - now) > 0;
}

static __always_inline bool ct_is_live(const struct podwire_ct_entry *entry, __u64 now)
{
	return ticks_ahead(READ_ONCE(entry->dir[0].expires), now) || ticks_ahead(READ_ONCE(entry->dir[1].expires), now);
}

/*
 * An entry's part for a direction. The mask stands where the verifier sees it: the compiler would put one of its own choice there,
 * from which Linux 6.1 can't tell that the offset is one of two.
 */
static __always_inline struct podwire_ct_dir *ct_dir(struct podwire_ct_entry *entry, __u64 direction)
{
	asm volatile("%0 &= 1" : "+r"(direction));
	return (void *)entry + direction * sizeof(struct podwire_ct_dir);
}

/* No packet uses the path any more. */
static __always_inline void path_break(struct podwire_ct_dir *dir)
{
	WRITE_ONCE(dir->seal, seal_next(dir->seal, 0, 0));
}

static __always_inline void path_write(struct podwire_ct_dir *dir, const struct path *path, __u32 generation)
{
	__u64 rest = load64(path->macs + 8);

	WRITE_ONCE(dir->seal, seal_void(dir->seal));
	stores_in_order(dir->seal);
	dir->in_ifindex = path->in_ifindex;
	dir->out_ifindex = path->out_ifindex;
	*(__u64 *)dir->dst_mac = load64(path->macs);
	*(__u32 *)(dir->src_mac + 2) = rest;
	*(__u32 *)dir->in_mac = rest >> 32;
	*(__u16 *)(dir->in_mac + 4) = path->in_mac_tail;
	dir->dst_id = path->dst_id;
	stores_in_order(dir->seal);
	WRITE_ONCE(dir->seal, seal_next(dir->seal, generation, path->flags));
}

/* Each try that fails is a path that was written, or a connection that changed, in the meantime. */
#define CT_READ_TRIES 4

/*
 * Who opened the connection that stands at a place, or -1 where it has ended, or another one than the key's stands there by now. One
 * of the two seals changes when a path is written, both when the entry gets another connection.
 */
static __always_inline int ct_opener(int place, const struct podwire_ct_key *key, __u64 now)
{
	struct podwire_ct_bucket *bucket = ct_bucket(place_bucket(place));
	struct podwire_ct_entry *entry = bucket ? way_entry(bucket, place_way(place)) : NULL;
	bool is_live;
	__u64 lo, hi;
	__u8 opener;

	if (!entry)
		return -1;
#pragma clang loop unroll(full)
	for (int i = 0; i < CT_READ_TRIES; i++) {
		lo = READ_ONCE(entry->dir[0].seal);
		hi = READ_ONCE(entry->dir[1].seal);
		loads_in_order(entry->dir[0].seal);
		if ((lo | hi) & CT_DIR_F_MOVING || !entry_is(entry, (const __u64 *)key))
			return -1;
		opener = READ_ONCE(entry->opener) & 1;
		is_live = ct_is_live(entry, now);
		loads_in_order(entry->dir[0].seal);
		if (READ_ONCE(entry->dir[0].seal) == lo || READ_ONCE(entry->dir[1].seal) == hi)
			return is_live ? opener : -1;
	}
	return -1;
}

static __always_inline void ct_count_error(int error)
{
	__u32 errno = -error & (CT_ERRORS - 1);
	__u64 *count = bpf_map_lookup_elem(&podwire_ct_errors, &errno);

	if (count)
		*count += 1;
}

/* Seconds for which a packet keeps an entry. */
static __always_inline __u16 ct_lifetime(const struct podwire_ct_entry *entry, __u8 proto)
{
	if (proto != IPPROTO_TCP)
		return cfg_ct_lifetime_any;
	if (entry->state == CT_CLOSED)
		return cfg_ct_lifetime_closing;
	return entry->flags & CT_F_SEEN_NON_SYN ? cfg_ct_lifetime_tcp : cfg_ct_lifetime_tcp_syn;
}

/* What a packet adds to a direction's counts. */
static __always_inline __u64 ct_counts_of(__u32 length)
{
	return (1ULL << CT_COUNTS_SHIFT) + length;
}

/* By how much an upper part lags behind the two bits that it has in common with what it continues; 3: it is ahead by one. */
static __always_inline __u32 ct_lag(__u64 count, __u32 high, __u32 shift)
{
	return ((count >> shift) - high) & 3;
}

/* Whether the upper part of a direction's counts has to be brought up to date. */
static __always_inline bool ct_counts_lag(const struct podwire_ct_dir *dir)
{
	return ct_lag(READ_ONCE(dir->counts), dir->counts_high, CT_COUNTS_HIGH_SHIFT);
}

/* Counts a packet, under the bucket's lock. */
static __always_inline void ct_count(struct podwire_ct_dir *dir, __u32 length)
{
	__u64 counts = __sync_fetch_and_add(&dir->counts, ct_counts_of(length));
	__u32 lag = ct_lag(counts, dir->counts_high, CT_COUNTS_HIGH_SHIFT);
	__u32 bytes_lag = ct_lag(counts, dir->bytes_high, CT_BYTES_HIGH_SHIFT);

	if (lag != 3)
		dir->counts_high += lag;
	if (bytes_lag != 3)
		dir->bytes_high += bytes_lag;
}

static __always_inline __u8 ct_rank(const struct podwire_ct_entry *entry)
{
	if (entry->state == CT_CLOSED)
		return CT_RANK_OVER;
	return entry->state == CT_NEW ? CT_RANK_UNANSWERED : CT_RANK_OPEN;
}

/* A connection of which nothing was seen yet. `direction` is that of the packet which opens it. */
static __always_inline void ct_reset(struct podwire_ct_entry *entry, __u8 direction, __u64 now)
{
#pragma unroll
	for (int i = 0; i < 2; i++) {
		entry->dir[i].counts = 0;
		entry->dir[i].counts_high = 0;
		entry->dir[i].bytes_high = 0;
		entry->dir[i].tcp_flags = 0;
		entry->dir[i].expires = now;
	}
	entry->judged = 0;
	entry->state = CT_NEW;
	entry->opener = direction;
	entry->flags = 0;
}

/*
 * TCP's part of a packet. A connection is over when both sides sent a FIN, or either a RST. Nothing is sealed in one that closes.
 */
static __always_inline void ct_update_tcp(struct podwire_ct_entry *entry, struct podwire_ct_dir *dir, __u8 tcp_flags,
					  __u64 now)
{
	__u8 both;

	dir->tcp_flags |= tcp_flags;
	if ((tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		entry->flags |= CT_F_SEEN_NON_SYN;
	if (tcp_flags & TCP_RST)
		entry->flags |= CT_F_RST;
	both = entry->dir[0].tcp_flags & entry->dir[1].tcp_flags;
	if (entry->flags & CT_F_RST || both & TCP_FIN) {
		if (entry->state != CT_CLOSED) {
			entry->state = CT_CLOSED;
			entry->dir[0].expires = now + cfg_ct_lifetime_closing * cfg_ticks_per_second;
			entry->dir[1].expires = entry->dir[0].expires;
		}
	} else if ((entry->dir[0].tcp_flags | entry->dir[1].tcp_flags) & TCP_FIN) {
		entry->state = CT_CLOSING;
	}
}

/*
 * Notes a packet that is let through: states, counters, and how long the entry is kept for it. Under the bucket's lock. A function of
 * its own, because its callers' stack is the one that Linux 6.1 has least left of.
 */
static __noinline __attribute__((unused)) void ct_update(struct podwire_ct_entry *entry, const struct flow *flow,
							 __u32 length, __u64 now)
{
	struct podwire_ct_dir *dir = ct_dir(entry, flow->direction);
	bool was_over = entry->state == CT_CLOSED;
	__u16 lifetime;

	if (flow->direction != entry->opener && entry->state == CT_NEW)
		entry->state = CT_ESTABLISHED;
	if (flow->key.proto == IPPROTO_TCP)
		ct_update_tcp(entry, dir, flow->tcp_flags, now);
	lifetime = ct_lifetime(entry, flow->key.proto);
	entry->dir[0].lifetime = lifetime;
	entry->dir[1].lifetime = lifetime;
	/* What still comes of a connection that is over does not keep it. */
	if (!was_over)
		dir->expires = now + lifetime * cfg_ticks_per_second;
	ct_count(dir, length);
	if (entry->state >= CT_CLOSING) {
		path_break(&entry->dir[0]);
		path_break(&entry->dir[1]);
	}
}

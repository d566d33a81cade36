/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Connections: how an entry's parts are read and written by several CPUs at once. */
#pragma once

#include "lib/config.h"
#include "lib/conntrack_maps.h"
#include "lib/flow.h"

/* Of a path that somebody is writing: generation 0, which no packet is judged under. */
#define CT_SEAL_BUSY 0xff
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

static __always_inline __u64 seal_of(__u32 generation, __u32 tag, __u8 flags)
{
	return (__u64)generation << CT_SEAL_GENERATION_SHIFT | (__u64)tag << CT_SEAL_TAG_SHIFT | flags;
}

/* Loads before it come before loads behind it. x86 keeps them in order by itself. */
#if defined(__TARGET_ARCH_x86)
#define loads_in_order(word) barrier()
#else
#define loads_in_order(word) __sync_fetch_and_add(&(word), 0)
#endif

static __always_inline bool ticks_ahead(__u64 time, __u64 now)
{
	return (__s64)(time - now) > 0;
}

static __always_inline bool ct_is_live(const struct podwire_ct_entry *entry, __u64 now)
{
	return ticks_ahead(READ_ONCE(entry->dir[0].expires), now) || ticks_ahead(READ_ONCE(entry->dir[1].expires), now);
}

/* Direction as the verifier wants it: 0 or 1. */
static __always_inline struct podwire_ct_dir *ct_dir(struct podwire_ct_entry *entry, __u8 direction)
{
	return direction & 1 ? &entry->dir[1] : &entry->dir[0];
}

/*
 * Takes a direction's path out for writing, and returns false where somebody else is at it. Nobody else writes or uses it until
 * it is sealed again.
 */
static __always_inline bool path_take(struct podwire_ct_dir *dir)
{
	__u64 seal = READ_ONCE(dir->seal);

	return seal != CT_SEAL_BUSY && __sync_val_compare_and_swap(&dir->seal, seal, CT_SEAL_BUSY) == seal;
}

static __always_inline void path_seal(struct podwire_ct_dir *dir, __u64 seal)
{
	__sync_lock_test_and_set(&dir->seal, seal);
}

/* No packet uses the path any more. One that is being written is left to the writer, whose generation ends it. */
static __always_inline void path_break(struct podwire_ct_dir *dir)
{
	if (READ_ONCE(dir->seal) && path_take(dir))
		path_seal(dir, 0);
}

static __always_inline void path_write(struct podwire_ct_dir *dir, const struct path *path)
{
	dir->in_ifindex = path->in_ifindex;
	dir->out_ifindex = path->out_ifindex;
	*(__u64 *)dir->dst_mac = load64(path->macs);
	*(__u64 *)(dir->dst_mac + 8) = load64(path->macs + 8);
	*(__u16 *)(dir->in_mac + 4) = path->in_mac_tail;
	dir->dst_id = path->dst_id;
}

/*
 * The entry of a connection. The key is copied to the stack: before Linux 6.2 a map takes no key from memory that a global
 * function was handed.
 */
static __always_inline struct podwire_ct_entry *ct_find(const struct podwire_ct_key *key)
{
	__u64 words[sizeof(*key) / 8];

	__builtin_memcpy(words, key, sizeof(words));
	return bpf_map_lookup_elem(&podwire_ct, words);
}

/* The error is an int: before Linux 6.4 the upper half of what comes back means nothing. */
static __always_inline int ct_insert(const struct podwire_ct_key *key, const struct podwire_ct_entry *entry)
{
	__u64 words[sizeof(*key) / 8];

	__builtin_memcpy(words, key, sizeof(words));
	return bpf_map_update_elem(&podwire_ct, words, entry, BPF_NOEXIST);
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

/* A connection of which nothing was seen yet. `direction` is that of the packet which opens it. */
static __always_inline void ct_reset(struct podwire_ct_entry *entry, __u8 direction, __u64 now)
{
#pragma unroll
	for (int i = 0; i < 2; i++) {
		entry->dir[i].packets = 0;
		entry->dir[i].bytes = 0;
		entry->dir[i].tcp_flags = 0;
		entry->dir[i].expires = now;
	}
	entry->created = now;
	entry->judged = 0;
	entry->backend_id = 0;
	entry->state = CT_NEW;
	entry->opener = direction;
	entry->flags = 0;
}

/*
 * TCP's part of a packet. A connection is over when both sides sent a FIN, or either a RST. Two CPUs that see the two FINs at one
 * moment may both miss the other's: so nothing is sealed in a connection that closes, and its next packet looks again.
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
	both = READ_ONCE(entry->dir[0].tcp_flags) & READ_ONCE(entry->dir[1].tcp_flags);
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

/* Notes a packet that is let through: states, counters, and how long the entry is kept for it. */
static __always_inline void ct_update(struct podwire_ct_entry *entry, const struct flow *flow, __u32 length, __u64 now)
{
	struct podwire_ct_dir *dir = ct_dir(entry, flow->direction);
	__u16 lifetime;

	if (flow->direction != entry->opener && entry->state == CT_NEW)
		entry->state = CT_ESTABLISHED;
	if (flow->key.proto == IPPROTO_TCP)
		ct_update_tcp(entry, dir, flow->tcp_flags, now);
	lifetime = ct_lifetime(entry, flow->key.proto);
	entry->dir[0].lifetime = lifetime;
	entry->dir[1].lifetime = lifetime;
	dir->expires = now + lifetime * cfg_ticks_per_second;
	dir->packets += 1;
	dir->bytes += length;
	if (entry->state >= CT_CLOSING) {
		path_break(&entry->dir[0]);
		path_break(&entry->dir[1]);
	}
}

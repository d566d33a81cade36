/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * podwire_ct as a hash table: where a key's entry is found, and who may write.
 *
 * Readers take no lock. Whoever changes an entry's connection renews both of its seals before and after, whoever changes a
 * path the path's: who finds the same seal before and after reading has read what belongs together.
 */
#pragma once

#include "lib/conntrack_maps.h"
#include "lib/hash.h"

/* How often a writer asks for a lock that is held: many times longer than anybody needs it, unless a hypervisor takes his CPU. */
#define CT_LOCK_TRIES 64

#define EBUSY 16
#define ENOSPC 28

/* The running kernel's, of which one field is of interest. */
struct bpf_map {
	__u32 max_entries;
} __attribute__((preserve_access_index));

/* Once in a function: of several uses the compiler may compute the field's address in a way that the verifier refuses. */
#define map_size(map) (((struct bpf_map *)&(map))->max_entries)

/* Where a key may stand: its two buckets, and the tag that it has there. */
struct ct_spot {
	__u32 home;
	__u32 other;
	__u16 tag;
};

static __always_inline void ct_spot_of(struct ct_spot *spot, const __u64 *key, const struct podwire_runtime *runtime)
{
	__u64 buckets = map_size(podwire_ct_index);
	__u64 hash = hash40(key, runtime), again = hash_again(hash);

	spot->home = (hash >> 32) * buckets >> 32;
	spot->other = (again >> 32) * buckets >> 32;
	spot->tag = again | 1;
}

static __always_inline struct podwire_ct_bucket *ct_bucket(__u32 index)
{
	return bpf_map_lookup_elem(&podwire_ct_index, &index);
}

static __always_inline struct podwire_ct_entry *ct_entry(__u32 slot)
{
	return bpf_map_lookup_elem(&podwire_ct, &slot);
}

/* A place is a bucket's index times CT_WAYS, and the way. */
static __always_inline __u32 place_bucket(int place)
{
	return (__u32)place / CT_WAYS;
}

static __always_inline __u32 place_way(int place)
{
	return (__u32)place % CT_WAYS;
}

/* The entry that a place leads to. */
static __always_inline struct podwire_ct_entry *way_entry(const struct podwire_ct_bucket *bucket, __u32 way)
{
	return ct_entry(READ_ONCE(bucket->slot[way]));
}

/* ---- lanes: several small numbers in a word, looked at together ---- */

#define TAG_ONES 0x0001000100010001ULL
#define RANK_ONES 0x0101010101010101ULL

/* The top bit of the first 16-bit lane that is `value`, and of who knows which ones above; 0 where there is none. */
static __always_inline __u64 tag_lanes(__u64 tags, __u16 value)
{
	__u64 differs = tags ^ value * TAG_ONES;

	return (differs - TAG_ONES) & ~differs & TAG_ONES << 15;
}

/* The top bit of every 8-bit lane that is `value`. */
static __always_inline __u64 rank_lanes(__u64 ranks, __u8 value)
{
	const __u64 low = ~(RANK_ONES << 7);
	__u64 differs = ranks ^ value * RANK_ONES;

	return ~(((differs & low) + low) | differs) & ~low;
}

/* The first lane whose top bit is set; a product moves its number, one of those in the multiplier, to the top bits. */
static __always_inline __u32 first_tag_lane(__u64 lanes)
{
	return ((lanes & -lanes) >> 15) * 0x000040008000c000ULL >> 62;
}

static __always_inline __u32 first_rank_lane(__u64 lanes)
{
	return ((lanes & -lanes) >> 7) * 0x0001020304050607ULL >> 56;
}

/* ---- finding ---- */

static __always_inline bool entry_is(const struct podwire_ct_entry *entry, const __u64 *key)
{
	const __u64 *own = (const __u64 *)&entry->key;

	return !((READ_ONCE(own[0]) ^ key[0]) | (READ_ONCE(own[1]) ^ key[1]) | (READ_ONCE(own[2]) ^ key[2]) |
		 (READ_ONCE(own[3]) ^ key[3]) | (READ_ONCE(own[4]) ^ key[4]));
}

/* The entry at a place, if it is a key's, or NULL. */
static __always_inline struct podwire_ct_entry *way_entry_of(const struct podwire_ct_bucket *bucket, __u32 way,
							     const struct podwire_ct_key *key)
{
	struct podwire_ct_entry *entry = way_entry(bucket, way);

	return entry && READ_ONCE(bucket->tag[way]) && entry_is(entry, (const __u64 *)key) ? entry : NULL;
}

/* The place of a key's entry, or -1. The next moment somebody else may stand there. */
__noinline int ct_locate(const struct podwire_ct_key *key)
{
	const struct podwire_runtime *switches = runtime();
	struct podwire_ct_bucket *bucket;
	struct ct_spot spot;
	__u32 index;

	if (!key || !switches)
		return -1;
	ct_spot_of(&spot, (const __u64 *)key, switches);
	index = spot.home;
#pragma clang loop unroll(full)
	for (int i = 0; i < 2; i++) {
		bucket = ct_bucket(index);
		if (!bucket)
			return -1;
#pragma clang loop unroll(full)
		for (__u32 way = 0; way < CT_WAYS; way++)
			if (READ_ONCE(bucket->tag[way]) == spot.tag && way_entry_of(bucket, way, key))
				return index * CT_WAYS + way;
		if (!READ_ONCE(bucket->away))
			return -1;
		index = spot.other;
	}
	return -1;
}

/* ---- writing ---- */

__noinline int ct_lock(__u32 index)
{
	struct podwire_ct_bucket *bucket = ct_bucket(index);

	if (!bucket)
		return 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i < CT_LOCK_TRIES; i++)
		if (!__sync_val_compare_and_swap(&bucket->lock, 0, 1))
			return 1;
	return 0;
}

/* A bucket whose lock the caller has from now on, or NULL. */
static __always_inline struct podwire_ct_bucket *ct_bucket_lock(__u32 index)
{
	return ct_lock(index) ? ct_bucket(index) : NULL;
}

static __always_inline void ct_bucket_unlock(struct podwire_ct_bucket *bucket)
{
	__sync_lock_test_and_set(&bucket->lock, 0);
}

static __always_inline void ct_unlock(__u32 index)
{
	struct podwire_ct_bucket *bucket = ct_bucket(index);

	if (bucket)
		ct_bucket_unlock(bucket);
}

/* Of a path that does not hold: nobody found one, or it is being written. */
static __always_inline __u64 seal_void(__u64 seal)
{
	return seal & (__u64)CT_SEAL_TURN_MASK << CT_SEAL_TURN_SHIFT;
}

/* The seal after this one. */
static __always_inline __u64 seal_next(__u64 seal, __u32 generation, __u8 flags)
{
	__u64 turn = ((seal >> CT_SEAL_TURN_SHIFT) + 1) & CT_SEAL_TURN_MASK;

	return (__u64)generation << CT_SEAL_GENERATION_SHIFT | turn << CT_SEAL_TURN_SHIFT | flags;
}

static __always_inline void entry_reseal(struct podwire_ct_entry *entry, __u8 flags)
{
	WRITE_ONCE(entry->dir[0].seal, seal_next(entry->dir[0].seal, 0, flags));
	WRITE_ONCE(entry->dir[1].seal, seal_next(entry->dir[1].seal, 0, flags));
}

/* Nobody who reads the entry without the lock goes by what he finds, until entry_settle(). */
static __always_inline void entry_unsettle(struct podwire_ct_entry *entry)
{
	entry_reseal(entry, CT_DIR_F_MOVING);
	stores_in_order(entry->dir[0].seal);
}

/* No path holds yet. */
static __always_inline void entry_settle(struct podwire_ct_entry *entry)
{
	stores_in_order(entry->dir[0].seal);
	entry_reseal(entry, 0);
}

/* In five steps: C knows the struct as aligned to two bytes only. */
static __always_inline void copy_key(struct podwire_ct_key *to, const struct podwire_ct_key *from)
{
	for (int at = 0; at < (int)sizeof(*to); at += 8)
		*(__u64 *)((void *)to + at) = load64((const void *)from + at);
}

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * podwire_ct as a hash table: where a key's entry may stand, who may write there, and who has to go when there is no room.
 *
 * Readers take no lock. A place whose connection changes is marked by an odd life, and a path that is written by a seal of
 * generation 0: who finds the same even life, or the same seal, before and after reading has read what belongs together.
 */
#pragma once

#include "lib/conntrack_maps.h"
#include "lib/hash.h"

/* How often a writer asks for a lock that is held: many times longer than anybody needs it, unless a hypervisor takes his CPU. */
#define CT_LOCK_TRIES 64

#define EBUSY 16

/* Loads before it come before loads behind it, and stores before stores. x86 keeps them in order by itself. */
#if defined(__TARGET_ARCH_x86)
#define loads_in_order(word) barrier()
#define stores_in_order(word) barrier()
#else
#define loads_in_order(word) __sync_fetch_and_add(&(word), 0)
#define stores_in_order(word) __sync_fetch_and_add(&(word), 0)
#endif

/* The running kernel's, of which one field is of interest. */
struct bpf_map {
	__u32 max_entries;
} __attribute__((preserve_access_index));

/* Where a key's entry may stand: indices of buckets, and the tag that it has there. */
struct ct_spot {
	__u32 home;
	__u32 other;
	__u16 tag;
};

static __always_inline void ct_spot_of(struct ct_spot *spot, const __u64 *key, const struct podwire_runtime *runtime)
{
	__u64 buckets = ((struct bpf_map *)&podwire_ct)->max_entries;
	__u64 hash = hash40(key, runtime);

	spot->home = (hash >> 32) * buckets >> 32;
	spot->other = (__u32)hash * buckets >> 32;
	spot->tag = hash >> 32 | 1;
}

static __always_inline struct podwire_ct_bucket *ct_bucket(__u32 index)
{
	return bpf_map_lookup_elem(&podwire_ct, &index);
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

/* ---- lanes: several small numbers in a word, looked at together ---- */

#define TAG_ONES 0x0001000100010001ULL
#define RANK_ONES 0x0101010101010101ULL

/* The top bit of every 16-bit lane that is `value`. */
static __always_inline __u64 tag_lanes(__u64 tags, __u16 value)
{
	const __u64 low = ~(TAG_ONES << 15);
	__u64 differs = tags ^ value * TAG_ONES;

	return ~(((differs & low) + low) | differs) & ~low;
}

/* The top bit of every 8-bit lane that is `value`. */
static __always_inline __u64 rank_lanes(__u64 ranks, __u8 value)
{
	const __u64 low = ~(RANK_ONES << 7);
	__u64 differs = ranks ^ value * RANK_ONES;

	return ~(((differs & low) + low) | differs) & ~low;
}

/* The first lane whose top bit is set; a product moves its number, one of those in the multiplier, to the top. */
static __always_inline __u32 first_tag_lane(__u64 lanes)
{
	return ((lanes & -lanes) >> 15) * 0x0000000100020003ULL >> 48;
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

/* Whether a place is that of a key. */
static __always_inline bool way_is(const struct podwire_ct_bucket *bucket, __u32 way, const struct podwire_ct_key *key)
{
	return READ_ONCE(bucket->tag[way]) && entry_is(&bucket->entry[way], (const __u64 *)key);
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
			if (READ_ONCE(bucket->tag[way]) == spot.tag && way_is(bucket, way, key))
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

/* Of a path that was written after the one with this seal. */
static __always_inline __u64 seal_next(__u64 seal, __u32 generation, __u8 flags)
{
	__u64 turn = ((seal >> CT_SEAL_TURN_SHIFT) + 1) & CT_SEAL_TURN_MASK;

	return (__u64)generation << CT_SEAL_GENERATION_SHIFT | turn << CT_SEAL_TURN_SHIFT | flags;
}

/* Nobody who reads the place without the lock goes by what he finds, until way_settle(). */
static __always_inline void way_unsettle(struct podwire_ct_bucket *bucket, __u32 way)
{
	struct podwire_ct_entry *entry = &bucket->entry[way];

	WRITE_ONCE(bucket->life[way], bucket->life[way] + 1);
	WRITE_ONCE(entry->dir[0].seal, seal_next(entry->dir[0].seal, 0, 0));
	WRITE_ONCE(entry->dir[1].seal, seal_next(entry->dir[1].seal, 0, 0));
	stores_in_order(bucket->life[way]);
}

static __always_inline void way_settle(struct podwire_ct_bucket *bucket, __u32 way)
{
	stores_in_order(bucket->life[way]);
	WRITE_ONCE(bucket->life[way], bucket->life[way] + 1);
}

/* Whoever stands at a place is no longer counted as away from home. */
static __always_inline void way_forget(struct podwire_ct_bucket *bucket, __u32 index, __u32 way,
				       const struct podwire_runtime *runtime)
{
	struct podwire_ct_bucket *home;
	struct ct_spot spot;

	if (bucket->rank[way] == CT_RANK_FREE)
		return;
	ct_spot_of(&spot, (const __u64 *)&bucket->entry[way].key, runtime);
	if (likely(spot.home == index))
		return;
	home = ct_bucket(spot.home);
	if (home)
		__sync_fetch_and_add(&home->away, -1);
}

/* In five steps: C knows the struct as aligned to two bytes only. */
static __always_inline void copy_key(struct podwire_ct_key *to, const struct podwire_ct_key *from)
{
	for (int at = 0; at < (int)sizeof(*to); at += 8)
		*(__u64 *)((void *)to + at) = load64((const void *)from + at);
}

/* Gives a place to a key: whoever stood there goes. For readers it is unsettled from now on. */
static __always_inline void way_give(struct podwire_ct_bucket *bucket, __u32 index, __u32 way,
				     const struct podwire_ct_key *key, const struct ct_spot *spot,
				     const struct podwire_runtime *runtime)
{
	struct podwire_ct_bucket *home;

	way_forget(bucket, index, way, runtime);
	way_unsettle(bucket, way);
	copy_key(&bucket->entry[way].key, key);
	WRITE_ONCE(bucket->tag[way], spot->tag);
	if (likely(index == spot->home))
		return;
	home = ct_bucket(spot->home);
	if (home)
		__sync_fetch_and_add(&home->away, 1);
}

/* Frees a place. */
static __always_inline void way_free(struct podwire_ct_bucket *bucket, __u32 index, __u32 way,
				     const struct podwire_runtime *runtime)
{
	way_forget(bucket, index, way, runtime);
	way_unsettle(bucket, way);
	WRITE_ONCE(bucket->tag[way], 0);
	bucket->rank[way] = CT_RANK_FREE;
	way_settle(bucket, way);
}

/* ---- making room ---- */

/* Whom a newcomer may put out. */
enum ct_room {
	CT_ROOM_FREE, /* nobody, or who is over */
	CT_ROOM_UNANSWERED, /* who has ended, or never got an answer */
	CT_ROOM_ANY, /* whoever would end first */
};

static __always_inline __u64 entry_end(const struct podwire_ct_entry *entry)
{
	__u64 lo = READ_ONCE(entry->dir[0].expires), hi = READ_ONCE(entry->dir[1].expires);

	return lo > hi ? lo : hi;
}

/* The place in a bucket that a newcomer may have, or -1. Among those who never got an answer chance decides. */
__noinline int ct_room(__u32 index, __u64 now, __u32 room)
{
	struct podwire_ct_bucket *bucket = ct_bucket(index);
	__u64 ranks, lanes, end, first = ~0ULL;
	__u32 way, open = 0;

	if (!bucket)
		return -1;
	ranks = READ_ONCE(*(__u64 *)bucket->rank);
	lanes = rank_lanes(ranks, CT_RANK_FREE);
	if (!lanes)
		lanes = rank_lanes(ranks, CT_RANK_OVER);
	if (lanes)
		return first_rank_lane(lanes);
	if (room == CT_ROOM_FREE)
		return -1;
#pragma clang loop unroll(full)
	for (way = 0; way < CT_WAYS; way++) {
		if (bucket->rank[way] != CT_RANK_OPEN)
			continue;
		end = entry_end(&bucket->entry[way]);
		if (end < first) {
			first = end;
			open = way;
		}
	}
	if (first <= now)
		return open;
	lanes = rank_lanes(ranks, CT_RANK_UNANSWERED);
	if (lanes) {
		__u64 beyond = lanes & ~0ULL << (bpf_get_prandom_u32() & (CT_WAYS - 1)) * 8;

		return first_rank_lane(beyond ? beyond : lanes);
	}
	return room == CT_ROOM_ANY ? (int)open : -1;
}

/*
 * A place for a newcomer, for a caller who has his home's lock. Where it is in his other bucket he has that one's lock as well
 * from now on.
 */
__noinline int ct_claim(__u32 home, __u32 other, __u64 now)
{
	int way = ct_room(home, now, CT_ROOM_FREE);

	if (likely(way >= 0))
		return home * CT_WAYS + way;
	if (other != home && ct_lock(other)) {
		way = ct_room(other, now, CT_ROOM_FREE);
		if (way >= 0)
			return other * CT_WAYS + way;
		way = ct_room(home, now, CT_ROOM_UNANSWERED);
		if (way < 0) {
			way = ct_room(other, now, CT_ROOM_UNANSWERED);
			if (way >= 0)
				return other * CT_WAYS + way;
		}
		ct_unlock(other);
		if (way >= 0)
			return home * CT_WAYS + way;
	}
	way = ct_room(home, now, CT_ROOM_ANY);
	return way < 0 ? -1 : (int)(home * CT_WAYS + way);
}

/* Gives the locks back that a newcomer needed. */
static __always_inline void ct_unclaim(__u32 home, __u32 index)
{
	if (index != home)
		ct_unlock(index);
	ct_unlock(home);
}

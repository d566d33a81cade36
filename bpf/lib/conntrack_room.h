/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where a new connection gets its entry from: a free one, or that of whoever can be spared most. */
#pragma once

#include "lib/conntrack_table.h"

/* Each try that fails is one that succeeded elsewhere at that moment. */
#define CT_POOL_TRIES 64

static __always_inline struct podwire_ct_pool *ct_pool(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&podwire_ct_pool, &zero);
}

/* The first free entry's number, plus 1, in a word that was not there before. */
static __always_inline __u64 pool_head(__u64 before, __u32 first)
{
	return ((before >> 32) + 1) << 32 | first;
}

/* The number of a free entry, which is the caller's from now on, or -1. The one freed last comes first: it is still in the cache. */
__noinline int ct_entry_take(void)
{
	struct podwire_ct_pool *pool = ct_pool();
	__u64 head, number, entries = map_size(podwire_ct);
	struct podwire_ct_entry *entry;

	if (!pool)
		return -1;
#pragma clang loop unroll(disable)
	for (int i = 0; i < CT_POOL_TRIES; i++) {
		head = READ_ONCE(pool->free);
		if (!(__u32)head)
			break;
		entry = ct_entry((__u32)head - 1);
		if (!entry)
			return -1;
		if (__sync_val_compare_and_swap(&pool->free, head, pool_head(head, READ_ONCE(entry->judged))) == head)
			return (__u32)head - 1;
	}
	if (READ_ONCE(pool->used) >= entries)
		return -1;
	number = __sync_fetch_and_add(&pool->used, 1);
	return number < entries ? (int)number : -1;
}

/* Gives an unsettled entry back. */
__noinline int ct_entry_give(__u32 slot)
{
	struct podwire_ct_pool *pool = ct_pool();
	struct podwire_ct_entry *entry = ct_entry(slot);
	__u64 head;

	if (!pool || !entry)
		return 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i < CT_POOL_TRIES; i++) {
		head = READ_ONCE(pool->free);
		WRITE_ONCE(entry->judged, (__u32)head);
		if (__sync_val_compare_and_swap(&pool->free, head, pool_head(head, slot + 1)) == head)
			return 1;
	}
	return 0;
}

/* Whoever stands at a place is no longer counted as away from home. */
static __always_inline void way_forget(struct podwire_ct_bucket *bucket, __u32 index, __u32 way,
				       const struct podwire_runtime *runtime)
{
	struct podwire_ct_entry *entry = way_entry(bucket, way);
	struct podwire_ct_bucket *home;
	struct ct_spot spot;

	if (bucket->rank[way] == CT_RANK_FREE || !entry)
		return;
	ct_spot_of(&spot, (const __u64 *)&entry->key, runtime);
	if (likely(spot.home == index))
		return;
	home = ct_bucket(spot.home);
	if (home)
		__sync_fetch_and_add(&home->away, -1);
}

/* Takes an entry out of its place, under the bucket's lock: its number. */
static __always_inline __u32 way_vacate(struct podwire_ct_bucket *bucket, __u32 index, __u32 way,
					const struct podwire_runtime *runtime)
{
	struct podwire_ct_entry *entry = way_entry(bucket, way);

	way_forget(bucket, index, way, runtime);
	if (entry)
		entry_unsettle(entry);
	WRITE_ONCE(bucket->tag[way], 0);
	bucket->rank[way] = CT_RANK_FREE;
	return bucket->slot[way];
}

/*
 * Gives a place that has an entry to a key, under the bucket's lock: whoever stood there goes. Readers do without the entry until
 * entry_settle().
 */
static __always_inline void way_give(struct podwire_ct_bucket *bucket, __u32 index, __u32 way,
				     const struct podwire_ct_key *key, const struct ct_spot *spot,
				     const struct podwire_runtime *runtime)
{
	struct podwire_ct_entry *entry = way_entry(bucket, way);
	struct podwire_ct_bucket *home;

	if (!entry)
		return;
	way_forget(bucket, index, way, runtime);
	entry_unsettle(entry);
	copy_key(&entry->key, key);
	WRITE_ONCE(bucket->tag[way], spot->tag);
	if (likely(index == spot->home))
		return;
	home = ct_bucket(spot->home);
	if (home)
		__sync_fetch_and_add(&home->away, 1);
}

/* ---- who has to go ---- */

/* Whose place a newcomer may have. */
enum ct_room {
	CT_ROOM_FREE, /* nobody's */
	CT_ROOM_OVER, /* of a connection that is over */
	CT_ROOM_UNANSWERED, /* of one that has ended, or never got an answer */
	CT_ROOM_ANY, /* of whoever would end first */
};

static __always_inline __u64 entry_end(const struct podwire_ct_entry *entry)
{
	__u64 lo = READ_ONCE(entry->dir[0].expires), hi = READ_ONCE(entry->dir[1].expires);

	return lo > hi ? lo : hi;
}

/* The way in a bucket that a newcomer may have, or -1. Among those who never got an answer chance decides. */
__noinline int ct_room(__u32 index, __u64 now, __u32 room)
{
	struct podwire_ct_bucket *bucket = ct_bucket(index);
	__u64 ranks, lanes, end, first = ~0ULL;
	struct podwire_ct_entry *entry;
	int open = -1;

	if (!bucket)
		return -1;
	ranks = READ_ONCE(*(__u64 *)bucket->rank);
	lanes = rank_lanes(ranks, room == CT_ROOM_FREE ? CT_RANK_FREE : CT_RANK_OVER);
	if (lanes)
		return first_rank_lane(lanes);
	if (room <= CT_ROOM_OVER)
		return -1;
#pragma clang loop unroll(full)
	for (int way = 0; way < CT_WAYS; way++) {
		entry = way_entry(bucket, way);
		if (bucket->rank[way] != CT_RANK_OPEN || !entry)
			continue;
		end = entry_end(entry);
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
	return room == CT_ROOM_ANY ? open : -1;
}

/* A free place with an entry from the pool, or -1. */
static __always_inline int place_free(__u32 index, __u64 now)
{
	struct podwire_ct_bucket *bucket = ct_bucket(index);
	int way = ct_room(index, now, CT_ROOM_FREE), slot;

	if (way < 0 || !bucket)
		return -1;
	slot = ct_entry_take();
	if (slot < 0)
		return -1;
	WRITE_ONCE(bucket->slot[way & (CT_WAYS - 1)], slot);
	return index * CT_WAYS + way;
}

static __always_inline int place_of(__u32 index, int way)
{
	return way < 0 ? -1 : (int)(index * CT_WAYS + way);
}

/* The place of whoever can be spared most in two buckets, of which the caller has the locks; or -1. None that is open. */
static __always_inline int place_spare(__u32 home, __u32 other, __u64 now)
{
	int place = -1;

#pragma clang loop unroll(full)
	for (__u32 room = CT_ROOM_OVER; room <= CT_ROOM_UNANSWERED; room++) {
		place = place_of(home, ct_room(home, now, room));
		if (place < 0 && other != home)
			place = place_of(other, ct_room(other, now, room));
		if (place >= 0)
			break;
	}
	return place;
}

/* That of an open one. */
static __always_inline int place_open(__u32 home, __u32 other, __u64 now)
{
	int place = place_of(home, ct_room(home, now, CT_ROOM_ANY));

	return place < 0 && other != home ? place_of(other, ct_room(other, now, CT_ROOM_ANY)) : place;
}

/*
 * How many buckets behind a newcomer's home are asked for an entry that can be spared, where all are in use: at four entries a
 * bucket, an open connection goes only where hardly any other kind is left.
 */
#define CT_NEIGHBOURS 16

/* Takes an entry from another bucket: its number, or -1. Of one that is open only where `room` says so. */
__noinline int ct_steal(__u32 index, __u64 now, __u32 room)
{
	const struct podwire_runtime *switches = runtime();
	struct podwire_ct_bucket *bucket = ct_bucket(index);
	int way, slot = -1;
	__u64 ranks;

	if (!bucket || !switches)
		return -1;
	/* Looked at first, and without their entries: there are many of them. */
	ranks = READ_ONCE(*(__u64 *)bucket->rank);
	if (room != CT_ROOM_ANY && !rank_lanes(ranks, CT_RANK_OVER) && !rank_lanes(ranks, CT_RANK_UNANSWERED))
		return -1;
	if (!ranks || !ct_lock(index))
		return -1;
	way = ct_room(index, now, CT_ROOM_OVER);
	if (way < 0)
		way = ct_room(index, now, room);
	if (way >= 0)
		slot = way_vacate(bucket, index, way & (CT_WAYS - 1), switches);
	ct_bucket_unlock(bucket);
	return slot;
}

/*
 * A free place of a newcomer's home with an entry that a neighbour can spare, or -1. The caller has both buckets' locks. A function
 * of its own, because the verifier follows every way out of the loop to the end of the function.
 */
__noinline int ct_stolen(__u32 home, __u32 other, __u64 now, __u32 room)
{
	__u32 buckets = map_size(podwire_ct_index), index;
	struct podwire_ct_bucket *bucket = ct_bucket(home);
	int way = ct_room(home, now, CT_ROOM_FREE), slot;

	if (way < 0 || !bucket)
		return -1;
#pragma clang loop unroll(disable)
	for (int i = 0; i < CT_NEIGHBOURS; i++) {
		/* A remainder, where a comparison would be one more way for the verifier to follow each time. */
		index = (home + 1 + i) % buckets;
		if (index == home)
			return -1;
		slot = index == other ? -1 : ct_steal(index, now, room);
		if (slot >= 0) {
			WRITE_ONCE(bucket->slot[way & (CT_WAYS - 1)], slot);
			return home * CT_WAYS + way;
		}
	}
	return -1;
}

/*
 * A place with an entry for a newcomer, for a caller who has his home's lock. Where it is in his other bucket he has that one's
 * lock as well from now on.
 */
__noinline int ct_claim(__u32 home, __u32 other, __u64 now)
{
	bool both = false;
	int place = place_free(home, now);

	if (likely(place >= 0))
		return place;
	if (other != home)
		both = ct_lock(other);
	if (both)
		place = place_free(other, now);
	if (!both)
		other = home;
	if (place < 0)
		place = place_spare(home, other, now);
	if (place < 0)
		place = ct_stolen(home, other, now, CT_ROOM_UNANSWERED);
	if (place < 0)
		place = place_open(home, other, now);
	if (place < 0)
		place = ct_stolen(home, other, now, CT_ROOM_ANY);
	if (both && (place < 0 || place_bucket(place) == home))
		ct_unlock(other);
	return place;
}

/* Gives the locks back that a newcomer needed. */
static __always_inline void ct_unclaim(__u32 home, __u32 index)
{
	if (index != home)
		ct_unlock(index);
	ct_unlock(home);
}

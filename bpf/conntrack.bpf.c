// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Changes to podwire_ct on behalf of user space: only programs take its locks, because a program that holds one always comes to
 * its end.
 */
#include "lib/conntrack.h"

/*
 * Whether both directions' claims ended more than a second ago. A program that saw one of them still ahead, and is about to
 * write a later one without asking anybody, has long done so by then.
 */
static __always_inline bool is_dead(const struct podwire_ct_entry *entry, __u64 now)
{
	return entry_end(entry) < now - cfg_ticks_per_second;
}

struct sweep {
	__u64 now;
	__u32 first;
	__u32 everything;
	__u32 looked_at;
	__u32 removed;
	__u32 busy;
};

static __always_inline bool is_swept(const struct podwire_ct_bucket *bucket, __u32 way, const struct sweep *sweep)
{
	return bucket->rank[way] != CT_RANK_FREE && (sweep->everything || is_dead(&bucket->entry[way], sweep->now));
}

/* The lock is taken where there is something to remove; what was found before is looked at again. */
static long sweep_bucket(__u32 number, struct sweep *sweep)
{
	const struct podwire_runtime *switches = runtime();
	__u32 index = sweep->first + number, removed = 0, looked_at = 0, found = 0;
	struct podwire_ct_bucket *bucket = ct_bucket(index);

	if (!bucket || !switches)
		return 1;
	if (!*(__u64 *)bucket->rank)
		return 0;
	for (__u32 way = 0; way < CT_WAYS; way++) {
		looked_at += bucket->rank[way] != CT_RANK_FREE;
		found += is_swept(bucket, way, sweep);
	}
	sweep->looked_at += looked_at;
	if (!found)
		return 0;
	if (!ct_lock(index)) {
		sweep->busy++;
		return 0;
	}
	for (__u32 way = 0; way < CT_WAYS; way++) {
		if (is_swept(bucket, way, sweep)) {
			way_free(bucket, index, way, switches);
			removed++;
		}
	}
	ct_bucket_unlock(bucket);
	sweep->removed += removed;
	return 0;
}

SEC("syscall")
int podwire_ct_collect(struct podwire_ct_collect *ctx)
{
	struct sweep sweep = { .first = ctx->first, .everything = ctx->everything, .now = bpf_jiffies64() };

	bpf_loop(ctx->count, sweep_bucket, &sweep, 0);
	ctx->now = sweep.now;
	ctx->looked_at = sweep.looked_at;
	ctx->removed = sweep.removed;
	ctx->busy = sweep.busy;
	return 0;
}

/* Whether there was such an entry. */
static __noinline bool remove(const struct podwire_ct_key *key)
{
	const struct podwire_runtime *switches = runtime();
	int place = ct_locate(key);
	struct podwire_ct_bucket *bucket;
	bool is_there;

	if (place < 0 || !switches)
		return false;
	bucket = ct_bucket_lock(place_bucket(place));
	if (!bucket)
		return false;
	is_there = way_is(bucket, place_way(place), key);
	if (is_there)
		way_free(bucket, place_bucket(place), place_way(place), switches);
	ct_bucket_unlock(bucket);
	return is_there;
}

SEC("syscall")
int podwire_ct_remove(struct podwire_ct_remove *ctx)
{
	__u32 count = ctx->count;

	/* Counted there and not in a register, of which the verifier of Linux 6.1 would follow every value. */
	ctx->removed = 0;
	/* Unrolled, because the verifier takes only constant offsets into the argument of a system call's program. */
#pragma clang loop unroll(full)
	for (__u32 i = 0; i < CT_REMOVE_KEYS; i++) {
		struct podwire_ct_key key __attribute__((aligned(8)));

		if (i >= count)
			break;
		copy_key(&key, &ctx->keys[i]);
		ctx->removed += remove(&key);
	}
	return 0;
}

/* Everything but the key and the paths' turns, in words. */
static __always_inline void entry_copy(struct podwire_ct_entry *to, const struct podwire_ct_entry *from)
{
	__u64 lo = from->dir[0].seal, hi = from->dir[1].seal;

#pragma clang loop unroll(full)
	for (int at = 0; at < (int)sizeof(*to); at += 8)
		if (at != 0 && at != (int)sizeof(struct podwire_ct_dir))
			*(__u64 *)((void *)to + at) = load64((const void *)from + at);
	to->dir[0].seal = seal_next(to->dir[0].seal, lo >> CT_SEAL_GENERATION_SHIFT, lo & CT_SEAL_FLAGS_MASK);
	to->dir[1].seal = seal_next(to->dir[1].seal, hi >> CT_SEAL_GENERATION_SHIFT, hi & CT_SEAL_FLAGS_MASK);
}

/* The place to write to, with the locks that this needs, or a negative errno. */
static __always_inline int insert_place(const struct podwire_ct_key *key, const struct ct_spot *spot)
{
	int place;

	if (!ct_lock(spot->home))
		return -EBUSY;
	place = ct_locate(key);
	if (place < 0)
		place = ct_claim(spot->home, spot->other, bpf_jiffies64());
	else if (place_bucket(place) != spot->home && !ct_lock(place_bucket(place)))
		place = -1;
	if (place < 0) {
		ct_unlock(spot->home);
		return -EBUSY;
	}
	return place;
}

SEC("syscall")
int podwire_ct_insert(struct podwire_ct_insert *ctx)
{
	struct podwire_ct_key key __attribute__((aligned(8)));
	const struct podwire_runtime *switches = runtime();
	struct podwire_ct_bucket *bucket;
	struct ct_spot spot;
	__u32 index, way;
	int place;

	ctx->error = -EBUSY;
	if (!switches)
		return 0;
	copy_key(&key, &ctx->entry.key);
	ct_spot_of(&spot, (const __u64 *)&key, switches);
	place = insert_place(&key, &spot);
	if (place < 0)
		return 0;
	index = place_bucket(place);
	way = place_way(place);
	bucket = ct_bucket(index);
	if (bucket) {
		way_give(bucket, index, way, &key, &spot, switches);
		entry_copy(&bucket->entry[way], &ctx->entry);
		bucket->rank[way] = ct_rank(&bucket->entry[way]);
		way_settle(bucket, way);
		ctx->error = 0;
	}
	ct_unclaim(spot.home, index);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

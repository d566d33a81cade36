// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Changes to podwire_ct on behalf of user space: only programs take its locks, because a program that holds one always comes to
 * its end.
 */
#include "lib/conntrack.h"

enum outcome {
	NOT_THERE,
	REMOVED,
	BUSY,
};

/*
 * Whether both directions' claims ended more than a second ago. A program that saw one of them still ahead, and is about to
 * write a later one without asking anybody, has long done so by then.
 */
static __always_inline bool is_dead(const struct podwire_ct_entry *entry, __u64 now)
{
	return entry_end(entry) < now - cfg_ticks_per_second;
}

/* Removes a key's entry, unless `now` is given and it has not ended by then. */
__noinline int ct_remove(const struct podwire_ct_key *key, __u64 now)
{
	const struct podwire_runtime *switches = runtime();
	struct podwire_ct_bucket *bucket;
	struct podwire_ct_entry *entry;
	int place, outcome = NOT_THERE;
	__u32 way;

	if (!key || !switches)
		return NOT_THERE;
	place = ct_locate(key);
	if (place < 0)
		return NOT_THERE;
	way = place_way(place);
	bucket = ct_bucket_lock(place_bucket(place));
	if (!bucket)
		return BUSY;
	entry = way_entry_of(bucket, way, key);
	if (entry && (!now || is_dead(entry, now))) {
		ct_entry_give(way_vacate(bucket, place_bucket(place), way, switches));
		outcome = REMOVED;
	}
	ct_bucket_unlock(bucket);
	return outcome;
}

struct sweep {
	__u64 now;
	__u32 first;
	__u32 everything;
	__u32 looked_at;
	__u32 removed;
	__u32 busy;
};

/* Looks at one entry without a lock; whoever removes it looks again. */
static long sweep_entry(__u32 number, struct sweep *sweep)
{
	struct podwire_ct_entry *entry = ct_entry(sweep->first + number);
	struct podwire_ct_key key __attribute__((aligned(8)));
	int outcome;

	if (!entry)
		return 1;
	if (READ_ONCE(entry->dir[0].seal) & CT_DIR_F_MOVING)
		return 0;
	sweep->looked_at++;
	if (!sweep->everything && !is_dead(entry, sweep->now))
		return 0;
	copy_key(&key, &entry->key);
	outcome = ct_remove(&key, sweep->everything ? 0 : sweep->now);
	sweep->removed += outcome == REMOVED;
	sweep->busy += outcome == BUSY;
	return 0;
}

SEC("syscall")
int podwire_ct_collect(struct podwire_ct_collect *ctx)
{
	struct sweep sweep = { .first = ctx->first, .everything = ctx->everything, .now = bpf_jiffies64() };
	struct podwire_ct_pool *pool = ct_pool();
	__u32 count = ctx->count;

	/* Beyond them entries are all zero. */
	if (!pool || pool->used <= sweep.first)
		count = 0;
	else if (count > pool->used - sweep.first)
		count = pool->used - sweep.first;
	bpf_loop(count, sweep_entry, &sweep, 0);
	ctx->now = sweep.now;
	ctx->looked_at = sweep.looked_at;
	ctx->removed = sweep.removed;
	ctx->busy = sweep.busy;
	return 0;
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
		if (ct_remove(&key, 0) == REMOVED)
			ctx->removed++;
	}
	return 0;
}

/* Everything but the paths' turns, in words. The entry is unsettled. */
static __always_inline void entry_copy(struct podwire_ct_entry *to, const struct podwire_ct_entry *from)
{
	__u64 lo = from->dir[0].seal, hi = from->dir[1].seal;

#pragma clang loop unroll(full)
	for (int at = 0; at < (int)sizeof(*to); at += 8)
		if (at != 0 && at != (int)sizeof(struct podwire_ct_dir))
			*(__u64 *)((void *)to + at) = load64((const void *)from + at);
	stores_in_order(to->dir[0].seal);
	WRITE_ONCE(to->dir[0].seal, seal_next(to->dir[0].seal, lo >> CT_SEAL_GENERATION_SHIFT, lo & CT_SEAL_FLAGS_MASK));
	WRITE_ONCE(to->dir[1].seal, seal_next(to->dir[1].seal, hi >> CT_SEAL_GENERATION_SHIFT, hi & CT_SEAL_FLAGS_MASK));
}

/* The place to write to, with the locks that this needs, or a negative errno. */
static __always_inline int insert_place(const struct podwire_ct_key *key, const struct ct_spot *spot)
{
	struct podwire_ct_bucket *bucket;
	int place;

	if (!ct_lock(spot->home))
		return -EBUSY;
	place = ct_locate(key);
	if (place < 0) {
		place = ct_claim(spot->home, spot->other, bpf_jiffies64());
		if (place < 0)
			place = -ENOSPC;
	} else if (place_bucket(place) != spot->home) {
		bucket = ct_bucket_lock(place_bucket(place));
		/* Who is away from home may go while only its home is locked. */
		if (bucket && !way_entry_of(bucket, place_way(place), key)) {
			ct_bucket_unlock(bucket);
			bucket = NULL;
		}
		if (!bucket)
			place = -EBUSY;
	}
	if (place < 0)
		ct_unlock(spot->home);
	return place;
}

SEC("syscall")
int podwire_ct_insert(struct podwire_ct_insert *ctx)
{
	struct podwire_ct_key key __attribute__((aligned(8)));
	const struct podwire_runtime *switches = runtime();
	struct podwire_ct_bucket *bucket;
	struct podwire_ct_entry *entry;
	struct ct_spot spot;
	__u32 way;
	int place;

	ctx->error = -EBUSY;
	if (!switches)
		return 0;
	copy_key(&key, &ctx->entry.key);
	ct_spot_of(&spot, (const __u64 *)&key, switches);
	place = insert_place(&key, &spot);
	if (place < 0) {
		ctx->error = place;
		return 0;
	}
	way = place_way(place);
	bucket = ct_bucket(place_bucket(place));
	if (bucket) {
		way_give(bucket, place_bucket(place), way, &key, &spot, switches);
		entry = way_entry(bucket, way);
		if (entry) {
			entry_copy(entry, &ctx->entry);
			bucket->rank[way] = ct_rank(entry);
			ctx->error = 0;
		}
	}
	ct_unclaim(spot.home, place_bucket(place));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

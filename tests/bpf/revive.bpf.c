// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Plays the datapath against the collector: opens connections, uses them with and without the lock, lets them end and revives
 * them, by the same rules, as fast as it can. It remembers until when each one is promised to be kept, and counts those that
 * were not.
 */
#include "lib/conntrack.h"

#define CONNECTIONS 1024
#define STEPS 64
#define GENERATION 1

/* The argument; as in tests/conntrack_race.rs. */
struct revive {
	__u32 first; /* connections from here on are this caller's */
	__u32 mask; /* so many of them, less one */
	__u32 lifetime; /* seconds */
	__u32 pad;
	__u64 opened;
	__u64 used; /* under the lock */
	__u64 used_fast; /* without */
	__u64 ended;
	__u64 revived;
	__u64 busy; /* a lock was not to be had */
	__u64 lost; /* promised, and not there */
};

/* What a step came to. */
enum outcome {
	NOTHING,
	OPENED,
	USED,
	USED_FAST,
	ENDED,
	REVIVED,
	BUSY,
	LOST,
	OUTCOMES,
};

/* Until when a connection is promised to be kept, in jiffies64. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CONNECTIONS);
	__type(key, __u32);
	__type(value, __u64);
} promises SEC(".maps");

static __always_inline void make_key(struct podwire_ct_key *key, __u32 number)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->lo_addr[0] = 10;
	key->hi_addr[0] = 11;
	key->lo_port_be = number;
	key->proto = 17;
	key->family = 1;
}

/* As a connection begins in an entry that is unsettled. */
static __always_inline void begin(struct podwire_ct_bucket *bucket, __u32 way, struct podwire_ct_entry *entry, __u64 now,
				  __u64 later)
{
	ct_reset(entry, 0, now);
	entry->state = CT_ESTABLISHED;
	entry->dir[0].expires = later;
	entry_settle(entry);
	for (int i = 0; i < 2; i++)
		entry->dir[i].seal = seal_next(entry->dir[i].seal, GENERATION, CT_PATH_HOLDS);
	bucket->rank[way] = ct_rank(entry);
}

/* As entry_insert() of lib/admit.h: whether the connection has a place from now on. */
static __always_inline bool open(const struct podwire_ct_key *key, __u64 now, __u64 later)
{
	const struct podwire_runtime *switches = runtime();
	struct podwire_ct_bucket *bucket;
	struct podwire_ct_entry *entry;
	struct ct_spot spot;
	__u32 index;
	int place;

	if (!switches)
		return false;
	ct_spot_of(&spot, (const __u64 *)key, switches);
	if (!ct_lock(spot.home))
		return false;
	place = ct_claim(spot.home, spot.other, now);
	index = place_bucket(place);
	bucket = ct_bucket(index);
	if (place < 0 || !bucket) {
		ct_unlock(spot.home);
		return false;
	}
	way_give(bucket, index, place_way(place), key, &spot, switches);
	entry = way_entry(bucket, place_way(place));
	if (entry)
		begin(bucket, place_way(place), entry, now, later);
	ct_unclaim(spot.home, index);
	return true;
}

/* As fast_find() of lib/fast.h: whether the connection was kept without its bucket's lock. */
static __always_inline bool use_fast(struct podwire_ct_entry *entry, const struct podwire_ct_key *key, __u32 direction,
				     __u64 now, __u64 later)
{
	struct podwire_ct_dir *dir = ct_dir(entry, direction);
	__u64 seal = READ_ONCE(dir->seal);

	if (seal >> CT_SEAL_GENERATION_SHIFT != GENERATION)
		return false;
	loads_in_order(dir->seal);
	if (!entry_is(entry, (const __u64 *)key) || !ticks_ahead(READ_ONCE(dir->expires), now))
		return false;
	dir->expires = later;
	return true;
}

/* Under the lock: uses, ends or revives a connection, as it is and as chance wills. */
static __always_inline enum outcome change(struct podwire_ct_bucket *bucket, __u32 way, struct podwire_ct_entry *entry,
					   __u64 *promise, __u32 random, __u64 now, __u64 later)
{
	if (!ct_is_live(entry, now)) {
		entry_unsettle(entry);
		begin(bucket, way, entry, now, later);
		*promise = later;
		return REVIVED;
	}
	if (random & 0x40000000) {
		ct_dir(entry, random >> 31)->expires = later;
		*promise = later;
		return USED;
	}
	*promise = 0;
	entry->dir[CT_FROM_LO].expires = now - 10 * cfg_ticks_per_second;
	entry->dir[CT_FROM_HI].expires = now - 10 * cfg_ticks_per_second;
	return ENDED;
}

/* Not static, so that the verifier checks it once and not at every step. */
__noinline int step(__u32 number, __u32 lifetime, __u32 random)
{
	__u64 *promise = bpf_map_lookup_elem(&promises, &number);
	__u64 now = bpf_jiffies64(), later = now + (__u64)lifetime * cfg_ticks_per_second;
	struct podwire_ct_key key __attribute__((aligned(8)));
	struct podwire_ct_bucket *bucket;
	struct podwire_ct_entry *entry;
	int place, outcome = NOTHING;

	if (!promise)
		return NOTHING;
	make_key(&key, number);
	place = ct_locate(&key);
	if (*promise > now && (place < 0 || ct_opener(place, &key, now) < 0)) {
		*promise = 0;
		return LOST;
	}
	if (place < 0) {
		if (!open(&key, now, later))
			return BUSY;
		*promise = later;
		return OPENED;
	}
	bucket = ct_bucket(place_bucket(place));
	entry = bucket ? way_entry(bucket, place_way(place)) : NULL;
	if (entry && random & 0x20000000 && use_fast(entry, &key, random >> 31, now, later)) {
		*promise = later;
		return USED_FAST;
	}
	bucket = ct_bucket_lock(place_bucket(place));
	if (!bucket)
		return BUSY;
	/* Only the collector may have been faster. */
	entry = way_entry_of(bucket, place_way(place), &key);
	if (entry)
		outcome = change(bucket, place_way(place), entry, promise, random, now, later);
	ct_bucket_unlock(bucket);
	return outcome;
}

SEC("syscall")
int revive(struct revive *ctx)
{
	__u32 first = ctx->first, mask = ctx->mask, lifetime = ctx->lifetime;
	__u64 counts[OUTCOMES] = {};

	for (int i = 0; i < STEPS; i++) {
		__u32 random = bpf_get_prandom_u32();

		counts[step((first + (random & mask)) & (CONNECTIONS - 1), lifetime, random) & (OUTCOMES - 1)]++;
	}
	ctx->opened += counts[OPENED];
	ctx->used += counts[USED];
	ctx->used_fast += counts[USED_FAST];
	ctx->ended += counts[ENDED];
	ctx->revived += counts[REVIVED];
	ctx->busy += counts[BUSY];
	ctx->lost += counts[LOST];
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Plays the datapath against the collector: opens connections, uses them, lets them end and revives them, by the same rules, as
 * fast as it can. It remembers until when each one is promised to be kept, and counts those that were not.
 */
#include "lib/config.h"
#include "lib/conntrack_maps.h"

#define CONNECTIONS 1024
#define STEPS 64

/* The argument; as in tests/conntrack_race.rs. */
struct revive {
	__u32 first; /* connections from here on are this caller's */
	__u32 mask; /* so many of them, less one */
	__u32 lifetime; /* seconds */
	__u32 pad;
	__u64 opened;
	__u64 used;
	__u64 ended;
	__u64 revived;
	__u64 claimed; /* could not be revived: somebody was at it */
	__u64 lost; /* promised, and not there */
};

/* Until when a connection is promised to be kept, in jiffies64. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CONNECTIONS);
	__type(key, __u32);
	__type(value, __u64);
} promises SEC(".maps");

static __always_inline bool is_live(const struct podwire_ct_entry *entry, __u64 now)
{
	return entry->dir[CT_FROM_LO].expires > now || entry->dir[CT_FROM_HI].expires > now;
}

static __always_inline void make_key(struct podwire_ct_key *key, __u32 number)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->lo_addr[0] = 10;
	key->hi_addr[0] = 11;
	key->lo_port_be = number;
	key->proto = 17;
	key->family = 1;
}

static __noinline int step(struct revive *ctx, __u32 random)
{
	__u32 number = (ctx->first + (random & ctx->mask)) & (CONNECTIONS - 1);
	__u64 *promise = bpf_map_lookup_elem(&promises, &number);
	__u64 now = bpf_jiffies64(), later = now + (__u64)ctx->lifetime * cfg_ticks_per_second;
	__u32 direction = random >> 31;
	struct podwire_ct_entry *entry;
	struct podwire_ct_key key;

	make_key(&key, number);
	entry = bpf_map_lookup_elem(&podwire_ct, &key);
	if (!promise)
		return 0;
	if (*promise > now && (!entry || !is_live(entry, now))) {
		ctx->lost++;
		*promise = 0;
		return 0;
	}
	if (!entry) {
		struct podwire_ct_entry fresh = {};

		fresh.dir[CT_FROM_LO].expires = later;
		if (!bpf_map_update_elem(&podwire_ct, &key, &fresh, BPF_NOEXIST)) {
			*promise = later;
			ctx->opened++;
		}
	} else if (is_live(entry, now)) {
		if (random & 0x40000000) {
			entry->dir[direction & 1].expires = later;
			*promise = later;
			ctx->used++;
		} else {
			*promise = 0;
			entry->dir[CT_FROM_LO].expires = now - 10 * cfg_ticks_per_second;
			entry->dir[CT_FROM_HI].expires = now - 10 * cfg_ticks_per_second;
			ctx->ended++;
		}
	} else if (__sync_val_compare_and_swap(&entry->claim, 0, 1)) {
		ctx->claimed++;
	} else {
		if (bpf_map_lookup_elem(&podwire_ct, &key) == entry) {
			entry->dir[direction & 1].expires = later;
			*promise = later;
			ctx->revived++;
		}
		__sync_lock_test_and_set(&entry->claim, 0);
	}
	return 0;
}

SEC("syscall")
int revive(struct revive *ctx)
{
	for (int i = 0; i < STEPS; i++)
		step(ctx, bpf_get_prandom_u32());
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Removes connections that have ended. User space reads podwire_ct and hands over what looked dead, because only a program can
 * look again and remove without a packet coming in between.
 */
#include "lib/config.h"
#include "lib/conntrack_maps.h"

/*
 * Whether both directions' claims ended more than a second ago. A program that saw one of them still ahead, and is about to
 * write a later one without asking anybody, has long done so by then.
 */
static __always_inline bool is_dead(const struct podwire_ct_entry *entry, __u64 now)
{
	__u64 before = now - cfg_ticks_per_second;

	return entry->dir[CT_FROM_LO].expires < before && entry->dir[CT_FROM_HI].expires < before;
}

/* In five steps: C knows the struct as aligned to two bytes only. */
static __always_inline void copy_key(struct podwire_ct_key *to, const struct podwire_ct_key *from)
{
	for (int at = 0; at < (int)sizeof(*to); at += 8)
		*(__u64 *)((void *)to + at) = load64((const void *)from + at);
}

/* A dead entry is revived only by whoever holds its claim: while we do, it stays dead. */
static __noinline int collect(struct podwire_ct_collect *ctx, const struct podwire_ct_key *key, __u64 now)
{
	struct podwire_ct_entry *entry = bpf_map_lookup_elem(&podwire_ct, key);

	if (!entry) {
		ctx->gone++;
		return 0;
	}
	if (__sync_val_compare_and_swap(&entry->claim, 0, 1)) {
		ctx->alive++;
		return 0;
	}
	/* The map may have evicted the entry and given its memory to another key before the claim was made. */
	if (bpf_map_lookup_elem(&podwire_ct, key) == entry && is_dead(entry, now) &&
	    !bpf_map_delete_elem(&podwire_ct, key)) {
		ctx->removed++;
		return 0;
	}
	__sync_lock_test_and_set(&entry->claim, 0);
	ctx->alive++;
	return 0;
}

SEC("syscall")
int podwire_ct_collect(struct podwire_ct_collect *ctx)
{
	__u32 count = ctx->count;
	__u64 now = bpf_jiffies64();

	ctx->now = now;
	/* Counted there and not in registers, of which the verifier of Linux 6.1 would follow every combination of values. */
	ctx->removed = 0;
	ctx->alive = 0;
	ctx->gone = 0;
	/* Unrolled, because the verifier takes only constant offsets into the argument of a system call's program. */
#pragma clang loop unroll(full)
	for (__u32 i = 0; i < CT_COLLECT_KEYS; i++) {
		struct podwire_ct_key key __attribute__((aligned(8)));

		if (i >= count)
			break;
		copy_key(&key, &ctx->keys[i]);
		collect(ctx, &key, now);
	}
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

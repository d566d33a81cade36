// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The programs of conntrack.bpf.c at the worst of moments: whoever has found a connection and waits for its bucket's lock finds
 * the first two ways exchanged when he has it, as if both connections had gone and come back, each to the other's place.
 */
#include "lib/conntrack.h"

static __always_inline struct podwire_ct_bucket *bucket_lock_too_late(__u32 index)
{
	struct podwire_ct_bucket *bucket = ct_bucket_lock(index);
	__u32 slot;
	__u16 tag;
	__u8 rank;

	if (!bucket)
		return NULL;
	slot = bucket->slot[0];
	tag = bucket->tag[0];
	rank = bucket->rank[0];
	bucket->slot[0] = bucket->slot[1];
	bucket->tag[0] = bucket->tag[1];
	bucket->rank[0] = bucket->rank[1];
	bucket->slot[1] = slot;
	bucket->tag[1] = tag;
	bucket->rank[1] = rank;
	return bucket;
}

#define ct_bucket_lock bucket_lock_too_late
#include "conntrack.bpf.c"

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* How many connections each direction's policies let pass. What they deny is counted packet by packet, with the drops. */
#pragma once

#include "lib/metrics.h"
#include "lib/verdict_rows.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VERDICT_COUNTS);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} podwire_verdict_counts SEC(".maps");

static __always_inline void count_verdict(__u32 which)
{
	__u64 *count = bpf_map_lookup_elem(&podwire_verdict_counts, &which);

	if (count)
		*count += 1;
}

/* Of a verdict that lets a connection pass. */
static __always_inline void count_verdicts(const struct podwire_verdict *row)
{
	if (row->flags & VERDICT_ROW_F_EGRESS)
		count_verdict(row->flags & VERDICT_ROW_F_EGRESS_AUDITED ? VERDICT_AUDITED_EGRESS : VERDICT_ALLOWED_EGRESS);
	if (row->flags & VERDICT_ROW_F_INGRESS)
		count_verdict(row->flags & VERDICT_ROW_F_INGRESS_AUDITED ? VERDICT_AUDITED_INGRESS : VERDICT_ALLOWED_INGRESS);
}

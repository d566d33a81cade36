/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Whether a connection may be, and where its packets go: judged once per generation, remembered by each CPU. */
#pragma once

#include "lib/config.h"
#include "lib/hash.h"
#include "lib/identity.h"
#include "lib/policy.h"
#include "lib/verdict_rows.h"

/* What is judged: the first 40 bytes of a row. */
struct judged {
	__u64 src[2];
	__u64 dst[2];
	__be16 dport_be;
	__u8 proto;
	__u8 family;
	__u32 generation;
};

static __always_inline bool row_is_for(const struct podwire_verdict *row, const struct judged *what)
{
	return load64(row->src) == what->src[0] && load64(row->src + 8) == what->src[1] &&
	       load64(row->dst) == what->dst[0] && load64(row->dst + 8) == what->dst[1] &&
	       load64(&row->dport_be) == load64(&what->dport_be);
}

/* Without the generation: a verdict of an earlier one is overwritten where it stands. */
static __always_inline __u32 row_index(const struct judged *what, const struct podwire_runtime *runtime)
{
	__u64 words[5] = { what->src[0], what->src[1], what->dst[0], what->dst[1], (__u32)load64(&what->dport_be) };

	return hash40(words, runtime) >> 32 & (VERDICT_ROWS - 1);
}

static __always_inline void row_resolve(struct podwire_verdict *row, const struct judged *what, struct party *src,
					struct party *dst, const struct podwire_runtime *switches)
{
	const struct podwire_party *receiver;

	party_resolve(src, what->src, what->family, what->generation, switches);
	receiver = party_resolve(dst, what->dst, what->family, what->generation, switches);
	row->src_label = src->identity;
	row->src_id = src->id;
	row->dst_label = dst->identity;
	row->dst_id = dst->id;
	row->dst_ifindex = 0;
	if (!receiver)
		return;
	if (receiver->flags & PARTY_F_HOST)
		row->flags |= VERDICT_ROW_F_HOST;
	row->dst_ifindex = receiver->ifindex;
	*(__u64 *)row->dst_mac = load64(receiver->mac);
	*(__u64 *)row->dst_node_mac = load64(receiver->node_mac);
}

static __always_inline void row_judge(struct podwire_verdict *row, const struct judged *what, const struct party *src,
				      const struct party *dst)
{
	struct decision decision;

	/* What somebody says to himself is his own affair. */
	if (what->src[0] == what->dst[0] && what->src[1] == what->dst[1])
		return;
	if (src->id) {
		policy_decide(&decision, src->id, dst->identity, POLICY_EGRESS, what->proto, what->dport_be);
		row->flags |= VERDICT_ROW_F_EGRESS;
		row->egress_rule = decision.rule;
		row->egress_match = decision.match;
		if (decision.reason && src->is_audited)
			row->flags |= VERDICT_ROW_F_EGRESS_AUDITED;
		else if (decision.reason)
			row->reason = decision.reason;
	}
	if (dst->id && !row->reason) {
		policy_decide(&decision, dst->id, src->identity, POLICY_INGRESS, what->proto, what->dport_be);
		row->flags |= VERDICT_ROW_F_INGRESS;
		row->ingress_rule = decision.rule;
		row->ingress_match = decision.match;
		if (decision.reason && dst->is_audited)
			row->flags |= VERDICT_ROW_F_INGRESS_AUDITED;
		else if (decision.reason)
			row->reason = decision.reason;
	}
}

/*
 * The verdict on a connection. The caller read the generation before anything else, so that what is remembered under it is at
 * least as new as it says.
 */
static __always_inline struct podwire_verdict *judge(const struct judged *what, const struct podwire_runtime *switches)
{
	__u32 index = row_index(what, switches);
	struct podwire_verdict *row = bpf_map_lookup_elem(&podwire_verdicts, &index);
	struct party src, dst;

	if (!row || likely(row_is_for(row, what)))
		return row;
	*(__u64 *)row->src = what->src[0];
	*(__u64 *)(row->src + 8) = what->src[1];
	*(__u64 *)row->dst = what->dst[0];
	*(__u64 *)(row->dst + 8) = what->dst[1];
	*(__u64 *)&row->dport_be = load64(&what->dport_be);
	row->egress_rule = 0;
	row->ingress_rule = 0;
	*(__u32 *)&row->reason = 0;
	row_resolve(row, what, &src, &dst, switches);
	row_judge(row, what, &src, &dst);
	return row;
}

/* Which of the two policies denied. */
static __always_inline __u8 denied_direction(const struct podwire_verdict *row)
{
	return row->flags & VERDICT_ROW_F_INGRESS ? METRICS_INGRESS : METRICS_EGRESS;
}

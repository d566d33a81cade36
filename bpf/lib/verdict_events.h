/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Events of policy verdicts. */
#pragma once

#include "lib/events.h"
#include "lib/verdicts.h"

struct verdict_event {
	struct policy_verdict_notify notify;
	__u8 head[EVENT_HEAD];
};

static __noinline int emit_verdict(struct __sk_buff *skb, const struct podwire_verdict *row, __u32 direction, __u32 raised_by)
{
	bool egress = direction == METRICS_EGRESS;
	bool audited = row->flags & (egress ? VERDICT_ROW_F_EGRESS_AUDITED : VERDICT_ROW_F_INGRESS_AUDITED);
	bool denied = row->reason && denied_direction(row) == direction;
	__u8 match = egress ? row->egress_match : row->ingress_match;
	struct podwire_event_budget *budget = event_budget();
	struct verdict_event *event;

	if (!budget)
		return 0;
	event = bpf_ringbuf_reserve(&podwire_events, sizeof(*event), 0);
	if (!event) {
		budget->lost += 1;
		return 0;
	}
	event->notify = (struct policy_verdict_notify){
		.type = NOTIFY_POLICY_VERDICT,
		.source = egress ? row->src_id : row->dst_id,
		.hash = skb->hash,
		.len_orig = skb->len,
		.version = NOTIFY_POLICY_VERDICT_VERSION,
		.remote_label = egress ? row->dst_label : row->src_label,
		.verdict = denied ? -(__s32)row->reason : 0,
		.dst_port = bpf_ntohs(row->dport_be),
		.proto = row->proto,
		.flags = direction | (row->family == ENDPOINT_IPV6 ? VERDICT_F_IPV6 : 0) |
			 match << VERDICT_MATCH_SHIFT | (audited ? VERDICT_F_AUDITED : 0),
		.raised_by = raised_by,
		.cookie = egress ? row->egress_rule : row->ingress_rule,
	};
	event->notify.len_cap = copy_head(skb, event->head);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* An event for each policy that was asked. `raised_by`: enum policy_verdict_raised_by. */
static __always_inline void emit_verdicts(struct __sk_buff *skb, const struct podwire_verdict *row, __u32 raised_by)
{
	if (row->flags & VERDICT_ROW_F_EGRESS)
		emit_verdict(skb, row, METRICS_EGRESS, raised_by);
	if (row->flags & VERDICT_ROW_F_INGRESS)
		emit_verdict(skb, row, METRICS_INGRESS, raised_by);
}

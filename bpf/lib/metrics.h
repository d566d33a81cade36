/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Counters: drops by reason in cilium_metrics, forwarded packets by point in an array that costs no helper call. */
#pragma once

#include "lib/common.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct metrics_key);
	__type(value, struct metrics_value);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cilium_metrics SEC(".maps");

/* Folded into cilium_metrics (reason 0) by user space: a hash lookup per forwarded packet would cost 40 ns. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FORWARD_POINTS);
	__type(key, __u32);
	__type(value, struct metrics_value);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} podwire_forwards SEC(".maps");

static __always_inline void count_packet(struct metrics_value *value, const struct __sk_buff *skb)
{
	value->count += 1;
	value->bytes += skb->len;
}

static __always_inline void count_forward(const struct __sk_buff *skb, __u32 point)
{
	struct metrics_value *value = bpf_map_lookup_elem(&podwire_forwards, &point);

	if (value)
		count_packet(value, skb);
}

/* Drops by policy have places of their own in the array; user space puts them with the others. */
static __always_inline bool count_denial(const struct __sk_buff *skb, __u32 reason, __u8 direction)
{
	__u32 ingress = direction == METRICS_INGRESS;

	if (reason == REASON_POLICY_DENIED)
		count_forward(skb, DENIED_EGRESS + ingress);
	else if (reason == REASON_POLICY_DENY_RULE)
		count_forward(skb, DENY_RULE_EGRESS + ingress);
	else
		return false;
	return true;
}

/* A function of its own: what a flood is denied by is to pay nothing for it. */
static __noinline int count_other_drop(const struct __sk_buff *skb, int verdict, __u8 direction)
{
	struct metrics_key key = {
		.reason = drop_reason(verdict),
		.dir = direction,
		.line = drop_line(verdict),
		.file = drop_file(verdict),
	};
	struct metrics_value *value = bpf_map_lookup_elem(&cilium_metrics, &key);

	if (!value) {
		struct metrics_value none = {};

		/* Another CPU may make the entry first: either way it is there afterwards, unless the map is full. */
		bpf_map_update_elem(&cilium_metrics, &key, &none, BPF_NOEXIST);
		value = bpf_map_lookup_elem(&cilium_metrics, &key);
	}
	if (value)
		count_packet(value, skb);
	return 0;
}

static __always_inline void count_drop(const struct __sk_buff *skb, int verdict, __u8 direction)
{
	if (!count_denial(skb, drop_reason(verdict), direction))
		count_other_drop(skb, verdict, direction);
}

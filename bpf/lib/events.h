/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Events for user space: drops (limited per CPU and time) and, when switched on, forwarded packets. */
#pragma once

#include "lib/common.h"
#include "lib/runtime.h"

/* Between whom a packet goes, as far as counters and events care. */
struct sender {
	__u32 identity;
	__u32 dst_identity; /* 0: not known */
	__u16 lxc_id; /* the pod whose program runs; 0: none */
	__u16 dst_id; /* the receiving pod; 0: none, or not known */
	__u8 direction; /* enum metrics_direction */
	__u8 reason; /* enum trace_reason */
};

/* How much of a packet an event carries. */
#define EVENT_HEAD 128
/* A window of the drop limit lasts 2^8 ticks: about a second at 250 Hz. */
#define EVENT_WINDOW_SHIFT 8

struct drop_event {
	struct drop_notify notify;
	__u8 head[EVENT_HEAD];
};

struct trace_event {
	struct trace_notify notify;
	__u8 head[EVENT_HEAD];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} podwire_events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct podwire_event_budget);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} podwire_event_budget SEC(".maps");

static __always_inline struct podwire_event_budget *event_budget(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&podwire_event_budget, &zero);
}

/* Whether this CPU may emit one more drop event in the current window. */
static __always_inline bool drop_event_allowed(struct podwire_event_budget *budget)
{
	const struct podwire_runtime *switches = runtime();
	__u64 window = bpf_jiffies64() >> EVENT_WINDOW_SHIFT;

	if (budget->window != window) {
		budget->window = window;
		budget->emitted = 0;
	}
	if (!switches || budget->emitted >= switches->drop_events_per_window) {
		budget->limited += 1;
		return false;
	}
	budget->emitted += 1;
	return true;
}

static __always_inline __u8 event_flags(const struct __sk_buff *skb)
{
	return skb->protocol == bpf_htons(0x86dd) ? NOTIFY_F_IPV6 : 0;
}

/* Copies the packet's start; returns how many bytes that were. */
static __always_inline __u16 copy_head(struct __sk_buff *skb, __u8 *head)
{
	__u32 last = (skb->len < EVENT_HEAD ? skb->len : EVENT_HEAD) - 1, length;

	/*
	 * Mask and sum change nothing, but show the verifier bounds of 1 and EVENT_HEAD: before Linux 6.8 it does not learn
	 * from a comparison with 0. They are hidden from the compiler, which would leave them out.
	 */
	asm volatile("" : "+r"(last));
	length = (last & (EVENT_HEAD - 1)) + 1;
	return bpf_skb_load_bytes(skb, 0, head, length) ? 0 : length;
}

static __always_inline void emit_drop(struct __sk_buff *skb, int verdict, const struct sender *from)
{
	struct podwire_event_budget *budget = event_budget();
	struct drop_event *event;

	if (!budget || !drop_event_allowed(budget))
		return;
	event = bpf_ringbuf_reserve(&podwire_events, sizeof(*event), 0);
	if (!event) {
		budget->lost += 1;
		return;
	}
	event->notify = (struct drop_notify){
		.type = NOTIFY_DROP,
		.subtype = drop_reason(verdict),
		.source = from->lxc_id,
		.hash = skb->hash,
		.len_orig = skb->len,
		.version = NOTIFY_DROP_VERSION,
		.src_label = from->identity,
		.dst_label = from->dst_identity,
		.dst_id = from->dst_id,
		.line = drop_line(verdict),
		.file = drop_file(verdict),
		.ifindex = skb->ifindex,
		.flags = event_flags(skb),
	};
	event->notify.len_cap = copy_head(skb, event->head);
	bpf_ringbuf_submit(event, 0);
}

static __noinline int emit_trace(struct __sk_buff *skb, __u32 point, const struct sender *from)
{
	struct podwire_event_budget *budget = event_budget();
	struct trace_event *event;

	if (!budget)
		return 0;
	event = bpf_ringbuf_reserve(&podwire_events, sizeof(*event), 0);
	if (!event) {
		budget->lost += 1;
		return 0;
	}
	event->notify = (struct trace_notify){
		.type = NOTIFY_TRACE,
		.subtype = point,
		.source = from->lxc_id,
		.hash = skb->hash,
		.len_orig = skb->len,
		.version = NOTIFY_TRACE_VERSION,
		.src_label = from->identity,
		.dst_label = from->dst_identity,
		.dst_id = from->dst_id,
		.reason = from->reason,
		.flags = event_flags(skb),
		.ifindex = skb->ifindex,
	};
	event->notify.len_cap = copy_head(skb, event->head);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* Emits a trace event where tracing is on. Pointers into the packet stay valid. */
static __always_inline void trace(struct __sk_buff *skb, __u32 point, const struct sender *from)
{
	const struct podwire_runtime *switches = runtime();

	if (unlikely(switches && switches->trace))
		emit_trace(skb, point, from);
}

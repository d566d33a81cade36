/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The two ways on: into a local pod, or into the host's stack. */
#pragma once

#include "lib/config.h"
#include "lib/events.h"
#include "lib/finish.h"
#include "lib/metrics.h"
#include "lib/packet.h"

/* Where a packet goes. */
struct target {
	__u32 ifindex; /* host side of a local pod's pair; 0: to the host's stack */
	bool is_here; /* a local pod, or the host itself */
	__u8 mac[8] __attribute__((aligned(8)));
	__u8 node_mac[8];
};

static __always_inline void write_macs(struct ethernet *eth, const __u8 *destination, const __u8 *source)
{
	copy_mac(eth->destination, destination);
	copy_mac(eth->source, source);
}

/*
 * Into a pod from an ingress hook: straight to the far end of its veth pair, past the host's queues. The frame's
 * addresses are written before the trace, so that the event shows what the pod receives.
 */
static __always_inline int deliver_to_pod(struct __sk_buff *skb, struct ethernet *eth, const struct target *pod,
					  const struct sender *from, __u32 point)
{
	write_macs(eth, pod->mac, pod->node_mac);
	count_forward(skb, point);
	trace(skb, TRACE_TO_LXC, from);
	return bpf_redirect_peer(pod->ifindex, 0);
}

/* Into a pod from an egress hook, where the kernel does not allow the short way: out of its host-side device. */
static __always_inline int deliver_from_egress(struct __sk_buff *skb, struct ethernet *eth,
					       const struct endpoint_info *pod, struct sender *from)
{
	from->dst_id = pod->lxc_id;
	from->dst_identity = pod->sec_id;
	write_macs(eth, pod->mac, pod->node_mac);
	count_forward(skb, FORWARD_HOST_TO_POD);
	trace(skb, TRACE_TO_LXC, from);
	return bpf_redirect(pod->ifindex, 0);
}

/*
 * Into the host's stack, as if it came in through cilium_host: the way back to the pods leads out there, so that even a
 * strict reverse path filter is content.
 */
static __always_inline int hand_to_host(struct ethernet *eth)
{
	__u64 mac = cfg_host_mac;

	copy_mac(eth->destination, (const __u8 *)&mac);
	return bpf_redirect(cfg_host_ifindex, BPF_F_INGRESS);
}

static __always_inline int deliver_to_stack(struct __sk_buff *skb, struct ethernet *eth, const struct sender *from)
{
	count_forward(skb, FORWARD_POD_TO_STACK);
	trace(skb, TRACE_TO_STACK, from);
	return hand_to_host(eth);
}

/*
 * A packet whose time to live is over is counted and reported as a drop, and given to the stack, which drops it with the
 * ICMP error that the sender is owed.
 */
static __always_inline int expire(struct __sk_buff *skb, int verdict, const struct sender *from)
{
	struct ethernet *eth;

	finish_drop(skb, verdict, from);
	eth = packet_bytes(skb, sizeof(*eth));
	return eth ? hand_to_host(eth) : TC_ACT_SHOT;
}

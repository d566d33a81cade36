// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The host side of every pod's veth pair. */
#include "lib/arp.h"
#include "lib/fast.h"
#include "lib/finish.h"
#include "lib/ipv4.h"
#include "lib/ipv6.h"
#include "lib/lxc.h"

#undef THIS_FILE
#define THIS_FILE FILE_LXC

static __always_inline int from_container(struct __sk_buff *skb, const struct podwire_endpoint *self,
					  struct admission *a)
{
	struct ethernet *eth = packet_bytes(skb, ETH_HLEN);

	if (unlikely(!eth))
		return DROP(REASON_INVALID_PACKET);
	if (unlikely(!same_mac(eth->source, self->mac)))
		return DROP(REASON_INVALID_SMAC);
	if (unlikely(has_vlan(skb, eth)))
		return DROP(REASON_VLAN_FILTERED);
	copy_mac(a->in_mac, eth->source);
	trace(skb, TRACE_FROM_LXC, &a->from);
	switch (eth->type) {
	case ETHERTYPE_IPV4:
		return ipv4_from_pod(skb, self, a);
	case ETHERTYPE_IPV6:
		return ipv6_from_pod(skb, self, a);
	case ETHERTYPE_ARP:
		return arp_from_pod(skb, self);
	default:
		return DROP(REASON_UNSUPPORTED_L3);
	}
}

static __always_inline int from_container_slowly(struct __sk_buff *skb)
{
	const struct podwire_endpoint *self = endpoint_of_device(skb->ifindex);
	struct admission a = { .hook = HOOK_FROM_POD, .from = { .direction = METRICS_EGRESS } };

	if (unlikely(!self))
		return finish(skb, DROP(REASON_UNKNOWN_SENDER), &a.from);
	a.self_id = self->lxc_id;
	a.from.lxc_id = self->lxc_id;
	a.from.identity = self->sec_id;
	return finish(skb, from_container(skb, self, &a), &a.from);
}

/* A function of its own, so that its stack is not the long way's as well. */
static __noinline int from_container_fast(struct __sk_buff *skb)
{
	return fast(skb, HOOK_FROM_POD);
}

/* Ingress of the host side: what the pod sends. */
SEC("tc")
int cil_from_container(struct __sk_buff *skb)
{
	int verdict = from_container_fast(skb);

	return likely(verdict != NOT_FAST) ? verdict : from_container_slowly(skb);
}

static __always_inline int to_container(struct __sk_buff *skb, const struct podwire_endpoint *self, struct admission *a)
{
	struct ethernet *eth = packet_bytes(skb, ETH_HLEN);
	int verdict = PASS;

	if (!eth)
		return DROP(REASON_INVALID_PACKET);
	if (has_vlan(skb, eth))
		return DROP(REASON_VLAN_FILTERED);
	if (eth->type == ETHERTYPE_IPV4)
		verdict = ipv4_to_pod(skb, self, a);
	else if (eth->type == ETHERTYPE_IPV6)
		verdict = ipv6_to_pod(skb, self, a);
	else if (eth->type != ETHERTYPE_ARP)
		return DROP(REASON_UNSUPPORTED_L3);
	if (!is_drop(verdict))
		count_forward(skb, FORWARD_STACK_TO_POD);
	return verdict;
}

static __always_inline int to_container_slowly(struct __sk_buff *skb)
{
	const struct podwire_endpoint *self = endpoint_of_device(skb->ifindex);
	struct admission a = { .hook = HOOK_TO_POD, .from = { .direction = METRICS_INGRESS } };

	if (unlikely(!self))
		return finish(skb, DROP(REASON_UNROUTABLE), &a.from);
	a.self_id = self->lxc_id;
	a.from.lxc_id = self->lxc_id;
	return finish(skb, to_container(skb, self, &a), &a.from);
}

static __noinline int to_container_fast(struct __sk_buff *skb)
{
	return fast(skb, HOOK_TO_POD);
}

/* Egress of the host side: what the host's stack, or cil_from_host, sends to the pod. */
SEC("tc")
int cil_to_container(struct __sk_buff *skb)
{
	int verdict = to_container_fast(skb);

	return likely(verdict != NOT_FAST) ? verdict : to_container_slowly(skb);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

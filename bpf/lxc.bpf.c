// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The host side of every pod's veth pair. */
#include "lib/arp.h"
#include "lib/finish.h"
#include "lib/ipv4.h"
#include "lib/ipv6.h"
#include "lib/lxc.h"

#undef THIS_FILE
#define THIS_FILE FILE_LXC

static __always_inline int from_container(struct __sk_buff *skb, const struct podwire_endpoint *self,
					  struct sender from)
{
	struct ethernet *eth = packet_bytes(skb, ETH_HLEN);

	if (unlikely(!eth))
		return DROP(REASON_INVALID_PACKET);
	if (unlikely(!same_mac(eth->source, self->mac)))
		return DROP(REASON_INVALID_SMAC);
	if (unlikely(has_vlan(skb, eth)))
		return DROP(REASON_VLAN_FILTERED);
	trace(skb, TRACE_FROM_LXC, from.lxc_id, 0, from.identity);
	switch (eth->type) {
	case ETHERTYPE_IPV4:
		return ipv4_from_pod(skb, self, from);
	case ETHERTYPE_IPV6:
		return ipv6_from_pod(skb, self, from);
	case ETHERTYPE_ARP:
		return arp_from_pod(skb, self);
	default:
		return DROP(REASON_UNSUPPORTED_L3);
	}
}

/* Ingress of the host side: what the pod sends. */
SEC("tc")
int cil_from_container(struct __sk_buff *skb)
{
	const struct podwire_endpoint *self = endpoint_of_device(skb->ifindex);
	struct sender from = { .direction = METRICS_EGRESS };

	if (unlikely(!self))
		return finish(skb, DROP(REASON_UNKNOWN_SENDER), METRICS_EGRESS, 0, 0);
	from.lxc_id = self->lxc_id;
	from.identity = self->sec_id;
	return finish(skb, from_container(skb, self, from), METRICS_EGRESS, from.lxc_id, from.identity);
}

static __always_inline int to_container(struct __sk_buff *skb, const struct podwire_endpoint *self)
{
	struct ethernet *eth = packet_bytes(skb, ETH_HLEN);
	int verdict = PASS;

	if (!eth)
		return DROP(REASON_INVALID_PACKET);
	if (has_vlan(skb, eth))
		return DROP(REASON_VLAN_FILTERED);
	if (eth->type == ETHERTYPE_IPV4)
		verdict = ipv4_to_pod(skb, self);
	else if (eth->type == ETHERTYPE_IPV6)
		verdict = ipv6_to_pod(skb, self);
	else if (eth->type != ETHERTYPE_ARP)
		return DROP(REASON_UNSUPPORTED_L3);
	if (!is_drop(verdict))
		count_forward(skb, FORWARD_STACK_TO_POD);
	return verdict;
}

/* Egress of the host side: what the host's stack, or cil_from_host, sends to the pod. */
SEC("tc")
int cil_to_container(struct __sk_buff *skb)
{
	const struct podwire_endpoint *self = endpoint_of_device(skb->ifindex);

	if (unlikely(!self))
		return finish(skb, DROP(REASON_UNROUTABLE), METRICS_INGRESS, 0, 0);
	return finish(skb, to_container(skb, self), METRICS_INGRESS, self->lxc_id, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

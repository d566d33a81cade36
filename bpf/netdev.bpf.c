// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The node's native device. */
#include "lib/fast.h"
#include "lib/finish.h"
#include "lib/ipv4.h"
#include "lib/ipv6.h"

#undef THIS_FILE
#define THIS_FILE FILE_NETDEV

#define IDENTITY_WORLD 2

static __always_inline int from_netdev(struct __sk_buff *skb, struct admission *a)
{
	struct ethernet *eth = packet_bytes(skb, ETH_HLEN);
	int verdict = PASS;

	if (!eth)
		return PASS;
	trace(skb, TRACE_FROM_NETWORK, &a->from);
	/* Tagged packets are the stack's: its VLAN devices know them. So are those that only a promiscuous device sees. */
	if (has_vlan(skb, eth) || skb->pkt_type != PACKET_HOST)
		verdict = PASS;
	else if (eth->type == ETHERTYPE_IPV4)
		verdict = ipv4_from_network(skb, a);
	else if (eth->type == ETHERTYPE_IPV6)
		verdict = ipv6_from_network(skb, a);
	if (verdict == PASS)
		count_forward(skb, FORWARD_FROM_NETWORK);
	return verdict;
}

static __always_inline int from_netdev_slowly(struct __sk_buff *skb)
{
	struct admission a = {
		.hook = HOOK_FROM_NETWORK,
		.from = { .identity = IDENTITY_WORLD, .direction = METRICS_INGRESS },
	};

	return finish(skb, from_netdev(skb, &a), &a.from);
}

static __noinline int from_netdev_fast(struct __sk_buff *skb)
{
	return fast(skb, HOOK_FROM_NETWORK);
}

/* Ingress of the native device. */
SEC("tc")
int cil_from_netdev(struct __sk_buff *skb)
{
	int verdict = from_netdev_fast(skb);

	return verdict != NOT_FAST ? verdict : from_netdev_slowly(skb);
}

/* Egress of the native device. */
SEC("tc")
int cil_to_netdev(struct __sk_buff *skb)
{
	struct sender from = {};

	count_forward(skb, FORWARD_TO_NETWORK);
	trace(skb, TRACE_TO_NETWORK, &from);
	return PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

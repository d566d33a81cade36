// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* cilium_host and cilium_net, the pair that joins the host's stack to the pods. */
#include "lib/finish.h"
#include "lib/ipv4.h"
#include "lib/ipv6.h"

#undef THIS_FILE
#define THIS_FILE FILE_HOST

static __always_inline int from_host(struct __sk_buff *skb, struct sender *from)
{
	struct ethernet *eth = packet_bytes(skb, ETH_HLEN);

	if (!eth)
		return DROP(REASON_INVALID_PACKET);
	trace(skb, TRACE_FROM_HOST, from);
	if (eth->type == ETHERTYPE_IPV4)
		return ipv4_from_host(skb, from);
	if (eth->type == ETHERTYPE_IPV6)
		return ipv6_from_host(skb, from);
	return PASS;
}

/* Egress of cilium_host: the stack routes the pods' range here. */
SEC("tc")
int cil_from_host(struct __sk_buff *skb)
{
	struct sender from = { .identity = IDENTITY_HOST, .direction = METRICS_INGRESS };

	return finish(skb, from_host(skb, &from), &from);
}

/* Ingress of cilium_host and cilium_net: what enters the host's stack. */
SEC("tc")
int cil_to_host(struct __sk_buff *skb)
{
	struct sender from = {};

	count_forward(skb, FORWARD_TO_HOST);
	trace(skb, TRACE_TO_HOST, &from);
	return PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

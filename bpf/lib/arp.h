/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* ARP (RFC 826): the gateway's address is answered here, nothing else is asked for by a pod that we configured. */
#pragma once

#include "lib/config.h"
#include "lib/packet.h"

#undef THIS_FILE
#define THIS_FILE FILE_ARP

#define ARP_ETHERNET bpf_htons(1)
#define ARP_REQUEST bpf_htons(1)
#define ARP_REPLY bpf_htons(2)

struct arp {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__u8 sender_ip[4];
	__u8 target_mac[ETH_ALEN];
	__u8 target_ip[4];
};

static __always_inline bool arp_valid(const struct arp *arp)
{
	return arp->hardware == ARP_ETHERNET && arp->protocol == ETHERTYPE_IPV4 && arp->hardware_length == ETH_ALEN &&
	       arp->protocol_length == 4;
}

/* Turns a pod's request for the gateway into the reply and sends it back where it came from. */
static __always_inline int arp_from_pod(struct __sk_buff *skb, const struct podwire_endpoint *self)
{
	struct ethernet *eth = packet_bytes(skb, ETH_HLEN + sizeof(struct arp));
	struct arp *arp = (void *)(eth + 1);
	__u32 router = cfg_router_ipv4;

	if (!eth || !arp_valid(arp))
		return DROP(REASON_INVALID_PACKET);
	if (!same_mac(arp->sender_mac, self->mac))
		return DROP(REASON_INVALID_SMAC);
	if (arp->operation != ARP_REQUEST || !router || *(__be32 *)arp->target_ip != router)
		return DROP(REASON_UNKNOWN_TARGET);
	if (*(__be32 *)arp->sender_ip != self->ipv4 || !(self->flags & PODWIRE_ENDPOINT_F_IPV4))
		return DROP(REASON_INVALID_SIP);
	copy_mac(eth->destination, self->mac);
	copy_mac(eth->source, self->node_mac);
	arp->operation = ARP_REPLY;
	copy_mac(arp->target_mac, self->mac);
	*(__be32 *)arp->target_ip = self->ipv4;
	copy_mac(arp->sender_mac, self->node_mac);
	*(__be32 *)arp->sender_ip = router;
	return bpf_redirect_peer(skb->ifindex, 0);
}

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Constants of the node, written into .rodata before the programs are loaded. */
#pragma once

#include "lib/common.h"

/* cilium_host: where packets for the host's stack are handed in. */
const volatile __u32 cfg_host_ifindex;
/* The MAC address of cilium_host in the first six bytes. */
const volatile __u64 cfg_host_mac;
/* The gateway that pods see, network order; zero where the node has no IPv4. */
const volatile __u32 cfg_router_ipv4;
/* The gateway that pods see, as two halves in network order; zero where the node has no IPv6. */
const volatile __u64 cfg_router_ipv6[2];
/* The range from which pods get their IPv4 addresses: base and mask, network order. */
const volatile __u32 cfg_pods_ipv4;
const volatile __u32 cfg_pods_ipv4_mask;
/* The range from which pods get their IPv6 addresses: base and mask, as two halves each, network order. */
const volatile __u64 cfg_pods_ipv6[2];
const volatile __u64 cfg_pods_ipv6_mask[2];
/* Identities of addresses that nothing is known of. */
const volatile __u32 cfg_world_ipv4;
const volatile __u32 cfg_world_ipv6;
/* jiffies64 advances so often (HZ). */
const volatile __u32 cfg_ticks_per_second;
/* Seconds for which a packet keeps its connection's entry: TCP, before anything but a SYN was seen, when over; others. */
const volatile __u32 cfg_ct_lifetime_tcp;
const volatile __u32 cfg_ct_lifetime_tcp_syn;
const volatile __u32 cfg_ct_lifetime_closing;
const volatile __u32 cfg_ct_lifetime_any;

/* Whether an IPv4 address lies in this node's pod range. */
static __always_inline bool in_pods_ipv4(__be32 address)
{
	return cfg_pods_ipv4_mask && (address & cfg_pods_ipv4_mask) == cfg_pods_ipv4;
}

/* Whether an IPv6 address lies in this node's pod range. */
static __always_inline bool in_pods_ipv6(const void *address)
{
	return cfg_pods_ipv6_mask[0] && (load64(address) & cfg_pods_ipv6_mask[0]) == cfg_pods_ipv6[0] &&
	       (load64(address + 8) & cfg_pods_ipv6_mask[1]) == cfg_pods_ipv6[1];
}

/* Whether an IPv6 address is the gateway's. */
static __always_inline bool is_router_ipv6(const void *address)
{
	return load64(address) == cfg_router_ipv6[0] && load64(address + 8) == cfg_router_ipv6[1];
}

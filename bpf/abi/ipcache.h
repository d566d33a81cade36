/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* cilium_ipcache_v2: identity and whereabouts of a peer by longest prefix. */
#pragma once

#include <linux/types.h>

enum ipcache_flags {
	IPCACHE_F_SKIP_TUNNEL = 1,
	IPCACHE_F_HAS_TUNNEL = 2, /* tunnel_endpoint is set */
	IPCACHE_F_TUNNEL_IPV6 = 4, /* tunnel_endpoint is IPv6 */
	IPCACHE_F_REMOTE_CLUSTER = 8,
};

/* The bits of ipcache_key between the prefix length and the address. */
#define IPCACHE_STATIC_BITS 32

struct ipcache_key {
	__u32 prefixlen; /* IPCACHE_STATIC_BITS + significant bits of the address */
	__u16 cluster_id;
	__u8 pad1;
	__u8 family; /* enum endpoint_family */
	__u8 ip[16]; /* IPv4 in the first four bytes, the rest zero */
};

struct remote_endpoint_info {
	__u32 sec_identity;
	__u8 tunnel_endpoint[16]; /* IPv4 in the first four bytes, the rest zero */
	__u16 pad;
	__u8 key; /* encryption key in use, 0 none */
	__u8 flags; /* enum ipcache_flags */
};

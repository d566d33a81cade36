/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the host forwards to pods from a device of its own, VLAN, bridge or second NIC: nobody out there is who is here. */
#pragma once

#include "lib/config.h"
#include "lib/lxc.h"

/* Whom a source address claims to be. */
enum claim {
	CLAIM_OTHER = 0,
	CLAIM_HOST = 1,
	CLAIM_POD = 2, /* also one that is not there, as the native device sees it */
};

/* Whether a packet on its way out came in elsewhere: what the host sends came in nowhere, what pods sent by cilium_host. */
static __always_inline bool is_forwarded(const struct __sk_buff *skb)
{
	__u32 device = skb->ingress_ifindex;

	return device && device != cfg_host_ifindex;
}

static __always_inline enum claim claim_of(const __u64 *source, __u8 family)
{
	const struct endpoint_info *local = endpoint_by_address(source, family);

	if (local)
		return local->flags & ENDPOINT_F_HOST ? CLAIM_HOST : CLAIM_POD;
	return (family == ENDPOINT_IPV4 ? in_pods_ipv4(source[0]) : in_pods_ipv6(source)) ? CLAIM_POD : CLAIM_OTHER;
}

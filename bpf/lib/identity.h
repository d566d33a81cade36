/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Who is behind an address. */
#pragma once

#include "lib/config.h"
#include "lib/ipcache.h"
#include "lib/lxc.h"

#define IDENTITY_HOST 1

/* One side of a connection. */
struct party {
	__u32 identity;
	__u16 id; /* of a local endpoint, else 0 */
	bool is_host;
	bool is_audited;
};

static __always_inline __u32 identity_elsewhere(const __u64 *address, __u8 family)
{
	struct ipcache_key key __attribute__((aligned(8))) = {
		.prefixlen = IPCACHE_STATIC_BITS + (family == ENDPOINT_IPV4 ? 32 : 128),
		.family = family,
	};
	const struct remote_endpoint_info *entry;

	copy_ipv6(key.ip, address);
	entry = bpf_map_lookup_elem(&cilium_ipcache_v2, &key);
	if (entry)
		return entry->sec_identity;
	return family == ENDPOINT_IPV4 ? cfg_world_ipv4 : cfg_world_ipv6;
}

/* Fills in who has an address; returns the entry where it is one of this node. */
static __always_inline const struct endpoint_info *party_resolve(struct party *party, const __u64 *address, __u8 family)
{
	const struct endpoint_info *local = endpoint_by_address(address, family);

	*party = (struct party){};
	if (!local) {
		party->identity = identity_elsewhere(address, family);
	} else if (local->flags & ENDPOINT_F_HOST) {
		party->identity = IDENTITY_HOST;
		party->is_host = true;
	} else {
		party->identity = local->sec_id;
		party->id = local->lxc_id;
		party->is_audited = local->flags & ENDPOINT_F_AUDIT;
	}
	return local;
}

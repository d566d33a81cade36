/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Who is behind an address: looked up once per generation, remembered by each CPU. */
#pragma once

#include "lib/config.h"
#include "lib/ipcache.h"
#include "lib/lxc.h"
#include "lib/party_rows.h"
#include "lib/runtime.h"

#define IDENTITY_HOST 1

/* One side of a connection. */
struct party {
	__u32 identity;
	__u16 id; /* of a local pod, else 0 */
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

/* Fills in who has an address. */
static __always_inline void party_find(struct podwire_party *row, const __u64 *address, __u8 family)
{
	const struct endpoint_info *local = endpoint_by_address(address, family);

	row->id = 0;
	row->flags = 0;
	row->ifindex = 0;
	if (!local) {
		row->identity = identity_elsewhere(address, family);
	} else if (local->flags & ENDPOINT_F_HOST) {
		row->identity = IDENTITY_HOST;
		row->flags = PARTY_F_HOST;
	} else {
		row->identity = local->sec_id;
		row->id = local->lxc_id;
		row->flags = local->flags & ENDPOINT_F_AUDIT ? PARTY_F_AUDITED : 0;
		row->ifindex = local->ifindex;
		*(__u64 *)row->mac = load64(local->mac);
		*(__u64 *)row->node_mac = load64(local->node_mac);
	}
}

static __always_inline __u32 party_index(const __u64 *address, const struct podwire_runtime *switches)
{
	return (address[0] * switches->hash_keys[0] + address[1] * switches->hash_keys[1]) >> 32 & (PARTY_ROWS - 1);
}

/*
 * Who has an address, as of a generation that the caller read before anything else. The row may become another address's with the
 * next call.
 */
static __always_inline const struct podwire_party *party_resolve(struct party *party, const __u64 *address, __u8 family,
								  __u32 generation,
								  const struct podwire_runtime *switches)
{
	__u32 index = party_index(address, switches);
	struct podwire_party *row = bpf_map_lookup_elem(&podwire_parties, &index);

	*party = (struct party){};
	if (!row)
		return NULL;
	if (unlikely(row->generation != generation || row->family != family || !same_ipv6(row->address, address))) {
		party_find(row, address, family);
		copy_ipv6(row->address, address);
		row->family = family;
		row->generation = generation;
	}
	party->identity = row->identity;
	party->id = row->id;
	party->is_audited = row->flags & PARTY_F_AUDITED;
	return row;
}

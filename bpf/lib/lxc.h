/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Local endpoints: by address in cilium_lxc, by the device of their veth pair in podwire_endpoints. */
#pragma once

#include "lib/common.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65535);
	__type(key, struct endpoint_key);
	__type(value, struct endpoint_info);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cilium_lxc SEC(".maps");

/* A power of two: an ifindex is reduced by masking. */
#define ENDPOINT_ROWS 65536

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ENDPOINT_ROWS);
	__type(key, __u32);
	__type(value, struct podwire_endpoint);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} podwire_endpoints SEC(".maps");

/* The endpoint behind a device, or NULL. */
static __always_inline const struct podwire_endpoint *endpoint_of_device(__u32 ifindex)
{
	const struct podwire_endpoint *row;

#pragma unroll
	for (__u32 probe = 0; probe < ENDPOINT_PROBES; probe++) {
		__u32 index = (ifindex + probe) & (ENDPOINT_ROWS - 1);

		row = bpf_map_lookup_elem(&podwire_endpoints, &index);
		if (likely(row && row->ifindex == ifindex))
			return row;
	}
	return NULL;
}

static __always_inline const struct endpoint_info *endpoint_by_ipv4(__be32 address)
{
	struct endpoint_key key = { .family = ENDPOINT_IPV4 };

	*(__be32 *)key.ip = address;
	return bpf_map_lookup_elem(&cilium_lxc, &key);
}

static __always_inline const struct endpoint_info *endpoint_by_ipv6(const void *address)
{
	struct endpoint_key key __attribute__((aligned(8))) = { .family = ENDPOINT_IPV6 };

	copy_ipv6(key.ip, address);
	return bpf_map_lookup_elem(&cilium_lxc, &key);
}

/* Of either family; an IPv4 address in the first four of the 16 bytes, the rest zero. */
static __always_inline const struct endpoint_info *endpoint_by_address(const __u64 *address, __u8 family)
{
	struct endpoint_key key __attribute__((aligned(8))) = { .family = family };

	copy_ipv6(key.ip, address);
	return bpf_map_lookup_elem(&cilium_lxc, &key);
}

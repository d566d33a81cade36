/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Every struct and enum shared by the programs and user space, declared once. src/abi mirrors each of them and is
 * asserted equal (size and every offset) against the BTF of abi.bpf.c when the crate is compiled.
 *
 * Rules: no bit-fields, no bools, no anonymous unions, no holes: padding is explicit and always zero.
 * Fields ending in _be are in network byte order, so are addresses; everything else is in host order.
 * Structs without the prefix podwire_ have the layout of Cilium 1.19, so that its tools read them.
 */
#pragma once

#include <linux/types.h>

#include "abi/events.h"

/* ---- cilium_lxc: local endpoints by address ---- */

enum endpoint_family {
	ENDPOINT_IPV4 = 1,
	ENDPOINT_IPV6 = 2,
};

enum endpoint_flags {
	ENDPOINT_F_HOST = 1,
	ENDPOINT_F_AT_HOST_NS = 2,
	ENDPOINT_F_NO_SNAT_V4 = 4,
	ENDPOINT_F_NO_SNAT_V6 = 8,
};

struct endpoint_key {
	__u8 ip[16]; /* IPv4 in the first four bytes, the rest zero */
	__u8 family; /* enum endpoint_family */
	__u8 key;
	__u16 cluster_id;
};

struct endpoint_info {
	__u32 ifindex; /* host side of the veth pair */
	__u16 unused;
	__u16 lxc_id;
	__u32 flags; /* enum endpoint_flags */
	__u32 pad1;
	__u8 mac[8]; /* the container's, then two zero bytes */
	__u8 node_mac[8]; /* the host side's, then two zero bytes */
	__u32 sec_id;
	__u32 parent_ifindex;
	__u32 pad[2];
};

/* ---- cilium_metrics: packets and bytes by reason and direction ---- */

enum metrics_direction {
	METRICS_INGRESS = 1,
	METRICS_EGRESS = 2,
	METRICS_SERVICE = 3,
};

struct metrics_key {
	__u8 reason; /* 0 forwarded, else the drop reason as a positive number below 256 */
	__u8 dir; /* enum metrics_direction in the low two bits */
	__u16 line;
	__u8 file;
	__u8 reserved[3];
};

struct metrics_value {
	__u64 count;
	__u64 bytes;
};

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* cilium_node_map_v2: ids of the cluster's nodes by address. */
#pragma once

#include <linux/types.h>

struct node_key {
	__u16 pad1;
	__u8 pad2;
	__u8 family; /* enum endpoint_family */
	__u8 ip[16]; /* IPv4 in the first four bytes, the rest zero */
};

struct node_value {
	__u16 id;
	__u8 spi; /* encryption key of the node, 0 none */
	__u8 pad;
};

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Ids of the cluster's nodes by address. */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct node_key);
	__type(value, struct node_value);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cilium_node_map_v2 SEC(".maps");

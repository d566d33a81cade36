/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Identity and whereabouts of a peer by longest prefix. */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

/* Programs only read it. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 512000);
	__type(key, struct ipcache_key);
	__type(value, struct remote_endpoint_info);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cilium_ipcache_v2 SEC(".maps");

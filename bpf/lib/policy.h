/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* How often each policy entry decided. The policies themselves are maps that user space makes, one per endpoint. */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

/* Each CPU evicts from its own share, without a common list to lock. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct policy_stats_key);
	__type(value, struct policy_stats_value);
	__uint(map_flags, BPF_F_NO_COMMON_LRU);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cilium_policystats SEC(".maps");

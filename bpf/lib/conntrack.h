/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Connections: one entry for both directions. */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 262144);
	__type(key, struct podwire_ct_key);
	__type(value, struct podwire_ct_entry);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} podwire_ct SEC(".maps");

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Switches that change while the programs run. */
#pragma once

#include "lib/common.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct podwire_runtime);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} podwire_runtime SEC(".maps");

static __always_inline const struct podwire_runtime *runtime(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&podwire_runtime, &zero);
}

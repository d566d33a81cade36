/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where each CPU remembers whom it found behind addresses lately. */
#pragma once

#include "lib/common.h"

/* A power of two: a hash is reduced by masking. */
#define PARTY_ROWS 1024

/* Read and written as podwire_verdicts is: without locks, each CPU its own. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PARTY_ROWS);
	__type(key, __u32);
	__type(value, struct podwire_party);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} podwire_parties SEC(".maps");

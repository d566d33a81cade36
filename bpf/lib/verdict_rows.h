/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where each CPU remembers the verdicts that it gave lately. */
#pragma once

#include "lib/common.h"

/* A power of two: a hash is reduced by masking. */
#define VERDICT_ROWS 2048

/*
 * A row for each hash value. Programs at tc do not interrupt each other on a CPU, so that rows are read and written
 * without locks; a row that holds another connection, or holds for another generation, is overwritten.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VERDICT_ROWS);
	__type(key, __u32);
	__type(value, struct podwire_verdict);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} podwire_verdicts SEC(".maps");

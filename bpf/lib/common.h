/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What every program includes first: kernel types, helpers, the verdict convention, source file numbers. */
#pragma once

#include <stdbool.h>

#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

/*
 * Functions on a packet return a TC verdict (TC_ACT_UNSPEC or above) or a drop made by DROP(). The entry point hands
 * whatever came back to finish(), the only place that counts and reports drops.
 *
 * PASS is TC_ACT_UNSPEC rather than TC_ACT_OK: programs of other owners on the same hook still run.
 */
#define PASS TC_ACT_UNSPEC

/* Numbers of source files in metrics and events; the same as in src/tables/source_file.rs. */
enum source_file {
	FILE_HOST = 1,
	FILE_LXC = 2,
	FILE_NETDEV = 6,
	FILE_IPV4 = 40,
	FILE_IPV6 = 41,
	FILE_ARP = 42,
	FILE_NDP = 43,
	FILE_DELIVER = 44,
	FILE_TRANSPORT = 45,
	FILE_ADMIT = 46,
};

/* A drop as one negative number: reason, file and line. A file defines THIS_FILE after its includes, before its code. */
#define DROP(reason) (-(int)(((__LINE__ & 0xfff) << 16) | (THIS_FILE << 8) | (reason)))
#define is_drop(verdict) ((verdict) < PASS)
#define drop_reason(verdict) ((__u32)-(verdict) & 0xff)
#define drop_file(verdict) (((__u32)-(verdict) >> 8) & 0xff)
#define drop_line(verdict) (((__u32)-(verdict) >> 16) & 0xfff)

/* Drop reasons as positive numbers: those of Cilium, which operators know. */
enum reason {
	REASON_INVALID_SMAC = 130,
	REASON_INVALID_SIP = 132,
	REASON_POLICY_DENIED = 133,
	REASON_INVALID_PACKET = 134,
	REASON_UNSUPPORTED_L3 = 139,
	REASON_WRITE_ERROR = 141,
	REASON_UNKNOWN_TARGET = 150,
	REASON_UNROUTABLE = 151,
	REASON_INVALID_EXTHDR = 156,
	REASON_UNSUPPORTED_L2 = 166,
	REASON_UNKNOWN_SENDER = 172,
	REASON_FIRST_FRAGMENT_NOT_FOUND = 175,
	REASON_FORBIDDEN_ICMP6 = 176,
	REASON_POLICY_DENY_RULE = 181,
	REASON_VLAN_FILTERED = 182,
	REASON_TTL_EXCEEDED = 196,
	REASON_ENDPOINT_NOT_READY = 203,
};

/* A word that another CPU may change at any time: read or written once, whole. */
#define READ_ONCE(word) (*(const volatile typeof(word) *)&(word))
#define WRITE_ONCE(word, value) (*(volatile typeof(word) *)&(word) = (value))

/*
 * Loads before it come before loads behind it, and stores before stores. x86 keeps them in order by itself; elsewhere an atomic operation does
 * that comes back with a value, which a compare-and-swap always does (Documentation/bpf/standardization/instruction-set.rst).
 */
#if defined(__TARGET_ARCH_x86)
#define loads_in_order(word) barrier()
#define stores_in_order(word) barrier()
#else
#define stores_in_order(word) __sync_val_compare_and_swap((typeof((word) + 0) *)&(word), 0, 0)
#define loads_in_order(word) stores_in_order(word)
#endif

#ifndef likely
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#endif

static __always_inline __u64 load64(const void *from)
{
	return *(const __u64 *)from;
}

/* Through a pointer that the compiler knows nothing of: of a member it would take what its struct's alignment allows. */
static __always_inline void store64(void *to, __u64 value)
{
	*(__u64 *)to = value;
}

/* Sixteen bytes in two steps; of memory that may lie anywhere the compiler makes sixteen, and the shifts between. */
static __always_inline void copy_ipv6(void *to, const void *from)
{
	*(__u64 *)to = load64(from);
	*(__u64 *)(to + 8) = load64(from + 8);
}

/* Whether two 16-byte addresses are the same. */
static __always_inline bool same_ipv6(const void *a, const void *b)
{
	return load64(a) == load64(b) && load64(a + 8) == load64(b + 8);
}

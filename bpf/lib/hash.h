/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* A hash of five words. */
#pragma once

#include "lib/config.h"

/*
 * Multilinear hashing with the node's secret multipliers (Carter and Wegman, "Universal classes of hash functions", 1979): the
 * products do not wait for one another, and who does not know the multipliers cannot choose what collides. The upper bits of
 * the sum are the good ones.
 */
static __always_inline __u32 hash40(const void *words)
{
	__u64 sum = load64(words) * cfg_hash_keys[0] + load64(words + 8) * cfg_hash_keys[1] +
		    load64(words + 16) * cfg_hash_keys[2] + load64(words + 24) * cfg_hash_keys[3] +
		    load64(words + 32) * cfg_hash_keys[4];

	return (sum ^ (sum << 13)) >> 32;
}

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* A hash of five words. */
#pragma once

#include "lib/runtime.h"

/*
 * Multilinear hashing with the node's secret multipliers (Carter and Wegman, "Universal classes of hash functions", 1979): the
 * products do not wait for one another, and who does not know the multipliers cannot choose what collides. The upper bits are
 * the good ones.
 */
static __always_inline __u64 hash40(const __u64 *words, const struct podwire_runtime *runtime)
{
	return words[0] * runtime->hash_keys[0] + words[1] * runtime->hash_keys[1] + words[2] * runtime->hash_keys[2] +
	       words[3] * runtime->hash_keys[3] + words[4] * runtime->hash_keys[4];
}

/* Other bits of a hash, all of them good: the last steps of splitmix64 (Steele, Lea, Flood, "Fast splittable PRNGs", 2014). */
static __always_inline __u64 hash_again(__u64 hash)
{
	hash = (hash ^ hash >> 32) * 0x9e3779b97f4a7c15;
	return hash ^ hash >> 29;
}

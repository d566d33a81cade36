/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Ethernet, and the access to a packet's bytes. */
#pragma once

#include "lib/common.h"

/* The frame is addressed to the device that received it (linux/if_packet.h). */
#define PACKET_HOST 0

#define ETH_HLEN 14
#define ETH_ALEN 6
#define ETHERTYPE_IPV4 bpf_htons(0x0800)
#define ETHERTYPE_ARP bpf_htons(0x0806)
#define ETHERTYPE_IPV6 bpf_htons(0x86dd)
#define ETHERTYPE_VLAN bpf_htons(0x8100)
#define ETHERTYPE_QINQ bpf_htons(0x88a8)

struct ethernet {
	__u8 destination[ETH_ALEN];
	__u8 source[ETH_ALEN];
	__be16 type;
};

/*
 * The context's 32-bit fields become pointers only through a plain load; written in C, the compiler may keep the value
 * and copy it as the 32-bit number that the struct says it is, which the verifier takes for a scalar.
 */
#define load_pointer(skb, field)                                                                                       \
	({                                                                                                             \
		void *pointer;                                                                                         \
		asm volatile("%0 = *(u32 *)(%1 + %2)"                                                                  \
			     : "=r"(pointer)                                                                           \
			     : "r"(skb), "i"(__builtin_offsetof(struct __sk_buff, field)));                            \
		pointer;                                                                                               \
	})

static __always_inline void *packet_start(const struct __sk_buff *skb)
{
	return load_pointer(skb, data);
}

static __always_inline void *packet_end(const struct __sk_buff *skb)
{
	return load_pointer(skb, data_end);
}

/*
 * The packet's first `length` bytes, or NULL where it is shorter. Bytes outside the linear part are pulled in; pointers
 * obtained before are then void.
 */
static __always_inline void *packet_bytes(struct __sk_buff *skb, __u32 length)
{
	void *start = packet_start(skb);

	if (likely(start + length <= packet_end(skb)))
		return start;
	if (skb->len < length || bpf_skb_pull_data(skb, length))
		return NULL;
	start = packet_start(skb);
	return start + length <= packet_end(skb) ? start : NULL;
}

/* Whether six bytes equal the first six of a padded address. */
static __always_inline bool same_mac(const __u8 *octets, const __u8 *padded)
{
	return *(const __u32 *)octets == *(const __u32 *)padded &&
	       *(const __u16 *)(octets + 4) == *(const __u16 *)(padded + 4);
}

static __always_inline void copy_mac(__u8 *octets, const __u8 *padded)
{
	*(__u32 *)octets = *(const __u32 *)padded;
	*(__u16 *)(octets + 4) = *(const __u16 *)(padded + 4);
}

/* Whether a packet bears a VLAN tag, in the frame or beside it. */
static __always_inline bool has_vlan(const struct __sk_buff *skb, const struct ethernet *eth)
{
	return skb->vlan_present || eth->type == ETHERTYPE_VLAN || eth->type == ETHERTYPE_QINQ;
}

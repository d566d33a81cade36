// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Makes packets that a test run refuses as input, then goes on with the program under test: shorter than the header their
 * type announces, longer than a page, or with their VLAN tag beside the frame as network cards put it.
 */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* What no program under test returns. */
#define PRELUDE_FAILED 99

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} prelude_next SEC(".maps");

/* cb[0]: the packet's new length, or 0. cb[1]: the tag to put beside it, or 0. */
SEC("tc")
int prelude(struct __sk_buff *skb)
{
	__u32 length = skb->cb[0];
	__u32 tag = skb->cb[1];

	if (length && bpf_skb_change_tail(skb, length, 0))
		return PRELUDE_FAILED;
	if (tag && bpf_skb_vlan_push(skb, bpf_htons(0x8100), tag))
		return PRELUDE_FAILED;
	skb->cb[0] = 0;
	skb->cb[1] = 0;
	bpf_tail_call(skb, &prelude_next, 0);
	return PRELUDE_FAILED;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* For tests of loading and attaching alone: constants, a shared map, maps of its own, and a verifier to provoke. */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#define TC_ACT_OK 0

const volatile __u32 cfg_verdict = TC_ACT_OK;
const volatile __u8 cfg_address[16];
/* Where set, the verifier meets an access that it must refuse. */
const volatile __u32 cfg_reject;

__u64 packets;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} probe_shared SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} probe_own SEC(".maps");

SEC("tc")
int probe_from_the_device(struct __sk_buff *skb)
{
	__u32 key = skb->mark;
	__u64 *value = bpf_map_lookup_elem(&probe_shared, &key);

	packets++;
	if (cfg_reject)
		return *(__u8 *)value;
	if (value)
		*value += 1;
	return cfg_verdict;
}

SEC("tc")
int probe_to_the_device(struct __sk_buff *skb)
{
	__u32 zero = 0;
	__u64 *value = bpf_map_lookup_elem(&probe_own, &zero);

	if (value)
		*value += skb->len;
	if (cfg_address[15])
		skb->mark = cfg_address[15];
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

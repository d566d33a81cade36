// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* For tests of the ring buffer's reading end: writes the packet as a record, or throws the record away. */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#define ETH_HLEN 14
#define RECORD_MAX 1024

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring_records SEC(".maps");

/* Scratch: a record is as long as its packet, which a reservation can't be. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8[RECORD_MAX]);
} ring_scratch SEC(".maps");

/* 0: written. 1: thrown away, when the payload starts with 0xff. 2: no room. */
SEC("tc")
int ring_write(struct __sk_buff *skb)
{
	__u32 zero = 0, len = skb->len;
	__u8 *scratch = bpf_map_lookup_elem(&ring_scratch, &zero);

	if (!scratch || len <= ETH_HLEN)
		return 2;
	/* Two comparisons made one by the compiler would leave `len` itself without bounds: Linux 6.1 then refuses the load. */
	asm volatile("" : "+r"(len));
	if (len > RECORD_MAX)
		return 2;
	if (bpf_skb_load_bytes(skb, 0, scratch, len))
		return 2;
	if (scratch[ETH_HLEN] == 0xff) {
		void *record = bpf_ringbuf_reserve(&ring_records, 100, 0);

		if (!record)
			return 2;
		bpf_ringbuf_discard(record, 0);
		return 1;
	}
	return bpf_ringbuf_output(&ring_records, scratch, len, 0) ? 2 : 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

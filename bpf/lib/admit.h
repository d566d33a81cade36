/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Whether a packet may pass: its connection, the policies of both sides, and where it then goes. */
#pragma once

#include "lib/conntrack.h"
#include "lib/deliver.h"
#include "lib/related.h"
#include "lib/verdict_events.h"
#include "lib/verdicts.h"

#undef THIS_FILE
#define THIS_FILE FILE_ADMIT

enum hook {
	HOOK_FROM_POD = 0,
	HOOK_TO_POD = 1,
	HOOK_FROM_NETWORK = 2,
};

/* A packet that asks to pass. */
struct admission {
	struct flow flow;
	struct sender from;
	struct target target; /* out: of a packet that may pass */
	__u64 now;
	__u32 generation;
	__u32 hook; /* enum hook */
	__u16 self_id; /* the pod on whose device the program runs, 0 none */
	__u16 src_id; /* out: the sending pod, as its address says, 0 none */
	__u8 in_mac[8] __attribute__((aligned(8))); /* the frame's source, where it comes from a pod */
};

#define EBUSY 16
#define EEXIST 17

static __always_inline __be16 opener_port(const struct podwire_ct_key *key, __u8 opener)
{
	if (key->asker)
		return key->family == ENDPOINT_IPV4 ? bpf_htons(ICMP_ECHO) : bpf_htons(ICMP6_ECHO);
	return opener == CT_FROM_LO ? key->hi_port_be : key->lo_port_be;
}

/* The verdict on the connection that a packet of direction `opener` opens, or opened. */
static __noinline const struct podwire_verdict *judge_opener(const struct podwire_ct_key *key, __u32 opener,
							     __be16 dport, __u32 generation)
{
	struct judged what = { .dport_be = dport, .proto = key->proto, .family = key->family, .generation = generation };

	copy_ipv6(what.src, opener == CT_FROM_LO ? key->lo_addr : key->hi_addr);
	copy_ipv6(what.dst, opener == CT_FROM_LO ? key->hi_addr : key->lo_addr);
	return judge(&what);
}

/* Takes from a verdict who the packet's two sides are. */
static __always_inline void admission_parties(struct admission *a, const struct podwire_verdict *row, bool is_reply)
{
	a->from.identity = is_reply ? row->dst_label : row->src_label;
	a->from.dst_identity = is_reply ? row->src_label : row->dst_label;
	a->src_id = is_reply ? row->dst_id : row->src_id;
	a->from.dst_id = is_reply ? row->src_id : row->dst_id;
}

/* Who an address belongs to must agree with the device: a pod whose address is not (or no more) in cilium_lxc has no policy. */
static __always_inline bool is_ready(const struct admission *a)
{
	if (a->hook == HOOK_FROM_POD)
		return a->src_id == a->self_id;
	return a->hook != HOOK_TO_POD || a->from.dst_id == a->self_id;
}

static __always_inline void target_of_row(struct target *target, const struct podwire_verdict *row)
{
	target->ifindex = row->dst_ifindex;
	target->is_here = row->dst_ifindex || row->flags & VERDICT_ROW_F_HOST;
	*(__u64 *)target->mac = load64(row->dst_mac);
	*(__u64 *)target->node_mac = load64(row->dst_node_mac);
}

static __always_inline void packet_destination(const struct flow *flow, __u64 *address)
{
	copy_ipv6(address, flow->direction == CT_FROM_LO ? flow->key.hi_addr : flow->key.lo_addr);
}

/* Where a packet goes that no verdict tells it of: a reply, an error. */
static __always_inline void target_find(struct admission *a)
{
	const struct endpoint_info *local;
	__u64 address[2];

	packet_destination(&a->flow, address);
	local = endpoint_by_address(address, a->flow.key.family);
	a->target = (struct target){};
	if (!local)
		return;
	a->target.is_here = true;
	if (local->flags & ENDPOINT_F_HOST)
		return;
	a->target.ifindex = local->ifindex;
	*(__u64 *)a->target.mac = load64(local->mac);
	*(__u64 *)a->target.node_mac = load64(local->node_mac);
}

/* What a pod may not send to: addresses of the pods' range that nobody has, and those that lead nowhere. */
static __always_inline int check_target(const struct admission *a)
{
	__u64 address[2];

	if (a->hook != HOOK_FROM_POD || a->target.is_here)
		return 0;
	packet_destination(&a->flow, address);
	if (a->flow.key.family == ENDPOINT_IPV4) {
		if (in_pods_ipv4(address[0]))
			return DROP(REASON_UNROUTABLE);
		return ipv4_is_confined(address[0]) ? DROP(REASON_UNKNOWN_TARGET) : 0;
	}
	if (in_pods_ipv6(address))
		return DROP(REASON_UNROUTABLE);
	return ipv6_is_confined((const __u8 *)address) ? DROP(REASON_UNKNOWN_TARGET) : 0;
}

static __always_inline int denied(struct __sk_buff *skb, struct admission *a, const struct podwire_verdict *row)
{
	report_verdict(skb, row);
	a->from.direction = denied_direction(row);
	return DROP(row->reason);
}

/* Whether a packet may pass as far as its two sides and the verdict on its connection go: 0, or a drop. */
static __always_inline int check_verdict(struct __sk_buff *skb, struct admission *a, const struct podwire_verdict *row)
{
	int verdict;

	if (!is_ready(a))
		return DROP(REASON_ENDPOINT_NOT_READY);
	verdict = check_target(a);
	if (verdict)
		return verdict;
	return row->reason ? denied(skb, a, row) : 0;
}

static __always_inline void path_of(const struct admission *a, struct path *path, __u32 ifindex)
{
	__u64 host_mac = cfg_host_mac;

	*path = (struct path){ .in_ifindex = ifindex, .dst_id = a->from.dst_id, .flags = CT_PATH_HOLDS };
	if (a->hook == HOOK_TO_POD)
		return;
	if (a->target.ifindex) {
		path->flags |= CT_DIR_F_REDIRECT_PEER;
		path->out_ifindex = a->target.ifindex;
		copy_mac(path->macs, a->target.mac);
		copy_mac(path->macs + ETH_ALEN, a->target.node_mac);
	} else {
		path->flags |= CT_DIR_F_TO_STACK;
		path->out_ifindex = cfg_host_ifindex;
		copy_mac(path->macs, (const __u8 *)&host_mac);
		copy_mac(path->macs + ETH_ALEN, a->in_mac);
	}
	*(__u32 *)(path->macs + 2 * ETH_ALEN) = *(const __u32 *)a->in_mac;
	path->in_mac_tail = *(const __u16 *)(a->in_mac + 4);
}

/* Leaves word for the packets to come: how they go on while nothing changes. */
static __always_inline void seal_path(struct podwire_ct_entry *entry, const struct admission *a, __u32 ifindex)
{
	struct podwire_ct_dir *dir = ct_dir(entry, a->flow.direction);
	struct path path;

	if (entry->state >= CT_CLOSING || !path_take(dir))
		return;
	path_of(a, &path, ifindex);
	path_write(dir, &path);
	path_seal(dir, seal_of(a->generation, a->flow.tag, path.flags));
}

/* Notes who the sides are and which rules let them. */
static __always_inline void entry_judged(struct podwire_ct_entry *entry, const struct podwire_verdict *row)
{
	entry->judged = row->generation;
	entry->src_label = row->src_label;
	entry->dst_label = row->dst_label;
	entry->egress_rule = row->egress_rule;
	entry->ingress_rule = row->ingress_rule;
}

/* The same, and reports it, once for each generation. */
static __always_inline void note_verdict(struct __sk_buff *skb, struct podwire_ct_entry *entry,
					 const struct podwire_verdict *row)
{
	if (entry->judged == row->generation)
		return;
	entry_judged(entry, row);
	report_verdict(skb, row);
}

/* A packet of an open connection. */
static __noinline int admit_member(struct __sk_buff *skb, struct admission *a, struct podwire_ct_entry *entry)
{
	__u8 opener = entry->opener & 1;
	bool is_reply = (a->flow.direction & 1) != opener;
	const struct podwire_verdict *row = judge_opener(&a->flow.key, opener, opener_port(&a->flow.key, opener), a->generation);
	int verdict;

	if (!row)
		return DROP(REASON_ENDPOINT_NOT_READY);
	admission_parties(a, row, is_reply);
	if (is_reply)
		target_find(a);
	else
		target_of_row(&a->target, row);
	verdict = check_verdict(skb, a, row);
	if (verdict)
		return verdict;
	a->from.reason = is_reply ? TRACE_REASON_REPLY : TRACE_REASON_ESTABLISHED;
	note_verdict(skb, entry, row);
	ct_update(entry, &a->flow, skb->len, a->now);
	seal_path(entry, a, skb->ifindex);
	return 0;
}

/*
 * Makes an entry that is dead, or whose connection is over, that of a new one. Who collects dead entries takes the claim as
 * well; the packet of who comes second goes on without an entry, and its next one makes it.
 */
static __always_inline void entry_renew(struct __sk_buff *skb, struct admission *a, struct podwire_ct_entry *entry,
					const struct podwire_verdict *row)
{
	if (__sync_val_compare_and_swap(&entry->claim, 0, 1)) {
		ct_count_error(-EBUSY);
		return;
	}
	/* What was collected meanwhile may have been given to another connection. */
	if (ct_find(&a->flow.key) != entry) {
		__sync_lock_test_and_set(&entry->claim, 0);
		ct_count_error(-EBUSY);
		return;
	}
	path_break(&entry->dir[0]);
	path_break(&entry->dir[1]);
	ct_reset(entry, a->flow.direction, a->now);
	note_verdict(skb, entry, row);
	ct_update(entry, &a->flow, skb->len, a->now);
	seal_path(entry, a, skb->ifindex);
	__sync_lock_test_and_set(&entry->claim, 0);
}

static __always_inline int entry_insert(struct __sk_buff *skb, struct admission *a, const struct podwire_verdict *row)
{
	__u32 zero = 0;
	struct podwire_ct_entry *entry = bpf_map_lookup_elem(&podwire_ct_new, &zero);
	struct path path;

	if (!entry)
		return -EBUSY;
	__builtin_memset(entry, 0, sizeof(*entry));
	ct_reset(entry, a->flow.direction, a->now);
	entry_judged(entry, row);
	ct_update(entry, &a->flow, skb->len, a->now);
	if (entry->state < CT_CLOSING) {
		/* Nobody sees it yet. */
		path_of(a, &path, skb->ifindex);
		path_write(ct_dir(entry, a->flow.direction), &path);
		ct_dir(entry, a->flow.direction)->seal = seal_of(a->generation, a->flow.tag, path.flags);
	}
	return ct_insert(&a->flow.key, entry);
}

/* The entry of a connection that a packet opens and may open. */
static __always_inline void note_opened(struct __sk_buff *skb, struct admission *a, struct podwire_ct_entry *entry,
					const struct podwire_verdict *row)
{
	bool is_over;
	int error;

	if (!entry) {
		error = entry_insert(skb, a, row);
		/* Opened again, or by another CPU at the same time. */
		if (unlikely(error == -EEXIST))
			entry = ct_find(&a->flow.key);
		if (likely(!entry)) {
			if (unlikely(error))
				ct_count_error(error);
			report_verdict(skb, row);
			return;
		}
	}
	is_over = !ct_is_live(entry, a->now) || entry->state == CT_CLOSED;
	if (!is_over && a->flow.direction == (entry->opener & 1)) {
		a->from.reason = TRACE_REASON_ESTABLISHED;
		note_verdict(skb, entry, row);
		ct_update(entry, &a->flow, skb->len, a->now);
		seal_path(entry, a, skb->ifindex);
		return;
	}
	if (is_over) {
		entry_renew(skb, a, entry, row);
	} else {
		report_verdict(skb, row);
		/* Opened from the other side while it is open: the receiver's stack knows what to do with it. */
		ct_dir(entry, a->flow.direction)->packets += 1;
		ct_dir(entry, a->flow.direction)->bytes += skb->len;
	}
}

/* A packet that opens a connection, or belongs to none. */
static __noinline int admit_opener(struct __sk_buff *skb, struct admission *a, struct podwire_ct_entry *entry)
{
	const struct podwire_verdict *row = judge_opener(&a->flow.key, a->flow.direction, a->flow.dport_be, a->generation);
	int verdict;

	if (!row)
		return DROP(REASON_ENDPOINT_NOT_READY);
	admission_parties(a, row, false);
	target_of_row(&a->target, row);
	verdict = check_verdict(skb, a, row);
	if (verdict)
		return verdict;
	if (a->flow.kind == FLOW_UNTRACKED || a->flow.kind == FLOW_ICMP_ERROR) {
		report_verdict(skb, row);
		return 0;
	}
	note_opened(skb, a, entry, row);
	return 0;
}

/* Who the two ends of an error are: a router on the way may be one of them. */
static __always_inline void admission_resolve(struct admission *a)
{
	bool from_lo = a->flow.direction == CT_FROM_LO;
	struct party party;

	party_resolve(&party, (const __u64 *)(from_lo ? a->flow.key.lo_addr : a->flow.key.hi_addr), a->flow.key.family);
	a->from.identity = party.identity;
	a->src_id = party.id;
	party_resolve(&party, (const __u64 *)(from_lo ? a->flow.key.hi_addr : a->flow.key.lo_addr), a->flow.key.family);
	a->from.dst_identity = party.identity;
	a->from.dst_id = party.id;
}

/* An error about a packet of a connection: 0 or a drop; 1 where there is no such connection. */
static __noinline int admit_related(struct __sk_buff *skb, struct admission *a)
{
	const struct podwire_verdict *row;
	struct podwire_ct_entry *entry;
	struct flow inner = {};
	__u8 opener;
	int verdict;

	if (!related_parse(skb, &a->flow, &inner))
		return 1;
	entry = bpf_map_lookup_elem(&podwire_ct, &inner.key);
	if (!entry || !ct_is_live(entry, a->now))
		return 1;
	opener = entry->opener & 1;
	row = judge_opener(&inner.key, opener, opener_port(&inner.key, opener), a->generation);
	if (!row)
		return DROP(REASON_ENDPOINT_NOT_READY);
	admission_resolve(a);
	target_find(a);
	verdict = check_verdict(skb, a, row);
	if (verdict)
		return verdict;
	a->from.reason = TRACE_REASON_RELATED;
	return 0;
}

/*
 * Whether a packet may pass: 0, or a drop. A connection that is open is judged anew when something changed since; replies and
 * errors pass for its sake, without a policy of their own.
 *
 * A global function, which the verifier checks once for all its callers.
 */
__noinline int admit(struct __sk_buff *skb, struct admission *a)
{
	const struct podwire_runtime *switches = runtime();
	struct podwire_ct_entry *entry = NULL;
	int verdict;

	if (!switches || !a)
		return DROP(REASON_ENDPOINT_NOT_READY);
	/* Before any map is looked into: see judge(). */
	a->generation = READ_ONCE(switches->generation);
	a->now = bpf_jiffies64();
	if (a->flow.kind == FLOW_ICMP_ERROR) {
		verdict = admit_related(skb, a);
		if (verdict <= 0)
			return verdict;
	} else if (a->flow.kind != FLOW_OPENS) {
		entry = ct_find(&a->flow.key);
		if (entry && ct_is_live(entry, a->now))
			return admit_member(skb, a, entry);
	}
	return admit_opener(skb, a, entry);
}

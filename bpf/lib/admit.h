/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Whether a packet may pass: its connection, the policies of both sides, and where it then goes. */
#pragma once

#include "lib/conntrack.h"
#include "lib/deliver.h"
#include "lib/related.h"
#include "lib/verdict_counts.h"
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
	__u32 reports; /* not 0: verdicts are reported */
	__u8 hook; /* enum hook */
	bool opens_nothing; /* passes only as a packet of a connection that is there */
	__u16 raised_by; /* enum policy_verdict_raised_by: what the packet is to the connection that is judged */
	__u16 self_id; /* the pod on whose device the program runs, 0 none */
	__u16 src_id; /* out: the sending pod, as its address says, 0 none */
	__u8 in_mac[8] __attribute__((aligned(8))); /* the frame's source, where it comes from a pod */
};

static __always_inline __be16 opener_port(const struct podwire_ct_key *key, __u8 opener)
{
	if (key->asker)
		return key->family == ENDPOINT_IPV4 ? bpf_htons(ICMP_ECHO) : bpf_htons(ICMP6_ECHO);
	return opener == CT_FROM_LO ? key->hi_port_be : key->lo_port_be;
}

/* The verdict on the connection that a packet of direction `opener` opens, or opened. */
static __noinline const struct podwire_verdict *judge_opener(const struct podwire_ct_key *key, __u32 opener,
							     __be16 dport, __u32 generation,
							     const struct podwire_runtime *switches)
{
	struct judged what = { .dport_be = dport, .proto = key->proto, .family = key->family, .generation = generation };

	copy_ipv6(what.src, opener == CT_FROM_LO ? key->lo_addr : key->hi_addr);
	copy_ipv6(what.dst, opener == CT_FROM_LO ? key->hi_addr : key->lo_addr);
	return judge(&what, switches);
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

static __always_inline bool row_is_here(const struct podwire_verdict *row)
{
	return row->dst_ifindex || row->flags & VERDICT_ROW_F_HOST;
}

static __always_inline void target_of_row(struct target *target, const struct podwire_verdict *row)
{
	target->ifindex = row->dst_ifindex;
	target->is_here = row_is_here(row);
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
static __always_inline int check_target(const struct admission *a, bool is_here)
{
	__u64 address[2];

	if (a->hook != HOOK_FROM_POD || is_here)
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

static __always_inline void report_verdict(struct __sk_buff *skb, const struct admission *a, const struct podwire_verdict *row)
{
	if (!row->reason)
		count_verdicts(row);
	if (unlikely(a->reports))
		emit_verdicts(skb, row, a->raised_by);
}

static __always_inline int denied(struct __sk_buff *skb, struct admission *a, const struct podwire_verdict *row)
{
	report_verdict(skb, a, row);
	a->from.direction = denied_direction(row);
	return DROP(row->reason);
}

/* Whether a packet may pass as far as its two sides and the verdict on its connection go: 0, or a drop. */
static __always_inline int check_verdict(struct __sk_buff *skb, struct admission *a, const struct podwire_verdict *row,
					 bool is_here)
{
	int verdict;

	if (!is_ready(a))
		return DROP(REASON_ENDPOINT_NOT_READY);
	verdict = check_target(a, is_here);
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

/* Leaves word for the packets to come: how they go on while nothing changes. Under the bucket's lock. */
static __always_inline void seal_path(struct podwire_ct_entry *entry, const struct admission *a, __u32 ifindex)
{
	struct path path;

	if (entry->state >= CT_CLOSING)
		return;
	path_of(a, &path, ifindex);
	path_write(ct_dir(entry, a->flow.direction), &path, a->generation);
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

/* Takes a packet that is let through into its connection's entry, under the bucket's lock. Comes back with the entry's rank. */
static __always_inline __u8 entry_note(struct podwire_ct_entry *entry, const struct admission *a,
				       const struct podwire_verdict *row, struct __sk_buff *skb)
{
	entry_judged(entry, row);
	ct_update(entry, &a->flow, skb->len, a->now);
	seal_path(entry, a, skb->ifindex);
	return ct_rank(entry);
}

/* Notes a packet of an open connection. A verdict is reported once for each generation. */
static __always_inline void note_member(struct __sk_buff *skb, struct admission *a, int place, __u8 opener,
					const struct podwire_verdict *row)
{
	struct podwire_ct_bucket *bucket = ct_bucket_lock(place_bucket(place));
	__u32 way = place_way(place);
	struct podwire_ct_entry *entry;
	bool is_known = false;

	if (unlikely(!bucket)) {
		ct_count_error(-EBUSY);
	} else {
		entry = way_entry_of(bucket, way, &a->flow.key);
		if (likely(entry && (entry->opener & 1) == opener)) {
			is_known = entry->judged == row->generation;
			bucket->rank[way] = entry_note(entry, a, row, skb);
		}
		ct_bucket_unlock(bucket);
	}
	if (!is_known)
		report_verdict(skb, a, row);
}

/*
 * Whether a packet may pass for itself where the opener of its connection may no longer: in the midst of TCP none does, lest one that was
 * ended lives on.
 */
static __always_inline bool speaks_for_itself(const struct flow *flow)
{
	return flow->kind == FLOW_OPENS || flow->key.proto != IPPROTO_TCP;
}

/* A packet of an open connection: 0 or a drop; 1 where its opener may no longer, and the packet has to be judged for itself. */
static __noinline int admit_member(struct __sk_buff *skb, struct admission *a, int place, __u8 opener,
				   const struct podwire_runtime *switches)
{
	bool is_reply = (a->flow.direction & 1) != opener;
	const struct podwire_verdict *row;
	int verdict;

	row = judge_opener(&a->flow.key, opener, opener_port(&a->flow.key, opener), a->generation, switches);
	if (!row)
		return DROP(REASON_ENDPOINT_NOT_READY);
	if (is_reply && row->reason && speaks_for_itself(&a->flow))
		return 1;
	admission_parties(a, row, is_reply);
	a->raised_by = is_reply ? VERDICT_BY_REPLY : 0;
	if (is_reply)
		target_find(a);
	else
		target_of_row(&a->target, row);
	verdict = check_verdict(skb, a, row, a->target.is_here);
	if (verdict)
		return verdict;
	a->from.reason = is_reply ? TRACE_REASON_REPLY : TRACE_REASON_ESTABLISHED;
	note_member(skb, a, place, opener, row);
	return 0;
}

/* Begins a connection in an entry that is its own and unsettled, under the bucket's lock. Comes back with the entry's rank. */
static __always_inline __u8 entry_open(struct podwire_ct_entry *entry, const struct admission *a,
				       const struct podwire_verdict *row, struct __sk_buff *skb)
{
	ct_reset(entry, a->flow.direction, a->now);
	entry_settle(entry);
	return entry_note(entry, a, row, skb);
}

/*
 * Finds a place for a connection that has none: 0, or a negative errno, or 1 and the place that somebody else has given it by now.
 * Whoever gives a connection a place has its home's lock, so that none gets two.
 */
static __always_inline int entry_insert(struct __sk_buff *skb, const struct admission *a, const struct podwire_verdict *row)
{
	const struct podwire_runtime *switches = runtime();
	struct podwire_ct_bucket *bucket;
	struct podwire_ct_entry *entry;
	struct ct_spot spot;
	__u32 index, way;
	int place;

	if (!switches)
		return -EBUSY;
	ct_spot_of(&spot, (const __u64 *)&a->flow.key, switches);
	if (unlikely(!ct_lock(spot.home)))
		return -EBUSY;
	place = ct_locate(&a->flow.key);
	if (unlikely(place >= 0)) {
		ct_unlock(spot.home);
		return place + 1;
	}
	place = ct_claim(spot.home, spot.other, a->now);
	index = place_bucket(place);
	way = place_way(place);
	bucket = ct_bucket(index);
	if (place < 0 || !bucket) {
		ct_unlock(spot.home);
		return -ENOSPC;
	}
	way_give(bucket, index, way, &a->flow.key, &spot, switches);
	entry = way_entry(bucket, way);
	if (entry)
		bucket->rank[way] = entry_open(entry, a, row, skb);
	ct_unclaim(spot.home, index);
	return 0;
}

/*
 * A packet that opens a connection which has an entry; one that is the other side's is this one's from now on where it `turns`. Comes
 * back with whether the verdict was reported. A function of its own for the same reason as ct_update().
 */
static __noinline bool note_again(struct __sk_buff *skb, struct admission *a, int place, const struct podwire_verdict *row,
				  bool turns)
{
	struct podwire_ct_bucket *bucket = ct_bucket_lock(place_bucket(place));
	__u32 way = place_way(place);
	struct podwire_ct_entry *entry;
	bool is_known = false, is_own;

	if (unlikely(!bucket)) {
		ct_count_error(-EBUSY);
		return false;
	}
	entry = way_entry_of(bucket, way, &a->flow.key);
	if (unlikely(!entry)) {
		/* It has gone, and its next packet gets it another one. */
		ct_count_error(-EBUSY);
		goto unlock;
	}
	is_own = a->flow.direction == (entry->opener & 1);
	if (!ct_is_live(entry, a->now) || entry->state == CT_CLOSED || (turns && !is_own) ||
	    /* Who opens a connection that is about to end has forgotten it. */
	    (is_own && entry->state == CT_CLOSING && a->flow.kind == FLOW_OPENS)) {
		entry_unsettle(entry);
		bucket->rank[way] = entry_open(entry, a, row, skb);
	} else if (is_own) {
		a->from.reason = TRACE_REASON_ESTABLISHED;
		is_known = entry->judged == row->generation;
		bucket->rank[way] = entry_note(entry, a, row, skb);
	} else {
		/*
		 * Opened from the other side while it is open: the receiver's stack knows what to do with it. Or it passes for itself where
		 * the opener may no longer: that keeps no connection, or its answers were what policy has just ended.
		 */
		ct_count(ct_dir(entry, a->flow.direction), skb->len);
	}
unlock:
	ct_bucket_unlock(bucket);
	return is_known;
}

/* Whether a packet might begin anew what the other side has opened: a SYN does. A function of its own for the same reason. */
static __noinline bool is_against(const struct admission *a, int place)
{
	return a->flow.kind == FLOW_OPENS && ct_opener(place, &a->flow.key, a->now) == !(a->flow.direction & 1);
}

/* The entry of a connection that a packet opens and may open. */
static __always_inline void note_opened(struct __sk_buff *skb, struct admission *a, const struct podwire_verdict *row,
					const struct podwire_runtime *switches)
{
	__u32 direction = a->flow.direction & 1;
	int place = ct_locate(&a->flow.key);
	bool turns = false;

	if (place < 0) {
		place = entry_insert(skb, a, row);
		if (likely(place <= 0)) {
			if (unlikely(place))
				ct_count_error(place);
			report_verdict(skb, a, row);
			return;
		}
		place -= 1;
	}
	if (unlikely(is_against(a, place))) {
		row = judge_opener(&a->flow.key, !direction, opener_port(&a->flow.key, !direction), a->generation, switches);
		turns = row && row->reason;
		/* The packet's own once more: both may be remembered in the same row. */
		row = judge_opener(&a->flow.key, direction, a->flow.dport_be, a->generation, switches);
		if (!row)
			return;
	}
	if (!note_again(skb, a, place, row, turns))
		report_verdict(skb, a, row);
}

/* A packet that opens a connection, or belongs to none. */
static __noinline int admit_opener(struct __sk_buff *skb, struct admission *a, const struct podwire_runtime *switches)
{
	const struct podwire_verdict *row;
	int verdict;

	row = judge_opener(&a->flow.key, a->flow.direction, a->flow.dport_be, a->generation, switches);
	if (!row)
		return DROP(REASON_ENDPOINT_NOT_READY);
	admission_parties(a, row, false);
	verdict = check_verdict(skb, a, row, row_is_here(row));
	if (verdict)
		return verdict;
	target_of_row(&a->target, row);
	if (a->flow.kind == FLOW_UNTRACKED || a->flow.kind == FLOW_ICMP_ERROR) {
		report_verdict(skb, a, row);
		return 0;
	}
	note_opened(skb, a, row, switches);
	return 0;
}

/* Who the two ends of an error are, and where it goes: a router on the way may be one of them. */
static __noinline int admission_resolve(struct admission *a, const struct podwire_runtime *switches)
{
	const struct podwire_ct_key *key = &a->flow.key;
	bool from_lo = a->flow.direction == CT_FROM_LO;
	struct party party;

	party_resolve(&party, (const __u64 *)(from_lo ? key->lo_addr : key->hi_addr), key->family, a->generation, switches);
	a->from.identity = party.identity;
	a->src_id = party.id;
	party_resolve(&party, (const __u64 *)(from_lo ? key->hi_addr : key->lo_addr), key->family, a->generation, switches);
	a->from.dst_identity = party.identity;
	a->from.dst_id = party.id;
	target_find(a);
	return 0;
}

/*
 * Whether an error comes from where the packet was to go that it is about. Routers say that of other people's packets, but no pod is one:
 * by an error about somebody else's connection it would reach whom its policy denies it.
 */
static __always_inline bool is_from_receiver(const struct flow *error, const struct flow *inner)
{
	const __u64 *from = (const __u64 *)(error->direction == CT_FROM_LO ? error->key.lo_addr : error->key.hi_addr);
	const __u64 *to = (const __u64 *)(inner->direction == CT_FROM_LO ? inner->key.hi_addr : inner->key.lo_addr);

	return from[0] == to[0] && from[1] == to[1];
}

/* An error about a packet of a connection: 0 or a drop; 1 where there is no such connection, or it is none of the sender's. */
static __noinline int admit_related(struct __sk_buff *skb, struct admission *a, const struct podwire_runtime *switches)
{
	const struct podwire_verdict *row;
	struct flow inner = {};
	int place, opener, verdict;

	if (!related_parse(skb, &a->flow, &inner))
		return 1;
	place = ct_locate(&inner.key);
	opener = place < 0 ? -1 : ct_opener(place, &inner.key, a->now);
	if (opener < 0)
		return 1;
	row = judge_opener(&inner.key, opener, opener_port(&inner.key, opener), a->generation, switches);
	if (!row)
		return DROP(REASON_ENDPOINT_NOT_READY);
	admission_resolve(a, switches);
	if (a->src_id && !is_from_receiver(&a->flow, &inner))
		return 1;
	a->raised_by = VERDICT_BY_ERROR | ((inner.direction & 1) != opener ? VERDICT_BY_REPLY : 0);
	verdict = check_verdict(skb, a, row, a->target.is_here);
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
	int place, opener, verdict;

	if (!switches || !a)
		return DROP(REASON_ENDPOINT_NOT_READY);
	/* Before any map is looked into: see judge(). */
	a->generation = READ_ONCE(switches->generation);
	loads_in_order(a->generation);
	a->reports = switches->verdict_events;
	a->now = bpf_jiffies64();
	if (a->flow.kind == FLOW_ICMP_ERROR) {
		verdict = admit_related(skb, a, switches);
		if (verdict <= 0)
			return verdict;
	} else if (a->flow.kind != FLOW_OPENS) {
		place = ct_locate(&a->flow.key);
		opener = place < 0 ? -1 : ct_opener(place, &a->flow.key, a->now);
		if (opener >= 0) {
			verdict = admit_member(skb, a, place, opener, switches);
			if (verdict <= 0)
				return verdict;
		}
	}
	if (unlikely(a->opens_nothing))
		return DROP(REASON_INVALID_SIP);
	return admit_opener(skb, a, switches);
}

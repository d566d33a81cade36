// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* No program: a global per shared struct, so that their BTF reaches build.rs. */
#include "abi.h"

#define SHARED(type) struct type shared_##type

SHARED(endpoint_key);
SHARED(endpoint_info);
SHARED(metrics_key);
SHARED(metrics_value);

SHARED(drop_notify);
SHARED(trace_notify);
SHARED(policy_verdict_notify);
SHARED(podwire_endpoint);
SHARED(podwire_runtime);
SHARED(podwire_event_budget);

SHARED(ipcache_key);
SHARED(remote_endpoint_info);

SHARED(policy_key);
SHARED(policy_entry);
SHARED(policy_stats_key);
SHARED(policy_stats_value);

SHARED(lb4_key);
SHARED(lb6_key);
SHARED(lb4_service);
SHARED(lb6_service);
SHARED(lb4_backend);
SHARED(lb6_backend);
SHARED(lb4_reverse_nat);
SHARED(lb6_reverse_nat);
SHARED(lb4_affinity_key);
SHARED(lb6_affinity_key);
SHARED(lb_affinity_val);
SHARED(lb_affinity_match);
SHARED(lb4_src_range_key);
SHARED(lb6_src_range_key);

SHARED(node_key);
SHARED(node_value);

SHARED(podwire_ct_key);
SHARED(podwire_ct_dir);
SHARED(podwire_ct_entry);
SHARED(podwire_ct_bucket);
SHARED(podwire_ct_pool);
SHARED(podwire_ct_collect);
SHARED(podwire_ct_remove);
SHARED(podwire_ct_insert);
SHARED(podwire_verdict);
SHARED(podwire_party);
SHARED(podwire_policy_outline);

SHARED(ipv4_frag_id);
SHARED(ipv6_frag_id);
SHARED(frag_l4ports);

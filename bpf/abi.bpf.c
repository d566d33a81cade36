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

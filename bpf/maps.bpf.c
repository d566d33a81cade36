// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* No program: every map of a node, so that user space makes and pins them all, with their BTF, at the configured sizes. */
#include "lib/conntrack_maps.h"
#include "lib/events.h"
#include "lib/ipcache.h"
#include "lib/lb.h"
#include "lib/lxc.h"
#include "lib/metrics.h"
#include "lib/node.h"
#include "lib/party_rows.h"
#include "lib/policy.h"
#include "lib/runtime.h"
#include "lib/verdict_counts.h"
#include "lib/verdict_rows.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

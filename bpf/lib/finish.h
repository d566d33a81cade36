/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The end of every program: drops are counted and reported here and nowhere else. */
#pragma once

#include "lib/events.h"
#include "lib/metrics.h"

static __noinline int finish_drop(struct __sk_buff *skb, int verdict, __u32 direction, __u32 source, __u32 identity)
{
	count_drop(skb, verdict, direction);
	emit_drop(skb, verdict, source, identity);
	return TC_ACT_SHOT;
}

static __always_inline int finish(struct __sk_buff *skb, int verdict, __u8 direction, __u16 source, __u32 identity)
{
	if (likely(!is_drop(verdict)))
		return verdict;
	return finish_drop(skb, verdict, direction, source, identity);
}

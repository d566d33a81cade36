/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The end of every program: drops are counted and reported here and nowhere else. */
#pragma once

#include "lib/events.h"
#include "lib/metrics.h"

__noinline int finish_drop(struct __sk_buff *skb, int verdict, const struct sender *from)
{
	if (!from)
		return TC_ACT_SHOT;
	count_drop(skb, verdict, from->direction);
	emit_drop(skb, verdict, from);
	return TC_ACT_SHOT;
}

static __always_inline int finish(struct __sk_buff *skb, int verdict, const struct sender *from)
{
	if (likely(!is_drop(verdict)))
		return verdict;
	return finish_drop(skb, verdict, from);
}

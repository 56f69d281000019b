/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints: what passes between two roots, for `multiroot bench handoff`. They cost nothing while nobody traces.
 * With the clock "x86-tsc" events of both roots are on one time line.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM multiroot

#if !defined(_MR_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _MR_TRACE_H

#include <linux/tracepoint.h>

/* Something passes between this root and a peer: bits of events, or a frame of some bytes. */
DECLARE_EVENT_CLASS(mr_passing,
		    TP_PROTO(u32 root, u32 value),
		    TP_ARGS(root, value),
		    TP_STRUCT__entry(__field(u32, root) __field(u32, value)),
		    TP_fast_assign(__entry->root = root; __entry->value = value;),
		    TP_printk("root=%u value=%#x", __entry->root, __entry->value)
);

/* The peer is interrupted. */
DEFINE_EVENT(mr_passing, doorbell_ring, TP_PROTO(u32 root, u32 value), TP_ARGS(root, value));
/* The peer has interrupted us. */
DEFINE_EVENT(mr_passing, doorbell_heard, TP_PROTO(u32 root, u32 value), TP_ARGS(root, value));
DEFINE_EVENT(mr_passing, link_sent, TP_PROTO(u32 root, u32 value), TP_ARGS(root, value));
DEFINE_EVENT(mr_passing, link_received, TP_PROTO(u32 root, u32 value), TP_ARGS(root, value));

#endif /* _MR_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH core
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>

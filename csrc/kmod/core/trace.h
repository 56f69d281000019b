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

DECLARE_EVENT_CLASS(mr_doorbell,
		    TP_PROTO(u32 root, u32 events),
		    TP_ARGS(root, events),
		    TP_STRUCT__entry(__field(u32, root) __field(u32, events)),
		    TP_fast_assign(__entry->root = root; __entry->events = events;),
		    TP_printk("root=%u events=%#x", __entry->root, __entry->events)
);

/* The peer is interrupted. */
DEFINE_EVENT(mr_doorbell, doorbell_ring, TP_PROTO(u32 root, u32 events), TP_ARGS(root, events));
/* The peer has interrupted us. */
DEFINE_EVENT(mr_doorbell, doorbell_heard, TP_PROTO(u32 root, u32 events), TP_ARGS(root, events));

DECLARE_EVENT_CLASS(mr_frame,
		    TP_PROTO(u32 root, u32 bytes),
		    TP_ARGS(root, bytes),
		    TP_STRUCT__entry(__field(u32, root) __field(u32, bytes)),
		    TP_fast_assign(__entry->root = root; __entry->bytes = bytes;),
		    TP_printk("root=%u bytes=%u", __entry->root, __entry->bytes)
);

DEFINE_EVENT(mr_frame, link_sent, TP_PROTO(u32 root, u32 bytes), TP_ARGS(root, bytes));
DEFINE_EVENT(mr_frame, link_received, TP_PROTO(u32 root, u32 bytes), TP_ARGS(root, bytes));

#endif /* _MR_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH core
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>

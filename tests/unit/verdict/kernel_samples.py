# SPDX-License-Identifier: GPL-2.0-or-later
"""What kernels print, in the formats of their sources; the places and numbers are made up."""

from __future__ import annotations

BANNER = "[    0.000000] Linux version 6.12.1-mine (me@here) (gcc 14.2.0, GNU ld 2.44) #3 SMP PREEMPT_DYNAMIC"

WARNING = """\
[   12.500000] ------------[ cut here ]------------
[   12.500100] WARNING: CPU: 1 PID: 77 at mm/frob.c:123 frob_pages+0x1a/0x90
[   12.500200] Modules linked in: multiroot(OE) dax_pmem
[   12.500300] CPU: 1 UID: 0 PID: 77 Comm: frobber Tainted: G           OE      6.12.1-mine #3
[   12.500350] Tainted: [O]=OOT_MODULE, [E]=UNSIGNED_MODULE
[   12.500400] RIP: 0010:frob_pages+0x1a/0x90
[   12.500450] Code: 0f 1f 44 00 00 <0f> 0b c3 cc
[   12.500500] RSP: 0018:ffffc90000123e48 EFLAGS: 00010246
[   12.500600] Call Trace:
[   12.500610]  <TASK>
[   12.500620]  ? __warn+0x84/0x140
[   12.500630]  frob_ioctl+0x30/0x60 [frob]
[   12.500640]  __x64_sys_ioctl+0x94/0xd0
[   12.500650]  </TASK>
[   12.500700] ---[ end trace 0000000000000000 ]---
"""
NEW_WARNING = "[    3.000001][   T77] WARNING: mm/frob.c:123 at frob_pages+0x1a/0x90, CPU#1: frobber/77"
OOPS = """\
[   20.000000] BUG: kernel NULL pointer dereference, address: 0000000000000008
[   20.000010] #PF: supervisor read access in kernel mode
[   20.000020] #PF: error_code(0x0000) - not-present page
[   20.000030] Oops: Oops: 0000 [#1] PREEMPT SMP NOPTI
[   20.000040] CPU: 0 UID: 0 PID: 1 Comm: init Not tainted 6.12.1-mine #3
[   20.000050] RIP: 0010:list_walk+0x8/0x20
[   20.000060] ---[ end trace 0000000000000000 ]---
[   20.000070] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009
[   20.000080] ---[ end Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009 ]---
"""
KASAN = """\
[   30.000000] ==================================================================
[   30.000010] BUG: KASAN: slab-use-after-free in frob_free+0x40/0x80 [frob]
[   30.000020] Read of size 8 at addr ffff888004a2c010 by task frobber/77
[   30.000030] CPU: 1 UID: 0 PID: 77 Comm: frobber Tainted: G    B              6.12.1-mine #3
[   30.000040] Call Trace:
[   30.000050]  kasan_report+0xd8/0x110
[   30.000060] Allocated by task 77:
[   30.000070]  kmalloc_trace+0x20/0x90
[   30.000080] ==================================================================
[   30.000090] Disabling lock debugging due to kernel taint
"""
LOCKDEP = """\
[   40.000000] ======================================================
[   40.000010] WARNING: possible circular locking dependency detected
[   40.000020] 6.12.1-mine #3 Not tainted
[   40.000030] ------------------------------------------------------
[   40.000040] frobber/77 is trying to acquire lock:
[   40.000050] ffff888003f8a0b8 (&f->lock){+.+.}-{3:3}, at: frob_lock+0x20/0x50
"""
RCU = """\
[   60.000000] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:
[   60.000010] rcu: 	1-...0: (1 GPs behind) idle=d5c/1/0x4000000000000000 softirq=12/12 fqs=5250
[   60.000020] rcu: 	(detected by 0, t=21002 jiffies, g=1, q=2 ncpus=2)
[   60.000030] rcu: rcu_preempt kthread starved for 21002 jiffies! g1 f0x0 RCU_GP_WAIT_FQS(5) ->state=0x0
"""
ONE_LINE = {
    "[ 1.000000] UBSAN: array-index-out-of-bounds in mm/frob.c:12:7": "ubsan",
    "[ 1.000000] BUG: KCSAN: data-race in frob / unfrob": "kcsan",
    "[ 1.000000] BUG: KFENCE: use-after-free read in frob+0x1/0x2": "kfence",
    "[ 1.000000] BUG: KMSAN: uninit-value in frob+0x1/0x2": "kmsan",
    "[ 1.000000] [ BUG: Invalid wait context ]": "lockdep",
    "[ 1.000000] WARNING: suspicious RCU usage": "lockdep",
    "[ 1.000000] INFO: trying to register non-static key.": "lockdep",
    "[ 1.000000] WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected": "lockdep",
    "[ 1.000000] watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [frobber:77]": "soft lockup",
    "[ 1.000000] watchdog: Watchdog detected hard LOCKUP on cpu 1": "hard lockup",
    "[ 1.000000] NMI watchdog: Watchdog detected hard LOCKUP on cpu 1": "hard lockup",
    "[ 1.000000] BUG: workqueue lockup - pool cpus=1 node=0 nice=0 stuck for 31s!": "workqueue lockup",
    "[ 1.000000] rcu: INFO: rcu_sched self-detected stall on CPU": "rcu stall",
    "[ 1.000000] rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-...D }": "rcu stall",
    "[ 1.000000] INFO: task kworker/0:1 H:77 blocked for more than 120 seconds.": "hung task",
    "[ 1.000000] INFO: task dd:9 blocked in I/O wait for more than 120 seconds.": "hung task",
    "[ 1.000000] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)": "kmemleak",
    "unreferenced object 0xffff888004a2c000 (size 64):": "kmemleak",
    "[ 1.000000] frobber: page allocation failure: order:4, mode:0xcc0(GFP_KERNEL), nodemask=(null)": (
        "page allocation failure"
    ),
    "[ 1.000000] Out of memory: Killed process 77 (frobber) total-vm:1kB, anon-rss:1kB": "out of memory",
    "[ 1.000000] kernel BUG at mm/slub.c:546!": "bug",
    "[ 1.000000] BUG: sleeping function called from invalid context at mm/frob.c:1": "bug",
    "[ 1.000000] BUG: Bad page state in process frobber  pfn:04a2c": "bug",
    "[ 1.000000] divide error: 0000 [#1] PREEMPT SMP NOPTI": "oops",
    "[ 1.000000] Oops: general protection fault, probably for non-canonical address: 0000 [#1]": "oops",
    "[ 1.000000] Unable to handle kernel paging request at virtual address ffff8000": "oops",
    "[ 1.000000] mce: [Hardware Error]: Machine check events logged": "machine check",
    "[ 1.000000] Kernel panic - not syncing: sysrq triggered crash": "panic",
}
# Of the lab's own machines, and of kernels' usual boots.
INNOCENT = (
    "[    0.100000] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on",
    "[    0.100000] rcu: Preemptible hierarchical RCU implementation.",
    "[    0.100000] rcu: RCU debug extended QS entry/exit.",
    "[    7.000000] multiroot: loading out-of-tree module taints kernel.",
    "[    7.000000] multiroot: module verification failed: key missing - tainting kernel",
    "[    0.200000] Memory: 2000000K/2096628K available (14336K kernel code, 2300K rwdata)",
    "[    0.200000] x86/fpu: Supporting XSAVE feature 0x001: 'x87 floating point registers'",
    "[    0.200000] Kernel command line: panic=1 oops=panic softlockup_panic=1",
    "[    0.200000] BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable",
    "[    0.200000] mce: CPU supports 10 MCE banks",
    "[    0.200000] Error: Driver 'pcspkr' is already registered, aborting...",
    "root@root-1:~# echo WARNING",
)

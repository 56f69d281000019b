# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures what the project does beside what others do, in one lab machine and one run.

| module | job |
|---|---|
| handoff, scale, launch, link, memory | the benches: each says what is compared, and gives samples |
| contender | the interface of what takes part, and the runner that lets all take turns |
| ours | our handoff as a contender |
| traced, tracer | handoffs of ours and of in-place with tracepoints of kernels and QEMUs on |
| same_kernel, kexec_pmem | baselines: QEMU to QEMU in one kernel; kexec + PMEM (the LPC 2021 method) |
| names | the names of all contenders |
| workload | what the guests do meanwhile |
| lab_machine | the lab machine that a bench runs in |
| in_root/ | programs that run inside roots |
| results/ | what is done with samples: summaries, tables, plots, the HTML report, the regression guard |
"""

# SPDX-License-Identifier: GPL-2.0-or-later
"""The audit of global machine state: an update under QEMU's trace, judged by `qemu-lab/global-state.toml`.

Modules: rows (what is allowed), trace (what QEMU writes), apic and owners (whom an interrupt reaches, which
CPU is whose), judge (both together): all pure. tap, looks and run do it in a lab machine; document makes
the table of docs/global-state.md.
"""

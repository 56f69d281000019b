# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab: builds images, boots a QEMU lab machine and talks to it. Nothing outside lab/, demo/ and
cli/ imports it.

Modules: recipes (what `qemu-lab/` asks for), artifacts (what is built, by content hash), cache (where
it is kept), build and its helpers (how), layout and machine (the QEMU command), boot and state (a
running lab).
"""

# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes things go wrong in a lab machine on purpose, and sees what becomes of the VM.

| module | job |
|---|---|
| fault | what a fault is, and what may become of the VM |
| handoffs, launches, catalogue | the faults, and how to choose among them |
| strikes | what is done to a root from outside |
| ground | the lab machine with a VM and two roots: made ready before each fault |
| console_shell | the way into a root when the other one is dead |
| check | what must hold after a fault |
| runner | one fault after the other |
| table | what came of them, as data and as a table in a page |
| soak | many handoffs in a row |
"""

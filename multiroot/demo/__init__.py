# SPDX-License-Identifier: GPL-2.0-or-later
"""The main job shown end to end in a lab machine, with the proof that it happened.

| module | job |
|---|---|
| scenario | one handoff of each VM to a new root, as `multiroot demo` plays it, and what was seen of it |
| generations | update after update on one machine, with one VM that goes through all |
| guests | starts the VMs and waits until their guests tick |
| device | the network card that a VM owns and takes along: frames, interrupts, translations |
| clocks | how far the clocks of guest, roots and workstation drift apart |
| demo_report | what was seen, the checks made of it, and whether all of them held |
"""

# SPDX-License-Identifier: GPL-2.0-or-later
"""What kernels say of themselves, and what follows from it.

Pure, but for `symbols`: text in, findings and verdicts out. Agents judge a new root's boot by it, the lab its
machines, and the judging commands what happened while they ran.

`lines` takes a console line apart. `signs` knows what each kind of trouble looks like. `health` says whether
a kernel can still be relied on, and `findings` what it said in full. `taint` reads taint flags, `allow`
leaves out what a person expects, `elf` and `symbols` find the lines of source. `points` are the claims of a
judging command with what became of them, and `ktap` and `junit` write them down.
"""

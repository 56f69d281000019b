# SPDX-License-Identifier: GPL-2.0-or-later
"""A workbench for those who change a kernel: their kernels as roots, their test in one of them, one verdict.

`wanted` is what is asked for. `trial` plays it once in a lab machine: `carry` brings the command in and runs
it, `watch` notices a root that stands still, `look` collects what the kernels said and were. `trial_report`
says what follows from it (pure), `standard` is the job without a command. `repeat` counts how often it comes
out differently, and `matrix` plays many.
"""

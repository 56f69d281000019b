# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab: it builds images, boots lab machines (QEMU) and runs commands in their roots.

It drives everything else from the workstation. Only `demo`, `audit`, `bench`, `workbench`, their commands in
`cli` and the client's choice of an agent look at it; nothing that runs inside a root imports it.

Modules by what they do: `recipes` reads what `qemu-lab/` asks for. `artifacts` names what is built by the
hash of its inputs, and `cache` keeps it. `build` and its helpers (`roots`, `kernels`, `image`, ...) build it.
`own_kernel` and `kernel_file` find what belongs to a kernel of somebody's own, and `kernel_config` says what
a kernel has to be built with. `layout` and `machine` make QEMU's command line. `boot` starts a machine,
`state` knows what runs. `lab` is what others call.
"""

# SPDX-License-Identifier: GPL-2.0-or-later
"""In a root: a QEMU that does not have the VM is made to write to the VM's disk.

argv: "taker" for one that waits for a VM, or "giver" for one that has sent a VM's state; and the disk as
-blockdev has it, in JSON, with the node name disk0. Says how QEMU has ended, and on stderr what it said.
"""

import json
import subprocess
import sys

side, disk = sys.argv[1:]
WRITE = 'qemu-io -d /machine/peripheral/front/virtio-backend "write -P 255 0 4M"'
waits = ["-incoming", "defer"] if side == "taker" else []
words = [
    "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none",
    "-qmp", "stdio", "-blockdev", disk, "-device", "virtio-blk-pci,drive=disk0,id=front", "-S", *waits,
]  # fmt: skip


def tell(qemu, command, **arguments):
    print(json.dumps({"execute": command, "arguments": arguments}), file=qemu.stdin, flush=True)


with subprocess.Popen(
    words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
) as qemu:
    said = []

    def until(text):
        for line in qemu.stdout:
            said.append(line)
            if text in line:
                return

    tell(qemu, "qmp_capabilities")
    if side == "giver":
        tell(qemu, "migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        tell(qemu, "migrate", uri="exec:cat >/dev/null")
        until('"completed"')
    tell(qemu, "human-monitor-command", **{"command-line": WRITE})
    until('"return": ""')
    # One that could write is not to go on.
    qemu.kill()
    said += qemu.stdout
sys.stdout.write(f"{qemu.returncode}\n")
sys.stderr.write("".join(said))

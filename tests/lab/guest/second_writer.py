# SPDX-License-Identifier: GPL-2.0-or-later
"""In a root: a QEMU that waits for a VM, as a taker's does, is made to write to the VM's NBD disk.

Says how QEMU has ended. argv: the server's address and port, the disk's name.
"""

import json
import subprocess
import sys

host, port, export = sys.argv[1:]
SERVER = {"type": "inet", "host": host, "port": port}
DISK = {"driver": "nbd", "node-name": "disk0", "server": SERVER, "export": export, "cache": {"direct": True}}
WRITE = 'qemu-io -d /machine/peripheral/front/virtio-backend "write -P 255 0 4M"'
words = [
    "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none",
    "-S", "-incoming", "defer", "-qmp", "stdio",
    "-blockdev", json.dumps(DISK), "-device", "virtio-blk-pci,drive=disk0,id=front",
]  # fmt: skip
commands = [
    {"execute": "qmp_capabilities"},
    {"execute": "human-monitor-command", "arguments": {"command-line": WRITE}},
    {"execute": "quit"},
]
asked = "\n".join(map(json.dumps, commands))
done = subprocess.run(words, input=asked, capture_output=True, text=True, timeout=120, check=False)
sys.stdout.write(f"{done.returncode}\n")
sys.stderr.write(done.stdout + done.stderr)

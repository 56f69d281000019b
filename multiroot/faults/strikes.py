# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done to a root from outside of multiroot."""

from __future__ import annotations

from multiroot.errors import MultirootError
from multiroot.faults.fault import Strike
from multiroot.faults.ground import VM, Ground
from multiroot.faults.stop_cpus import STOP_CPUS

AGENT, VMM, KEEPER = "/usr/bin/multirootd", f"guest={VM}", "vm/console.py"  # as their command lines show
LINK = {"old": "mrctldown0", "new": "mrctlup0"}  # the one that agents speak over

# Turns a bit of the record of a VM's extent over; once more, and it is as it was.
_TEAR = """
import mmap, os, sys
from multiroot.arena import layout
from multiroot.arena.backing import find_device
size = layout.METADATA_SIZE
area = mmap.mmap(os.open(find_device().node, os.O_RDWR), size)
name = sys.argv[1].encode() + bytes(1)
for index in range(layout.ENTRY_COUNT):
    base = layout.entry_offset(index)
    at = area.find(name, base, base + layout.ENTRY_SIZE)
    if at >= 0 and area[base + layout.STATE_OFFSET]:
        area[at + 20] ^= 0x40
"""


def kill(root: str, process: str, signal: str = "KILL") -> Strike:
    """Send a signal to the agent, the VM's VMM or the console keepers of a root."""

    def strike(ground: Ground) -> None:
        oldest = ["-o"] if process == AGENT else []
        ground.run(["pkill", f"-{signal}", *oldest, "-f", process], root)

    return strike


def stop_for(root: str, process: str, seconds: int) -> Strike:
    """Stop a process, and let it go on after so many seconds."""
    later = f"(sleep {seconds}; pkill -CONT -f '{process[:-1]}[{process[-1]}]') >/dev/null 2>&1 &"

    def strike(ground: Ground) -> None:
        ground.shell(f"pkill -STOP -f '{process[:-1]}[{process[-1]}]'; {later}", root)

    return strike


def sysrq(root: str, key: str) -> Strike:
    """c: panic; b: reset at once. The answer comes before the root dies."""

    def strike(ground: Ground) -> None:
        ground.shell(f"(busybox usleep 200000; echo {key} > /proc/sysrq-trigger) >/dev/null 2>&1 &", root)

    return strike


def init_cpus(*hardware_ids: int) -> Strike:
    """Reset CPUs of the new root from the old one: they stop where they are."""

    def strike(ground: Ground) -> None:
        done = ground.run(["python3", "-c", STOP_CPUS, *map(str, hardware_ids)])
        if done.returncode:
            raise MultirootError(f"cannot stop CPUs: {done.stderr.strip()}")

    return strike


def link_down(seconds: int) -> Strike:
    """The old root's end of the link goes down for so many seconds."""

    def strike(ground: Ground) -> None:
        device = LINK["old"]
        later = f"(sleep {seconds}; ip link set {device} up) >/dev/null 2>&1 &"
        ground.shell(f"ip link set {device} down; {later}")

    return strike


def disturb_link(how: str) -> Strike:
    """netem on both ends of the link, such as "delay 50ms"."""

    def strike(ground: Ground) -> None:
        for root, device in reversed(LINK.items()):
            ground.shell(f"modprobe sch_netem; tc qdisc replace dev {device} root netem {how}", root)

    return strike


def undisturb_link(ground: Ground) -> None:
    """The link as it was."""
    for root, device in LINK.items():
        ground.shell(f"tc qdisc del dev {device} root", root)


def fill(root: str, folder: str) -> Strike:
    """Leave no room on the file system of a folder."""
    return _script(
        root, f"dd if=/dev/zero of={folder}/filler bs=1M; dd if=/dev/zero of={folder}/filler2 bs=1k"
    )


def empty(root: str, folder: str) -> Strike:
    """Give the room back."""
    return _script(root, f"rm -f {folder}/filler {folder}/filler2")


def tear_record(ground: Ground) -> None:
    """Damage the VM's record in the arena, or mend it again."""
    ground.run(["python3", "-c", _TEAR, VM])


def keep_bringing_online(ground: Ground) -> None:
    """Somebody in the old root tries all the time to bring the new root's CPUs online."""
    cpus = "/sys/devices/system/cpu"
    loop = f"while [ -e /tmp/online ]; do echo 1 > {cpus}/cpu2/online; echo 1 > {cpus}/cpu3/online; done"
    ground.shell(f"touch /tmp/online; ({loop}) >/dev/null 2>&1 &")


def stop_bringing_online(ground: Ground) -> None:
    """That ends."""
    ground.shell("rm /tmp/online")


def _script(root: str, script: str) -> Strike:
    def strike(ground: Ground) -> None:
        ground.shell(script, root)

    return strike


def cancel(ground: Ground) -> None:
    """Have all VMs stay that are being handed over."""
    ground.cancel()

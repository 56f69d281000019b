# SPDX-License-Identifier: GPL-2.0-or-later
"""What a virtual CPU did is read from a trace, and added up for the guest's gap."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from multiroot.arch.x86 import X86
from multiroot.bench.results import guest_gap, vcpu_events
from multiroot.bench.results.samples import Sample
from multiroot.phases import Phase

KHZ = 1_000_000  # one a ns
TEXT = """# tracer: nop
           <idle>-0       [002] d.h2. 800: sched_wakeup: comm=qemu-system-x86 pid=412 prio=120 target_cpu=002
  qemu-system-x86-300     [002] d..2. 1000: sched_switch: prev_comm=qemu-syste prev_pid=300 prev_prio=120 \
prev_state=S ==> next_comm=qemu-system-x86 next_pid=412 next_prio=120
 qemu-system-x86-412     [002] d..1. 2000: kvm_entry: vcpu 0, rip 0xffffffff81
 qemu-system-x86-412     [002] d..1. 5000: kvm_exit: vcpu 0 reason npf rip 0xffffffff8 info1 0x0
 qemu-system-x86-999     [001] d..1. 5500: kvm_entry: vcpu 0, rip 0xffffffff81
 qemu-system-x86-412     [002] d..1. 6000: kvm_entry: vcpu 0, rip 0xffffffff81
 qemu-system-x86-412     [002] d..1. 7000: kvm_exit: vcpu 0 reason EXIT_IO rip 0xffffffff8 info1 0x0
 qemu-system-x86-412     [002] ..... 7500: kvm_userspace_exit: reason KVM_EXIT_IO (2)
 qemu-system-x86-412     [002] d..2. 8000: sched_switch: prev_comm=qemu-syste prev_pid=412 prev_prio=120 \
prev_state=R+ ==> next_comm=python3 next_pid=77 next_prio=120
         python3-77      [002] d..2. 9000: sched_switch: prev_comm=python3 prev_pid=77 prev_prio=120 \
prev_state=S ==> next_comm=qemu-system-x86 next_pid=412 next_prio=120
 qemu-system-x86-412     [002] d..1. 9500: kvm_entry: vcpu 0, rip 0xffffffff81
 qemu-system-x86-412     [002] d..1. 9700: kvm_exit: vcpu 0 reason hlt rip 0xffffffff8 info1 0x0
 qemu-system-x86-412     [002] d..2. 9800: sched_switch: prev_comm=qemu-syste prev_pid=412 prev_prio=120 \
prev_state=S ==> next_comm=swapper/2 next_pid=0 next_prio=120
"""


def test_a_trace_tells_what_the_virtual_cpu_did() -> None:
    found = vcpu_events.parse(TEXT, KHZ, 500, 10_000, X86.exits)
    assert [(doing, start, start + length) for doing, start, length, _ in found] == [
        (vcpu_events.NOT_YET, 500, 800),
        ("waits for a CPU, before it enters the guest", 800, 1000),
        ("QEMU, before it enters the guest", 1000, 2000),
        (vcpu_events.GUEST, 2000, 5000),
        ("KVM, exit npf", 5000, 6000),
        (vcpu_events.GUEST, 6000, 7000),
        ("KVM, exit io", 7000, 7500),
        ("QEMU, exit io", 7500, 8000),
        ("waits for a CPU, exit io", 8000, 9000),
        ("QEMU, exit io", 9000, 9500),
        (vcpu_events.GUEST, 9500, 9700),
        ("KVM, exit hlt", 9700, 9800),
        ("sleeps, exit hlt", 9800, 10_000),
    ]


# QEMU 11.1: its main thread tells the devices that the guest goes on; the virtual CPU sleeps meanwhile.
WAITING = """\
 qemu-system-x86-251     [001] ...1. 100: sys_ioctl(fd: a, cmd: 4030ae7b, arg: 7ffcbe001eb0)
 qemu-system-x86-251     [001] ...1. 200: sys_ioctl -> 0x0
       CPU 0/KVM-255     [001] d..1. 250: sched_switch: prev_comm=CPU 0/KVM prev_pid=255 prev_prio=120 \
prev_state=S ==> next_comm=qemu-system-x86 next_pid=251 next_prio=120
 qemu-system-x86-251     [001] ...1. 300: sys_ioctl(fd: a, cmd: 4040ae79, arg: 7ffcbe001c20)
 qemu-system-x86-251     [001] ...1. 700: sys_ioctl -> 0x0
 qemu-system-x86-251     [001] ...1. 800: sys_ioctl(fd: 1e, cmd: 4008af30, arg: 7ffcbe001de0)
 qemu-system-x86-251     [001] ...1. 850: sys_ioctl -> 0x0
          <idle>-0       [001] d.h2. 900: sched_wakeup: comm=CPU 0/KVM pid=255 prio=120 target_cpu=001
          <idle>-0       [001] d..2. 910: sched_switch: prev_comm=swapper/1 prev_pid=0 prev_prio=120 \
prev_state=R ==> next_comm=CPU 0/KVM next_pid=255 next_prio=120
       CPU 0/KVM-255     [001] d..1. 990: kvm_entry: vcpu 0, rip 0xffffffffa26be58f
"""


def test_calls_of_the_main_thread_are_told_where_the_virtual_cpu_waits_for_it() -> None:
    found = vcpu_events.parse(WAITING, KHZ, 0, 1000, X86.exits)
    assert [(doing, start, start + length) for doing, start, length, _ in found] == [
        ("before it enters the guest", 0, 100),
        ("before it enters the guest: KVM_SET_CLOCK", 100, 200),
        ("before it enters the guest", 200, 250),
        ("sleeps, before it enters the guest", 250, 300),
        ("sleeps, before it enters the guest: KVM_IOEVENTFD", 300, 700),
        ("sleeps, before it enters the guest", 700, 800),
        ("sleeps, before it enters the guest: vhost request 0x30", 800, 850),
        ("sleeps, before it enters the guest", 850, 900),
        ("waits for a CPU, before it enters the guest", 900, 910),
        ("QEMU, before it enters the guest", 910, 990),
        (vcpu_events.GUEST, 990, 1000),
    ]


# A guest of 6.12, QEMU 11.1: in the middle of an exit a tracepoint tells what it is for.
EXITS = """\
       CPU 0/KVM-250     [000] d..1. 100: kvm_entry: vcpu 0, rip 0xffffffff934be58f
       CPU 0/KVM-250     [000] d..1. 200: kvm_exit: vcpu 0 reason msr rip 0xffffffff928962d8 info1 0x1
       CPU 0/KVM-250     [000] ..... 210: kvm_msr: msr_write 6e0 = 0x52c4d7119f
       CPU 0/KVM-250     [000] d..1. 250: kvm_entry: vcpu 0, rip 0xffffffff928962da
       CPU 0/KVM-250     [000] d..1. 300: kvm_exit: vcpu 0 reason npf rip 0xffffffff930d578b info1 0x2
       CPU 0/KVM-250     [000] ..... 310: kvm_page_fault: vcpu 0 rip 0xffffffff930d578b address 0x5324ff8
       CPU 0/KVM-250     [000] d..2. 320: sched_switch: prev_comm=CPU 0/KVM prev_pid=250 prev_prio=120 \
prev_state=R+ ==> next_comm=python3 next_pid=77 next_prio=120
         python3-77      [000] d..2. 340: sched_switch: prev_comm=python3 prev_pid=77 prev_prio=120 \
prev_state=S ==> next_comm=CPU 0/KVM next_pid=250 next_prio=120
       CPU 0/KVM-250     [000] ...1. 350: kvm_mmu_spte_requested: gfn 5324 pfn 105924 level 2
       CPU 0/KVM-250     [000] .N.1. 360: kvm_mmu_set_spte: gfn 5200 spte 105800ee7 (rwxu) level 2 at 14256
       CPU 0/KVM-250     [000] d..1. 400: kvm_entry: vcpu 0, rip 0xffffffff930d578b
       CPU 0/KVM-250     [000] d..1. 500: kvm_exit: vcpu 0 reason io rip 0xffffffff930d578a info1 0x3f80010
       CPU 0/KVM-250     [000] ..... 510: kvm_pio: pio_write at 0x3f8 size 1 count 1 val 0x74
       CPU 0/KVM-250     [000] ..... 520: kvm_userspace_exit: reason KVM_EXIT_IO (2)
       CPU 0/KVM-250     [000] d..1. 600: kvm_entry: vcpu 0, rip 0xffffffff930d578b
       CPU 0/KVM-250     [000] d..1. 700: kvm_exit: vcpu 0 reason io rip 0xffffffff930d578a info1 0x3f80010
       CPU 0/KVM-250     [000] ..... 710: kvm_pio: pio_write at 0x3f8 size 1 count 1 val 0x69
       CPU 0/KVM-250     [000] d..1. 720: kvm_entry: vcpu 0, rip 0xffffffff930d578b
"""


def test_what_an_exit_was_for_is_told_from_its_begin_on() -> None:
    found = vcpu_events.parse(EXITS, KHZ, 150, 750, X86.exits)
    fault = "exit npf: a page of 2 MiB mapped"
    assert [(part.doing, part.start_ns, part.length, part.exits) for part in found] == [
        (vcpu_events.GUEST, 150, 50, 0),
        ("KVM, exit msr: restart of the timer", 200, 50, 1),
        (vcpu_events.GUEST, 250, 50, 0),
        (f"KVM, {fault}", 300, 20, 1),
        ("waits for a CPU, exit npf", 320, 20, 0),
        (f"KVM, {fault}", 340, 60, 0),
        (vcpu_events.GUEST, 400, 100, 0),
        ("KVM, exit io: serial port", 500, 20, 1),
        ("QEMU, exit io: serial port", 520, 80, 0),
        (vcpu_events.GUEST, 600, 100, 0),
        ("KVM, exit io: serial port", 700, 20, 1),
        (vcpu_events.GUEST, 720, 30, 0),
    ]


def test_an_exit_before_the_time_is_not_counted_in_it() -> None:
    found = vcpu_events.parse(EXITS, KHZ, 220, 450, X86.exits)
    assert [part.exits for part in found] == [0, 0, 1, 0, 0, 0]


def test_within_one_kernel_it_is_the_virtual_cpu_that_runs_in_that_time() -> None:
    giver = EXITS.replace("250", "111").splitlines() * 2
    text = "\n".join([*giver, EXITS.replace(" [000] d..1. ", " [000] d..1. 10")])
    (*_, last) = vcpu_events.parse(text, KHZ, 10_100, 10_150, X86.exits)
    assert last == (vcpu_events.GUEST, 10_100, 50, 0)


def test_a_virtual_cpu_that_sleeps_all_the_time_is_not_taken_for_the_next_one() -> None:
    text = TEXT + EXITS.replace(" [000] d..1. ", " [000] d..1. 10")
    (part,) = vcpu_events.parse(text, KHZ, 9900, 9950, X86.exits)
    assert part.doing == "sleeps, exit hlt"


def test_a_trace_without_a_guest_tells_nothing() -> None:
    assert vcpu_events.parse("# tracer: nop\n", KHZ, 0, 10, X86.exits) == []


@given(st.sampled_from((TEXT, WAITING, EXITS)), st.text(), st.integers(0, 10_000), st.integers(0, 10_000))
def test_whatever_is_read_fills_the_time_that_was_asked_for(
    text: str, noise: str, start: int, length: int
) -> None:
    found = vcpu_events.parse(text + noise, KHZ, start, start + length, X86.exits)
    assert sum(part.length for part in found) == length
    assert all(a.start_ns + a.length == b.start_ns for a, b in pairwise(found))


def test_what_is_looked_into_begins_and_ends_with_ticks() -> None:
    after = [2000 + 100 * each for each in range(20)]
    assert guest_gap.stretches([100, 200, *after], 300, 1000) == [
        guest_gap.Stretch(guest_gap.BEFORE, 200, 300, giver=True),
        guest_gap.Stretch(guest_gap.FIRST, 1000, 2000),
        guest_gap.Stretch(guest_gap.NEXT, 2000, 2500, 5),
        guest_gap.Stretch(guest_gap.ONE, 2900, 3900, 10),
    ]
    assert guest_gap.stretches([*after], 300, 1000) == []
    assert guest_gap.stretches([100, *after[:10]], 300, 1000) == []


def sample(first: Mapping[str, int], usual: Mapping[str, int]) -> Sample:
    """What the virtual CPU did in two of the stretches."""
    taken = [(guest_gap.FIRST, 1, first), (guest_gap.ONE, 10, usual)]
    return Sample("multi-root (traced)", 0, phases=tuple(
        Phase(owner, vcpu_events.SIDE, 0, length, attrs={"stretch": stretch, "ticks": ticks, "exits": 2})
        for stretch, ticks, shares in taken for owner, length in shares.items()
    ))  # fmt: skip


def test_the_gap_is_shared_out() -> None:
    some = sample({vcpu_events.GUEST: 500_000, "KVM, exit npf": 90_000}, {vcpu_events.GUEST: 1_000_000})
    more = sample({vcpu_events.GUEST: 300_000, "KVM, exit npf": 50_000, "KVM, exit io": 40_000}, {})
    found = guest_gap.rows([some, Sample("multi-root", 0), more])
    assert found == [
        guest_gap.Row(vcpu_events.GUEST, (0, 400_000, 0, 50_000), (0, 2, 0, 0.1)),
        guest_gap.Row("KVM, exit npf", (0, 70_000, 0, 0), (0, 2, 0, 0)),
        guest_gap.Row(guest_gap.OTHER, (0, 20_000, 0, 0), (0, 1, 0, 0)),
        guest_gap.Row("all", (0, 490_000, 0, 50_000), (0, 5, 0, 0.1)),
    ]
    assert guest_gap.rows([Sample("multi-root", 0)]) == []


def test_what_is_a_small_share_of_every_tick_is_told_as_one() -> None:
    (*rows, rest, _) = guest_gap.rows([sample({"much": 9_700_000, "some": 300_000, "few": 100_000}, {})])
    assert [row.owner for row in rows] == ["much", "some"]
    assert (rest.owner, rest.ns[1]) == (guest_gap.OTHER, 100_000)


def test_a_trace_is_kept_as_phases() -> None:
    (first, *_) = guest_gap.told(guest_gap.Stretch(guest_gap.NEXT, 500, 5500, 5), TEXT, 2, KHZ)
    assert (first.name, first.side, first.start_ns) == (vcpu_events.NOT_YET, "virtual CPU, root 2", 500)
    assert first.attrs == {"stretch": guest_gap.NEXT, "ticks": 5, "exits": 0}

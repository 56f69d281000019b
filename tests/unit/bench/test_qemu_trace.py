# SPDX-License-Identifier: GPL-2.0-or-later
"""Which device has how much of a blackout is read from QEMU's own trace."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from multiroot.bench.results import qemu_trace
from multiroot.bench.results.qemu_trace import LOADED, SAVED, Device, Row
from multiroot.bench.results.samples import Sample

# QEMU 11.1.3, to which nobody has said that messages are to have times.
SAVE = """\
flatview_new 0x7f5628037300 (root 0x55558eae73f0)
vmstate_downtime_save type=iterable idstr=ram instance_id=0 downtime=2
vmstate_downtime_save type=non-iterable idstr=apic instance_id=0 downtime=14
vmstate_downtime_save type=non-iterable idstr=dma instance_id=1 downtime=4
vmstate_downtime_save type=non-iterable idstr=0000:00:1f.0/ICH9LPC instance_id=0 downtime=250
"""
# In-place: the waiting QEMU has none of the guest's settings.
LOAD = """\
vmstate_downtime_load type=non-iterable idstr=cpu instance_id=0 downtime=157
vmstate_downtime_load type=non-iterable idstr=fw_cfg instance_id=0 downtime=41
flatview_new 0x563cf374b6d0 (root 0x563cf39b47f0)
flatview_new 0x563cf4203230 (root 0x563cf39b4fb0)
kvm_set_user_memory AddrSpace#0 Slot#0 flags=0x0 gpa=0x0 size=0x0 ua=0x7f7bf7e00000 guest_memfd=-1 ret=0
kvm_set_user_memory AddrSpace#0 Slot#2 flags=0x0 gpa=0xc0000 size=0x0 ua=0x7f7c04200000 guest_memfd=-1 ret=0
kvm_set_user_memory AddrSpace#0 Slot#0 flags=0x0 gpa=0x0 size=0x8000000 ua=0x7f7bf7e00000 ret=0
vmstate_downtime_load type=non-iterable idstr=0000:00:00.0/mch instance_id=0 downtime=12615
flatview_new 0x563cf400bb30 (root 0x563cf39b4fb0)
"""


def test_a_trace_tells_what_each_device_took() -> None:
    assert qemu_trace.parse(SAVE) == [
        Device("ram", SAVED, 2000),
        Device("apic", SAVED, 14_000),
        Device("dma 1", SAVED, 4000),
        Device("0000:00:1f.0/ICH9LPC", SAVED, 250_000),
    ]
    assert qemu_trace.parse(LOAD) == [
        Device("cpu", LOADED, 157_000),
        Device("fw_cfg", LOADED, 41_000),
        Device("0000:00:00.0/mch", LOADED, 12_615_000, maps=2, slots=3),
    ]


def test_messages_may_have_times() -> None:
    """As they do when QEMU is told so."""
    timed = "".join(f"412@1796065888.440101:{line}\n" for line in LOAD.splitlines())
    assert qemu_trace.parse(timed) == qemu_trace.parse(LOAD)


@given(st.text())
def test_noise_is_no_device(text: str) -> None:
    assert qemu_trace.parse(text) == []


def handed(*texts: str) -> Sample:
    found = [device for text in texts for device in qemu_trace.parse(text)]
    return Sample("multi-root (traced)", 0, phases=tuple(qemu_trace.phases(found, 1000)))


def test_devices_are_kept_as_phases_one_after_the_other() -> None:
    phases = handed(SAVE).phases
    assert [phase.start_ns for phase in phases] == [1000, 3000, 17_000, 21_000]
    assert not any(phase.blackout for phase in phases), (
        "what is told by devices is part of what is told already"
    )


def test_means_over_all_handoffs() -> None:
    slower = SAVE.replace("downtime=250", "downtime=350")
    found = qemu_trace.rows([handed(SAVE, LOAD), Sample("multi-root", 0), handed(slower, LOAD)])
    assert found == [
        Row("0000:00:00.0/mch", 0, 12_615_000, 2, 3),
        Row("0000:00:1f.0/ICH9LPC", 300_000, 0, 0, 0),
        Row("cpu", 0, 157_000, 0, 0),
        Row(qemu_trace.OTHERS, 20_000, 41_000, 0, 0),
        Row(qemu_trace.ALL, 320_000, 12_813_000, 2, 3),
    ]
    assert qemu_trace.rows([Sample("multi-root", 0)]) == []

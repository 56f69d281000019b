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
# One that was told to has more before it.
LOAD = """\
412@1796065888.440101:vmstate_downtime_load type=non-iterable idstr=cpu instance_id=0 downtime=520
412@1796065888.440205:flatview_new 0x7f5628000ef0 (root 0x55558e0e8860)
412@1796065888.440207:flatview_new 0x7f56280125e0 (root 0x55558e0e9020)
412@1796065888.440301:kvm_set_user_memory AddrSpace#0 Slot#3 flags=0x0 gpa=0xc0000 size=0x0 ua=0x0 ret=0
412@1796065888.44:vmstate_downtime_load type=non-iterable idstr=0000:00:00.0/mch instance_id=0 downtime=1234
412@1796065888.440413:kvm_set_user_memory AddrSpace#0 Slot#4 flags=0x0 gpa=0xe0000 size=0x0 ua=0x0 ret=0
"""


def test_a_trace_tells_what_each_device_took() -> None:
    assert qemu_trace.parse(SAVE) == [
        Device("ram", SAVED, 2000, maps=1),
        Device("apic", SAVED, 14_000),
        Device("dma 1", SAVED, 4000),
        Device("0000:00:1f.0/ICH9LPC", SAVED, 250_000),
    ]
    assert qemu_trace.parse(LOAD) == [
        Device("cpu", LOADED, 520_000),
        Device("0000:00:00.0/mch", LOADED, 1_234_000, maps=2, slots=1),
    ]


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
        Row("0000:00:00.0/mch", 0, 1_234_000, 2, 1),
        Row("cpu", 0, 520_000, 0, 0),
        Row("0000:00:1f.0/ICH9LPC", 300_000, 0, 0, 0),
        Row(qemu_trace.OTHERS, 20_000, 0, 0, 0),
        Row(qemu_trace.ALL, 320_000, 1_754_000, 2, 1),
    ]
    assert qemu_trace.rows([Sample("multi-root", 0)]) == []

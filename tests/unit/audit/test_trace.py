# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines of QEMU's and the kernel's traces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiroot.audit.trace import Access, MsrWrite, TraceError, parse, parse_msrs

ACCESSES = st.builds(
    Access,
    cpu=st.integers(-1, 255),
    write=st.booleans(),
    at=st.integers(0, (1 << 64) - 1),
    value=st.integers(0, (1 << 64) - 1),
    size=st.sampled_from([1, 2, 4, 8]),
    region=st.text(st.characters(codec="ascii", exclude_characters="\n\r'"), max_size=30),
)


def line(access: Access) -> bytes:
    """As QEMU prints it."""
    kind = "write" if access.write else "read"
    head = f"memory_region_ops_{kind} cpu {access.cpu} mr 0x55557da0f750 addr {access.at:#x}"
    return f"{head} value {access.value:#x} size {access.size} name '{access.region}'".encode()


@given(ACCESSES)
def test_what_qemu_prints_is_read_back(access: Access) -> None:
    assert parse(line(access)) == access


def test_a_line_of_a_real_run() -> None:
    text = (
        b"memory_region_ops_write cpu 2 mr 0x55557da0f750 addr 0xfee00300 value 0xfb size 4 name 'apic-msi'"
    )
    assert parse(text) == Access(2, True, 0xFEE0_0300, 0xFB, 4, "apic-msi")


@given(ACCESSES, st.integers(0, 200))
def test_a_line_that_was_cut_is_never_taken_for_another(access: Access, length: int) -> None:
    cut = line(access)[:length]
    if cut == line(access):
        return
    if cut.startswith(b"memory_region_ops_"):
        with pytest.raises(TraceError):
            parse(cut)
    else:
        assert parse(cut) is None


def test_a_name_with_a_quote_is_refused_for_a_cut_line_could_look_like_it() -> None:
    with pytest.raises(TraceError):
        parse(line(Access(0, False, 0, 0, 1, "it's")))


@given(st.binary(max_size=80))
def test_other_lines_are_skipped(text: bytes) -> None:
    if not text.startswith(b"memory_region_ops_"):
        assert parse(text) is None


def test_msr_writes() -> None:
    text = (
        "# tracer: nop\n"
        "          <idle>-0       [001] d....     0.100000: write_msr: c0000080, value d01\n"
        "         modprobe-91      [000] .....    12.345678: write_msr: 79, value ffff0000 #GP\n"
    )
    assert parse_msrs(text) == [MsrWrite(1, 0xC000_0080, 0xD01), MsrWrite(0, 0x79, 0xFFFF_0000)]


@pytest.mark.parametrize(
    "text", ["CPU:1 [LOST 5 EVENTS]\n", "  x-1 [000] .... 1.0: write_msr: 79, value zz\n"]
)
def test_an_msr_trace_with_holes_is_refused(text: str) -> None:
    with pytest.raises(TraceError):
        parse_msrs(text)
